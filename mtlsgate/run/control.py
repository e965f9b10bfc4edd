"""
What an operator can do with the running gate: look, reload, drain, close.

The admin endpoint and the ``admin`` protocol work through this alone.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, frozen
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from mtlsgate.interfaces import IGate
from mtlsgate.observe.metrics import CONTENT_TYPE, Metrics
from mtlsgate.observe.status import NO_CONNECTIONS, ConnectionSelection, ReloadStatus, Status
from mtlsgate.reasons import Cause
from mtlsgate.run.service import GateService
from mtlsgate.run.status_taker import StatusTaker, reload_status
from mtlsgate.text import loggable

_log = Logger("mtlsgate.control")


@implementer(IGate)
@frozen
class Control:
    """
    The running gate, as `IGate` documents it.

    :ivar taker: takes its status.
    :ivar metrics: writes its metrics.
    """

    taker: StatusTaker
    metrics: Metrics
    _end: Callable[[], object]

    @property
    def _gate(self) -> GateService:
        return self.taker.service

    @property
    def not_ready(self) -> str | None:
        """Why it accepts no connections, in a few words, or None."""
        return self._gate.not_ready

    def status(self, selection: ConnectionSelection = NO_CONNECTIONS) -> Status:
        """:returns: its state now."""
        return self.taker.take(selection)

    def exposition(self) -> tuple[str, bytes]:
        """:returns: the media type of the metrics, and the metrics."""
        return CONTENT_TYPE, self.metrics.exposition()

    def reload(self, who: str, *, is_trial: bool = False) -> Deferred[ReloadStatus]:
        """Reload.

        :returns: the result.
        """
        if not is_trial:
            _log.info("loading the configuration anew, asked for by {who}", who=loggable(who))
        return self._gate.reloader.reload(is_trial=is_trial).addCallback(reload_status)

    def drain(self, who: str) -> None:
        """Accept no more connections, wait for the others, and exit; twice is once."""
        if not self._gate.runner.is_draining:
            _log.info("draining, asked for by {who}", who=loggable(who))
            self._end()

    def close(self, number: int, who: str) -> bool:
        """Close a connection.

        :returns: whether it existed.
        """
        registry = self._gate.runner.registry
        connection = registry.get(number)
        if connection is None:
            return False
        registry.close(connection, Cause.CLOSED_BY_OPERATOR, f"asked for by {loggable(who)}")
        return True


@define
class GateHandle:
    """
    Where protocols find the running gate. They are built before it.

    :ivar _control: the gate; None before it runs.
    """

    _control: Control | None = None

    def attach(self, control: Control) -> None:
        """Let protocols find the gate from now on."""
        self._control = control

    def __call__(self) -> Control:
        """
        :returns: the running gate.
        :raises LookupError: if none runs, or not yet.
        """
        if self._control is None:
            raise LookupError("no gate is running")
        return self._control
