"""
Drills with a registry in a real Redis, and a gate in a process of its own: who is denied is out,
and who is listed stays, whatever happens to the Redis.
"""

from __future__ import annotations

import signal
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from attrs import frozen

from mtlsgate.certificates.parsing import parse_certificates
from tests.kits.drills import Site, echoes
from tests.kits.programs import RunningGate, free_port, gate
from tests.kits.redis import Server, replicated, server, wait_until, watched

pytestmark = pytest.mark.slow

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@frozen
class Door:
    """
    A gate that asks a registry, and its client.

    :ivar site: where its files are.
    :ivar gate: the gate.
    :ivar key: of the client, in the registry's Redis.
    """

    site: Site
    gate: RunningGate
    key: str

    def connect(self, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        """:returns: a connection of the client that is handed over."""
        connection = self.site.connect(self.gate.port("demo"), version)
        assert echoes(connection)
        return connection

    def refuses(self, reason: str) -> None:
        """The client is refused, for a reason, whatever TLS it speaks."""
        for version in VERSIONS:
            with (
                suppress(OSError),
                self.site.connect(self.gate.port("demo"), version) as connection,
            ):
                assert not echoes(connection)
            assert f": {reason}: " in self.gate.read_until(": rejected ")

    def allow(self, redis: Server) -> None:
        """List the client."""
        redis.do("HSET", self.key, "state", "active")

    def deny(self, redis: Server) -> None:
        """Deny the client."""
        redis.do("HSET", self.key, "state", "denied")


@contextmanager
def door(site: Site, url: str, redis: Server, **block: str) -> Iterator[Door]:
    """Run a gate whose only client is listed, until the block ends; it follows the Redis."""
    attributes = {"url": url, "timeout": "300ms", **block}
    lines = "".join(f'  {name} = "{value}"\n' for name, value in attributes.items())
    site.change('server "demo" {', f'registry "devices" {{\n{lines}}}\n\nserver "demo" {{')
    site.change('leaf_certificate_file = "admitted.crt"', 'registry = "devices"')
    (leaf,) = parse_certificates((site.path / "client.crt").read_bytes())
    key = f"mtlsgate:devices:d:{leaf.identity.hex()}"
    redis.do("HSET", key, "state", "active")
    with gate(site.config) as running:
        running.read_until("registry devices: following ")
        yield Door(site, running, key)


def ends(connection: ssl.SSLSocket) -> None:
    """Wait until the gate ends a connection."""
    with connection:
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            return


@pytest.fixture
def redis() -> Iterator[Server]:
    with server(port=free_port()) as running:
        yield running


def test_a_denial_ends_live_connections_and_an_allowance_lets_in_again(
    site: Site, redis: Server
) -> None:
    with door(site, redis.url, redis) as one:
        live = [one.connect(version) for version in VERSIONS]
        one.deny(redis)
        for connection in live:
            ends(connection)
            one.gate.read_until("registry_denied")
        one.refuses("registry_denied")
        one.allow(redis)
        one.connect().close()
        redis.do("DEL", one.key)
        one.refuses("not_registered")


def test_an_emptied_store_ends_live_connections(site: Site, redis: Server) -> None:
    with door(site, redis.url, redis) as one:
        live = one.connect()
        redis.do("FLUSHALL")
        ends(live)
        one.refuses("not_registered")


def test_a_restart_with_the_devices_ends_nothing_and_without_them_all(
    site: Site, redis: Server
) -> None:
    with door(site, redis.url, redis) as one:
        live = one.connect()
        redis.do("SAVE")
        redis.restart()
        one.gate.read_until("registry devices: following ")
        assert echoes(live)
        one.connect().close()
        (redis.home / "dump.rdb").unlink()
        redis.restart()
        ends(live)
        one.refuses("not_registered")


def test_while_it_hangs_nobody_new_comes_in_and_who_was_denied_is_out_as_soon_as_it_goes_on(
    site: Site, redis: Server
) -> None:
    with door(site, redis.url, redis) as one:
        live = one.connect()
        redis.signal(signal.SIGSTOP)
        one.gate.read_until("cannot be followed")
        one.refuses("registry_unavailable")
        assert echoes(live)
        redis.signal(signal.SIGCONT)
        one.gate.read_until("registry devices: following ")
        assert echoes(live)
        one.deny(redis)
        ends(live)


def test_what_was_denied_while_the_gate_was_cut_off_is_out_once_it_is_back(
    site: Site, redis: Server
) -> None:
    with door(site, redis.url, redis) as one:
        live = one.connect()
        port = redis.port
        redis.do("CONFIG SET", "port", 0)
        redis.do("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
        one.gate.read_until("cannot be followed")
        one.deny(redis)
        one.refuses("registry_unavailable")
        assert echoes(live)
        redis.do("CONFIG SET", "port", port)
        ends(live)
        one.refuses("registry_denied")


def test_an_outage_that_lasts_ends_live_connections(site: Site, redis: Server) -> None:
    with door(site, redis.url, redis, max_staleness="1s") as one:
        live = one.connect()
        redis.kill()
        ends(live)
        one.refuses("registry_unavailable")
        redis.start()
        one.allow(redis)
        one.gate.read_until("registry devices: following ")
        one.connect().close()


def test_with_last_known_a_known_client_comes_in_during_an_outage(
    site: Site, redis: Server
) -> None:
    with door(site, redis.url, redis, on_outage="last_known") as one:
        one.connect().close()
        redis.kill()
        one.gate.read_until("cannot be followed")
        one.connect().close()


def test_a_denial_after_a_failover_by_sentinels_ends_live_connections(site: Site) -> None:
    with replicated() as (master, replica), watched(master) as sentinels:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
        with door(site, f"redis+sentinel://{hosts}/main", master) as one:
            wait_until(lambda: replica.do("EXISTS", one.key) == 1)
            live = one.connect()
            master.kill()
            wait_until(lambda: replica.says("replication", "'role': 'master'"))
            one.gate.read_until("registry devices: following ")
            assert echoes(live)
            one.connect().close()
            one.deny(replica)
            ends(live)
            one.refuses("registry_denied")
