"""
A real PostgreSQL that is away, slow, replaced or changed: what the store says, and that
it goes on by itself.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.registry.schema import Table, schema_sql
from mtlsgate.registry.store import Store, StoreError, StoreUnavailable
from mtlsgate.testing import Authority
from tests.kits.following import Told, followed, line_to, run, wait_until
from tests.kits.postgresql import TABLE, Server, opened, server, standby
from tests.kits.programs import free_port

pytestmark = pytest.mark.slow

#: A time limit that is soon over, in seconds.
SOON = 0.3


def prepare(database: Server) -> Server:
    """Make a table with one device."""
    database.do(schema_sql(Table(TABLE)), f"INSERT INTO {TABLE} (key) VALUES ('pump')")
    return database


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with server("max_connections=20", "superuser_reserved_connections=5") as running:
        yield prepare(running)


@pytest.fixture
def database(shared: Server) -> Iterator[Server]:
    """A server that is as it was when the test ends."""
    yield shared
    shared.thaw()
    shared.do(
        "SET default_transaction_read_only = off",
        "ALTER SYSTEM RESET ALL",
        "SELECT pg_reload_conf()",
    )


async def finds(store: Store) -> bool:
    """:returns: whether the device of the tests is found, and may come in."""
    return (await store.find(["pump"]))["pump"].state is DeviceState.ACTIVE


async def is_unavailable(store: Store) -> str:
    """:returns: why a question has no answer; fails if it has."""
    with pytest.raises(StoreError) as refused:
        await store.find(["pump"])
    assert isinstance(refused.value, StoreUnavailable)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT])
def test_after_a_restart_questions_are_answered_at_once(
    database: Server, how: signal.Signals
) -> None:
    async def test() -> None:
        async with opened(database.url()) as store:
            async with followed(store) as follow:
                assert await finds(store)
                database.stop(how)
                assert isinstance(await follow.lost(), StoreUnavailable)
                await is_unavailable(store)
                database.start()
                assert await finds(store)
                assert await store.lease("client", "gate", 1, 60)
            async with followed(store):
                assert await finds(store)

    run(test)


def test_connections_that_the_server_ends_are_made_anew(database: Server) -> None:
    end_all = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )

    async def test() -> None:
        async with opened(database.url()) as store:
            for _ in range(3):
                async with followed(store) as follow:
                    assert await finds(store)
                    await store.put([Device("other")])
                    database.do(end_all)
                    assert isinstance(await follow.lost(), StoreUnavailable)
                    assert await finds(store)
                    await store.put([Device("other")])

    run(test)


def test_a_server_that_stands_still_is_as_bad_as_one_that_is_down(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url(), SOON) as store, followed(store) as follow:
            assert await finds(store)
            database.freeze()
            questions = [asyncio.ensure_future(is_unavailable(store)) for _ in range(3)]
            assert {f"no answer within {SOON} s", *await asyncio.gather(*questions)}
            assert "no answer" in str(await follow.lost())
            # Nor does it answer a new connection.
            assert "within" in await is_unavailable(store)
            with pytest.raises(StoreUnavailable):
                await store.lease("client", "gate", 1, 60)
            database.thaw()
            assert await finds(store)

    run(test)


def test_a_line_that_forwards_nothing_any_more_is_noticed(database: Server) -> None:
    async def test() -> None:
        async with line_to(database) as line:
            url = f"postgresql://gate@127.0.0.1:{line.port}/postgres"
            async with opened(url, SOON) as store, followed(store) as follow:
                assert await finds(store)
                line.cut()
                assert "no answer from 127.0.0.1" in str(await follow.lost())
                await is_unavailable(store)
                line.mend()
                async with followed(store):
                    assert await finds(store)

    run(test)


def test_what_waits_for_a_lock_is_not_waited_for_and_does_not_pile_up(database: Server) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"

    async def test() -> None:
        async with opened(database.url(), SOON) as store:
            assert await finds(store)
            with psycopg.connect(database.url()) as other:
                other.execute(f"LOCK TABLE {TABLE}".encode())
                for _ in range(4):
                    await is_unavailable(store)
                    # One that the server ends a little later than the client, at most.
                    assert database.do(waiting)[0][0] in (0, 1)
            assert await finds(store)

    run(test)


def test_a_caller_that_leaves_takes_nobody_with_it(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store:
            for turns in range(12):
                leaving = asyncio.ensure_future(store.find(["pump"]))
                lease = asyncio.ensure_future(store.lease("client", "gate", 1, 60))
                staying = asyncio.ensure_future(finds(store))
                for _ in range(turns):
                    await asyncio.sleep(0)
                leaving.cancel()
                lease.cancel()
                assert await staying
                with suppress(asyncio.CancelledError):
                    await leaving
                with suppress(asyncio.CancelledError):
                    await lease
            assert await store.lease("client", "gate", 1, 60)
            await store.release("client", "gate")

    run(test)


def test_it_follows_only_if_questions_are_answered_too(database: Server) -> None:
    database.do("CREATE ROLE single LOGIN CONNECTION LIMIT 1", f"GRANT SELECT ON {TABLE} TO single")

    async def test() -> None:
        async with opened(database.url("single")) as store:
            with pytest.raises(StoreUnavailable, match="too many connections"):
                async with followed(store):
                    pass

    run(test)


def test_following_can_be_left_at_any_time(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store:
            for turns in range(40):
                task = asyncio.ensure_future(store.follow(Told()))
                for _ in range(turns):
                    await asyncio.sleep(0.0005)
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled()
            async with followed(store) as follow:
                database.freeze()
                # Its heartbeat is on its way, or soon.
                follow.task.cancel()
                await asyncio.wait({follow.task})
            joining = asyncio.ensure_future(store.follow(Told()))
            await asyncio.sleep(0.01)
            joining.cancel()
            await asyncio.wait({joining})
            assert joining.cancelled()
        database.thaw()
        await asyncio.to_thread(wait_until, lambda: others(database) == 0)

    run(test)


def others(database: Server) -> object:
    """:returns: how many connections there are besides the one that asks."""
    return database.do(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )[0][0]


def test_it_closes_at_once_whatever_it_does(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store:
            assert await finds(store)
            database.freeze()
            asked = [
                asyncio.ensure_future(one)
                for one in (
                    store.find(["pump"]),
                    store.find(["other"]),
                    store.lease("client", "gate", 1, 60),
                    store.lease("client", "gate", 1, 60),
                    store.put([Device("pump")]),
                )
            ]
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await store.close()
            database.thaw()
            for one in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(one, StoreUnavailable | asyncio.CancelledError)

    run(test)


def test_a_read_only_server_answers_and_writes_nothing(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            database.do(
                "ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()"
            )
            await follow.told.told("alive")
            async with opened(database.url()) as another:
                wait_until(lambda: database.do("SHOW default_transaction_read_only") == [("on",)])
                assert await finds(another)
                for write in (
                    another.put([Device("new")]),
                    another.remove(["pump"]),
                    another.lease("client", "gate", 1, 60),
                ):
                    with pytest.raises(StoreUnavailable, match="read-only"):
                        await write
            assert not follow.task.done()

    run(test)


def test_a_changed_password_and_other_mistakes_are_told_in_one_line(shared: Server) -> None:
    rules = shared.data / "pg_hba.conf"
    before = rules.read_text()
    rules.write_text(f"local all locked scram-sha-256\n{before}")
    shared.do(
        "CREATE ROLE locked LOGIN PASSWORD 'old' IN ROLE gate",
        "CREATE ROLE few LOGIN CONNECTION LIMIT 0",
        "CREATE ROLE stranger LOGIN",
        "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0",
        "SELECT pg_reload_conf()",
    )

    async def problem(url: str, **options: Any) -> StoreError:
        async with opened(url, **options) as store:
            with pytest.raises(StoreError) as refused:
                await store.find(["pump"])
            assert "\n" not in str(refused.value)
            assert "hush" not in str(refused.value)
            return refused.value

    async def test() -> None:
        async with opened(shared.url("locked"), password="old") as store:
            wait_until(lambda: shared.do("SELECT 1") == [(1,)])
            with suppress(StoreUnavailable):
                await finds(store)
            shared.do("ALTER ROLE locked PASSWORD 'new'")
        for url, options, kind, text in (
            (shared.url("locked"), {"password": "hush"}, StoreError, "authentication failed"),
            (shared.url("locked"), {}, StoreError, "no password supplied"),
            (shared.url("nobody"), {}, StoreError, 'role "nobody" does not exist'),
            (
                shared.url().replace("/postgres?", "/elsewhere?"),
                {},
                StoreError,
                '"elsewhere" does not exist',
            ),
            (shared.url().replace("/postgres?", "/latin?"), {}, StoreError, "must be UTF8"),
            (shared.url("few"), {}, StoreUnavailable, "too many connections"),
            (shared.url("stranger"), {}, StoreError, "permission denied"),
            ("postgresql://gate@127.0.0.1:1/x", {}, StoreUnavailable, "refused"),
            ("postgresql://gate@does.not.exist.invalid/x", {}, StoreUnavailable, "no connection"),
            (f"postgresql://gate@/x?host={shared.home}/no", {}, StoreUnavailable, "No such file"),
        ):
            error = await problem(url, **options)
            assert type(error) is kind, (url, error)
            assert text in str(error)

    run(test)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Server, Server]]:
    """A primary and its standby."""
    with server("wal_level=replica", "max_wal_senders=4", "hot_standby=on") as primary:
        prepare(primary)
        with standby(primary) as second:
            yield primary, second


def both(*servers: Server) -> str:
    """:returns: a URL with several servers."""
    hosts = ",".join(str(one.home) for one in servers)
    return f"postgresql://gate@/postgres?host={hosts}"


def test_a_standby_is_followed_after_it_is_promoted_and_the_old_primary_never_again(
    pair: tuple[Server, Server],
) -> None:
    """Also while the old one still believes to be the primary, and can be written to."""
    old, new = pair

    async def test() -> None:
        async with opened(new.url()) as alone:
            assert "is a standby" in await is_unavailable(alone)
            with pytest.raises(StoreUnavailable, match="is a standby"):
                async with followed(alone):
                    pass
        # In either order the primary is found.
        for url in (both(old, new), both(new, old)):
            async with opened(url) as store, followed(store):
                assert await finds(store)
        async with opened(both(old, new)) as store:
            async with followed(store) as follow:
                assert await finds(store)
                await store.lease("client", "gate", 1, 60)
                wait_until(lambda: new.do(f"SELECT count(*) FROM {TABLE}") == [(1,)])
                new.promote()
                new.do(f"UPDATE {TABLE} SET state = 'denied'")
                lost = await follow.lost()
                assert isinstance(lost, StoreUnavailable)
                assert "was replaced" in str(lost)
            # From now on nobody asks the old one, whatever was connected to it.
            assert not await finds(store)
            async with followed(store) as follow:
                assert not await finds(store)
                old.do(f"UPDATE {TABLE} SET note = 'lost'")
                new.do(f"UPDATE {TABLE} SET note = 'told', state = 'active'")
                await follow.told.told_of("pump")
                assert (await store.find(["pump"]))["pump"].note == "told"
                old.stop()
                assert await finds(store)
                new.stop()
                await follow.lost()
                why = await is_unavailable(store)
                assert str(old.home) in why
                assert str(new.home) in why
                new.start()
                assert await finds(store)

    run(test)


def test_the_certificate_of_the_server_is_verified(tmp_path: Path) -> None:
    authority, stranger = Authority.create("Databases"), Authority.create("Others")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "other.crt").write_bytes(stranger.pem)
    client = authority.issue("gate")
    (tmp_path / "gate.crt").write_bytes(client.pem)
    (tmp_path / "gate.key").write_bytes(client.key_pem)
    (tmp_path / "gate.key").chmod(0o600)
    with server(port=free_port()) as database:
        prepare(database)
        database.speak_tls(authority)
        url = f"postgresql://gate@localhost:{database.port}/postgres?hostaddr=127.0.0.1"
        other_name = f"postgresql://gate@127.0.0.1:{database.port}/postgres"
        ours: dict[str, Any] = {
            "ca_file": str(tmp_path / "ca.crt"),
            "certificate_file": str(tmp_path / "gate.crt"),
            "key_file": str(tmp_path / "gate.key"),
        }

        async def refused(url: str, **options: Any) -> str:
            async with opened(url, **options) as store:
                with pytest.raises(StoreError) as refused:
                    await store.find(["pump"])
                assert not isinstance(refused.value, StoreUnavailable)
                return str(refused.value)

        async def test() -> None:
            async with opened(url, **ours) as store, followed(store):
                assert await finds(store)
            wrong = {**ours, "ca_file": str(tmp_path / "other.crt")}
            assert "certificate verify failed" in await refused(url, **wrong)
            assert "does not match host name" in await refused(other_name, **ours)
            assert "verify failed" in await refused(f"{url}&sslmode=verify-full")
            assert "no pg_hba.conf entry" in await refused(f"{url}&sslmode=disable")
            # Read when the configuration was loaded: nothing is read now.
            gone: dict[str, Any] = {name: f"/gone/{name}" for name in ours}
            contents = tuple((gone[name], Path(ours[name]).read_bytes()) for name in ours)
            async with opened(url, **gone, contents=contents) as store:
                assert await finds(store)
            broken = ((gone["ca_file"], b"no certificate"), *contents[1:])
            async with opened(url, **gone, contents=broken) as store:
                with pytest.raises(StoreError, match='certificate file "/gone/ca_file"'):
                    await store.find(["pump"])
            missing = {**ours, "ca_file": str(tmp_path / "none.crt")}
            assert "none.crt" in await refused(url, **missing)

        run(test)


@pytest.mark.parametrize(
    ("url", "options", "why"),
    [
        ("postgresql://hush@a/b?sslmod=require", {}, 'did you mean "sslmode"'),
        ("postgresql://a/b?hush=hush", {}, "a parameter that libpq does not know"),
        ("postgresql://a/b?target_session_attrs=any", {}, "a standby tells no changes"),
        ("postgresql://a,b:1,c:x/d", {}, "host"),
        ("postgresql://a:1,b:2/d?port=1,2,3", {}, "ports"),
        ("postgresql://a/d?sslmode=require", {"ca_file": "/x"}, "sslmode must be verify-full"),
        ("postgresql://u:%zz@a/d", {}, "%XX"),
    ],
)
def test_a_url_that_cannot_work_is_refused_when_it_is_read(
    url: str, options: dict[str, Any], why: str
) -> None:
    async def test() -> None:
        with pytest.raises(StoreError, match=why) as refused:
            async with opened(url, **options):
                pass
        assert "hush" not in str(refused.value)

    run(test)
