"""
What a registry has written to real Redis servers is there after a failover, or it was said
that it might not be.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

import pytest

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.registry.store import Store, StoreUnavailable, WriteUnconfirmed
from tests.kits.following import PATIENCE, run, wait_until
from tests.kits.redis import Server, cluster, fail_over, key, masters, opened, replicated, watched

pytestmark = pytest.mark.slow

ACTIVE, DENIED = Device("pump"), Device("pump", DeviceState.DENIED)
#: In seconds: the time limit where something does not answer.
SHORT = 1.0


def sentinels_url(sentinels: list[Server]) -> str:
    """:returns: of the registry."""
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    return f"redis+sentinel://{hosts}/main"


def test_what_no_replica_confirms_is_said_to_be_in_danger_until_one_does() -> None:
    """Also if it is written once more, and changes nothing then."""

    async def test(master: Server, replica: Server) -> None:
        async with opened(master.url, SHORT) as store:
            await store.put([ACTIVE])
            assert replica.do("HGET", key("pump"), "state") == b"active"
            replica.signal(signal.SIGSTOP)
            try:
                for written in (
                    lambda: store.put([DENIED]),
                    lambda: store.put([DENIED]),
                    lambda: store.remove(["other"]),
                ):
                    with pytest.raises(WriteUnconfirmed, match=r"no replica has had it within"):
                        await written()
            finally:
                replica.signal(signal.SIGCONT)
            await store.put([DENIED])
            assert replica.do("HGET", key("pump"), "state") == b"denied"
            assert await store.remove(["pump"]) == 1
            assert replica.do("EXISTS", key("pump")) == 0

    with replicated() as (master, replica):
        run(lambda: test(master, replica))


def test_a_replica_that_hangs_stops_no_writes_if_another_one_has_them() -> None:
    async def test(master: Server, slow: Server, replica: Server) -> None:
        async with opened(master.url, SHORT) as store:
            slow.signal(signal.SIGSTOP)
            try:
                await store.put([DENIED])
                assert replica.do("HGET", key("pump"), "state") == b"denied"
            finally:
                slow.signal(signal.SIGCONT)

    with replicated(2) as (master, slow, replica):
        run(lambda: test(master, slow, replica))


async def written_during(store: Store, failover: Callable[[], None]) -> list[str]:
    """
    Write devices one after the other until something has happened, and one more.

    :returns: the keys of those of which the store said that they are written.
    """
    happening = asyncio.ensure_future(asyncio.to_thread(failover))
    acknowledged: list[str] = []
    is_enough, number = False, 0
    async with asyncio.timeout(2 * PATIENCE):
        while not is_enough:
            is_last = happening.done()
            number += 1
            try:
                await store.put([Device(f"device {number}")])
            except StoreUnavailable:
                continue
            acknowledged.append(f"device {number}")
            is_enough = is_last
    await happening
    return acknowledged


def test_a_failover_by_sentinels_loses_nothing_that_was_acknowledged() -> None:
    """The old master lives meanwhile, and takes writes that the other replica has, too."""

    async def test(master: Server, sentinels: list[Server]) -> None:
        async with opened(sentinels_url(sentinels), 1.0) as store:
            await store.put([ACTIVE])
            acknowledged = await written_during(store, lambda: fail_over(sentinels, master))
            assert (await store.find(acknowledged)).keys() == {*acknowledged}

    with replicated(2) as (master, *_), watched(master) as sentinels:
        run(lambda: test(master, sentinels))


def test_a_failover_in_a_cluster_loses_nothing_that_was_acknowledged() -> None:
    """The old master hears of it a moment later."""

    async def test(nodes: list[Server]) -> None:
        _, replica = nodes
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        async with opened(f"redis+cluster://{hosts}", 1.0) as store:
            await store.put([ACTIVE])

            def failover() -> None:
                replica.do("CLUSTER FAILOVER", "TAKEOVER")
                wait_until(lambda: all(masters(node) == {replica.port} for node in nodes))

            acknowledged = await written_during(store, failover)
            assert (await store.find(acknowledged)).keys() == {*acknowledged}

    with cluster(1, replicas=1) as nodes:
        run(lambda: test(nodes))


def test_what_no_replica_in_a_cluster_confirms_is_said_to_be_in_danger() -> None:
    async def test(nodes: list[Server]) -> None:
        master, replica = nodes
        async with opened(f"redis+cluster://127.0.0.1:{master.port}", SHORT) as store:
            await store.put([ACTIVE])
            replica.signal(signal.SIGSTOP)
            try:
                with pytest.raises(WriteUnconfirmed, match="no replica has had it within"):
                    await store.put([DENIED])
            finally:
                replica.signal(signal.SIGCONT)

    with cluster(1, replicas=1) as nodes:
        run(lambda: test(nodes))
