"""
Follow the changes of a table: PostgreSQL's LISTEN, and what proves that it still tells.

PostgreSQL tells a change when the transaction is committed and everybody can see it
(PostgreSQL 15 documentation, NOTIFY).  So whoever asks after LISTEN sees what was
committed before, and is told the rest.

Every heartbeat looks for what could keep changes from being told: a trigger that is off or was,
another table under the name, a pooler that gives each statement another connection, a table whose
rows do not come by statements alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from itertools import count
from typing import Final

import psycopg

from mtlsgate.registry.postgresql_errors import question_error, table_error
from mtlsgate.registry.postgresql_link import Connection, Connector, Link
from mtlsgate.registry.postgresql_prepared import until_ready
from mtlsgate.registry.schema import ANYTHING, TOLD, TRIGGERS, Table
from mtlsgate.registry.store import Follower, StoreError, StoreUnavailable

#: How long nothing is asked while nothing is told, in seconds.
_QUIET: Final = 0.4
#: After so many heartbeats the other servers of the URL are looked at.
_LOOK_AROUND: Final = 10

# What a heartbeat asks: of each trigger its event and whether it is on.  xmin changes
# whenever a trigger is switched off or on.
_CHECK = """
SELECT c.oid::bigint,
    c.relkind = 'r' AND NOT c.relispartition
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid),
    EXISTS (SELECT FROM pg_subscription_rel WHERE srrelid = c.oid),
    has_table_privilege(c.oid, 'SELECT'),
    pg_backend_pid(),
    t.triggers, t.made
FROM pg_class c, LATERAL (
    SELECT array_agg(ARRAY[tgname::text, tgtype::text])
            FILTER (WHERE tgenabled IN ('A', 'O')) AS triggers,
        string_agg(oid || ':' || xmin, ' ' ORDER BY tgname) AS made
    FROM pg_trigger WHERE tgrelid = c.oid AND tgname LIKE 'mtlsgate\\_%%'
) t WHERE c.oid = to_regclass(%s)
"""


async def follow(
    connector: Connector,
    table: Table,
    seconds: float,
    follower: Follower,
    begun: Callable[[str], Awaitable[None]],
) -> None:
    """
    Follow until the channel is lost.

    :param seconds: the time limit of each heartbeat.
    :param begun: is told which server tells the changes, before the follower is.
    :raises StoreError: why it is lost.
    """
    link = await connector.connect(seconds)
    looking: asyncio.Future[None] | None = None
    try:
        following = _Following(link, table, seconds)
        await following.begin()
        await begun(link.server)
        follower.following()
        for beat in count(1):
            await following.tell(follower, _QUIET)
            await following.check()
            await following.tell(follower, 0)
            follower.alive()
            if looking is not None and looking.done():
                looking.result()
                looking = None
            if looking is None and len(connector.hosts) > 1 and beat % _LOOK_AROUND == 0:
                # Beside all else: a server that is down takes its time.
                looking = asyncio.ensure_future(connector.check_others(link))
    finally:
        link.close()
        if looking is not None:
            looking.cancel()
            looking.add_done_callback(_heard)


def _heard(looking: asyncio.Future[None]) -> None:
    """What was found does not matter any more."""
    if not looking.cancelled():
        looking.exception()


class _Following:
    """
    One connection that listens.

    :ivar _channel: what it listens to; "" if there is no such table.
    :ivar _made: which table and triggers it found at first.
    """

    def __init__(self, link: Link, table: Table, seconds: float) -> None:
        self._link = link
        self._table = table
        self._seconds = seconds
        self._channel = ""
        self._made: tuple[object, object] | None = None

    async def begin(self) -> None:
        """Listen, and then see whether there is something to hear."""

        async def listen(connection: Connection) -> None:
            cursor = await connection.execute(
                "SELECT 'mtlsgate_' || to_regclass(%s)::oid", (str(self._table),)
            )
            row = await cursor.fetchone()
            if row is not None and row[0] is not None:
                self._channel = str(row[0])
                await connection.execute(f'LISTEN "{self._channel}"')

        await self._link.ask_or_leave(listen, self._seconds)
        await self.check()

    async def tell(self, follower: Follower, seconds: float) -> None:
        """Tell what has come, and what comes within some seconds."""
        loop, connection = asyncio.get_running_loop(), self._link.connection
        until = loop.time() + seconds
        try:
            while True:
                async for told in connection.notifies(timeout=0):
                    if told.channel == self._channel:
                        follower.changed(_keys(told.payload))
                remaining = until - loop.time()
                if remaining <= 0:
                    return
                # To wait in psycopg would wake the gate ten times a second.
                with suppress(TimeoutError):
                    async with asyncio.timeout(remaining):
                        await until_ready(loop.add_reader, connection.fileno())
        except psycopg.Error as error:
            raise question_error(error, self._table) from None

    async def check(self) -> None:
        """
        :raises StoreError: if the server does not answer, or changes may not be told.
        """

        async def look(
            connection: Connection,
        ) -> tuple[object, ...] | None:
            return await (await connection.execute(_CHECK, (str(self._table),))).fetchone()

        row = await self._link.ask_or_leave(look, self._seconds)
        if row is None:
            raise table_error(self._table, "is not there")
        oid, is_plain, is_subscribed, is_readable, process, triggers, made = row
        if process != self._link.connection.info.backend_pid:
            # A pooler cannot give its clients the servers' own: they would cancel each
            # other's questions by them.
            raise StoreError(
                "a pooler is in between, which does not pass on what is told: the URL must lead to"
                " PostgreSQL itself"
            )
        if not is_plain:
            raise StoreError(f"table {self._table}: is a view, or has or is a partition or a child")
        if is_subscribed:
            raise StoreError(
                f"table {self._table}: is filled by a subscription, which tells no changes"
            )
        if not is_readable:
            raise StoreError(
                f"table {self._table}: may not be read; the documentation has the rights to grant"
            )
        if not _tells_all(triggers):
            raise table_error(self._table, "a trigger that tells changes is missing or off")
        if self._made is None:
            self._made = oid, made
        elif self._made != (oid, made):
            raise StoreUnavailable(f"table {self._table}: it, or a trigger of it, was made anew")


def _tells_all(triggers: object) -> bool:
    """:param triggers: name and ``tgtype`` of each that is on."""
    on = {name: int(kind) for name, kind in triggers} if isinstance(triggers, list) else {}
    return all(on.get(name, 0) & event for name, event in TRIGGERS.items())


def _keys(payload: str) -> list[str] | None:
    """:returns: what a payload tells; None if anything may have changed."""
    if payload == ANYTHING or not payload.startswith(TOLD):
        return None
    return payload[len(TOLD) :].split("\n")
