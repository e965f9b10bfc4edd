"""
Drills with real Redis servers: down, stopped, cut off, read-only, failed over, locked.
"""

from __future__ import annotations

import shlex
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from mtlsgate.admission.devices import Device
from mtlsgate.registry.store import StoreError, StoreUnavailable
from mtlsgate.testing import Authority
from tests.kits.docs import DOCS
from tests.kits.programs import free_port
from tests.kits.redis import (
    PREFIX,
    Server,
    cluster,
    followed,
    is_up,
    key,
    line_to,
    masters,
    opened,
    replicated,
    run,
    server,
    wait_until,
    watched,
)

pytestmark = pytest.mark.slow

PUMP = {"pump": Device("pump")}
#: In seconds: the time limit of drills in which something does not answer.
SHORT = 0.3


@pytest.fixture(scope="module")
def alone() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture(autouse=True)
def _filled(alone: Server) -> None:
    alone.do("FLUSHALL")
    alone.do("ACL DELUSER", "gate", "clerk")
    alone.do("HSET", key("pump"), "state", "active")


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
                wait_until(lambda: replica.says("replication", "'role': 'master'"))
                wait_until(lambda: all(_names(sentinel, replica) for sentinel in sentinels))
                # A sentinel may be lost as well.
                sentinels[0].kill()
                master.signal(signal.SIGCONT)
            async with followed(store) as follow:
                replica.do("HSET", key("pump"), "state", "denied")
                await follow.told.told_of("pump")
                assert (await store.find(["pump"]))["pump"].state == "denied"

    with replicated() as (master, replica), watched(master) as sentinels:
        run(lambda: test(master, replica, sentinels))


def _names(sentinel: Server, master: Server) -> bool:
    return str(master.port) in str(sentinel.do("SENTINEL GET-MASTER-ADDR-BY-NAME", "main"))


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
    async def test(sentinel: Server) -> None:
        url = f"redis+sentinel://127.0.0.1:{mute},127.0.0.1:{sentinel.port}/main"
        async with opened(url, 1.0) as store, followed(store) as follow:
            await store.put([Device("pump")])
            await follow.told.told_of("pump")
            assert await store.find(["pump"]) == PUMP

    with server(port=free_port()) as master, watched(master, 1) as (sentinel,):
        run(lambda: test(sentinel))


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


def test_a_password_that_is_wrong_or_missing_is_told_and_never_shown(alone: Server) -> None:
    async def test() -> None:
        alone.do("ACL SETUSER", "gate", "on", ">hush1", "~*", "+@all")
        url = f"unix://{{}}@{alone.socket}"
        async with opened(url.format("gate:hush2")) as store:
            with pytest.raises(StoreError, match="refuses the user or password") as refused:
                await store.find(["pump"])
            assert not isinstance(refused.value, StoreUnavailable)
            assert "hush" not in str(refused.value)
        async with opened(url.format("gate"), password="hush1") as store, followed(store):
            assert await store.find(["pump"]) == PUMP
            # Connections outlive a change of the password; new ones need the new one.
            alone.do("ACL SETUSER", "gate", "resetpass", ">hush3")
            assert await store.find(["pump"]) == PUMP
            alone.do("CLIENT KILL", "TYPE", "normal")
            with pytest.raises(StoreError, match="refuses the user or password"):
                await store.find(["pump"])
        async with opened(url.format("gate:hush3")) as store:
            assert await store.find(["pump"]) == PUMP

    run(test)


def test_a_server_that_needs_a_password_says_so() -> None:
    async def test(locked: Server) -> None:
        async with opened(locked.url) as store:
            with pytest.raises(StoreError, match="needs a password"):
                await store.find(["pump"])

    with server("--requirepass", "hush") as locked:
        run(lambda: test(locked))


def rights_on_the_page() -> list[list[str]]:
    """:returns: the rules of the users in docs/registry-redis.md, for our prefix."""
    page = (DOCS / "registry-redis.md").read_text().replace("mtlsgate:devices", PREFIX)
    return [
        shlex.split(line.partition("ACL SETUSER ")[2])
        for line in page.splitlines()
        if line.startswith("$ redis-cli") and "ACL SETUSER" in line
    ]


