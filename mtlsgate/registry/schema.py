"""
The SQL that makes a registry in PostgreSQL.

One table has the devices, another the leases of limits that gates share.  Triggers tell
each change to whoever listens, when it is committed and not before (`NOTIFY`).  The SQL
can be run again, and brings what is there up to date.  It needs PostgreSQL 12 or later,
the right to create in the schema, and no superuser.
"""

from __future__ import annotations

import re

from attrs import frozen

from mtlsgate.admission.devices import LONGEST_KEY
from mtlsgate.registry.fields import LONGEST_NOTE
from mtlsgate.registry.store import StoreError

#: More keys than these in one statement are told as "anything may have changed".
MOST_KEYS_TOLD = 10_000
#: What a payload is when anything may have changed; otherwise it begins with `TOLD`.
ANYTHING = "*"
#: Before the keys of a payload, which are separated by line ends.
TOLD = "="
#: The triggers, and the event of each as PostgreSQL has it in ``pg_trigger.tgtype``.
TRIGGERS = {
    "mtlsgate_insert": 4,
    "mtlsgate_delete": 8,
    "mtlsgate_update": 16,
    "mtlsgate_truncate": 32,
}
#: PostgreSQL cuts names to 63 bytes; ours have endings.
_LONGEST_NAME = 48
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# Without quotes of any kind and what else means something in the text around a name.
_ONE = r'"[^"\'$%\\\x00-\x1f]+"|[^".\s]+'
_NAMES = re.compile(rf"(?:({_ONE})\.)?({_ONE})")


@frozen
class Table:
    """
    The name of the table with the devices.

    :ivar name: as PostgreSQL keeps it.
    :ivar schema: None for the first one in the ``search_path`` that has it.
    """

    name: str
    schema: str | None = None

    @classmethod
    def parse(cls, text: str) -> Table:
        """
        :param text: as in SQL: ``devices``, ``fleet.devices``, ``"Odd name"``.  Capitals
            count in double quotes only.
        :raises StoreError: if it is no name.
        """
        found = _NAMES.fullmatch(text)
        if found is None:
            raise StoreError(
                "table: must be a name, maybe with a schema before it, as fleet.devices;"
                " other characters than letters, digits and _ need double quotes"
            )
        schema, name = found.groups()
        return cls(_unquoted(name), None if schema is None else _unquoted(schema))

    def __str__(self) -> str:
        """As SQL has it, quoted."""
        return _sql(self.devices)

    @property
    def devices(self) -> tuple[str, ...]:
        """The table itself: its schema if that is stated, and its name."""
        return self._named("")

    @property
    def leases(self) -> tuple[str, ...]:
        """The table of leases."""
        return self._named("_leases")

    @property
    def lease(self) -> tuple[str, ...]:
        """The function that takes a place."""
        return self._named("_lease")

    @property
    def tell(self) -> tuple[str, ...]:
        """The function that tells changes."""
        return self._named("_tell")

    def _named(self, ending: str) -> tuple[str, ...]:
        name = f"{self.name}{ending}"
        return (name,) if self.schema is None else (self.schema, name)


def schema_sql(table: Table) -> str:
    """
    :returns: the SQL that makes a registry, or brings one up to date, in one transaction.
    """
    names = {
        "table": str(table),
        "leases": _sql(table.leases),
        "lease": _sql(table.lease),
        "tell": _sql(table.tell),
    }
    return (
        _TABLES.format(**names, longest_key=LONGEST_KEY, longest_note=LONGEST_NOTE)
        + _TELL.format(**names, most=MOST_KEYS_TOLD, anything=ANYTHING, told=TOLD)
        + _LEASE.format(**names)
        + _RIGHTS.format(**names)
    )


def _unquoted(name: str) -> str:
    if name.startswith('"'):
        name = name[1:-1]
    elif _NAME.fullmatch(name):
        name = name.lower()
    else:
        raise StoreError(
            "table: a name has letters, digits and _, and begins with a letter or _;"
            " anything else needs double quotes"
        )
    if len(name.encode()) > _LONGEST_NAME:
        raise StoreError(f"table: a name has at most {_LONGEST_NAME} bytes")
    return name


def _sql(names: tuple[str, ...]) -> str:
    return ".".join(f'"{name}"' for name in names)


