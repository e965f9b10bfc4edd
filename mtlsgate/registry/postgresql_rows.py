"""
Devices as rows of a PostgreSQL table, and the statements about them.

What somebody wrote into the table by hand, or a table that somebody made otherwise, may
have anything: rows are read as text of bounded length, and what cannot be understood
makes a device that is denied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from attrs import frozen
from psycopg.sql import SQL, Identifier

from mtlsgate.admission.devices import Device
from mtlsgate.registry.fields import (
    LONGEST_NOTE,
    FieldError,
    attributes_text,
    parse_attributes,
    read_note,
    read_state,
)
from mtlsgate.registry.schema import Table

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: More than the JSON of the longest attributes, in characters.
_LONGEST_JSON = 6 * 16384 + 8192
#: Up to so many devices are counted one by one.
_MOST_COUNTED = 100_000

# Instants as seconds, which do not depend on how a session writes dates.
_COLUMNS = SQL(
    "key, left(state::text, 32), extract(epoch FROM not_before),"
    " extract(epoch FROM not_after), left(note::text, {note}), left(attributes::text, {json})"
).format(note=LONGEST_NOTE + 1, json=_LONGEST_JSON + 1)

_FIND = "SELECT {columns} FROM {devices} WHERE key = ANY(string_to_array($1, E'\\n'))"
_PAGE = "SELECT {columns} FROM {devices} WHERE key > %s ORDER BY key LIMIT %s"
_REMOVE = "DELETE FROM {devices} WHERE key = ANY(%s::text[])"
_LEASE = "SELECT {lease}(%s, %s, %s, %s)"
_RELEASE = """
DELETE FROM {leases} WHERE (key, holder) IN (SELECT * FROM unnest(%s::text[], %s::text[]))"""

# A row that was there is locked before it is updated, and so has an xmax.
_PUT = """
WITH written AS (
    INSERT INTO {devices} AS device (key, state, not_before, not_after, note, attributes)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[], %s::timestamptz[],
        %s::text[], %s::jsonb[])
    ON CONFLICT (key) DO UPDATE SET state = excluded.state, not_before = excluded.not_before,
        not_after = excluded.not_after, note = excluded.note,
        attributes = excluded.attributes, updated_at = excluded.updated_at
    WHERE (device.state, device.not_before, device.not_after, device.note, device.attributes)
        IS DISTINCT FROM (excluded.state, excluded.not_before, excluded.not_after,
        excluded.note, excluded.attributes)
    RETURNING device.xmax = 0 AS added
)
SELECT count(*) FILTER (WHERE added), count(*) FILTER (WHERE NOT added) FROM written"""

_COUNT = """
SELECT CASE WHEN n < {most} THEN n ELSE greatest(n, (SELECT reltuples::bigint FROM pg_class
    WHERE oid = to_regclass({name}))) END
FROM (SELECT count(*) AS n FROM (SELECT FROM {devices} LIMIT {most}) AS first) AS counted"""

# It waits for nobody, and so nobody waits for it in a circle.
_SWEEP = """
DELETE FROM {leases} WHERE (key, holder) IN (SELECT key, holder FROM {leases}
    WHERE until <= clock_timestamp() FOR UPDATE SKIP LOCKED)"""


@frozen
class Statements:
    """
    What is asked of a table.

    As bytes, which psycopg need not put together again.

    :ivar find: the devices with the keys of a text, separated by line ends, as
        `mtlsgate.registry.postgresql_prepared` asks it.
    :ivar page: some devices, the first with a key after a given one.
    :ivar count: how many devices there are; many are PostgreSQL's estimate.
    :ivar put: adds or replaces the devices of `columns_of`; how many were added, and how
        many changed.
    :ivar remove: the devices with the keys of an array.
    :ivar lease: a place for a holder; whether there was one.
    :ivar release: the places of an array of keys and one of their holders.
    :ivar sweep: the places that were not renewed in time, whoever's.
    """

    find: bytes
    page: bytes
    count: bytes
    put: bytes
    remove: bytes
    lease: bytes
    release: bytes
    sweep: bytes

    @classmethod
    def about(cls, table: Table) -> Statements:
        """:returns: the statements about a table."""
        named = {
            "columns": _COLUMNS,
            "devices": Identifier(*table.devices),
            "lease": Identifier(*table.lease),
            "leases": Identifier(*table.leases),
            "most": _MOST_COUNTED,
            "name": str(table),
        }

        def made(text: str) -> bytes:
            return SQL(text).format(**named).as_bytes()

        return cls(
            find=made(_FIND),
            page=made(_PAGE),
            count=made(_COUNT),
            put=made(_PUT),
            remove=made(_REMOVE),
            lease=made(_LEASE),
            release=made(_RELEASE),
            sweep=made(_SWEEP),
        )


def columns_of(devices: Iterable[Device]) -> tuple[Sequence[object], ...]:
    """
    :returns: the columns for `Statements.put`.  Of several devices with one key the last counts.
        They are sorted, so that two writers do not wait for each other.
    """
    devices = [one for _, one in sorted({device.key: device for device in devices}.items())]
    return (
        [one.key for one in devices],
        [one.state.value for one in devices],
        [one.not_before for one in devices],
        [one.not_after for one in devices],
        [one.note for one in devices],
        [attributes_text(one.attributes) for one in devices],
    )


def devices_of(rows: Collection[Sequence[object]]) -> dict[str, Device]:
    """:returns: the devices of `Statements.find` or `Statements.page` by their keys."""
    return {str(row[0]): _device(*row) for row in rows}


def _device(
    key: object,
    state: object,
    not_before: object,
    not_after: object,
    note: object,
    attributes: object,
) -> Device:
    text = str(key)
    try:
        if len(attributes_given := str(attributes or "{}")) > _LONGEST_JSON:
            raise FieldError("attributes: are too long")
        return Device(
            text,
            read_state("" if state is None else str(state)),
            _instant("not_before", not_before, "-Infinity"),
            _instant("not_after", not_after, "Infinity"),
            read_note("" if note is None else str(note)),
            parse_attributes(attributes_given),
        )
    except FieldError as problem:
        return Device.unreadable(text, str(problem))


def _instant(name: str, seconds: object, unbounded: str) -> datetime | None:
    """
    :param seconds: since 1970, as PostgreSQL extracts them.
    :param unbounded: the infinity that means the same as none.
    """
    if seconds is None:
        return None
    # PostgreSQL 13 and before have double precision here.
    exact = Decimal(str(seconds))
    if exact == Decimal(unbounded):
        return None
    try:
        return _EPOCH + timedelta(microseconds=round(exact * 1_000_000))
    except (OverflowError, ValueError, ArithmeticError):
        raise FieldError(f"{name}: is no instant that a gate knows") from None
