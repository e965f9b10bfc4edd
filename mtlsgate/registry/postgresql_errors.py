"""
What PostgreSQL and its client say, as errors of a store: one line each.
"""

from __future__ import annotations

import psycopg

from mtlsgate.registry.schema import Table
from mtlsgate.registry.store import StoreError, StoreUnavailable
from mtlsgate.text import printable

_APPLY = "run: mtlsgate registry schema --apply"

#: SQLSTATEs, or the classes that they begin with, of what may be over the next time.
#: PostgreSQL 15 documentation, appendix A.
_PASSING = (
    "08",  # connection exception
    "25006",  # read-only
    "40",  # serialization failure, deadlock
    "53",  # too many connections, disk full, out of memory
    "55P03",  # lock not available
    "57",  # shutting down, starting up, statement timeout
    "58",  # system error
    "XX",  # internal error
)

#: What libpq says of a connection that it cannot make, when trying again does not help.
#: It has no SQLSTATE for these.
_LASTING = (
    "authentication failed",
    "no password supplied",
    "no pg_hba.conf entry",
    "does not exist",
    "certificate verify failed",
    "certificate authentication failed",
    "server certificate for",
    "server does not support SSL",
    "root certificate file",
    "could not read certificate file",
    "could not load certificate file",
    "could not load private key file",
    "private key file",
    "permission denied for database",
    "is not permitted to log in",
    "channel binding",
    "authentication method requirement",
)

#: The longest part of a message of somebody else.
_LONGEST = 300


def table_error(table: Table, problem: str) -> StoreError:
    """:returns: that a table is not as the schema makes it, and how it becomes so."""
    return StoreError(f"table {table}: {problem}; {_APPLY}")


def question_error(error: psycopg.Error, table: Table) -> StoreError:
    """
    :param error: of a statement on a connection.
    :param table: that it was about.
    """
    state = error.sqlstate or ""
    said = _line(error.diag.message_primary or str(error))
    if state in ("42P01", "42883", "42703", "3F000"):
        return table_error(table, said)
    if state == "42501":
        return StoreError(f"table {table}: {said}; the documentation has the rights to grant")
    if state == "57014":
        return StoreUnavailable(f"no answer in time: {said}")
    if not state:
        # What libpq says after the first line is a guess.
        said = _line(str(error).partition("\n")[0])
        return StoreUnavailable(f"the connection is lost: {said}")
    if state.startswith(_PASSING):
        return StoreUnavailable(said)
    return StoreError(said)


def connect_error(error: psycopg.Error) -> StoreError:
    """:param error: why there is no connection."""
    said = _line(str(error))
    # psycopg and libpq each say first that there is no connection, and to where.
    said = said.removeprefix("connection failed: ").removeprefix("connection to server ")
    kind = StoreError if any(one in said for one in _LASTING) else StoreUnavailable
    return kind(f"no connection: {said}")


def _line(text: str) -> str:
    """:returns: what somebody else said, in one line of bounded length."""
    line = "; ".join(filter(None, (one.strip() for one in text.splitlines())))
    return printable(line[:_LONGEST])
