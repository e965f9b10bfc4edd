"""
The store in a real PostgreSQL: what is found, put, removed, listed and leased.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from mtlsgate.admission.devices import LONGEST_KEY, Device, DeviceState
from mtlsgate.registry.fields import LONGEST_NOTE
from mtlsgate.registry.schema import Table, schema_sql
from mtlsgate.registry.store import StoreError, Written
from tests.kits.docs import DOCS
from tests.kits.following import run
from tests.kits.postgresql import TABLE, Server, opened, psql, server
from tests.kits.samples import samples
from tests.kits.store_contract import DENIED, NORTH, Opening, StoreContract

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database() -> Iterator[Server]:
    with server("timezone=Asia/Tokyo", "datestyle=SQL,DMY", "log_statement=all") as running:
        running.do(schema_sql(Table(TABLE)))
        yield running


@pytest.fixture(autouse=True)
def _emptied(database: Server) -> None:
    database.do(f"TRUNCATE {TABLE}, {TABLE}_leases")


class TestPostgresqlStore(StoreContract):
    """Does what every store does."""

    @pytest.fixture
    def opening(self, database: Server) -> Opening:
        return lambda: opened(database.url())


def test_of_two_devices_with_one_key_the_last_counts(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store:
            await store.put([NORTH])
            bare = Device(NORTH.key, DeviceState.DENIED)
            assert await store.put([NORTH, DENIED, bare]) == Written(added=1, changed=1)
            assert await store.find([NORTH.key]) == {NORTH.key: bare}

    run(test)


def test_what_cannot_be_a_key_is_never_asked_for(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store:
            await store.put([NORTH])
            found = await store.find(["", "\0", "\ud800", "x" * 600, NORTH.key])
            assert found == {NORTH.key: NORTH}
            assert await store.remove(["\0", "\ud800"]) == 0

    run(test)


def test_a_question_may_be_larger_than_what_a_socket_takes_at_once(database: Server) -> None:
    many = [f"{'x' * 400}{number}" for number in range(20_000)]

    async def test() -> None:
        async with opened(database.url()) as store:
            await store.put([Device(many[-1])])
            assert await store.find(many) == {many[-1]: Device(many[-1])}

    run(test)


def test_what_is_asked_at_once_takes_two_questions_and_each_gets_its_own(database: Server) -> None:
    many = {f"device {number}": Device(f"device {number}") for number in range(100)}

    async def test() -> None:
        async with opened(database.url()) as store:
            await store.put(many.values())
            await store.find(["nobody"])
            before = statements(database)
            answers = await asyncio.gather(*(store.find([name, "nobody"]) for name in many))
            assert answers == [{name: device} for name, device in many.items()]
            assert statements(database) - before == 1
            first = asyncio.ensure_future(store.find(["device 1"]))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            # A question that is on its way may have been answered already.
            later = [asyncio.ensure_future(store.find([name])) for name in many]
            await asyncio.gather(first, *later)
            assert statements(database) - before == 3

    run(test)


def statements(database: Server) -> int:
    """:returns: how many questions for devices there were."""
    log = (database.home / "log").read_text()
    return log.count("WHERE key = ANY")


def test_two_who_put_the_same_devices_in_any_order_do_not_lock_each_other_out(
    database: Server,
) -> None:
    many = [Device(f"device {number}") for number in range(1000)]

    async def test() -> None:
        async with opened(database.url()) as store, opened(database.url()) as another:
            first, second = await asyncio.gather(store.put(many), another.put(reversed(many)))
            assert first.added + second.added == 1000
            assert first.changed + second.changed == 0

    run(test)


UNREADABLE = [
    ("state = 'ACTIVE'", "state: "),
    ("state = NULL", "state: "),
    ("not_before = 'infinity'", "not_before: "),
    ("not_after = '-infinity'", "not_after: "),
    ("not_after = '0044-03-15 00:00:00+00 BC'", "not_after: "),
    ("not_before = '12026-01-01 00:00:00+00'", "not_before: "),
    ("note = repeat('x', 10000000)", "note: "),
    ("attributes = '[1]'", "attributes: "),
    ("attributes = 'null'", "attributes: "),
    ("attributes = '{\"a\": 1}'", "attributes: "),
    ('attributes = \'{"1": "x"}\'', "attributes: "),
    ("attributes = jsonb_build_object('a', repeat('x', 10000000))", "attributes: "),
    ("attributes = (repeat('[', 6000) || repeat(']', 6000))::jsonb", "attributes: "),
]


@pytest.fixture(scope="module")
def lax(database: Server) -> str:
    """A table that somebody made without our constraints."""
    name = "lax"
    database.do(
        schema_sql(Table(name)),
        "DO $$ DECLARE one text; BEGIN FOR one IN SELECT conname FROM pg_constraint WHERE"
        f" conrelid = '{name}'::regclass AND contype = 'c' LOOP"
        f" EXECUTE format('ALTER TABLE {name} DROP CONSTRAINT %I', one); END LOOP; END $$",
        f"ALTER TABLE {name} ALTER state DROP NOT NULL, ALTER note DROP NOT NULL,"
        " ALTER attributes DROP NOT NULL",
    )
    return name


@pytest.mark.parametrize(("change", "problem"), UNREADABLE)
def test_what_cannot_be_understood_is_denied_and_others_are_answered(
    database: Server, lax: str, change: str, problem: str
) -> None:
    database.do(
        f"TRUNCATE {lax}",
        f"INSERT INTO {lax} (key) VALUES ('odd'), ('good')",
        f"UPDATE {lax} SET {change} WHERE key = 'odd'",
    )

    async def test() -> None:
        async with opened(database.url(), table=lax) as store:
            found = await store.find(["odd", "good"])
            assert found["odd"].state is DeviceState.DENIED
            assert found["odd"].problem.startswith(problem)
            assert len(found["odd"].problem) < 200
            assert found["good"] == Device("good")
            listed = {device.key: device async for device in store.devices()}
            assert listed == found

    run(test)


@pytest.mark.parametrize(
    "change", ["not_before = '-infinity', not_after = 'infinity'", "note = NULL, attributes = NULL"]
)
def test_what_means_nothing_stated_is_read_so(database: Server, lax: str, change: str) -> None:
    database.do(
        f"TRUNCATE {lax}",
        f"INSERT INTO {lax} (key) VALUES ('plain')",
        f"UPDATE {lax} SET {change}",
    )

    async def test() -> None:
        async with opened(database.url(), table=lax) as store:
            assert await store.find(["plain"]) == {"plain": Device("plain")}

    run(test)


@pytest.mark.parametrize(
    "columns",
    [
        "(key, state) VALUES ('a', 'Active')",
        "(key) VALUES ('')",
        "(key) VALUES (E'a\\nb')",
        f"(key) VALUES (repeat('x', {LONGEST_KEY + 1}))",
        f"(key, note) VALUES ('a', repeat('x', {LONGEST_NOTE + 1}))",
        "(key, attributes) VALUES ('a', '[]')",
    ],
)
def test_the_table_refuses_what_no_gate_would_understand(database: Server, columns: str) -> None:
    with pytest.raises(psycopg.errors.CheckViolation):
        database.do(f"INSERT INTO {TABLE} {columns}")


def test_a_device_that_postgresql_cannot_keep_is_an_error_in_one_line(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url()) as store:
            for device in (
                Device("a", note="\0"),
                Device("a", note="x" * 5000),
                Device("a", note="\ud800"),
            ):
                with pytest.raises(StoreError) as refused:
                    await store.put([device])
                assert "\n" not in str(refused.value)
            # The connection is as good as before.
            assert await store.put([Device("a")]) == Written(added=1)

    run(test)


def test_places_of_very_many_are_given_back_in_time(database: Server) -> None:
    """As when a gate drains: their clients are at another one at once."""
    database.do(
        f"INSERT INTO {TABLE}_leases SELECT 'client ' || n, 'gate', now() + '1 h'::interval"
        " FROM generate_series(0, 9999) AS n"
    )

    async def test() -> None:
        async with opened(database.url()) as store:
            await asyncio.gather(*(store.release(f"client {n}", "gate") for n in range(10_000)))
            await store.release("client 1", "nobody")

    run(test)
    assert database.do(f"SELECT count(*) FROM {TABLE}_leases") == [(0,)]


def test_of_many_who_want_a_place_at_once_as_many_get_one_as_there_are(database: Server) -> None:
    database.do("ALTER ROLE gate SET default_transaction_isolation = 'serializable'")

    async def test() -> None:
        async with (
            opened(database.url()) as one,
            opened(database.url()) as two,
            opened(database.url()) as three,
        ):
            for key in map(str, range(30)):
                got = await asyncio.gather(
                    *(store.lease(key, f"{store}", 2, 60) for store in (one, two, three))
                )
                assert sum(got) == 2

    run(test)


def test_leases_that_nobody_renews_are_swept(database: Server) -> None:
    database.do(
        f"INSERT INTO {TABLE}_leases SELECT 'client ' || n, 'dead gate', now() - '1 s'::interval"
        " FROM generate_series(1, 50) AS n"
    )

    async def test() -> None:
        async with opened(database.url()) as store:
            assert await store.lease("client", "gate", 2, 60)

    run(test)
    assert database.do(f"SELECT holder FROM {TABLE}_leases") == [("gate",)]


def test_the_schema_can_be_made_again_by_psql_and_keeps_what_is_there(database: Server) -> None:
    async def test() -> None:
        async with opened(database.url(), table='fleet."Odd name"') as store:
            database.do("CREATE SCHEMA fleet")
            await store.apply_schema()
            await store.put([NORTH])
            await store.apply_schema()
            text = schema_sql(Table.parse('fleet."Odd name"'))
            assert psql(database, text) == (0, "")
            assert await store.find([NORTH.key]) == {NORTH.key: NORTH}
            assert await store.count() == 1

    run(test)


@pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")
def test_the_sql_of_the_documentation_works(database: Server) -> None:
    page = DOCS / "registry-postgresql.md"
    shown = [sample.text for sample in samples("sql") if sample.page == page]
    database.do("CREATE DATABASE docs")
    url = database.url().replace("/postgres?", "/docs?")
    first = "CREATE ROLE gates; CREATE ROLE operators;" + schema_sql(Table("devices"))
    assert psql(database, first, url) == (0, "")
    assert shown
    for text in shown:
        assert psql(database, text, url) == (0, "")
    rights = [sample for sample in shown if "GRANT" in sample]
    made = schema_sql(Table("devices")).replace("-- GRANT", "GRANT").replace('"', "")
    assert all(line in made for line in rights[0].splitlines())
    assert psql(database, "DROP OWNED BY gates, operators; DROP ROLE gates, operators;", url) == (
        0,
        "",
    )


def test_roles_need_no_more_than_the_rights_that_the_schema_names(database: Server) -> None:
    rights = [
        line.removeprefix("-- ")
        for line in schema_sql(Table(TABLE)).splitlines()
        if line.startswith("-- GRANT")
    ]
    database.do("CREATE ROLE gates LOGIN", "CREATE ROLE operators LOGIN", *rights)

    async def test() -> None:
        async with (
            opened(database.url("gates")) as gate,
            opened(database.url("operators")) as operator,
        ):
            assert await operator.put([NORTH, DENIED]) == Written(added=2)
            assert await operator.put([Device(NORTH.key)]) == Written(changed=1)
            assert await operator.remove([DENIED.key]) == 1
            assert await operator.count() == 1
            assert await gate.find([NORTH.key]) == {NORTH.key: Device(NORTH.key)}
            assert await gate.lease("client", "gate", 1, 60)
            await gate.release("client", "gate")
            with pytest.raises(StoreError, match="permission denied"):
                await gate.put([NORTH])
            with pytest.raises(StoreError, match="permission denied"):
                await operator.lease("client", "gate", 1, 60)

    run(test)
