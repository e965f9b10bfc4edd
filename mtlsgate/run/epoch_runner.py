"""
The Twisted service: listens, takes over new epochs, and ends in good order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from attrs import frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.task import Cooperator, LoopingCall
from twisted.logger import Logger

from mtlsgate.admission import Rejection
from mtlsgate.errors import GateError
from mtlsgate.gate.connection import Reload, Visit
from mtlsgate.gate.registry import Connections
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.overview import describe
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.recent_rejections import RecentRejections
from mtlsgate.peer import VerifiedPeer, address_text
from mtlsgate.reasons import Cause
from mtlsgate.run.descriptors import Descriptors
from mtlsgate.run.listening import (
    Entrance,
    Listener,
    ListenError,
    Switch,
    bind,
    listen,
    places_of,
    release,
)
from mtlsgate.run.memory_trim import Trimmer, give_back
from mtlsgate.run.rejudging import Handover
from mtlsgate.run.reloading import Load, Reloader
from mtlsgate.run.threads import InThread, in_thread

_log = Logger("mtlsgate.service")


@frozen
class _Open:
    """
    A place that is listened on.

    :ivar port: its port.
    :ivar switch: the port's factory, behind which epochs follow each other.
    """

    port: IListeningPort
    switch: Switch


class GateService(Service):
    """
    Runs one epoch after another.

    :ivar epoch: the one in force.
    :ivar number: which that is since the gate was started; the first is 1.
    :ivar since: when it took over, in the clock's seconds.
    :ivar connections: all there are.
    :ivar log: the observer that writes to Twisted's log.
    :ivar audit: the observer that writes the audit log, if there is to be one.
    :ivar metrics: the observer that counts; ``metrics.exposition()`` is what
        Prometheus gets, as `mtlsgate.observe.metrics.CONTENT_TYPE`.
    :ivar recent: the observer that remembers the latest rejections.
    :ivar is_draining: whether no more are accepted, because the gate ends.
    :ivar last_reload: what came of the latest attempt, or None.
    :ivar prepare: called with an epoch that is about to take over, once nothing
        else can fail; raises `GateError` if it cannot, and returns what to call
        when it has.
    """

    prepare: Callable[[Epoch], Callable[[], object]] | None = None

    def __init__(
        self,
        epoch: Epoch,
        listeners: Iterable[Listener],
        reactor: IReactorTime,
        *,
        load: Load | None = None,
        connections: Connections | None = None,
        audit: AuditLog | None = None,
        in_thread: InThread = in_thread,
    ) -> None:
        """
        :param listeners: what `bind` made of the epoch.
        :param reactor: for time limits.
        :param load: loads the configuration anew.
        :param connections: by default, some that the gate's own log, audit log and
            metrics observe.
        :param audit: by default, one that is not open.
        :param in_thread: where that is done.
        """
        self.epoch = epoch
        self.number = 1
        self.since = reactor.seconds()
        self.log = HumanLog(epoch.settings.quiet)
        self.audit = AuditLog() if audit is None else audit
        self.metrics = Metrics(self)
        self.recent = RecentRejections(epoch.settings.quiet)
        self.connections = (
            Connections(reactor, [self.audit, self.log, self.metrics, self.recent])
            if connections is None
            else connections
        )
        self.is_draining = False
        self.last_reload: Reload | None = None
        self._listeners: list[Listener] = list(listeners)
        self._reactor = reactor
        self._open: dict[str, _Open] = {}
        self._entrances: dict[str, Entrance] = {}
        self._handover = Handover(epoch)
        self._patience: IDelayedCall | None = None
        self._stopping: list[Deferred[Any]] = []
        self._descriptors = Descriptors(lambda: [one.port for one in self._open.values()])
        self._trimmer = Trimmer()
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self._cooperator = Cooperator(scheduler=lambda step: reactor.callLater(0, step))
        self._reloader = Reloader(self, load, in_thread, self._cooperator)

    @property
    def is_accepting_paused(self) -> bool:
        """Whether no connection is accepted because file descriptors are scarce."""
        return self._descriptors.is_scarce

    # Starting.

    def privilegedStartService(self) -> None:
        """Listen, before privileges are dropped."""
        if not self._open:
            self._listen()

    def startService(self) -> None:
        """Listen, if that has not happened yet."""
        super().startService()
        if not self._open:
            self._listen()
        # As who the gate is from now on, so that what goes wrong is known today
        # and not when the file is rotated.
        self.audit.reopen()
        self._sweeping.start(1.0, now=False)

    def _listen(self) -> None:
        self._say_warnings()
        self._entrances = self._new_entrances(self.epoch)
        # What is listened on is not kept twice: this epoch is to go one day.
        while self._listeners:
            listener = self._listeners.pop(0)
            try:
                self._listen_on(listener, self._entrances)
            except ListenError as error:
                # Not an exception that twistd would print with a traceback.
                _log.critical("{text}", text=str(error))
                raise SystemExit(f"{self.epoch.path}: {error}") from None
        self._say_servers()

    def _new_entrances(self, epoch: Epoch) -> dict[str, Entrance]:
        return {place.key: Entrance(place, self.connections) for place in places_of(epoch)}

    def _listen_on(self, listener: Listener, entrances: dict[str, Entrance]) -> None:
        key = listener.place.key
        switch = Switch(entrances[key].factory, self._descriptors.accepted)
        port = listen(listener, switch)
        self._open[key] = _Open(port, switch)
        self._descriptors.opened(port)

    def _say_warnings(self) -> None:
        for problem in self.epoch.warnings:
            _log.warn("{problem}", problem=str(problem))

    def _say_servers(self) -> None:
        addresses = self.addresses()
        for server in self.epoch.servers:
            description = describe(server, addresses.get(id(server), ()))
            _log.info("{description}", description=description)

    def addresses(self) -> dict[int, list[str]]:
        """:returns: where the servers of the epoch in force listen, by their `id`."""
        found: dict[int, list[str]] = {}
        for key, entrance in self._entrances.items():
            if key in self._open:
                where = address_text(self._open[key].port.getHost())
                for server in entrance.place.servers:
                    found.setdefault(id(server), []).append(where)
        return found

    @property
    def not_ready(self) -> str | None:
        """Why no connection is accepted, in a few words, or None."""
        if self.is_draining:
            return "draining"
        if not self.running:
            return "starting"
        return "out of file descriptors" if self._descriptors.is_scarce else None

    def _sweep(self) -> None:
        for look in (self.connections.sweep, self._descriptors.look, self._trim):
            try:
                look()
            except Exception:  # noqa: BLE001 -- or else nobody would look ever again
                _log.failure("looking after connections failed")

    def _trim(self) -> None:
        self._trimmer.look(len(self.connections))

    # Loading anew.

    def reload(self, *, is_trial: bool = False) -> Deferred[Reload]:
        """
        Load the configuration anew, and let it take over if nothing is wrong
        with it; one at a time.  All who ask while one is under way get the same next.

        :param is_trial: only tell what would change.
        :returns: what came of it.  Never fails for what is in the file.
        """
        return self._reloader.try_out() if is_trial else self._reloader.reload()

    def take_over(self, epoch: Epoch) -> None:
        """:raises GateError: if an address or a file cannot be had; nothing has changed then."""
        if self.is_draining:
            raise GateError("the gate is ending")
        entrances = self._new_entrances(epoch)
        audit = self.audit.prepare(epoch)
        before = set(self._open)
        with ExitStack() as undo:
            undo.callback(self.audit.discard, audit)
            for key in before & entrances.keys():
                self._start(entrances[key])
                undo.callback(entrances[key].factory.doStop)
            waiting = list(bind(epoch, self._reactor, before))
            undo.callback(release, waiting)
            while waiting:
                key = waiting[0].place.key
                self._listen_on(waiting[0], entrances)
                undo.callback(self._close, key)
                del waiting[0]
            follow = None if self.prepare is None else self.prepare(epoch)
            # From here on nothing can fail.
            undo.pop_all()
        if follow is not None:
            follow()
        self._handover = handover = Handover(epoch)
        for key, old in self._entrances.items():
            for gate in old.gates:
                gate.again = self._again
                gate.follow = self._follow
            if key in entrances:
                self._open[key].switch.turn_to(entrances[key].factory)
            else:
                self._close(key)
        self.epoch, self._entrances = epoch, entrances
        self.audit.turn_to(audit)
        self.log.quiet = epoch.settings.quiet
        self.recent.quiet = epoch.settings.quiet
        self.number += 1
        self.since = self._reactor.seconds()
        settled = self._cooperator.coiterate(self._settle(handover))
        # By then what only the old epoch needed is free.
        settled.addCallback(lambda _: give_back())
        self._say_warnings()
        self._say_servers()

    def _again(self, visit: Visit, peer: VerifiedPeer | None) -> Rejection | None:
        # Whichever epoch a handshake began under: what counts is the one in
        # force when it is done, and not the one that came next.
        return self._handover.again(visit, peer)

    def _follow(self, visit: Visit) -> None:
        self._handover.follow(visit, self.connections)

    def _settle(self, handover: Handover) -> Iterator[None]:
        for _ in handover.settle(self.connections):
            if self._handover is not handover:
                # What an epoch that is no longer in force admits counts no more.
                return
            yield

    def _start(self, entrance: Entrance) -> None:
        """:raises ListenError: if a protocol's factory fails to start."""
        try:
            entrance.factory.doStart()
        except Exception as error:
            _log.failure("a protocol failed to start")
            raise ListenError(
                f"{entrance.place.key}: a protocol failed to start: {type(error).__name__}: {error}"
            ) from error

    def _close(self, key: str) -> None:
        # Whatever an endpoint's port makes of it: there are others to be closed.
        stopped = maybeDeferred(self._open.pop(key).port.stopListening)
        stopped.addErrback(lambda why: _log.failure("{place} failed to close", why, place=key))
        if not stopped.called:
            self._stopping.append(stopped)

    # Ending.

    def drain(self) -> Deferred[None]:
        """
        Accept no more, and give connections until the drain timeout to end.

        :returns: fires when all have.
        """
        if not self.is_draining:
            self.is_draining = True
            timeout = self.epoch.settings.drain_timeout
            self._patience = self._reactor.callLater(timeout, self.close_all)
            for key in list(self._open):
                self._close(key)
        stopping, self._stopping = self._stopping, []
        return (
            gatherResults(stopping)
            .addCallback(self._say_draining)
            .addCallback(lambda _: self.connections.gone())
            .addCallback(self._drained)
        )

    def _say_draining(self, _: object) -> None:
        if len(self.connections):
            _log.info(
                "accepting no more; {count} connections have {timeout:g} s to end",
                count=len(self.connections),
                timeout=self.epoch.settings.drain_timeout,
            )

    def _drained(self, _: object) -> None:
        if self._patience is not None and self._patience.active():
            self._patience.cancel()

    def close_all(self) -> None:
        """End all connections at once."""
        for visit in self.connections:
            self.connections.close(visit, Cause.DRAINED)

    def stopService(self) -> Deferred[None]:
        """Drain, and end."""
        super().stopService()
        return self.drain().addCallback(self._stopped)

    def _stopped(self, _: None) -> None:
        if self._sweeping.running:
            self._sweeping.stop()
        self.audit.close()
