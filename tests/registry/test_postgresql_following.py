"""
Following a real PostgreSQL: every way in which a device can change is told, and what
would keep a change from being told ends the following.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.registry.schema import MOST_KEYS_TOLD, Table, schema_sql
from mtlsgate.registry.store import StoreError, StoreUnavailable
from tests.kits.following import Followed, followed, run
from tests.kits.postgresql import TABLE, Server, opened, pooler, psql, server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with server() as running:
        yield running


@pytest.fixture(autouse=True)
def _made(database: Server) -> None:
    database.do(
        f"DROP TABLE IF EXISTS {TABLE} CASCADE",
        schema_sql(Table(TABLE)),
        f"INSERT INTO {TABLE} (key) VALUES ('pump'), ('*'), ('valve')",
    )


CHANGES = [
    ("updated", f"UPDATE {TABLE} SET state = 'denied' WHERE key = 'pump'", {"pump"}),
    ("removed", f"DELETE FROM {TABLE} WHERE key = 'pump'", {"pump"}),
    ("renamed", f"UPDATE {TABLE} SET key = 'crane' WHERE key = 'pump'", {"pump", "crane"}),
    ("added", f"INSERT INTO {TABLE} (key) VALUES ('crane'), ('ship')", {"crane", "ship"}),
    ("all of them", f"UPDATE {TABLE} SET note = 'x'", {"pump", "*", "valve"}),
    ("a star", f"DELETE FROM {TABLE} WHERE key = '*'", {"*"}),
    (
        "added or updated",
        f"INSERT INTO {TABLE} (key) VALUES ('pump'), ('crane')"
        " ON CONFLICT (key) DO UPDATE SET note = 'y'",
        {"pump", "crane"},
    ),
    (
        "merged",
        f"MERGE INTO {TABLE} d USING (VALUES ('pump'), ('valve'), ('crane')) AS n (key)"
        " ON d.key = n.key WHEN MATCHED AND d.key = 'pump' THEN DELETE"
        " WHEN MATCHED THEN UPDATE SET note = 'z' WHEN NOT MATCHED THEN INSERT (key)"
        " VALUES (n.key)",
        {"pump", "valve", "crane"},
    ),
    (
        "in a statement of another kind",
        f"WITH gone AS (DELETE FROM {TABLE} WHERE key = 'pump' RETURNING key) SELECT 1 FROM gone",
        {"pump"},
    ),
    (
        "as replication does",
        "SET session_replication_role = 'replica';"
        f" UPDATE {TABLE} SET state = 'denied' WHERE key = 'pump'",
        {"pump"},
    ),
]


@pytest.mark.parametrize(("_what", "statement", "keys"), CHANGES)
def test_a_change_by_hand_is_told_by_name(
    database: Server, _what: str, statement: str, keys: set[str]
) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            database.do(statement, "SET session_replication_role = 'origin'")
            told: set[str] = set()
            while not told >= keys:
                for event in await follow.told.until(lambda event: isinstance(event, frozenset)):
                    told |= set(event) if isinstance(event, frozenset) else set()
            assert told == keys

    run(test)


def test_what_is_copied_is_told(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            copied = f"COPY {TABLE} (key) FROM STDIN;\ncrane\nship\n\\.\n"
            assert psql(database, copied) == (0, "")
            assert frozenset({"crane", "ship"}) in await follow.told.told_of("ship")

    run(test)


def test_what_another_client_of_ours_writes_is_told(database: Server) -> None:
    async def test() -> None:
        async with (
            opened(database.url()) as store,
            opened(database.url()) as other,
            followed(store) as follow,
        ):
            await other.put([Device("new"), Device("pump", DeviceState.DENIED)])
            await follow.told.told_of("pump")
            await other.remove(["new"])
            await follow.told.told_of("new")
            # One of its own, too; what changes nothing is told to nobody.
            await store.put([Device("valve"), Device("pump")])
            await follow.told.until(lambda event: event == frozenset({"pump"}))

    run(test)


def test_an_emptied_table_is_told(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            database.do(f"TRUNCATE {TABLE}")
            await follow.told.told("any")
            assert await store.find(["pump"]) == {}

    run(test)


def test_a_change_is_told_when_all_can_see_it_and_not_before(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            with psycopg.connect(database.url()) as other:
                other.execute(f"UPDATE {TABLE} SET state = 'denied' WHERE key = 'pump'".encode())
                database.do(f"DELETE FROM {TABLE} WHERE key = 'valve'")
                told = await follow.told.told_of("valve")
                assert not [event for event in told if "pump" in event]
                other.commit()
            await follow.told.told_of("pump")
            assert (await store.find(["pump"]))["pump"].state is DeviceState.DENIED
            with psycopg.connect(database.url()) as other:
                other.execute(f"DELETE FROM {TABLE} WHERE key = 'pump'".encode())
                other.rollback()
            database.do(f"DELETE FROM {TABLE} WHERE key = '*'")
            assert not [event for event in await follow.told.told_of("*") if "pump" in event]

    run(test)


@pytest.mark.parametrize("length", [1, 500])
def test_many_changes_of_one_statement_are_told_by_name(database: Server, length: int) -> None:
    count = 2000 if length == 1 else 100

    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            # As long as PostgreSQL's payloads of less than 8000 bytes make it hard.
            database.do(
                f"INSERT INTO {TABLE} (key) SELECT repeat('€', {length}) || n"
                f" FROM generate_series(1, {count}) AS n"
            )
            told: set[str] = set()
            while len(told) < count:
                for event in await follow.told.until(lambda event: isinstance(event, frozenset)):
                    told |= set(event) if isinstance(event, frozenset) else set()
            assert told == {f"{'€' * length}{number + 1}" for number in range(count)}

    run(test)


def test_more_changes_of_one_statement_may_be_any(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            database.do(
                f"INSERT INTO {TABLE} (key) SELECT n FROM"
                f" generate_series(1, {MOST_KEYS_TOLD + 1}) AS n"
            )
            await follow.told.told("any")
            database.do(f"DELETE FROM {TABLE}")
            await follow.told.told("any")

    run(test)


def test_other_registries_and_leases_are_not_told(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            database.do(schema_sql(Table("others")), "INSERT INTO others (key) VALUES ('pump')")
            await store.lease("pump", "holder", 1, 60)
            database.do("NOTIFY mtlsgate, '=pump'", "SELECT pg_notify('mtlsgate_1', '*')")
            await store.put([Device("last")])
            told = await follow.told.told_of("last")
            assert set(told) <= {"alive", frozenset({"last"})}

    run(test)


def test_it_is_alive_again_and_again_and_only_after_what_came_before_is_told(
    database: Server,
) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            for _ in range(3):
                await follow.told.told("alive")
            for number in range(3):
                # It comes while the heartbeat is asked, or before.
                database.do(f"UPDATE {TABLE} SET note = 'n{number}' WHERE key = 'pump'")
                told = await follow.told.until(lambda event: event == "alive")
                assert frozenset({"pump"}) in told[: told.index("alive")]

    run(test)


async def why_lost(follow: Followed, database: Server, *statements: str) -> str:
    """:returns: why the following ends after somebody's statements."""
    await asyncio.to_thread(database.do, *statements)
    return str(await follow.lost())


