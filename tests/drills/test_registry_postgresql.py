"""
Drills with a registry in a real PostgreSQL, and a gate in a process of its own: who is denied is
out, and who is listed stays, whatever happens to the PostgreSQL.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mtlsgate.registry.schema import Table, schema_sql
from mtlsgate.testing import Authority
from tests.kits.drills import Site, echoes
from tests.kits.following import wait_until
from tests.kits.postgresql import Server, server, standby
from tests.kits.programs import free_port, gate
from tests.kits.registry_drills import SHORT, VERSIONS, Door, door, ends, identity_of_client

pytestmark = pytest.mark.slow

#: Its name needs no quotes, and is that of the block.
TABLE = "mtlsgate_devices"


@contextmanager
def listed(site: Site, url: str, database: Server, **block: str) -> Iterator[Door]:
    """Run a gate whose only client is listed, until the block ends; it follows the table."""
    database.do(schema_sql(Table(TABLE)), f"TRUNCATE {TABLE}")
    allow(site, database)
    with door(site, url, **block) as one:
        yield one


def allow(site: Site, database: Server) -> None:
    """List the client."""
    database.do(
        f"INSERT INTO {TABLE} (key) VALUES ('{identity_of_client(site)}')"
        " ON CONFLICT (key) DO UPDATE SET state = 'active'"
    )


def deny(site: Site, database: Server) -> None:
    """Deny the client."""
    database.do(f"UPDATE {TABLE} SET state = 'denied' WHERE key = '{identity_of_client(site)}'")


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with server(port=free_port()) as running:
        yield running


@pytest.fixture
def database(shared: Server) -> Iterator[Server]:
    """A server that is up again when the test ends."""
    yield shared
    shared.thaw()
    if not shared.is_running:
        shared.start()


def by_port(database: Server) -> str:
    """:returns: where a server is, by its port: the sandbox must allow it."""
    return f"postgresql://gate@127.0.0.1:{database.port}/postgres"


def test_a_denial_ends_live_connections_and_an_allowance_lets_in_again(
    site: Site, database: Server
) -> None:
    with listed(site, by_port(database), database) as one:
        live = [one.connect(version) for version in VERSIONS]
        deny(site, database)
        for connection in live:
            ends(connection)
            one.gate.read_until("registry_denied")
        one.refuses("registry_denied")
        allow(site, database)
        live.append(one.connect())
        database.do(f"DELETE FROM {TABLE}")
        ends(live[-1])
        one.refuses("not_registered")
        allow(site, database)
        live.append(one.connect())
        database.do(f"TRUNCATE {TABLE}")
        ends(live[-1])
        one.refuses("not_registered")


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_a_restart_ends_nothing_and_what_was_denied_meanwhile_is_out_afterwards(
    site: Site, database: Server, how: signal.Signals
) -> None:
    with listed(site, by_port(database), database) as one:
        live = one.connect()
        database.stop(how)
        one.gate.read_until("cannot be followed")
        one.refuses("registry_unavailable")
        assert echoes(live)
        database.start()
        one.follows()
        assert echoes(live)
        one.connect().close()
        database.stop(how)
        one.gate.read_until("cannot be followed")
        # Somebody who is quicker than the gate.
        port, database.port = database.port, 0
        database.start()
        deny(site, database)
        database.stop()
        database.port = port
        database.start()
        ends(live)
        one.refuses("registry_denied")


def test_while_it_hangs_nobody_new_comes_in_and_who_is_denied_afterwards_is_out(
    site: Site, database: Server
) -> None:
    with listed(site, by_port(database), database, timeout=SHORT) as one:
        live = one.connect()
        database.freeze()
        one.gate.read_until("cannot be followed")
        one.refuses("registry_unavailable")
        assert echoes(live)
        database.thaw()
        one.follows()
        assert echoes(live)
        deny(site, database)
        ends(live)
        one.refuses("registry_denied")


def test_an_outage_that_lasts_ends_live_connections(site: Site, database: Server) -> None:
    with listed(site, by_port(database), database, timeout=SHORT, max_staleness="2s") as one:
        live = one.connect()
        database.stop()
        ends(live)
        one.refuses("registry_unavailable")
        database.start()
        one.follows()
        one.connect().close()


def test_without_its_triggers_the_table_is_not_followed_and_the_log_says_what_to_do(
    site: Site, database: Server
) -> None:
    with listed(site, by_port(database), database) as one:
        database.do(f"ALTER TABLE {TABLE} DISABLE TRIGGER mtlsgate_update")
        assert "mtlsgate registry schema --apply" in one.gate.read_until("cannot be followed")
        database.do(schema_sql(Table(TABLE)))
        one.follows()
        one.connect().close()


def test_a_place_at_one_gate_counts_at_the_other_until_it_is_given_back_or_its_gate_is_dead(
    site: Site, database: Server
) -> None:
    site.change(
        'protocol "echo" {}',
        'protocol "echo" {}\n  max_connections_per_identity = 1\n  count_in = "devices"',
    )
    with listed(site, by_port(database), database) as one, gate(site.config) as running:
        other = Door(site, running)
        other.follows()
        with one.connect():
            other.refuses("too_many_of_identity")
        wait_until(lambda: database.do(f"SELECT count(*) FROM {TABLE}_leases") == [(0,)])
        with other.connect():
            one.refuses("too_many_of_identity")
            other.gate.process.kill()
        # As if its time were over.
        database.do(f"UPDATE {TABLE}_leases SET until = now()")
        one.connect().close()


def test_in_tls_with_certificates_it_is_followed_again_and_again(site: Site) -> None:
    """Also from within the sandbox, in which the gate reads few files."""
    authority = Authority.create("Databases")
    client = authority.issue("gate")
    (site.path / "database-ca.crt").write_bytes(authority.pem)
    (site.path / "gate.crt").write_bytes(client.pem)
    (site.path / "gate.key").write_bytes(client.key_pem)
    (site.path / "gate.key").chmod(0o600)
    files = {
        "ca_file": "database-ca.crt",
        "certificate_file": "gate.crt",
        "private_key_file": "gate.key",
    }
    with server(port=free_port()) as database:
        database.speak_tls(authority)
        url = f"postgresql://gate@localhost:{database.port}/postgres"
        with listed(site, url, database, **files) as one:
            live = one.connect()
            database.restart()
            one.follows()
            assert echoes(live)
            deny(site, database)
            ends(live)
            one.refuses("registry_denied")


def test_a_denial_after_a_failover_ends_live_connections(site: Site) -> None:
    with server("wal_level=replica", "max_wal_senders=4", port=free_port()) as first:
        first.do(schema_sql(Table(TABLE)))
        with standby(first) as second:
            hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
            with listed(site, f"postgresql://gate@{hosts}/postgres", first) as one:
                wait_until(lambda: second.do(f"SELECT count(*) FROM {TABLE}") == [(1,)])
                live = one.connect()
                first.stop(signal.SIGQUIT)
                second.promote()
                one.follows()
                assert echoes(live)
                one.connect().close()
                deny(site, second)
                ends(live)
                one.refuses("registry_denied")
