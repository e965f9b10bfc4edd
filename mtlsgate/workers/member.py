"""
One worker, as the supervisor sees it.
"""

from __future__ import annotations

from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail

from mtlsgate.workers.backoff import Backoff
from mtlsgate.workers.channel import Channel, WorkerGone


@define(eq=False)
class Member:
    """
    One worker, which several processes may be one after the other.

    :ivar index: which, from 0.
    :ivar state: ``waiting``, ``starting``, ``running`` or ``draining``.
    :ivar backoff: how long to wait before another start.
    :ivar channel: to its process; None if there is none.
    :ivar pid: of its process, once that is known.
    :ivar since: when its process was started, in the clock's seconds.
    :ivar restarts: how often another process was started.
    :ivar number: of its process, to the spawner.
    :ivar heard: when it last answered, in the clock's seconds.
    :ivar is_asked: whether it has been asked since, and has not answered.
    :ivar not_ready: why it cannot serve clients, as it said last, or None.
    """

    index: int
    backoff: Backoff
    state: str = "waiting"
    channel: Channel | None = None
    pid: int | None = None
    since: float = 0.0
    restarts: int = -1
    number: int = 0
    heard: float = 0.0
    is_asked: bool = False
    not_ready: str | None = None

    @property
    def name(self) -> str:
        """As people know it."""
        return f"worker {self.index + 1}"

    def ask(self, name: str, **values: object) -> Deferred[Any]:
        """:returns: the answer; it fails with `WorkerGone` if there is no process."""
        if self.channel is None:
            return fail(WorkerGone(f"{self.name} has no process"))
        return self.channel.ask(name, **values)