LOSSES = [
    (f"ALTER TABLE {TABLE} DISABLE TRIGGER mtlsgate_update", "schema --apply"),
    (f"ALTER TABLE {TABLE} DISABLE TRIGGER ALL", "schema --apply"),
    (f"DROP TRIGGER mtlsgate_truncate ON {TABLE}", "schema --apply"),
    (
        f"ALTER TABLE {TABLE} DISABLE TRIGGER USER, ENABLE TRIGGER USER",
        "a trigger of it, was made anew",
    ),
    (f"DROP TABLE {TABLE}", "is not there"),
    (f"ALTER TABLE {TABLE} RENAME TO elsewhere", "is not there"),
    (f"DROP TABLE {TABLE}; {schema_sql(Table(TABLE))}", "was made anew"),
    (f"CREATE TABLE child () INHERITS ({TABLE})", "child"),
    (
        "SET allow_system_table_mods = on; INSERT INTO pg_subscription_rel"
        f" VALUES (1, '{TABLE}'::regclass, 'r', NULL)",
        "subscription",
    ),
]


@pytest.mark.parametrize(("statement", "why"), LOSSES)
def test_what_keeps_changes_from_being_told_ends_it(
    database: Server, statement: str, why: str
) -> None:
    async def test() -> None:
        async with opened(database.url()) as store, followed(store) as follow:
            assert why in await why_lost(follow, database, statement)

    try:
        run(test)
    finally:
        database.do(
            "SET allow_system_table_mods = on; DELETE FROM pg_subscription_rel",
            "DROP TABLE IF EXISTS elsewhere CASCADE",
        )


