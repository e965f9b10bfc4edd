"""Registries in memory, for tests of what works on one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred

from mtlsgate.admission.devices import Device, DeviceState, KeyKind, keys_of
from mtlsgate.certificates.certificate import view
from mtlsgate.registry.store import Follower, StoreError, StoreUnavailable, Written
from mtlsgate.testing import Credential

T = TypeVar("T")

DOWN = StoreUnavailable("the store is down")


@define(eq=False)
class MemoryStore:
    """
    A store of devices in memory.

    :ivar listed: the devices, by key.
    :ivar problem: why every question fails, or None.
    :ivar places: how long each holder keeps its lease, in seconds, by key.
    :ivar closed: how often it was closed.
    """

    listed: dict[str, Device] = field(factory=dict)
    problem: BaseException | None = None
    places: dict[str, dict[str, float]] = field(factory=dict)
    closed: int = 0

    def _called(self) -> None:
        """A question has come."""
        if self.problem is not None:
            raise self.problem

    async def find(self, keys: Collection[str]) -> Mapping[str, Device]:
        self._called()
        return {key: self.listed[key] for key in keys if key in self.listed}

    async def put(self, devices: Iterable[Device]) -> Written:
        self._called()
        added = changed = 0
        for device in devices:
            before = self.listed.get(device.key)
            added += before is None
            changed += before is not None and before != device
            self.listed[device.key] = device
        return Written(added, changed)

    async def remove(self, keys: Collection[str]) -> int:
        self._called()
        return sum(self.listed.pop(key, None) is not None for key in keys)

    async def devices(self) -> AsyncIterator[Device]:
        self._called()
        for device in [*self.listed.values()]:
            yield device

    async def count(self) -> int:
        self._called()
        return len(self.listed)

    async def lease(self, key: str, holder: str, places: int, seconds: float) -> bool:
        self._called()
        holders = self.places.setdefault(key, {})
        if holder not in holders and len(holders) >= places:
            return False
        holders[holder] = seconds
        return True

    async def release(self, key: str, holder: str) -> None:
        self._called()
        self.places.get(key, {}).pop(holder, None)

    async def close(self) -> None:
        self.closed += 1


@define(eq=False)
class ScriptedStore(MemoryStore):
    """
    A store in which things happen as a test has written down.

    :ivar calls_left: after so many further questions it begins to fail; None for never.
    :ivar then: why it fails then.
    :ivar called: is called with each question.
    :ivar batches: the number of devices in each write.
    :ivar story: what each attempt to follow is told, in order: keys, None for anything, or
        an error that ends it.
    :ivar repeats: whether it tells of each device twice.
    """

    calls_left: int | None = None
    then: BaseException = StoreUnavailable("the connection is lost")
    called: Callable[[], object] = bool
    batches: list[int] = field(factory=list)
    story: list[Sequence[Collection[str] | StoreError | None]] = field(factory=list)
    repeats: bool = False

    def _called(self) -> None:
        self.called()
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                self.problem = self.then
        super()._called()

    async def put(self, devices: Iterable[Device]) -> Written:
        batch = list(devices)
        assert len({device.key for device in batch}) == len(batch)
        written = await super().put(batch)
        self.batches.append(len(batch))
        return written

    async def devices(self) -> AsyncIterator[Device]:
        found = [device async for device in super().devices()]
        for device in found * (1 + self.repeats):
            yield device

    async def follow(self, follower: Follower) -> None:
        self._called()
        if not self.story:
            raise AssertionError("nothing more is to be followed")
        follower.following()
        for told in self.story.pop(0):
            if isinstance(told, StoreError):
                raise told
            follower.changed(told)
        raise StoreUnavailable("the channel is lost")


@define(eq=False)
class FaultyStore(MemoryStore):
    """
    A store that fails when told to; then nobody can follow it, either.

    :ivar is_held: whether questions, and who takes a place, wait for `answer`.
    :ivar asked: the keys of each question.
    :ivar followed: how often somebody began to follow.
    :ivar released: is called when a place is given back.
    """

    is_held: bool = False
    asked: list[tuple[str, ...]] = field(factory=list)
    followed: int = 0
    released: Callable[[], object] = bool
    _waiting: list[tuple[Any, Deferred[Any]]] = field(factory=list)
    _follower: Follower | None = None
    _lost: Deferred[None] | None = None
    # Its channel stays away although questions are answered.
    _is_mute: bool = False

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
        return self.list(who, tell, state=DeviceState.DENIED, **what)

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
        self.problem, self._is_mute = problem, is_mute
        lost, self._lost, self._follower = self._lost, None, None
        if lost is not None:
            lost.errback(problem or DOWN)

    def mend(self) -> None:
        """It is well again."""
        self.problem, self._is_mute = None, False

    def answer(self, most: int | None = None) -> None:
        """
        Answer the questions that wait, with what was true when they were asked.

        :param most: only so many.
        """
        waiting, self._waiting = self._waiting[:most], [] if most is None else self._waiting[most:]
        for found, deferred in waiting:
            if not deferred.called:
                deferred.callback(found)

    # What a gate does.

    async def find(self, keys: Collection[str]) -> Mapping[str, Device]:
        self.asked.append(tuple(keys))
        return await self._when_told(await super().find(keys))

    async def lease(self, key: str, holder: str, places: int, seconds: float) -> bool:
        return await self._when_told(await super().lease(key, holder, places, seconds))

    async def release(self, key: str, holder: str) -> None:
        await super().release(key, holder)
        self.released()

    async def _when_told(self, found: T) -> T:
        if not self.is_held:
            return found
        deferred: Deferred[T] = Deferred()
        self._waiting.append((found, deferred))
        return await deferred

    async def follow(self, follower: Follower) -> None:
        self.followed += 1
        if self.problem is not None or self._is_mute:
            raise self.problem or DOWN
        self._follower, self._lost = follower, Deferred()
        follower.following()
        await self._lost
