"""
What is known of targets: whether they are up, and how long they take.

Callers pass in the time; nothing is dialled here.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from weakref import WeakValueDictionary

from attrs import define, field

from mtlsgate.upstream.targets import Target


@define(eq=False)
class TargetState:
    """
    What is known of one target.

    :ivar target: the target.
    :ivar is_up: whether the latest attempt or check succeeded; None before the first.
    :ivar problem: why the latest failure failed, in words; None before any.
    :ivar down_since: the clock's seconds when it went down; None if it is not down.
    :ivar tried_at: the clock's seconds of its latest failure or retry.
    :ivar dials: how many connections to it were made.
    :ivar seconds_dialling: how long they took to make, TLS included, all together.
    :ivar last_seconds: how long the latest one took, or None.
    :ivar failures: how many attempts and checks have failed.
    :ivar in_use: how many connections or requests use it or are about to.
    """

    target: Target
    is_up: bool | None = field(default=None, init=False)
    problem: str | None = field(default=None, init=False)
    down_since: float | None = field(default=None, init=False)
    tried_at: float = field(default=0.0, init=False)
    dials: int = field(default=0, init=False)
    seconds_dialling: float = field(default=0.0, init=False)
    last_seconds: float | None = field(default=None, init=False)
    failures: int = field(default=0, init=False)
    in_use: int = field(default=0, init=False)

    def dialled(self, seconds: float) -> None:
        """:param seconds: how long it took to connect."""
        self.dials += 1
        self.seconds_dialling += seconds
        self.last_seconds = seconds

    def answered(self) -> float | None:
        """
        Note that it is up.

        :returns: since when it was down, in the clock's seconds; None if it was not.
        """
        since, self.down_since = self.down_since, None
        self.is_up = True
        return since

    def failed(self, now: float, problem: str) -> bool:
        """
        Note that it is down.

        :param problem: why, in words.
        :returns: whether it was not down before.
        """
        went_down = self.down_since is None
        if went_down:
            self.down_since = now
        self.failures += 1
        self.is_up, self.problem, self.tried_at = False, problem, now
        return went_down


@define(eq=False)
class TargetUse:
    """
    One connection or request to a target, from the choice of the target on.

    :ivar state: the target's state, which counts it.
    """

    state: TargetState
    _is_over: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.state.in_use += 1

    def end(self) -> None:
        """It is over; a second call does nothing."""
        if not self._is_over:
            self._is_over = True
            self.state.in_use -= 1


class TargetStates:
    """
    The states of all targets of a service, by server.

    A state is remembered as long as an epoch uses it.  So a reload keeps the state of a
    target that the server had before.
    """

    def __init__(self) -> None:
        self._states: MutableMapping[tuple[str, Target], TargetState] = WeakValueDictionary()

    def of(self, server: str, target: Target) -> TargetState:
        """:returns: the state of a server's target."""
        return self._states.setdefault((server, target), TargetState(target))
