"""What every store of devices does: the tests of each store inherit it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime

import pytest

from mtlsgate.admission.devices import LONGEST_KEY, Device, DeviceState
from mtlsgate.registry.fields import LONGEST_NOTE, LONGEST_VALUE
from mtlsgate.registry.store import Store, Written
from tests.kits.following import run

NORTH = Device(
    "a" * 64,
    DeviceState.ACTIVE,
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2027, 1, 1, 12, 30, 0, 123456, tzinfo=UTC),
    "the pump in the north, Ø 40",
    {"tenant": "north", "colour": "blue"},
)
DENIED = Device("common name: {odd} *?[x]\\%s '\"", DeviceState.DENIED)

#: Opens a store until a block ends.
Opening = Callable[[], AbstractAsyncContextManager[Store]]


class StoreContract:
    """What every store does, whatever keeps its devices."""

    @pytest.fixture
    def opening(self) -> Opening:
        """Opens the store of a test, always the same one; it is empty at first."""
        raise NotImplementedError

    def test_what_is_put_is_found_and_can_be_removed(self, opening: Opening) -> None:
        async def test() -> None:
            async with opening() as store:
                assert await store.find([NORTH.key]) == {}
                assert await store.put([NORTH, DENIED]) == Written(added=2)
                assert await store.put([NORTH, DENIED]) == Written()
                found = await store.find(["nobody", NORTH.key, DENIED.key])
                assert found == {NORTH.key: NORTH, DENIED.key: DENIED}
                assert found[NORTH.key].attributes == NORTH.attributes
                assert await store.remove([NORTH.key, "nobody"]) == 1
                assert await store.find([NORTH.key]) == {}

        run(test)

    def test_a_put_replaces_the_whole_device(self, opening: Opening) -> None:
        async def test() -> None:
            async with opening() as store:
                await store.put([NORTH])
                bare = Device(NORTH.key, DeviceState.DENIED)
                assert await store.put([bare, DENIED]) == Written(added=1, changed=1)
                found = await store.find([NORTH.key])
                assert found[NORTH.key] == bare
                assert found[NORTH.key].attributes == {}

        run(test)

    def test_the_largest_device_is_kept_whole(self, opening: Opening) -> None:
        largest = Device(
            "\U0001f600" * LONGEST_KEY,
            note="\U0001f600" * LONGEST_NOTE,
            attributes={f"n{number}": "\x01" * LONGEST_VALUE for number in range(15)},
        )

        async def test() -> None:
            async with opening() as store:
                await store.put([largest])
                found = (await store.find([largest.key]))[largest.key]
                assert found == largest
                assert found.attributes == largest.attributes

        run(test)

    def test_many_devices_are_listed_and_counted_once_and_nothing_else_is(
        self, opening: Opening
    ) -> None:
        many = {f"device {number}": Device(f"device {number}") for number in range(2300)}

        async def test() -> None:
            async with opening() as store:
                assert await store.put(many.values()) == Written(added=2300)
                assert await store.lease("limit", "holder", 1, 60)
                assert await store.count() == 2300
                listed = [device async for device in store.devices()]
                assert len(listed) == 2300
                assert {device.key: device for device in listed} == many
                assert await store.find([*many, "nobody"]) == many
                assert await store.remove([*many]) == 2300
                assert await store.count() == 0
                assert [device async for device in store.devices()] == []

        run(test)

    def test_what_is_found_of_many_at_once_is_right_for_each(self, opening: Opening) -> None:
        many = {
            f"device {number}": Device(f"device {number}", note=f"{number}") for number in range(99)
        }

        async def test() -> None:
            async with opening() as store:
                await store.put(many.values())
                answers = await asyncio.gather(*(store.find([name, "nobody"]) for name in many))
                assert answers == [{name: device} for name, device in many.items()]

        run(test)

    def test_places_are_kept_given_back_and_run_out(self, opening: Opening) -> None:
        async def test() -> None:
            async with opening() as store, opening() as another:
                assert await store.lease("client", "gate 1", 2, 60)
                assert await another.lease("client", "gate 2", 2, 60)
                assert not await another.lease("client", "gate 3", 2, 60)
                assert await another.lease("other client", "gate 3", 2, 60)
                # Again is a renewal, also when all places are taken.
                assert await store.lease("client", "gate 1", 2, 60)
                await store.release("client", "gate 1")
                assert await another.lease("client", "gate 3", 2, 0.001)
                # Who does not renew loses the place.
                while not await store.lease("client", "gate 1", 2, 60):
                    await asyncio.sleep(0)
                assert not await store.lease("client", "gate 4", 2, 60)

        run(test)
