"""The names and the SQL of a registry in PostgreSQL."""

from __future__ import annotations

import pytest

from mtlsgate.registry.schema import Table, schema_sql
from mtlsgate.registry.store import StoreError

NAMES = [
    ("devices", Table("devices")),
    ("Fleet.Devices", Table("devices", "fleet")),
    ('"Fleet"."Odd name"', Table("Odd name", "Fleet")),
    ('fleet."a.b"', Table("a.b", "fleet")),
    ('"größe"', Table("größe")),
    ("x" * 48, Table("x" * 48)),
]


@pytest.mark.parametrize(("text", "table"), NAMES)
def test_a_name_is_read_as_sql_reads_it(text: str, table: Table) -> None:
    assert Table.parse(text) == table
    assert Table.parse(str(table)) == table
    assert f"CREATE TABLE IF NOT EXISTS {table} (" in schema_sql(table)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "a.", ".a", "a.b.c", "a b", "a-b", "größe", "1a", '"', '""', '"a', 'a"b', '"a"b"',
        '"a\'b"', '"a$$b"', '"a%b"', '"a\\b"', '"a\nb"', "a;b", "x" * 49, f'"{"ü" * 25}"',
    ],
)  # fmt: skip
def test_what_is_no_name_or_could_mean_more_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match=r"^table: "):
        Table.parse(text)
