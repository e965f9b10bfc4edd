"""
Drills with a registry in a real Redis, and a gate in a process of its own: who is denied is out,
and who is listed stays, whatever happens to the Redis.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kits.drills import Site, echoes
from tests.kits.following import wait_until
from tests.kits.programs import free_port, gate
from tests.kits.redis import Server, cluster, fail_over, owner_of, replicated, server, watched
from tests.kits.registry_drills import (
    SHORT,
    VERSIONS,
    Door,
    add_registry,
    door,
    ends,
    identity_of_client,
)

pytestmark = pytest.mark.slow


@contextmanager
def listed(site: Site, url: str, redis: Server, **block: str) -> Iterator[Door]:
    """Run a gate whose only client is listed, until the block ends; it follows the Redis."""
    allow(site, redis)
    with door(site, url, **block) as one:
        yield one


def key(site: Site) -> str:
    """:returns: where the Redis has the client."""
    return f"mtlsgate:devices:d:{identity_of_client(site)}"


def allow(site: Site, redis: Server) -> None:
    """List the client."""
    redis.do("HSET", key(site), "state", "active")


def deny(site: Site, redis: Server) -> None:
    """Deny the client."""
    redis.do("HSET", key(site), "state", "denied")


@pytest.fixture
def redis() -> Iterator[Server]:
    with server(port=free_port()) as running:
        yield running


def test_a_denial_ends_live_connections_and_an_allowance_lets_in_again(
    site: Site, redis: Server
) -> None:
    with listed(site, redis.url, redis) as one:
        live = [one.connect(version) for version in VERSIONS]
        deny(site, redis)
        for connection in live:
            ends(connection)
            one.gate.read_until("registry_denied")
        one.refuses("registry_denied")
        allow(site, redis)
        one.connect().close()
        redis.do("DEL", key(site))
        one.refuses("not_registered")


def test_a_reload_adds_a_registry(site: Site, redis: Server) -> None:
    """Whatever event loop the gate chose when it knew of none."""
    # In a sandbox it may connect to no port that it did not name when it started.
    site.change("settings {", "settings {\n  sandbox = false")
    with gate(site.config) as running:
        live = site.connect(running.port("demo"))
        assert echoes(live)
        add_registry(site, redis.url)
        running.process.send_signal(signal.SIGHUP)
        one = Door(site, running)
        one.follows()
        ends(live)
        one.refuses("not_registered")
        allow(site, redis)
        one.connect().close()


def test_an_emptied_store_ends_live_connections(site: Site, redis: Server) -> None:
    with listed(site, redis.url, redis) as one:
        live = one.connect()
        redis.do("FLUSHALL")
        ends(live)
        one.refuses("not_registered")


def test_a_restart_with_the_devices_ends_nothing_and_without_them_all(
    site: Site, redis: Server
) -> None:
    with listed(site, redis.url, redis) as one:
        live = one.connect()
        redis.do("SAVE")
        redis.restart()
        one.follows()
        assert echoes(live)
        one.connect().close()
        (redis.home / "dump.rdb").unlink()
        redis.restart()
        ends(live)
        one.refuses("not_registered")


def test_while_it_hangs_nobody_new_comes_in_and_who_was_denied_is_out_as_soon_as_it_goes_on(
    site: Site, redis: Server
) -> None:
    with listed(site, redis.url, redis, timeout=SHORT) as one:
        live = one.connect()
        redis.signal(signal.SIGSTOP)
        one.gate.read_until("cannot be followed")
        one.refuses("registry_unavailable")
        assert echoes(live)
        redis.signal(signal.SIGCONT)
        one.follows()
        assert echoes(live)
        deny(site, redis)
        ends(live)


def test_what_was_denied_while_the_gate_was_cut_off_is_out_once_it_is_back(
    site: Site, redis: Server
) -> None:
    with listed(site, redis.url, redis) as one:
        live = one.connect()
        port = redis.port
        redis.do("CONFIG SET", "port", 0)
        redis.do("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
        one.gate.read_until("cannot be followed")
        deny(site, redis)
        one.refuses("registry_unavailable")
        assert echoes(live)
        redis.do("CONFIG SET", "port", port)
        ends(live)
        one.refuses("registry_denied")


def test_an_outage_that_lasts_ends_live_connections(site: Site, redis: Server) -> None:
    with listed(site, redis.url, redis, timeout=SHORT, max_staleness="2s") as one:
        live = one.connect()
        redis.kill()
        ends(live)
        one.refuses("registry_unavailable")
        redis.start()
        allow(site, redis)
        one.follows()
        one.connect().close()


def test_with_last_known_a_known_client_comes_in_during_an_outage(
    site: Site, redis: Server
) -> None:
    with listed(site, redis.url, redis, on_outage="last_known") as one:
        one.connect().close()
        redis.kill()
        one.gate.read_until("cannot be followed")
        one.connect().close()


def test_a_denial_in_a_cluster_ends_live_connections(site: Site) -> None:
    with cluster() as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        owner = owner_of(nodes, key(site))
        with listed(site, f"redis+cluster://{hosts}", owner) as one:
            live = one.connect()
            deny(site, owner)
            ends(live)
            one.refuses("registry_denied")


def test_a_place_at_one_gate_counts_at_the_other_until_it_is_given_back_or_its_gate_is_dead(
    site: Site, redis: Server
) -> None:
    site.change(
        'protocol "echo" {}',
        'protocol "echo" {}\n  max_connections_per_identity = 1\n  count_in = "devices"',
    )
    with listed(site, redis.url, redis) as one, gate(site.config) as running:
        other = Door(site, running)
        other.follows()
        places = f"mtlsgate:devices:l:{identity_of_client(site)}@demo"
        with one.connect():
            other.refuses("too_many_of_identity")
        wait_until(lambda: redis.do("EXISTS", places) == 0)
        with other.connect():
            one.refuses("too_many_of_identity")
            other.gate.process.kill()
        # As if its time were over.
        holder = redis.do("ZRANGE", places, 0, -1)
        assert isinstance(holder, list)
        redis.do("ZADD", places, 1, *holder)
        one.connect().close()


def test_a_denial_after_a_failover_by_sentinels_ends_live_connections(site: Site) -> None:
    with replicated() as (master, replica), watched(master) as sentinels:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        with listed(site, f"redis+sentinel://{hosts}/main", master) as one:
            wait_until(lambda: replica.do("EXISTS", key(site)) == 1)
            live = one.connect()
            master.kill()
            fail_over(sentinels, master)
            one.follows()
            assert echoes(live)
            one.connect().close()
            deny(site, replica)
            ends(live)
            one.refuses("registry_denied")
