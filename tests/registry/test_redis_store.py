"""
The store in a real Redis: what is found, put, removed, listed and leased.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.registry.store import StoreError, StoreUnavailable, Written
from tests.kits.following import run
from tests.kits.redis import PREFIX, Server, cluster, key, opened
from tests.kits.store_contract import DENIED, NORTH, Opening, StoreContract

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def spread() -> Iterator[list[Server]]:
    with cluster() as nodes:
        yield nodes


class TestRedisStore(StoreContract):
    """Does what every store does, in one server and in a cluster."""

    @pytest.fixture(params=["alone", "spread"])
    def opening(self, request: pytest.FixtureRequest) -> Opening:
        if request.param == "alone":
            one: Server = request.getfixturevalue("alone")
            one.do("FLUSHALL")
            return lambda: opened(one.url)
        nodes: list[Server] = request.getfixturevalue("spread")
        for node in nodes:
            node.do("FLUSHALL")
        url = f"redis+cluster://127.0.0.1:{nodes[0].port},127.0.0.1:{nodes[1].port}"
        return lambda: opened(url)


def test_a_limit_that_nobody_renews_leaves_nothing_behind(alone: Server) -> None:
    alone.do("FLUSHALL")

    async def test() -> None:
        async with opened(alone.url) as store:
            assert await store.lease("client", "gate 1", 2, 5)
            assert await store.lease("client", "gate 2", 2, 0.5)
        left = alone.do("PTTL", f"{PREFIX}:l:client")
        assert isinstance(left, int)
        # As long as the longest lease.
        assert 500 < left <= 5000

    run(test)


def test_what_is_asked_at_the_same_time_shares_a_round_trip(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            await store.find(["x"])
            alone.do("CONFIG RESETSTAT")
            await asyncio.gather(*(store.find([f"device {number}"]) for number in range(100)))
            said = str(alone.do("INFO", "commandstats"))
            # The first goes at once, the others together.
            assert "'cmdstat_role': {'calls': 2," in said
            assert "'cmdstat_hgetall': {'calls': 100," in said

    run(test)


def test_whoever_gives_up_leaves_the_others_their_answers(alone: Server) -> None:
    alone.do("FLUSHALL")

    async def test() -> None:
        async with opened(alone.url) as store:
            await store.put([NORTH, DENIED])
            first, second, third = (
                asyncio.ensure_future(store.find([key])) for key in (NORTH.key, "x", DENIED.key)
            )
            await asyncio.sleep(0)
            first.cancel()
            second.cancel()
            assert await third == {DENIED.key: DENIED}
            assert await store.find([NORTH.key]) == {NORTH.key: NORTH}

    run(test)


UNREADABLE = [
    ({"note": "no state"}, "state"),
    ({"state": "Active"}, "state"),
    ({"state": "active", "not_after": "tomorrow"}, "not_after"),
    ({"state": "active", "not_after": "2027-01-01T00:00:00"}, "not_after"),
    ({"state": "active", "not_afer": "2026-01-01T00:00:00Z"}, "unknown names"),
    ({"state": "active", "attributes": "{"}, "attributes"),
    ({"state": "active", "attributes": '{"a":1}'}, "attributes"),
    ({"state": b"\xff"}, "UTF-8"),
    ({"state": "active", "note": "x" * 5000}, "note"),
    ({"state": "active", "attributes": "x" * 600_000}, "bytes"),
]


@pytest.mark.parametrize(("fields", "problem"), UNREADABLE)
def test_a_device_that_cannot_be_understood_is_denied_and_the_others_are_answered(
    alone: Server, fields: dict[str, str | bytes], problem: str
) -> None:
    alone.do("FLUSHALL")
    alone.do("HSET", key("odd"), *(part for field in fields.items() for part in field))
    alone.do("HSET", key("good"), "state", "active")

    async def test() -> None:
        async with opened(alone.url) as store:
            found = await store.find(["odd", "good"])
            assert found["good"] == Device("good")
            assert found["odd"].state is DeviceState.DENIED
            assert problem in found["odd"].problem
            assert len(found["odd"].problem) < 200
            assert {device.key async for device in store.devices()} == {"odd", "good"}
            with pytest.raises(StoreError, match="odd"):
                await store.put([found["odd"]])
            assert await store.put([Device("odd")]) == Written(changed=1)
            assert (await store.find(["odd"]))["odd"] == Device("odd")

    run(test)


def test_something_else_in_a_devices_place_denies_it_and_can_be_replaced(alone: Server) -> None:
    alone.do("FLUSHALL")
    alone.do("SET", key("odd"), "active")
    alone.do("SADD", f"{PREFIX}:l:limit", "x")

    async def test() -> None:
        async with opened(alone.url) as store:
            odd = (await store.find(["odd"]))["odd"]
            assert (odd.state, odd.problem) == (DeviceState.DENIED, "is no hash")
            assert await store.put([Device("odd")]) == Written(changed=1)
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await store.lease("limit", "holder", 1, 60)

    run(test)


def test_a_put_ends_an_expiry_that_somebody_has_set(alone: Server) -> None:
    alone.do("FLUSHALL")

    async def test() -> None:
        async with opened(alone.url) as store:
            await store.put([NORTH])
            alone.do("EXPIRE", key(NORTH.key), 1000)
            assert await store.put([NORTH]) == Written(changed=1)
            assert alone.do("TTL", key(NORTH.key)) == -1

    run(test)


def test_scripts_that_the_server_has_forgotten_are_sent_again(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            await store.remove([DENIED.key])
            await store.put([NORTH])
            alone.do("SCRIPT FLUSH")
            assert await store.put([NORTH, DENIED]) != Written()
            alone.do("SCRIPT FLUSH")
            assert await store.lease("x", "y", 1, 1)

    run(test)


def test_a_key_of_half_a_surrogate_pair_is_asked_for_and_not_found(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            assert await store.find(["\ud800"]) == {}

    run(test)


def test_who_waits_when_the_store_is_closed_is_told(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            waiting = asyncio.ensure_future(store.find(["x"]))
            await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="closed"):
            await waiting

    run(test)
