"""A registry in memory, for tests of what works on one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence

from attrs import define, field

from mtlsgate.admission.devices import Device
from mtlsgate.registry.store import Follower, StoreError, StoreUnavailable, Written


@define(eq=False)
class MemoryStore:
    """
    A store of devices in memory.

    :ivar listed: the devices, by key.
    :ivar failing: why every question fails, or None.
    :ivar calls_left: after so many further calls it begins to fail; None for never.
    :ivar then: why it fails then.
    :ivar called: is called with each question.
    :ivar batches: the number of devices in each write.
    :ivar story: what each attempt to follow is told, in order: keys, None for anything, or
        an error that ends it.
    :ivar repeats: whether it tells of each device twice.
    :ivar closed: how often it was closed.
    """

    listed: dict[str, Device] = field(factory=dict)
    failing: BaseException | None = None
    calls_left: int | None = None
    then: BaseException = StoreUnavailable("the connection is lost")
    called: Callable[[], object] = bool
    batches: list[int] = field(factory=list)
    story: list[Sequence[Collection[str] | StoreError | None]] = field(factory=list)
    repeats: bool = False
    closed: int = 0

    def _called(self) -> None:
        self.called()
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                self.failing = self.then
        if self.failing is not None:
            raise self.failing

    async def find(self, keys: Collection[str]) -> Mapping[str, Device]:
        self._called()
        return {key: self.listed[key] for key in keys if key in self.listed}

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

    async def put(self, devices: Iterable[Device]) -> Written:
        self._called()
        batch = list(devices)
        assert len({device.key for device in batch}) == len(batch)
        self.batches.append(len(batch))
        added = changed = 0
        for device in batch:
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
        for device in [*self.listed.values()] * (1 + self.repeats):
            yield device

    async def count(self) -> int:
        self._called()
        return len(self.listed)

    async def lease(self, key: str, holder: str, places: int, seconds: float) -> bool:
        raise NotImplementedError

    async def release(self, key: str, holder: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        self.closed += 1
