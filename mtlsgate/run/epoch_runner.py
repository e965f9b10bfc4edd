"""
Runs one epoch after another: listens, takes over, judges clients again, drains.

Knows nothing of twistd: `mtlsgate.run.service` runs it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.task import Cooperator, LoopingCall
from twisted.logger import Logger

from mtlsgate.errors import GateError
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.listener import Acceptor, BoundSocket, Listener
from mtlsgate.gate.registry import Registry
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.overview import describe
from mtlsgate.peer import address_text
from mtlsgate.reasons import Cause
from mtlsgate.run.descriptors import Descriptors
from mtlsgate.run.followers import Change, EpochFollower
from mtlsgate.run.listening import ListenError, Place, bind, entrance_of, places_of, release
from mtlsgate.run.memory_trim import MemoryTrim, give_back
from mtlsgate.run.rejudging import Handover, InForce
from mtlsgate.run.sockets import Sockets, adapt

_log = Logger("mtlsgate.service")


class EpochRunner:
    """
    Runs one epoch after another.

    :ivar epoch: the one in force.
    :ivar number: of that epoch; the first is 1.
    :ivar since: when it took over, in the clock's seconds.
    :ivar registry: of all connections.
    :ivar listeners: all there are, by their keys.
    :ivar is_draining: whether it accepts no more connections, because it ends.
    """

    def __init__(
        self,
        epoch: Epoch,
        bound: Mapping[str, BoundSocket],
        sockets: Sockets,
        reactor: IReactorTime,
        registry: Registry,
        followers: Iterable[EpochFollower] = (),
    ) -> None:
        """
        :param bound: what `bind` took for the epoch, to listen on.
        :param sockets: takes what later epochs listen on.
        :param reactor: watches sockets, and times.
        :param registry: where connections are accounted for.
        :param followers: what else changes with the epoch.
        """
        self.epoch = epoch
        self.number = 1
        self.since = reactor.seconds()
        self.registry = registry
        self.is_draining = False
        self._bound = dict(bound)
        self._sockets = sockets
        self._followers = tuple(followers)
        self._reactor = reactor
        self.listeners: dict[str, Listener] = {}
        self._in_force = InForce(self.handover(epoch))
        self._drain_timer: IDelayedCall | None = None
        self._descriptors = Descriptors(self.listeners.values)
        self._memory = MemoryTrim()
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self.cooperator = Cooperator(scheduler=lambda step: reactor.callLater(0, step))

    @property
    def is_accepting_paused(self) -> bool:
        """Whether no connection is accepted because file descriptors are scarce."""
        return self._descriptors.is_scarce

    # Starting.

    def listen(self) -> None:
        """
        Listen, if that has not happened yet.

        :raises ListenError: if an address cannot be had after all.
        """
        if self.listeners:
            return
        self._say_warnings()
        entrances = self._new_entrances(self._in_force.handover)
        # Not kept here: this epoch is to be freed one day.
        bound, self._bound = self._bound, {}
        with ExitStack() as undo:
            undo.callback(release, bound.values())
            for entrance in entrances.values():
                _start(entrance)
                undo.callback(entrance.stop)
            added = self._listening(bound, entrances, undo)
            undo.pop_all()
        for listener in added:
            self._add(listener)
        self._say_servers()

    def start(self) -> None:
        """Look after connections from now on."""
        self._sweeping.start(1.0, now=False)

    def stop(self) -> None:
        """Look after them no more."""
        if self._sweeping.running:
            self._sweeping.stop()

    def handover(self, epoch: Epoch) -> Handover:
        """:returns: what an epoch makes of the clients that are connected."""
        return Handover(places_of(epoch, self._sockets.key_of))

    def _new_entrances(self, handover: Handover) -> dict[str, Entrance]:
        return {
            key: entrance_of(place, self.registry, self._in_force)
            for key, place in handover.places.items()
        }

    def _listener(self, key: str, bound: BoundSocket, entrance: Entrance) -> Listener:
        """:raises ListenError: if the reactor cannot watch the socket."""
        listener = Listener(key, bound, entrance, self._reactor, self._descriptors)
        try:
            listener.startListening()
        except OSError as error:
            raise ListenError(f"cannot listen on {key}: {error.strerror or error}") from error
        return listener

    def _listening(
        self, bound: Mapping[str, BoundSocket], entrances: Mapping[str, Entrance], undo: ExitStack
    ) -> list[Listener]:
        """
        :param undo: gets what undoes it.
        :raises ListenError: if the reactor cannot watch a socket.
        """
        listeners = []
        for key, one in bound.items():
            listeners.append(self._listener(key, one, entrances[key]))
            undo.callback(listeners[-1].stopListening)
        return listeners

    def _add(self, listener: Listener) -> None:
        self.listeners[listener.key] = listener
        self._descriptors.opened(listener)

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
        for key, place in self._in_force.handover.places.items():
            if key in self.listeners:
                where = address_text(self.listeners[key].getHost())
                for server in place.servers:
                    found.setdefault(id(server), []).append(where)
        return found

    def listening_on(self) -> tuple[IAddress, ...]:
        """:returns: the addresses that are listened on."""
        return tuple(one.getHost() for one in self.listeners.values())

    def _sweep(self) -> None:
        for look in (self.registry.sweep, self._descriptors.look, self._trim):
            try:
                look()
            except Exception:  # noqa: BLE001 -- or else nobody would look ever again
                _log.failure("looking after connections failed")

    def _trim(self) -> None:
        self._memory.look(len(self.registry))

    # Taking over.

    def take_over(self, epoch: Epoch) -> None:
        """:raises GateError: if an address or a file cannot be had; nothing has changed then."""
        if self.is_draining:
            raise GateError("the gate is ending")
        handover = self.handover(epoch)
        entrances, changes = self._new_entrances(handover), list[Change]()
        with ExitStack() as undo:
            for entrance in entrances.values():
                _start(entrance)
                undo.callback(entrance.stop)
            bound = bind(epoch, self._sockets, self.listeners)
            undo.callback(release, bound.values())
            # None accepts before the reactor's next turn.
            added = self._listening(bound, entrances, undo)
            for follower in self._followers:
                change = follower.prepare(epoch)
                undo.callback(change.discard)
                changes.append(change)
            # From here on nothing can fail.
            undo.pop_all()
        before = self._in_force.handover
        self._put_in_force(epoch, handover)
        for key in before.places:
            if key in entrances:
                _adapt(self.listeners[key], handover.places[key])
                _stop(self.listeners[key].turn_to(entrances[key]))
            else:
                self._close(key)
        for listener in added:
            self._add(listener)
        for change in changes:
            _commit(change)
        self._judge_again(handover)

    def judge_by(self, epoch: Epoch) -> None:
        """Hold the connections there are to another epoch, without listening for it."""
        handover = self.handover(epoch)
        self._put_in_force(epoch, handover)
        self._judge_again(handover)

    def _put_in_force(self, epoch: Epoch, handover: Handover) -> None:
        self.epoch = epoch
        self.number += 1
        self.since = self._reactor.seconds()
        self._in_force.turn_to(handover)

    def _judge_again(self, handover: Handover) -> None:
        # Another epoch's takes its place: what this one admits counts no more then.
        settled = self.registry.slices.run(handover.settle(self.registry))
        # By then what only the old epoch needed is free.
        settled.addCallback(lambda _: give_back())
        self._say_warnings()
        self._say_servers()

    def _close(self, key: str) -> None:
        listener = self.listeners.pop(key)
        try:
            listener.stopListening()
        except Exception:  # noqa: BLE001 -- there are others to be closed
            _log.failure("{place} failed to close", place=key)
        _stop(listener.acceptor)

    # Ending.

    def stop_accepting(self) -> Deferred[None]:
        """
        Accept no more connections; those there are go on.

        :returns: fires when no address is taken any longer.
        """
        self.is_draining = True
        for key in list(self.listeners):
            self._close(key)
        return succeed(None)

    def drain(self) -> Deferred[None]:
        """
        Accept no more, and give connections until the drain timeout to end.

        :returns: fires when all have.
        """
        if self._drain_timer is None:
            timeout = self.epoch.settings.drain_timeout
            self._drain_timer = self._reactor.callLater(timeout, self.close_all)
        self.stop_accepting()
        self._say_draining()
        return self.registry.gone().addCallback(self._drained)

    def _say_draining(self) -> None:
        if len(self.registry):
            _log.info(
                "accepting no more; {count} connections have {timeout:g} s to end",
                count=len(self.registry),
                timeout=self.epoch.settings.drain_timeout,
            )

    def _drained(self, _: object) -> None:
        if self._drain_timer is not None and self._drain_timer.active():
            self._drain_timer.cancel()

    def close_all(self) -> None:
        """End all connections at once."""
        for one in self.registry:
            self.registry.close(one, Cause.DRAINED)


def _commit(change: Change) -> None:
    try:
        change.commit()
    except Exception:  # noqa: BLE001 -- the epoch is in force already
        _log.failure("a part of the new configuration failed to take effect")


def _start(entrance: Entrance) -> None:
    """:raises ListenError: if a protocol's factory fails to start."""
    try:
        entrance.start()
    except Exception as error:
        _log.failure("a protocol failed to start")
        raise ListenError(
            f"{entrance.key}: a protocol failed to start: {type(error).__name__}: {error}"
        ) from error


def _adapt(listener: Listener, place: Place) -> None:
    try:
        adapt(listener.bound, place.address)
    except OSError as error:
        _log.error(
            "{place} stays as it is: {problem}",
            place=place.key,
            problem=error.strerror or str(error),
        )


def _stop(acceptor: Acceptor) -> None:
    try:
        acceptor.stop()
    except Exception:  # noqa: BLE001 -- a protocol's own; the gate goes on without it
        _log.failure("a protocol failed to stop")
