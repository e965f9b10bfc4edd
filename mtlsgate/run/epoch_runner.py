"""
Runs one epoch after another: listens, takes over, judges clients again, drains.

Knows nothing of twistd: `mtlsgate.run.service` runs it there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.task import Cooperator, LoopingCall
from twisted.logger import Logger

from mtlsgate.admission import Rejection
from mtlsgate.errors import GateError
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.judging import Held
from mtlsgate.gate.listener import MANY, BoundSocket, Listener
from mtlsgate.gate.registries import Known
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.overview import describe, describe_client
from mtlsgate.peer import address_text
from mtlsgate.reasons import Cause
from mtlsgate.run.followers import Change, EpochFollower, commit_all
from mtlsgate.run.listeners import AnyEntrance, Listeners, start
from mtlsgate.run.listening import bind, entrance_at, places_of, release
from mtlsgate.run.memory_trim import MemoryTrim, give_back
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.registries.rechecks import Rechecks
from mtlsgate.run.rejudging import Handover, InForce
from mtlsgate.run.sockets import Sockets

_log = Logger("mtlsgate.service")


class EpochRunner:
    """
    Runs one epoch after another.

    :ivar epoch: the epoch in force.
    :ivar number: that epoch's number; the first is 1.
    :ivar since: when it took over, in the clock's seconds.
    :ivar connections: of the service.
    :ivar is_draining: whether it accepts no more connections because it is ending.
    """

    def __init__(
        self,
        epoch: Epoch,
        bound: Mapping[str, BoundSocket],
        sockets: Sockets,
        reactor: IReactorTime,
        connections: Connections,
        followers: Iterable[EpochFollower] = (),
        *,
        registries: Desks | None = None,
        number: int = 1,
        tells: bool = True,
        accepts: int = MANY,
        refreshed: Callable[[Epoch], object] = lambda _: None,
    ) -> None:
        """
        :param bound: the sockets that `bind` made for the first epoch.
        :param sockets: makes the sockets of later epochs.
        :param reactor: watches sockets, and keeps the time.
        :param connections: of the service.
        :param followers: other parts that change with the epoch.
        :param registries: those of the connections; None if there are none.
        :param number: the first epoch's.
        :param tells: whether it logs what an epoch has and where it listens.
        :param accepts: how many connections each listener accepts in one turn.
        :param refreshed: is told when an epoch goes on with other documents.
        """
        self._refreshed = refreshed
        self.epoch = epoch
        self.number = number
        self._tells = tells
        self.since = reactor.seconds()
        self.connections = connections
        self.is_draining = False
        self._bound = dict(bound)
        self._sockets = sockets
        self._followers = tuple(followers)
        self._reactor = reactor
        self.registries = registries
        self._rechecks = Rechecks(connections, self._recheck, reactor)
        connections.registries.subscribe(self._rechecks.told)
        if registries is not None:
            registries.places.subscribe(self._lost_place)
        self._listeners = Listeners(reactor, accepts)
        self._in_force = InForce(self.handover(epoch))
        self._drain_timer: IDelayedCall | None = None
        self._memory = MemoryTrim()
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = reactor
        self.cooperator = Cooperator(scheduler=lambda step: reactor.callLater(0, step))

    @property
    def listeners(self) -> Mapping[str, Listener]:
        """All listeners, by the keys of their places."""
        return self._listeners.by_key

    @property
    def is_accepting_paused(self) -> bool:
        """Whether no connection is accepted because file descriptors are scarce."""
        return self._listeners.descriptors.is_scarce

    # Starting.

    def listen(self, bound: Mapping[str, BoundSocket] | None = None) -> None:
        """
        Listen, if it does not listen yet.

        :param bound: the sockets, if they were not known before.
        :raises ListenError: if it cannot listen on an address.
        """
        if self.listeners:
            return
        self._say_warnings()
        entrances = self._new_entrances(self._in_force.handover)
        # Keep no reference: it must be possible to free this epoch later.
        bound, self._bound = self._bound if bound is None else bound, {}
        with ExitStack() as undo:
            undo.callback(release, bound.values())
            for entrance in entrances.values():
                start(entrance)
                undo.callback(entrance.stop)
            added = self._listeners.open(bound, entrances, undo)
            undo.pop_all()
        self._turn_registries(self.epoch)
        for listener in added:
            self._listeners.add(listener)
        self._say_servers()

    def start(self) -> None:
        """Start looking after connections."""
        self._sweeping.start(1.0, now=False)

    def stop(self) -> None:
        """Stop looking after connections."""
        if self._sweeping.running:
            self._sweeping.stop()
        if self.registries is not None:
            self.registries.stop()

    def handover(self, epoch: Epoch) -> Handover:
        """:returns: judges connected clients by an epoch."""
        return Handover(places_of(epoch, self._sockets.key_of))

    def _new_entrances(self, handover: Handover) -> dict[str, AnyEntrance]:
        return {
            key: entrance_at(place, self.connections, self._in_force)
            for key, place in handover.places.items()
        }

    def _say_warnings(self) -> None:
        for problem in self.epoch.warnings if self._tells else ():
            _log.warn("{problem}", problem=str(problem))

    def _say_servers(self) -> None:
        addresses = self.addresses()
        for server in self.epoch.servers if self._tells else ():
            description = describe(server, addresses.get(id(server), ()))
            _log.info("{description}", description=description)
        for client in self.epoch.clients:
            description = describe_client(client, addresses.get(id(client), ()))
            _log.info("{description}", description=description)

    def addresses(self) -> dict[int, list[str]]:
        """:returns: where servers and client gates of the epoch in force listen, by their
        `id`."""
        found: dict[int, list[str]] = {}
        for key, place in self._in_force.handover.places.items():
            if key in self.listeners:
                where = address_text(self.listeners[key].getHost())
                for one in place.occupants:
                    found.setdefault(id(one), []).append(where)
        return found

    def listening_on(self) -> tuple[IAddress, ...]:
        """:returns: the addresses that are listened on."""
        return tuple(one.getHost() for one in self.listeners.values())

    def _sweep(self) -> None:
        for look in (self.connections.sweep, self._listeners.descriptors.look, self._trim):
            try:
                look()
            except Exception:  # noqa: BLE001 -- or else nobody would look ever again
                _log.failure("looking after connections failed")

    def _trim(self) -> None:
        self._memory.look(len(self.connections))

    # Taking over.

    def take_over(self, epoch: Epoch) -> None:
        """:raises GateError: if an address or a file is not available; then nothing has
        changed."""
        self.prepare(epoch).commit()

    def prepare(self, epoch: Epoch) -> Change:
        """
        Do everything that can fail; new addresses are bound, but nothing is accepted.

        :returns: to let the epoch take over, or not.
        :raises GateError: if an address or a file is not available; then nothing has
            changed.
        """
        if self.is_draining:
            raise GateError("the gate is ending")
        handover = self.handover(epoch)
        entrances, changes = self._new_entrances(handover), list[Change]()
        with ExitStack() as undo:
            for entrance in entrances.values():
                start(entrance)
                undo.callback(entrance.stop)
            bound = bind(epoch, self._sockets, self.listeners)
            undo.callback(release, bound.values())
            added = self._listeners.open(bound, entrances, undo)
            for listener in added:
                listener.pause()
            for follower in self._followers:
                change = follower.prepare(epoch)
                undo.callback(change.discard)
                changes.append(change)
            undone = undo.pop_all()
        return Change(
            partial(self._commit, epoch, handover, entrances, added, changes), undone.close
        )

    def _commit(
        self,
        epoch: Epoch,
        handover: Handover,
        entrances: Mapping[str, AnyEntrance],
        added: Iterable[Listener],
        changes: Iterable[Change],
    ) -> None:
        before = self._in_force.handover
        self._turn_registries(epoch)
        self._put_in_force(epoch, handover)
        for key in before.places:
            if key in entrances:
                self._listeners.turn(handover.places[key], entrances[key])
            else:
                self._listeners.close(key)
        for listener in added:
            listener.resume()
            self._listeners.add(listener)
        commit_all(changes)
        self._judge_again(handover)

    def judge_by(self, epoch: Epoch) -> None:
        """Judge existing connections by another epoch, without listening for it."""
        handover = self.handover(epoch)
        self._turn_registries(epoch)
        self._put_in_force(epoch, handover)
        self._judge_again(handover)

    def refresh(self, epoch: Epoch) -> None:
        """
        Go on with the epoch in force, but with other documents that were fetched.

        :param epoch: what `mtlsgate.load.refresh` made of the epoch in force.  It has the
            same number, and the same applications, which do not notice.
        :raises GateError: if an application fails to start again; nothing has changed.
        """
        handover = self.handover(epoch)
        is_listening = bool(self.listeners) and not self.is_draining
        new = self._new_entrances(handover) if is_listening else {}
        # Client gates admit nobody by a document.
        entrances = {key: one for key, one in new.items() if isinstance(one, Entrance)}
        staying = [server.gate.application for server in epoch.servers]
        with ExitStack() as undo:
            for entrance in entrances.values():
                start(entrance)
                undo.callback(entrance.stop, staying)
            undo.pop_all()
        self.epoch = epoch
        self._in_force.turn_to(handover)
        for key, entrance in entrances.items():
            before = self.listeners[key].turn_to(entrance)
            assert isinstance(before, Entrance)
            before.stop(staying)
        self._refreshed(epoch)
        self._settle(handover)

    def _put_in_force(self, epoch: Epoch, handover: Handover) -> None:
        self.epoch = epoch
        self.number += 1
        self.since = self._reactor.seconds()
        self._in_force.turn_to(handover)

    def _settle(self, handover: Handover) -> None:
        """Judge connected clients again."""
        # If another epoch takes over meanwhile, its task replaces this one.
        steps = handover.settle(self.connections, self._rechecks.add)
        settled = self.connections.slices.run(steps)
        # By then the old epoch's memory is free.
        settled.addCallback(lambda _: give_back())

    def _turn_registries(self, epoch: Epoch) -> None:
        if self.registries is not None:
            self.registries.turn_to(epoch.registries)

    def _lost_place(self, number: int, why: Rejection) -> None:
        entry = self.connections.get(number)
        if entry is not None:
            self.connections.expel(entry, why)

    def _recheck(self, entry: Entry, known: Known) -> Held | Rejection | None:
        return self._in_force.handover.recheck(entry, known, self.connections.now())

    def _judge_again(self, handover: Handover) -> None:
        self._settle(handover)
        self._say_warnings()
        self._say_servers()

    # Ending.

    def stop_accepting(self) -> Deferred[None]:
        """
        Accept no more connections; existing ones go on.

        :returns: a Deferred that fires when all addresses are released.
        """
        self.is_draining = True
        for key in list(self.listeners):
            self._listeners.close(key)
        return succeed(None)

    def drain(self) -> Deferred[None]:
        """
        Accept no more connections, and let existing ones end until the drain timeout.

        :returns: a Deferred that fires when all have ended.
        """
        if self._drain_timer is None:
            timeout = self.epoch.settings.drain_timeout
            self._drain_timer = self._reactor.callLater(timeout, self.close_all)
        self.stop_accepting()
        self._say_draining()
        return self.connections.gone().addCallback(self._drained)

    def _say_draining(self) -> None:
        if len(self.connections):
            _log.info(
                "accepting no more; {count} connections have {timeout:g} s to end",
                count=len(self.connections),
                timeout=self.epoch.settings.drain_timeout,
            )

    def _drained(self, _: object) -> None:
        if self._drain_timer is not None and self._drain_timer.active():
            self._drain_timer.cancel()

    def close_all(self) -> None:
        """End all connections at once."""
        for one in self.connections:
            self.connections.close(one, Cause.DRAINED)
