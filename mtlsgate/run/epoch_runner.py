"""
Runs one epoch after another: listens, takes over, judges clients again, drains.

Knows nothing of twistd: `mtlsgate.run.service` runs it there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReactorTime
from twisted.internet.task import Cooperator, LoopingCall
from twisted.logger import Logger

from mtlsgate.errors import GateError
from mtlsgate.gate.registry import Registry
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.overview import describe
from mtlsgate.peer import address_text
from mtlsgate.reasons import Cause
from mtlsgate.run.descriptors import Descriptors
from mtlsgate.run.followers import Change, EpochFollower
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
from mtlsgate.run.memory_trim import MemoryTrim, give_back
from mtlsgate.run.rejudging import Handover, InForce

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


class EpochRunner:
    """
    Runs one epoch after another.

    :ivar epoch: the one in force.
    :ivar number: of that epoch; the first is 1.
    :ivar since: when it took over, in the clock's seconds.
    :ivar registry: of all connections.
    :ivar is_listening: whether it has begun to listen, and does not drain.
    :ivar is_draining: whether it accepts no more connections, because it ends.
    """

    def __init__(
        self,
        epoch: Epoch,
        listeners: Iterable[Listener],
        reactor: IReactorTime,
        registry: Registry,
        followers: Iterable[EpochFollower] = (),
    ) -> None:
        """
        :param listeners: what `bind` made of the epoch.
        :param reactor: for time limits.
        :param registry: where connections are accounted for.
        :param followers: what else changes with the epoch.
        """
        self.epoch = epoch
        self.number = 1
        self.since = reactor.seconds()
        self.registry = registry
        self.is_draining = False
        self._listeners: list[Listener] = list(listeners)
        self._followers = tuple(followers)
        self._reactor = reactor
        self._open: dict[str, _Open] = {}
        self._entrances: dict[str, Entrance] = {}
        self._in_force = InForce(epoch)
        self._drain_timer: IDelayedCall | None = None
        self._stopping: list[Deferred[Any]] = []
        self._descriptors = Descriptors(lambda: [one.port for one in self._open.values()])
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
        if self._open:
            return
        self._say_warnings()
        self._entrances = self._new_entrances(self.epoch)
        # Not kept here: this epoch is to be freed one day.
        while self._listeners:
            self._listen_on(self._listeners.pop(0), self._entrances)
        self._say_servers()

    def start(self) -> None:
        """Look after connections from now on."""
        self._sweeping.start(1.0, now=False)

    def stop(self) -> None:
        """Look after them no more."""
        if self._sweeping.running:
            self._sweeping.stop()

    def _new_entrances(self, epoch: Epoch) -> dict[str, Entrance]:
        return {
            place.key: Entrance(place, self.registry, self._in_force) for place in places_of(epoch)
        }

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

    def listening_on(self) -> tuple[IAddress, ...]:
        """:returns: the addresses that are listened on."""
        return tuple(one.port.getHost() for one in self._open.values())

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
        entrances = self._new_entrances(epoch)
        before, changes = set(self._open), list[Change]()
        with ExitStack() as undo:
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
            for follower in self._followers:
                change = follower.prepare(epoch)
                undo.callback(change.discard)
                changes.append(change)
            # From here on nothing can fail.
            undo.pop_all()
        handover = self._put_in_force(epoch)
        for key in self._entrances:
            if key in entrances:
                self._open[key].switch.turn_to(entrances[key].factory)
            else:
                self._close(key)
        self._entrances = entrances
        for change in changes:
            _commit(change)
        self._judge_again(handover)

    def judge_by(self, epoch: Epoch) -> None:
        """Hold the connections there are to another epoch, without listening for it."""
        self._judge_again(self._put_in_force(epoch))

    def _put_in_force(self, epoch: Epoch) -> Handover:
        self.epoch = epoch
        self.number += 1
        self.since = self._reactor.seconds()
        return self._in_force.turn_to(epoch)

    def _judge_again(self, handover: Handover) -> None:
        settled = self.cooperator.coiterate(self._settle(handover))
        # By then what only the old epoch needed is free.
        settled.addCallback(lambda _: give_back())
        self._say_warnings()
        self._say_servers()

    def _settle(self, handover: Handover) -> Iterator[None]:
        for _ in handover.settle(self.registry):
            if self._in_force.handover is not handover:
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

    def stop_accepting(self) -> Deferred[None]:
        """
        Accept no more connections; those there are go on.

        :returns: fires when no address is taken any longer.
        """
        self.is_draining = True
        for key in list(self._open):
            self._close(key)
        stopping, self._stopping = self._stopping, []
        return gatherResults(stopping).addCallback(lambda _: None)

    def drain(self) -> Deferred[None]:
        """
        Accept no more, and give connections until the drain timeout to end.

        :returns: fires when all have.
        """
        if self._drain_timer is None:
            timeout = self.epoch.settings.drain_timeout
            self._drain_timer = self._reactor.callLater(timeout, self.close_all)
        return (
            self.stop_accepting()
            .addCallback(self._say_draining)
            .addCallback(lambda _: self.registry.gone())
            .addCallback(self._drained)
        )

    def _say_draining(self, _: object) -> None:
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