def test_a_gate_that_may_not_read_any_more_does_not_count_on_what_it_read(
    database: Server,
) -> None:
    database.do(
        "DROP ROLE IF EXISTS gates", "CREATE ROLE gates LOGIN", f"GRANT SELECT ON {TABLE} TO gates"
    )

    async def test() -> None:
        async with opened(database.url("gates")) as store, followed(store) as follow:
            assert await store.find(["pump"])
            assert "may not be read" in await why_lost(
                follow, database, f"REVOKE SELECT ON {TABLE} FROM gates"
            )
            with pytest.raises(StoreError, match="permission denied"):
                await store.find(["pump"])

    run(test)


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("SELECT 1", "is not there"),
        (f"CREATE TABLE {TABLE} (key text PRIMARY KEY)", "schema --apply"),
        (f"CREATE VIEW {TABLE} AS SELECT '' AS key", "is a view"),
        (f"CREATE TABLE {TABLE} (key text) PARTITION BY LIST (key)", "partition"),
    ],
)
def test_what_tells_nothing_is_not_followed(database: Server, statement: str, why: str) -> None:
    database.do(f"DROP TABLE {TABLE}", statement)

    async def test() -> None:
        async with opened(database.url()) as store:
            with pytest.raises(StoreError, match=why) as refused:
                async with followed(store):
                    pass
            assert not isinstance(refused.value, StoreUnavailable)
            assert "\n" not in str(refused.value)

    try:
        run(test)
    finally:
        if "VIEW" in statement:
            database.do(f"DROP VIEW {TABLE}")


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_nothing_is_followed_through_a_pooler(database: Server, mode: str) -> None:
    """PgBouncer drops what a server tells while no client uses the connection."""
    with pooler(database, mode) as url:

        async def test() -> None:
            async with opened(url) as store:
                assert await store.find(["pump"])
                with pytest.raises(StoreError, match="a pooler is in between"):
                    async with followed(store):
                        pass

        run(test)


def test_nothing_is_missed_between_the_beginning_and_the_first_question(database: Server) -> None:
    """Devices are denied one after the other, while the following begins again and again:
    whoever asks after it began finds it denied, or is told."""

    async def test() -> None:
        async with opened(database.url()) as store:
            for number in range(20):
                key = f"device {number}"
                database.do(f"INSERT INTO {TABLE} (key) VALUES ('{key}')")
                deny = asyncio.to_thread(
                    database.do, f"UPDATE {TABLE} SET state = 'denied' WHERE key = '{key}'"
                )
                denied = asyncio.ensure_future(deny)
                async with followed(store) as follow:
                    if (await store.find([key]))[key].state is DeviceState.ACTIVE:
                        await follow.told.told_of(key)
                await denied

    run(test)