def test_the_rights_on_the_page_are_enough_and_no_more(alone: Server) -> None:
    gate_alone, gate_with_leases, clerk_alone = rights_on_the_page()

    async def test() -> None:
        alone.do("ACL SETUSER", *gate_alone)
        alone.do("ACL SETUSER", *clerk_alone)
        async with (
            opened(f"unix://gate:secret1@{alone.socket}?db=1") as gate,
            opened(f"unix://clerk:secret2@{alone.socket}?db=1") as clerk,
            followed(gate) as follow,
        ):
            await clerk.put([Device("pump")])
            await follow.told.told_of("pump")
            assert await gate.find(["pump"]) == PUMP
            assert await clerk.count() == 1
            assert [device async for device in clerk.devices()] == [*PUMP.values()]
            assert await clerk.remove(["pump"]) == 1
            with pytest.raises(StoreError, match=r"does not permit it: .*'del'"):
                await gate.remove(["pump"])
            with pytest.raises(StoreError, match=r"does not permit it: .*'evalsha'"):
                await gate.lease("limit", "holder", 1, 60)
            alone.do("ACL SETUSER", *gate_with_leases)
            assert await gate.lease("limit", "holder", 1, 60)
            await gate.release("limit", "holder")
            with pytest.raises(StoreError, match="does not permit it"):
                await gate.put([Device("pump")])
            assert await gate.find(["pump"]) == {}

    run(test)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a server in TLS, of its client, and of a stranger."""
    directory = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority.create(), Authority.create("Stranger")
    for name, issued in {
        "server": authority.issue(
            None, ip_addresses=["127.0.0.1"], usages=["server_auth", "client_auth"]
        ),
        "client": authority.issue("gate"),
        "elsewhere": authority.issue(None, dns_names=["elsewhere"], usages=["server_auth"]),
    }.items():
        (directory / f"{name}.crt").write_bytes(issued.pem)
        (directory / f"{name}.key").write_bytes(issued.key_pem)
    (directory / "ca.crt").write_bytes(authority.pem)
    (directory / "stranger.crt").write_bytes(stranger.pem)
    return directory


def in_tls(files: Path, certificate: str, port: int) -> list[str]:
    """:returns: the options of a server in TLS."""
    return [
        *("--tls-port", str(port), "--tls-ca-cert-file", str(files / "ca.crt")),
        *("--tls-cert-file", str(files / f"{certificate}.crt")),
        *("--tls-key-file", str(files / f"{certificate}.key")),
    ]


def test_tls_is_spoken_with_both_certificates_verified(files: Path) -> None:
    port = free_port()
    url = f"rediss://127.0.0.1:{port}"
    ca, stranger = str(files / "ca.crt"), str(files / "stranger.crt")
    ours = {
        "certificate_file": str(files / "client.crt"),
        "key_file": str(files / "client.key"),
    }

    async def test() -> None:
        async with opened(url, files={"ca_file": ca, **ours}) as store, followed(store) as follow:
            await store.put([Device("pump")])
            await follow.told.told_of("pump")
            assert await store.find(["pump"]) == PUMP
        for options in ({"ca_file": stranger, **ours}, ours):
            async with opened(url, files=options) as store:
                with pytest.raises(StoreError, match="certificate that is not trusted") as refused:
                    await store.find(["pump"])
                assert not isinstance(refused.value, StoreUnavailable)
        # In TLS 1.3 the refusal comes after the handshake.
        async with opened(url, ca_file=ca) as store:
            with pytest.raises(StoreError, match=r"in TLS: .*certificate required|closed"):
                await store.find(["pump"])
        async with opened(url.replace("rediss", "redis")) as store:
            with pytest.raises(StoreError, match=r"closed the connection|protocol"):
                await store.find(["pump"])

    with server(*in_tls(files, "server", port)):
        run(test)


def test_a_server_with_anothers_name_is_not_trusted(files: Path) -> None:
    port = free_port()

    async def test() -> None:
        url = f"rediss://127.0.0.1:{port}"
        async with opened(url, ca_file=str(files / "ca.crt")) as store:
            with pytest.raises(StoreError, match="not trusted: IP address mismatch"):
                await store.find(["pump"])

    with server(*in_tls(files, "elsewhere", port), "--tls-auth-clients", "no"):
        run(test)
