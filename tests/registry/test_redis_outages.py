"""
Drills with real Redis servers: down, stopped, cut off, read-only, failed over, locked.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator

import pytest

from mtlsgate.admission.devices import Device
from mtlsgate.registry.store import StoreError, StoreUnavailable, WriteUnconfirmed
from tests.kits.following import followed, line_to, run, wait_until
from tests.kits.programs import free_port
from tests.kits.redis import (
    Server,
    cluster,
    fail_over,
    is_up,
    key,
    masters,
    opened,
    replicated,
    server,
    watched,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("pump")]

PUMP = {"pump": Device("pump")}
#: In seconds: the time limit of drills in which something does not answer.
SHORT = 1.0


def test_a_stopped_server_is_lost_and_asked_in_vain_until_it_goes_on(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url, SHORT) as store, followed(store) as follow:
            assert await store.find(["pump"]) == PUMP
            alone.signal(signal.SIGSTOP)
            try:
                for _ in range(2):
                    with pytest.raises(StoreUnavailable, match="did not answer in time"):
                        await store.find(["pump"])
                assert "did not answer in time" in str(await follow.lost())
            finally:
                alone.signal(signal.SIGCONT)
            assert await store.find(["pump"]) == PUMP

    run(test)


def test_a_connection_that_is_cut_without_a_word_is_lost(alone: Server) -> None:
    async def test() -> None:
        async with (
            line_to(alone) as line,
            opened(f"redis://127.0.0.1:{line.port}", SHORT) as store,
        ):
            async with followed(store) as follow:
                assert await store.find(["pump"]) == PUMP
                line.cut()
                alone.do("DEL", key("pump"))
                with pytest.raises(StoreUnavailable, match="did not answer in time"):
                    await store.find(["pump"])
                assert "did not answer in time" in str(await follow.lost())
                with pytest.raises(StoreUnavailable, match="in time"):
                    async with followed(store):
                        raise AssertionError
            line.mend()
            async with followed(store):
                assert await store.find(["pump"]) == {}

    run(test)


def test_a_replica_is_neither_asked_nor_followed_nor_written() -> None:
    async def test(replica: Server) -> None:
        async with opened(replica.url) as store:
            for asked in (
                store.find(["pump"]),
                store.put([Device("pump")]),
                store.remove(["pump"]),
                store.lease("pump", "holder", 1, 60),
            ):
                with pytest.raises(StoreUnavailable, match="is a replica"):
                    await asked
            with pytest.raises(StoreUnavailable, match="is a replica"):
                async with followed(store):
                    raise AssertionError

    with replicated() as (_, replica):
        run(lambda: test(replica))


def test_a_master_that_becomes_a_replica_is_lost_at_once(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store, followed(store) as follow:
            assert await store.find(["pump"]) == PUMP
            alone.do("REPLICAOF", "127.0.0.1", "1")
            try:
                with pytest.raises(StoreUnavailable, match="is a replica"):
                    await store.find(["pump"])
                assert "is a replica" in str(await follow.lost())
            finally:
                alone.do("REPLICAOF", "NO", "ONE")

    run(test)


def test_a_failover_by_sentinels_is_followed_to_the_new_master() -> None:
    """Also when the old one comes back, and does not know yet."""

    async def test(master: Server, replica: Server, sentinels: list[Server]) -> None:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        async with opened(f"redis+sentinel://{hosts}/main", 1.0) as store:
            await store.put([Device("pump")])
            async with followed(store) as follow:
                wait_until(lambda: replica.do("EXISTS", key("pump")) == 1)
                master.signal(signal.SIGSTOP)
                await follow.lost()
                fail_over(sentinels, master)
                # A sentinel may be lost as well.
                sentinels[0].kill()
                master.signal(signal.SIGCONT)
            async with followed(store) as follow:
                replica.do("HSET", key("pump"), "state", "denied")
                await follow.told.told_of("pump")
                assert (await store.find(["pump"]))["pump"].state == "denied"

    with replicated() as (master, replica), watched(master) as sentinels:
        run(lambda: test(master, replica, sentinels))


def test_a_master_that_sentinels_have_replaced_is_left_though_it_does_not_know(
    alone: Server,
) -> None:
    async def test(new: Server, old: Server, sentinels: list[Server]) -> None:
        (sentinel,) = sentinels
        url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
        async with opened(url) as store, followed(store) as follow:
            sentinel.do("SENTINEL REMOVE", "main")
            sentinel.do("SENTINEL MONITOR", "main", "127.0.0.1", new.port, 1)
            await follow.told.told("following")
            new.do("HSET", key("pump"), "state", "denied")
            await follow.told.told_of("pump")
            # The old one answers as before, and is a master by its own account.
            assert old.do("ROLE") is not None

    with (
        server(port=free_port()) as new,
        server(port=free_port()) as old,
        watched(old, 1) as sentinels,
    ):
        run(lambda: test(new, old, sentinels))


def test_sentinels_that_do_not_know_the_service_say_so(alone: Server) -> None:
    async def test(sentinel: Server) -> None:
        async with opened(f"redis+sentinel://127.0.0.1:{sentinel.port}/mian") as store:
            with pytest.raises(StoreError, match="know no service 'mian'"):
                await store.find(["pump"])
        async with opened(f"redis://127.0.0.1:{sentinel.port}") as store:
            with pytest.raises(StoreError, match="is a sentinel"):
                await store.find(["pump"])

    with server(port=free_port()) as master, watched(master, 1) as (sentinel,):
        run(lambda: test(sentinel))


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a server that takes connections, and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        yield port


def test_a_sentinel_that_says_nothing_keeps_nobody_waiting_too_long(mute: int) -> None:
    async def test(master: Server, sentinel: Server) -> None:
        url = f"redis+sentinel://127.0.0.1:{mute},127.0.0.1:{sentinel.port}/main"
        async with opened(url, 1.0) as store, followed(store) as follow:
            master.do("HSET", key("pump"), "state", "active")
            await follow.told.told_of("pump")
            assert await store.find(["pump"]) == PUMP
            # It alone may know that another Redis takes over.
            with pytest.raises(WriteUnconfirmed, match="most sentinels do not answer"):
                await store.put([Device("pump")])

    with server(port=free_port()) as master, watched(master, 1) as (sentinel,):
        run(lambda: test(master, sentinel))


def test_a_node_of_a_cluster_that_says_nothing_keeps_nobody_waiting_too_long(mute: int) -> None:
    async def test(node: Server) -> None:
        url = f"redis+cluster://127.0.0.1:{mute},127.0.0.1:{node.port}"
        async with opened(url, 1.0) as store, followed(store) as follow:
            await store.put([Device("pump")])
            await follow.told.told_of("pump")
            assert await store.find(["pump"]) == PUMP

    with cluster(1) as (node,):
        run(lambda: test(node))


def test_a_server_is_no_sentinel_and_no_cluster_and_a_cluster_is_no_server() -> None:
    async def test(one: Server, node: Server) -> None:
        for url, why in (
            (f"redis+sentinel://127.0.0.1:{one.port}/main", "is a master"),
            (f"redis+cluster://127.0.0.1:{one.port}", r"no cluster: its URL begins with redis://"),
            (node.url, r"begins with redis\+cluster://"),
        ):
            async with opened(url) as store:
                with pytest.raises(StoreError, match=why):
                    await store.find([f"device {number}" for number in range(20)])

    with server(port=free_port()) as one, cluster() as (node, *_):
        run(lambda: test(one, node))


def test_a_failover_in_a_cluster_is_followed_to_the_new_master() -> None:
    async def test(nodes: list[Server]) -> None:
        first, second, third, replica = nodes
        names = [f"device {number}" for number in range(50)]
        devices = {name: Device(name) for name in names}
        url = f"redis+cluster://127.0.0.1:{first.port},127.0.0.1:{second.port}"
        async with opened(url, 1.0) as store:
            await store.put(devices.values())
            async with followed(store) as follow:
                wait_until(lambda: replica.do("DBSIZE") == first.do("DBSIZE"))
                first.kill()
                await follow.lost()
                with pytest.raises(StoreUnavailable):
                    await store.find(names)
                for node in (second, third):
                    wait_until(lambda: replica.port in masters(node) and is_up(node))  # noqa: B023
            async with followed(store) as follow:
                assert await store.find(names) == devices
                replica.do("FLUSHALL")
                await follow.told.told("any")

    with cluster(replicas=1) as nodes:
        run(lambda: test(nodes))


def test_a_cluster_that_lacks_a_master_is_neither_asked_nor_followed() -> None:
    async def test(nodes: list[Server]) -> None:
        url = f"redis+cluster://127.0.0.1:{nodes[0].port}"
        async with opened(url) as store, followed(store) as follow:
            nodes[1].kill()
            await follow.lost()
            wait_until(lambda: not is_up(nodes[0]))
            with pytest.raises(StoreUnavailable, match=r"is down|refuses connections"):
                await store.find([f"device {number}" for number in range(20)])
            with pytest.raises(StoreUnavailable, match="is down"):
                async with followed(store):
                    raise AssertionError
            nodes[1].start()
            wait_until(lambda: all(map(is_up, nodes)))
            async with followed(store):
                assert await store.find(["pump"]) == {}

    with cluster() as nodes:
        run(lambda: test(nodes))


def test_a_full_server_takes_no_writes_and_still_answers(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            alone.do("CONFIG SET", "maxmemory", 1)
            try:
                with pytest.raises(StoreUnavailable, match="is out of memory"):
                    await store.put([Device("new")])
                assert await store.find(["pump"]) == PUMP
            finally:
                alone.do("CONFIG SET", "maxmemory", 0)

    run(test)


def test_a_server_that_cannot_save_takes_no_writes_and_says_why(alone: Server) -> None:
    async def test() -> None:
        async with opened(alone.url) as store:
            with pytest.raises(StoreUnavailable, match="too few replicas"):
                await store.put([Device("new")])
            assert await store.find(["pump"]) == PUMP

    alone.do("CONFIG SET", "min-replicas-to-write", 1)
    try:
        run(test)
    finally:
        alone.do("CONFIG SET", "min-replicas-to-write", 0)
