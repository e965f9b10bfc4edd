"""Stores whose faults are on command, and services that ask them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from mtlsgate.admission.devices import Device, DeviceState, KeyKind, keys_of
from mtlsgate.certificates.certificate import view
from mtlsgate.gate.events import ClosedConnection
from mtlsgate.reasons import Cause
from mtlsgate.registry.store import Follower, Store, StoreError, StoreOptions, StoreUnavailable
from mtlsgate.run.registries.desk import Surroundings
from mtlsgate.run.registries.desks import Desks
from mtlsgate.testing import Client, Credential
from tests.kits.service import MemoryService

DENIED = DeviceState.DENIED

DOWN = StoreUnavailable("the store is down")


@define(eq=False)
class FaultyStore:
    """
    A store of devices in memory, that fails when told to.

    :ivar listed: the devices, by key.
    :ivar problem: why every question fails, and none can follow; None if it is well.
    :ivar is_held: whether questions wait for `answer`.
    :ivar asked: the keys of each question.
    :ivar followed: how often somebody began to follow.
    :ivar places: the holders of leases, by key.
    """

    listed: dict[str, Device] = field(factory=dict)
    problem: StoreError | None = None
    is_held: bool = False
    asked: list[tuple[str, ...]] = field(factory=list)
    followed: int = 0
    places: dict[str, dict[str, float]] = field(factory=dict)
    closed: int = 0
    _waiting: list[tuple[Mapping[str, Device], Deferred[Any]]] = field(factory=list)
    _follower: Follower | None = None
    _lost: Deferred[None] | None = None
    # Its channel stays away although questions are answered.
    is_mute: bool = False

    # What tests do.

    def list(self, who: Credential, tell: bool = True, kind: str = "identity", **what: Any) -> str:
        """List a device, and tell of it."""
        [key, *_] = keys_of(view(who.certificate), KeyKind(kind))
        self.listed[key] = Device(key, **what)
        if tell:
            self.tell((key,))
        return key

    def deny(self, who: Credential, tell: bool = True, **what: Any) -> str:
        """Deny a device, and tell of it."""
        return self.list(who, tell, state=DENIED, **what)

    def tell(self, keys: Collection[str] | None) -> None:
        """Tell of a change."""
        if self._follower is not None:
            self._follower.changed(keys)

    def alive(self) -> None:
        """Say that all is well."""
        if self._follower is not None:
            self._follower.alive()

    def empty(self) -> None:
        """As FLUSHALL and TRUNCATE do."""
        self.listed.clear()
        self.tell(None)

    def cut(self, problem: StoreError | None = DOWN, *, is_mute: bool = False) -> None:
        """
        The push channel is lost.

        :param problem: why questions fail as well; None if they do not.
        :param is_mute: whether the channel stays away.
        """
        self.problem, self.is_mute = problem, is_mute
        lost, self._lost, self._follower = self._lost, None, None
        if lost is not None:
            lost.errback(problem or DOWN)

    def mend(self) -> None:
        """It is well again."""
        self.problem, self.is_mute = None, False

    def answer(self) -> None:
        """Answer the questions that wait, with what was true when they were asked."""
        waiting, self._waiting = self._waiting, []
        for found, deferred in waiting:
            if not deferred.called:
                deferred.callback(found)

    # What a gate does.

    async def find(self, keys: Collection[str]) -> Mapping[str, Device]:
        self.asked.append(tuple(keys))
        if self.problem is not None:
            raise self.problem
        found = {key: self.listed[key] for key in keys if key in self.listed}
        if self.is_held:
            deferred: Deferred[Mapping[str, Device]] = Deferred()
            self._waiting.append((found, deferred))
            return await deferred
        return found

    async def follow(self, follower: Follower) -> None:
        self.followed += 1
        if self.problem is not None or self.is_mute:
            raise self.problem or DOWN
        self._follower, self._lost = follower, Deferred()
        follower.following()
        await self._lost

    async def lease(self, key: str, holder: str, places: int, seconds: float) -> bool:
        if self.problem is not None:
            raise self.problem
        holders = self.places.setdefault(key, {})
        if holder not in holders and len(holders) >= places:
            return False
        holders[holder] = seconds
        return True

    async def release(self, key: str, holder: str) -> None:
        if self.problem is not None:
            raise self.problem
        self.places.get(key, {}).pop(holder, None)

    async def put(self, devices: Iterable[Device]) -> Any:
        raise NotImplementedError

    async def remove(self, keys: Collection[str]) -> int:
        raise NotImplementedError

    def devices(self) -> AsyncIterator[Device]:
        raise NotImplementedError

    async def count(self) -> int:
        return len(self.listed)

    async def close(self) -> None:
        self.closed += 1
        await succeed(None)


def desks(clock: Any, stores: Mapping[str, Store], now: Callable[[], Any]) -> Desks:
    """:param stores: by the host of their URL."""

    def open_(options: StoreOptions) -> Store:
        return stores[options.url.removeprefix("redis://")]

    return Desks(Surroundings(open_, clock, now, lambda: 1.0))


class Endings:
    """
    Remembers which connections the gate ended.

    :ivar found: the cause and the detail of each.
    """

    def __init__(self) -> None:
        self.found: list[tuple[Cause, str]] = []

    def closed(self, connection: ClosedConnection) -> None:
        if connection.by_gate:
            self.found.append((connection.cause, connection.detail))

    def admitted(self, connection: object) -> None:
        """Nothing ends."""

    rejected = reloaded = admitted


class RegisteredService(MemoryService):
    """
    A service whose registries are in memory.

    :ivar store: that of ``redis://devices``.
    :ivar stolen: that of ``redis://stolen``.
    :ivar endings: which connections the gate ended.
    """

    def __init__(self, directory: Path, text: str, **options: Any) -> None:
        self.store, self.stolen = FaultyStore(), FaultyStore()
        self.endings = Endings()
        stores = {"devices": self.store, "stolen": self.stolen}
        super().__init__(
            directory,
            text,
            observers=[self.endings],
            registries=lambda clock, now: desks(clock, stores, now),
            **options,
        )
        self.run()

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, in small steps."""
        self.reactor.pump([0.0] * 5)
        for _ in range(round(seconds * 20)):
            self.reactor.pump([0.05])

    def run_well(self, seconds: float, *stores: FaultyStore) -> None:
        """Let time pass while stores are well."""
        for _ in range(round(seconds * 2)):
            self.run(0.5)
            for store in stores:
                store.alive()

    def is_in(self, client: Client) -> bool:
        """:returns: whether a client is connected, and its application answers."""
        client.send(b"x")
        return client.receive().endswith(b"x") and not client.disconnected

    def try_in(self, who: Credential, seconds: float = 0.0, **options: Any) -> Client:
        """:returns: a client that had time to be let in or not."""
        client = self.connect(who, **options)
        client.send(b"knock")
        self.run(seconds)
        client.pump()
        return client
