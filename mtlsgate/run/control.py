"""
What an operator can do with the running gate: look, reload, drain, close.

The admin endpoint and the ``admin`` protocol work through this alone.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entry import Entry
from mtlsgate.interfaces import IGate
from mtlsgate.observe.connection_status import NO_CONNECTIONS, ConnectionSelection
from mtlsgate.observe.explanation import Explanation, explaining
from mtlsgate.observe.metrics import CONTENT_TYPE, Metrics
from mtlsgate.observe.server_status import HistoryStatus, PeriodStatus
from mtlsgate.observe.shadow_status import ShadowAttempt, ShadowReport
from mtlsgate.observe.status import ReloadStatus, Status
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause
from mtlsgate.run.gate_status import period_statuses
from mtlsgate.run.operator_acts import OperatorActs
from mtlsgate.run.service import GateService
from mtlsgate.run.shadow_control import ShadowControl
from mtlsgate.run.status_taker import StatusTaker, reload_status
from mtlsgate.run.threads import InThread
from mtlsgate.run.turns import in_turns
from mtlsgate.text import loggable


@implementer(IGate)
@frozen
class Control:
    """
    The running gate, as `IGate` documents it.

    :ivar taker: takes its status.
    :ivar metrics: writes its metrics.
    :ivar _in_thread: runs what takes long.
    :ivar _end: lets the gate end.
    :ivar _shadow: puts configurations in the shadow.
    :ivar _acts: tells of what the operator does.
    """

    taker: StatusTaker
    metrics: Metrics
    _in_thread: InThread
    _end: Callable[[], object]
    _shadow: ShadowControl
    _acts: OperatorActs = field(init=False)

    @_acts.default
    def _told_to(self) -> OperatorActs:
        observers = self._gate.observers
        return OperatorActs(observers.audit, observers.changes, self._connections.now)

    @property
    def _gate(self) -> GateService:
        return self.taker.service

    @property
    def _connections(self) -> Connections:
        return self._gate.runner.connections

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

    def history(self) -> HistoryStatus:
        """:returns: the last hour."""
        return self._gate.observers.history.status()

    def changed(self, after: int, seconds: float) -> Deferred[int]:
        """:returns: fires with the number of changes so far, once that is another one."""
        return self._gate.observers.changes.after(after, seconds)

    def periods(self) -> Deferred[tuple[PeriodStatus, ...]]:
        """:returns: when certificates, pins and lists begin and end to count."""
        epoch, now = self._gate.runner.epoch, self._connections.now()
        return self._in_thread(lambda: period_statuses(epoch, now))

    def explain(
        self, chain: tuple[Certificate, ...], server: str | None, at: datetime | None
    ) -> Deferred[tuple[Explanation, ...]]:
        """:returns: the verdicts of that server, or of all that judge their clients."""
        found = [
            one.gate
            for one in self._gate.runner.epoch.servers
            if server in (None, one.gate.name) and one.gate.context.judge is not None
        ]
        moment = self._connections.now() if at is None else at
        clock = self._connections.clock
        return in_turns(clock, [explaining(one, chain, moment) for one in found])

    def rejected_leaf(self, id: int) -> tuple[str, Certificate] | None:
        """:returns: the server and the leaf of one of the latest rejections, or None."""
        return self._gate.observers.recent.leaf(id)

    def reload(self, who: str, *, is_trial: bool = False) -> Deferred[ReloadStatus]:
        """Reload.

        :returns: the result.
        """
        if not is_trial:
            self._acts.reload(who)
        return self._gate.reloader.reload(is_trial=is_trial).addCallback(reload_status)

    def shadow_report(self) -> Deferred[ShadowReport | None]:
        """:returns: what the configuration in the shadow has found out; None if there is
        none."""
        return self._shadow.report().addCallback(
            lambda report: None if report is None else evolve(report, seen="")
        )

    def put_in_shadow(self, file: str, who: str) -> Deferred[ShadowAttempt]:
        """
        Let another configuration judge every client, too.

        :param file: its path on this machine.
        """
        return self._shadow.put(file).addCallback(self._acts.put_in_shadow, who)

    def end_shadow(self, who: str) -> bool:
        """
        Let no other configuration judge clients any more.

        :returns: whether one did.
        """
        return self._acts.end_shadow(self._shadow.end(), who)

    def drain(self, who: str) -> None:
        """Accept no more connections, wait for the others, and exit; twice is once."""
        if not self._gate.runner.is_draining:
            self._acts.drain(who)
            self._end()

    def close(self, number: int, who: str) -> bool:
        """Close a connection.

        :returns: whether it existed.
        """
        connection = self._connections.get(number)
        if connection is None:
            return False
        self._acts.close(number, who)
        self._close(connection, who)
        return True

    def eject(self, sha256: str, who: str) -> int:
        """Close all connections of a client, by its leaf's fingerprint.

        :returns: how many there were.
        """
        count = self.eject_untold(sha256, who)
        if count:
            self._acts.eject(sha256, who)
        return count

    def eject_untold(self, sha256: str, who: str) -> int:
        """
        `eject`, but the audit log is told by somebody else.

        :returns: how many connections there were.
        """
        connections = [one for one in self._connections if one.admission is not None]
        # A certificate whose signature is coded in another way is the same client's.
        identities = {
            one.identity for one in connections if (peer := _peer(one)) and peer.sha256 == sha256
        }
        found = [one for one in connections if one.identity in identities]
        for one in found:
            self._close(one, who)
        return len(found)

    def _close(self, connection: Entry, who: str) -> None:
        detail = f"asked for by {loggable(who)}"
        self._connections.close(connection, Cause.CLOSED_BY_OPERATOR, detail)


def _peer(connection: Entry) -> VerifiedPeer | None:
    return None if connection.admission is None else connection.admission.peer


@define
class GateHandle:
    """
    Where protocols find the running gate. They are built before it.

    :ivar _control: the gate; None before it runs.
    """

    _control: IGate | None = None

    def attach(self, control: IGate) -> None:
        """Let protocols find the gate from now on."""
        self._control = control

    def __call__(self) -> IGate:
        """
        :returns: the running gate.
        :raises LookupError: if none runs, or not yet.
        """
        if self._control is None:
            raise LookupError("no gate is running")
        return self._control
