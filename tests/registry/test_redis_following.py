"""
Following a real Redis: every way in which a device can change is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.registry.store import StoreError
from tests.kits.following import followed, run
from tests.kits.redis import (
    PREFIX,
    Server,
    cluster,
    end_migration,
    key,
    migration,
    move_key,
    opened,
    server,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def alone() -> Iterator[Server]:
    with server("--hz", "100") as running:
        yield running


@pytest.fixture(autouse=True)
def _emptied(alone: Server) -> None:
    alone.do("FLUSHALL")
    alone.do("HSET", key("pump"), "state", "active")


def test_what_another_client_of_ours_writes_is_told(alone: Server) -> None:
    async def test() -> None:
        async with (
            opened(alone.url) as store,
            opened(alone.url) as other,
            followed(store) as follow,
        ):
            await other.put([Device("new"), Device("pump", DeviceState.DENIED)])
            await follow.told.told_of("pump")
            await other.remove(["new"])
            await follow.told.told_of("new")
            # One of its own, too.
            await store.put([Device("pump")])
            await follow.told.told_of("pump")

    run(test)


def test_a_put_that_changes_nothing_is_told_to_nobody(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            await store.put([Device("pump"), Device("last")])
            await follow.told.until(lambda event: event == frozenset({"last"}))

    run(test)


BY_HAND: list[tuple[str, Callable[[Server], object]]] = [
    ("a field", lambda redis: redis.do("HSET", key("pump"), "state", "denied")),
    ("a field removed", lambda redis: redis.do("HDEL", key("pump"), "state")),
    ("a key removed", lambda redis: redis.do("DEL", key("pump"))),
    ("unlinked", lambda redis: redis.do("UNLINK", key("pump"))),
    ("renamed", lambda redis: redis.do("RENAME", key("pump"), "elsewhere")),
    ("moved to another database", lambda redis: redis.do("MOVE", key("pump"), 1)),
    ("overwritten", lambda redis: redis.do("SET", key("pump"), "x")),
    ("expired", lambda redis: redis.do("PEXPIRE", key("pump"), 1)),
    ("a script", lambda redis: redis.do("EVAL", "redis.call('DEL', KEYS[1])", 1, key("pump"))),
]


@pytest.mark.parametrize(("_what", "change"), BY_HAND)
def test_a_change_by_hand_is_told_by_name(
    alone: Server, _what: str, change: Callable[[Server], object]
) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            change(alone)
            await follow.told.told_of("pump")

    run(test)


def test_what_the_server_evicts_is_told(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            alone.do("CONFIG SET", "maxmemory-policy", "allkeys-random")
            alone.do("CONFIG SET", "maxmemory", 1)
            await follow.told.told_of("pump")
            alone.do("CONFIG SET", "maxmemory", 0)

    run(test)


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHALL ASYNC", "FLUSHDB"])
def test_an_emptied_store_is_told(alone: Server, command: str) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            alone.do(command)
            await follow.told.told("any")
            assert await store.find(["pump"]) == {}

    run(test)


def test_swapped_databases_are_told(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            alone.do("SWAPDB", 0, 1)
            await follow.told.told("following")
            assert await store.find(["pump"]) == {}
            await store.put([Device("after")])
            await follow.told.told_of("after")

    run(test)


def test_other_registries_and_leases_are_not_told(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            alone.do("HSET", f"{PREFIX}s:d:pump", "state", "active")
            alone.do("HSET", f"{PREFIX}:x:pump", "state", "active")
            alone.do("HSET", f"{PREFIX}:d:", "state", "active")
            alone.do("HSET", f"{PREFIX}:d:".encode() + b"\xff", "state", "active")
            await store.lease("pump", "holder", 1, 60)
            await store.put([Device("last")])
            told = await follow.told.told_of("last")
            assert set(told) <= {"alive", frozenset({"last"})}

    run(test)


def test_the_server_remembers_nothing_for_each_device_that_is_followed(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store):
            many = {f"device {number}": Device(f"device {number}") for number in range(100)}
            await store.put(many.values())
            assert await store.find(many) == many
            said = str(alone.do("INFO", "stats"))
            assert "'tracking_total_keys': 0" in said
            assert "'tracking_total_prefixes': 1" in said

    run(test)


def test_it_is_alive_again_and_again(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            for _ in range(3):
                await follow.told.told("alive")

    run(test)


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_a_killed_connection_is_lost_or_never_was_needed(alone: Server, kind: str) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            await store.find(["pump"])
            async with followed(store) as follow:
                alone.do("CLIENT KILL", "TYPE", kind)
                if kind == "normal":
                    assert "closed the connection" in str(await follow.lost())
                # Questions find a new one without anybody's noticing.
                assert await store.find(["pump"]) == {"pump": Device("pump")}

    run(test)


def test_a_restarted_server_is_lost_and_followed_again(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            async with followed(store) as follow:
                alone.restart()
                assert "closed the connection" in str(await follow.lost())
            async with followed(store) as follow:
                assert await store.find(["pump"]) == {}
                alone.do("HSET", key("pump"), "state", "active")
                await follow.told.told_of("pump")

    run(test)


def test_a_server_that_is_down_says_so(alone: Server) -> None:
    async def test() -> None:
        alone.kill()
        async with opened(alone.url) as store:
            with pytest.raises(StoreError, match=r"refuses connections$"):
                await store.find(["pump"])
            with pytest.raises(StoreError, match=r"refuses connections$"):
                async with followed(store):
                    raise AssertionError
        alone.start()

    run(test)


def test_every_master_of_a_cluster_is_followed() -> None:
    async def test(nodes: list[Server]) -> None:
        url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
        async with opened(url) as store, followed(store) as follow:
            for name in ("pump", "valve", "lamp", "tank"):
                await store.put([Device(name)])
                await follow.told.told_of(name)
            for node in nodes:
                node.do("FLUSHALL")
                await follow.told.told("any")
            await follow.told.told("alive")

    with cluster() as nodes:
        run(lambda: test(nodes))


def test_a_slot_that_moves_to_another_master_is_followed_there() -> None:
    async def test(nodes: list[Server]) -> None:
        async with opened(f"redis+cluster://127.0.0.1:{nodes[0].port}") as store:
            pump = {"pump": Device("pump")}
            await store.put(pump.values())
            owner, target = migration(nodes, key("pump"))
            async with followed(store) as follow:
                move_key(owner, target, key("pump"))
                await follow.told.told_of("pump")
                # The slot is on its way: the owner sends those who ask for what has gone.
                assert await store.find(["pump"]) == pump
                await store.put([Device("pump", note="changed on its way")])
                assert await store.remove(["pump"]) == 1
                await store.put(pump.values())
                end_migration(nodes, target, key("pump"))
                await follow.told.told("following")
                assert await store.find(["pump"]) == pump
                target.do("HSET", key("pump"), "state", "denied")
                await follow.told.told_of("pump")

    with cluster() as nodes:
        run(lambda: test(nodes))