_TABLES = """\
BEGIN;
SET LOCAL client_min_messages = warning;

-- The devices.  Whoever is listed as active may come in, from not_before to not_after.
CREATE TABLE IF NOT EXISTS {table} (
    key text COLLATE "C" PRIMARY KEY
        CHECK (char_length(key) BETWEEN 1 AND {longest_key} AND key !~ '[[:cntrl:]]'),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'denied')),
    not_before timestamptz,
    not_after timestamptz,
    note text NOT NULL DEFAULT '' CHECK (char_length(note) <= {longest_note}),
    attributes jsonb NOT NULL DEFAULT '{{}}' CHECK (jsonb_typeof(attributes) = 'object'),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- Who holds which place of a limit that gates share, and until when.  After a crash of
-- the server it is empty; gates renew what they hold within seconds.
CREATE UNLOGGED TABLE IF NOT EXISTS {leases} (
    key text COLLATE "C" NOT NULL,
    holder text COLLATE "C" NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (key, holder)
) WITH (fillfactor = 50);
"""

# A payload has less than 8000 bytes: parts of 4000, and one key more of at most 2048.
_TELL = """
-- Tells which devices changed, to whoever listens, when the change is committed.
CREATE OR REPLACE FUNCTION {tell}() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    channel CONSTANT text := 'mtlsgate_' || TG_RELID;
    keys text[];
    part text;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_notify(channel, '{anything}');
        RETURN NULL;
    ELSIF TG_OP = 'UPDATE' THEN
        keys := ARRAY(
            SELECT key FROM changed UNION SELECT key FROM changed_to LIMIT {most} + 1);
    ELSE
        keys := ARRAY(SELECT key FROM changed LIMIT {most} + 1);
    END IF;
    IF cardinality(keys) > {most} THEN
        PERFORM pg_notify(channel, '{anything}');
        RETURN NULL;
    END IF;
    FOR part IN
        SELECT string_agg(key, E'\\n') FROM (
            SELECT key, sum(octet_length(key) + 1) OVER (ROWS UNBOUNDED PRECEDING) / 4000 AS nth
            FROM unnest(keys) AS key
        ) AS numbered GROUP BY nth
    LOOP
        PERFORM pg_notify(channel, '{told}' || part);
    END LOOP;
    RETURN NULL;
END $$;

DROP TRIGGER IF EXISTS mtlsgate_insert ON {table};
CREATE TRIGGER mtlsgate_insert AFTER INSERT ON {table}
    REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION {tell}();
DROP TRIGGER IF EXISTS mtlsgate_update ON {table};
CREATE TRIGGER mtlsgate_update AFTER UPDATE ON {table}
    REFERENCING OLD TABLE AS changed NEW TABLE AS changed_to
    FOR EACH STATEMENT EXECUTE FUNCTION {tell}();
DROP TRIGGER IF EXISTS mtlsgate_delete ON {table};
CREATE TRIGGER mtlsgate_delete AFTER DELETE ON {table}
    REFERENCING OLD TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION {tell}();
DROP TRIGGER IF EXISTS mtlsgate_truncate ON {table};
CREATE TRIGGER mtlsgate_truncate AFTER TRUNCATE ON {table}
    FOR EACH STATEMENT EXECUTE FUNCTION {tell}();
-- Also where session_replication_role says replica.
ALTER TABLE {table}
    ENABLE ALWAYS TRIGGER mtlsgate_insert,
    ENABLE ALWAYS TRIGGER mtlsgate_update,
    ENABLE ALWAYS TRIGGER mtlsgate_delete,
    ENABLE ALWAYS TRIGGER mtlsgate_truncate;
"""

# READ COMMITTED gives each statement of a function its own snapshot: what is counted
# after the lock has what its last owner did.
_LEASE = """
-- Takes a place of a limit, or keeps it; false if all are taken.
CREATE OR REPLACE FUNCTION {lease}(
    of_key text, by_holder text, places integer, seconds double precision
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    ends CONSTANT timestamptz := clock_timestamp() + make_interval(secs => seconds);
BEGIN
    UPDATE {leases} SET until = ends
    WHERE key = of_key AND holder = by_holder AND until > clock_timestamp();
    IF FOUND THEN
        RETURN true;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('{leases}'), hashtext(of_key));
    DELETE FROM {leases} WHERE key = of_key AND until <= clock_timestamp();
    IF (SELECT count(*) FROM {leases} WHERE key = of_key) >= places THEN
        RETURN false;
    END IF;
    INSERT INTO {leases} (key, holder, until) VALUES (of_key, by_holder, ends);
    RETURN true;
END $$;
"""

_RIGHTS = """
COMMIT;

-- The least rights, for a role of the gates and one of those who allow and deny devices:
-- GRANT SELECT ON {table} TO gates;
-- GRANT SELECT, INSERT, UPDATE, DELETE ON {leases} TO gates;
-- GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO operators;
"""
