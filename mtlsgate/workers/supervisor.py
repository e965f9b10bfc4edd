"""
The supervisor: puts its parts together, and runs them as a Twisted service.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from signal import SIGHUP, SIGINT, SIGTERM, SIGUSR1, Signals
from typing import Any, TypeVar

from attrs import field, frozen
from twisted.application.service import IService, Service
from twisted.internet.defer import Deferred, TimeoutError
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admin.service import AdminService
from mtlsgate.admin.sockets import Taken
from mtlsgate.clock import utc_now
from mtlsgate.gate.listener import BoundSocket
from mtlsgate.load.disk import Disk
from mtlsgate.load.outline import Configured, Outline
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.history import History
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.observers import Observers
from mtlsgate.run.control import GateHandle
from mtlsgate.run.ending import end
from mtlsgate.run.file_watcher import FileWatcher
from mtlsgate.run.followers import Change
from mtlsgate.run.log_output import LogFollower
from mtlsgate.run.operator_acts import OperatorActs
from mtlsgate.run.privileges import UserFollower, warn_if_root
from mtlsgate.run.service_manager import Notifier, ServiceManager
from mtlsgate.run.signals import Handler, SignalService
from mtlsgate.run.sockets import Sockets
from mtlsgate.run.threads import OwnThread
from mtlsgate.workers.board import Board
from mtlsgate.workers.control import SupervisorControl, process_of
from mtlsgate.workers.crew import Crew
from mtlsgate.workers.epochs import Epochs, Follow
from mtlsgate.workers.exposition import Exposition
from mtlsgate.workers.ledger import Ledger
from mtlsgate.workers.preparing import Prepared
from mtlsgate.workers.shadows import Shadows

_log = Logger("mtlsgate.workers")

T = TypeVar("T")

#: Seconds that the other workers have to end if one refuses to begin, and that a turn of the
#: reactor lasts at most.
_END_WITHIN, _TURN = 10.0, 1.0


@frozen(kw_only=True)
class Start:
    """
    What is ready before the supervisor runs.

    :ivar names: the files and directories of the configuration, absolute.
    :ivar workers: how many there are to be.
    :ivar prepared: the first epoch.
    :ivar outline: its outline.
    :ivar bound: its sockets.
    :ivar sockets: makes those of later epochs.
    :ivar admin: the sockets of the admin endpoint.
    :ivar audit: the audit log, open.
    :ivar log: the log; None if somebody else writes it.
    :ivar source: has the files.
    :ivar handle: where the admin endpoint finds the gate.
    :ivar orders: of the process that forks workers.
    :ivar reactor: the short name of the workers' reactor, if one was asked for.
    :ivar manager: the service manager.
    """

    names: Sequence[str]
    workers: int
    prepared: Prepared
    outline: Outline
    bound: Mapping[str, BoundSocket] = field(repr=False)
    sockets: Sockets = field(repr=False)
    admin: Sequence[Taken] = field(repr=False)
    audit: AuditLog = field(repr=False)
    log: LogFollower | None
    source: Disk
    handle: GateHandle
    orders: socket.socket = field(repr=False)
    reactor: str | None
    manager: ServiceManager


def supervise(start: Start, reactor: Any) -> list[IService]:
    """:returns: the services that run the supervisor."""
    log = start.log
    observers = Observers(
        audit=start.audit,
        log=HumanLog(start.outline.settings.quiet),
        counts=Counts(),
        history=History(reactor.seconds, utc_now),
        changes=Changes(reactor),
    )
    ledger, board = Ledger(), Board.create(start.workers)
    crew = Crew(
        start.workers,
        board,
        reactor,
        _log_lines if log is None else log.log.relay,
        ledger.forget,
    )
    in_thread = OwnThread(reactor)
    # With the last connection the last worker ends.
    admin = AdminService(start.handle, start.outline.admin, start.admin, reactor, crew.drain)
    follow: list[Follow] = [
        UserFollower.of(start.outline).prepare,
        partial(_follow_audit, observers),
        admin.prepare,
        lambda _: Change(lambda: shadows.follow()),
    ]
    notifier = Notifier(start.manager, lambda: _state(start.workers, epochs), reactor)
    epochs = Epochs(
        start.names,
        start.prepared,
        start.outline,
        start.bound,
        start.sockets,
        crew,
        observers,
        follow if log is None else [*follow, log.prepare],
        start.source.opener,
        reactor,
        in_thread,
        [notifier],
    )
    process = process_of(", ".join(start.names), reactor)
    shadows = Shadows(start.names, crew, epochs)
    orders = _Orders(
        epochs,
        shadows,
        {
            "workers": start.workers,
            "secret": board.secret,
            "names": list(start.names),
            "run": start.audit.run,
            "config": process.config,
            "started": process.started.isoformat(),
            "passed": list(start.sockets.names),
            "reactor": start.reactor,
        },
        to_journal=lambda: log is not None and log.to_journal,
    )
    supervisor = Supervisor(crew, epochs, orders, observers, start.orders, notifier, reactor)
    end_gate = partial(end, supervisor, reactor)
    control = SupervisorControl(
        crew,
        epochs,
        observers.changes,
        OperatorActs(observers.audit, observers.changes, utc_now),
        process,
        ledger,
        Exposition(crew, epochs, observers.counts, ledger, reactor),
        end_gate,
        reactor,
        shadows,
    )
    start.handle.attach(control)
    supervisor.handlers.update(control.handlers())

    def rotate() -> None:
        observers.audit.rotate()
        if log is not None:
            log.log.rotate()
        crew.gather("rotate")

    signals: dict[Signals, Handler] = {
        SIGHUP: epochs.reload,
        SIGUSR1: rotate,
        SIGTERM: end_gate,
        SIGINT: end_gate,
    }
    watcher = FileWatcher(
        lambda: epochs.seen if epochs.outline.settings.watch else {},
        epochs.reload,
        reactor,
        in_thread,
        start.source,
    )
    # Signals first: as soon as the gate listens, it must be possible to stop it.
    return [SignalService(signals, reactor), supervisor, watcher, admin]


def _state(workers: int, epochs: Epochs) -> str:
    return f"{workers} workers; epoch {epochs.number} is in force"


def _log_lines(lines: str) -> None:
    for line in lines.splitlines():
        _log.info("{text}", text=line)


def _follow_audit(observers: Observers, outline: Configured) -> Change:
    """:raises ConfigError: if the audit log cannot be opened."""
    audit = observers.audit
    file = audit.prepare(outline.path, outline.settings.audit)
    return Change(lambda: audit.turn_to(file), lambda: audit.discard(file))


@frozen
class _Orders:
    """
    The epoch in force, for workers that start.

    :ivar _facts: what all workers are told, at all times.
    :ivar _to_journal: tells whether systemd's journal gets the log.
    """

    _epochs: Epochs
    _shadows: Shadows
    _facts: Mapping[str, Any]
    _to_journal: Callable[[], bool] = field(kw_only=True)

    @property
    def lock(self) -> Any:
        """Held while another epoch takes over, or a worker begins."""
        return self._epochs.lock

    @property
    def files(self) -> int:
        """A descriptor of the files of the epoch."""
        return self._epochs.files

    @property
    def sockets(self) -> Mapping[str, socket.socket]:
        """The listening sockets, by their keys."""
        return self._epochs.sockets

    @property
    def shadow(self) -> tuple[str | None, int | None]:
        """What somebody has put in the shadow, and a descriptor of its files."""
        return self._shadows.path, self._shadows.files

    def order(self, index: int, *, tells: bool) -> Mapping[str, Any]:
        """:returns: what a new worker is told."""
        return {
            **self._facts,
            "index": index,
            "epoch": self._epochs.number,
            "tells": tells,
            "to_journal": self._to_journal(),
        }


class Supervisor(Service):
    """
    Runs the workers until it is stopped, and drains them.

    :ivar handlers: answer the workers' questions.
    """

    def __init__(
        self,
        crew: Crew,
        epochs: Epochs,
        orders: _Orders,
        observers: Observers,
        spawner: socket.socket,
        notifier: Notifier,
        reactor: Any,
    ) -> None:
        """
        :param orders: tells new workers what is in force.
        :param spawner: of the process that forks workers.
        :param notifier: tells the service manager, once all workers run.
        """
        self._reactor = reactor
        self._notifier = notifier
        self._spawner = spawner
        self.handlers: dict[str, Any] = {}
        self._crew = crew
        self._epochs = epochs
        self._orders = orders
        self._observers = observers

    def startService(self) -> None:
        """
        Start the workers, as the user that they run as.

        :raises SystemExit: if they do not begin; it says why.
        """
        super().startService()
        warn_if_root()
        self._observers.audit.reopen()
        self._crew.start(self._orders, self.handlers, self._spawner)
        self._crew.all_ready().addCallback(self._ready)
        end = wait_for(Deferred.fromCoroutine(self._first_attempts()), self._reactor)
        if end is not None:
            raise end

    async def _first_attempts(self) -> SystemExit | None:
        """
        What keeps one process from starting keeps workers from it, too.

        :returns: how the gate ends if a worker refuses to begin, or if somebody has ended it.
        """
        refused = await self._crew.first_attempts.over
        if refused is not None:
            _log.critical("{text}", text=refused)
            self._epochs.stop_listening()
        if not self.is_draining:
            return None
        ended = self._crew.drain().addTimeout(_END_WITHIN, self._reactor)
        self._crew.close_all()
        with suppress(TimeoutError):
            await ended
        return SystemExit(0 if refused is None else f"{self._epochs.outline.path}: {refused}")

    def _ready(self, _: None) -> None:
        _log.info("{count} workers take connections", count=len(self._crew.members))
        if not self.is_draining:
            self._notifier.startService()

    @property
    def is_draining(self) -> bool:
        """Whether it accepts no more because it is ending."""
        return self._epochs.is_draining

    def drain(self) -> Deferred[None]:
        """
        Accept no more connections, and let existing ones end until the drain timeout.

        :returns: a Deferred that fires when all workers have ended.
        """
        if not self._epochs.is_draining:
            self._epochs.stop_listening()
            _log.info("accepting no more; the workers let their connections end")
            self._notifier.draining(
                f"the connections of {len(self._crew.running)} workers",
                self._epochs.outline.settings.drain_timeout,
            )
        return self._crew.drain()

    def close_all(self) -> None:
        """End all connections at once."""
        self._crew.close_all()

    def stopService(self) -> Deferred[None]:
        """Drain, and end."""
        super().stopService()
        if self._notifier.running:
            self._notifier.stopService()
        return self.drain().addCallback(lambda _: self._observers.audit.close())


def wait_for(awaited: Deferred[T], reactor: Any) -> T:
    """
    Wait before the reactor runs: it can take turns.

    :returns: the result.
    :raises Exception: if that is what became of it.
    """
    results = list[T | Failure]()
    awaited.addBoth(results.append)
    while not results:
        reactor.iterate(_TURN)
    [result] = results
    if isinstance(result, Failure):
        result.raiseException()
    return result
