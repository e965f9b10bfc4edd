"""
A registry in PostgreSQL: one table, `mtlsgate.registry.schema` has its SQL.

A gate has at most three connections: one asks for devices, one takes leases, one listens.
While the answer to one question is on its way, what is asked meanwhile is gathered into
the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Collection, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

from mtlsgate.admission.devices import Device, is_key
from mtlsgate.registry.postgresql_following import follow
from mtlsgate.registry.postgresql_link import Connection, Connector, Session
from mtlsgate.registry.postgresql_prepared import Prepared
from mtlsgate.registry.postgresql_rows import Statements, columns_of, devices_of
from mtlsgate.registry.rounds import Rounds
from mtlsgate.registry.schema import Table, schema_sql
from mtlsgate.registry.store import Follower, StoreOptions, StoreUnavailable, Written

_T = TypeVar("_T")

#: How many devices are written, or read one after the other, in one statement.
_PAGE = 1000
#: What writes or reads many devices may take so much longer than a question.
_MANY_SECONDS = 10.0
#: After so many leases those that ran out are removed.
_SWEEP_EVERY = 10_000


def open_store(options: StoreOptions) -> PostgresqlStore:
    """
    :returns: the store, not connected yet.
    :raises StoreError: if an option is wrong.
    """
    table = Table.parse(options.prefix)
    return PostgresqlStore(Connector(options, table), table, options.timeout)


class PostgresqlStore:
    """A `mtlsgate.registry.store.Store` in PostgreSQL."""

    def __init__(self, connector: Connector, table: Table, timeout: float) -> None:
        self._connector = connector
        self._table = table
        self._statements = Statements.about(table)
        self._find = Prepared(self._statements.find)
        self._timeout = timeout
        self._questions = Session(connector, timeout)
        self._leases = Session(connector, timeout)
        self._changes = Session(connector, max(timeout, _MANY_SECONDS))
        # Which server tells the changes.
        self._server: str | None = None
        # Gates that ended at once leave leases of clients that may never come again.
        self._until_sweep = 0
        self._finding = Rounds(self._find_all)
        self._releasing = Rounds(self._release_all)

    async def find(self, keys: Collection[str]) -> Mapping[str, Device]:
        """See `mtlsgate.registry.store.Store.find`."""
        wanted = [key for key in keys if is_key(key)]
        if not wanted:
            return {}
        found = await self._in_time(self._finding.ask(wanted))
        return {key: found[key] for key in wanted if key in found}

    async def follow(self, follower: Follower) -> None:
        """See `mtlsgate.registry.store.Store.follow`."""
        try:
            await follow(self._connector, self._table, self._timeout, follower, self._begun)
        finally:
            self._server = None

    async def put(self, devices: Iterable[Device]) -> Written:
        """See `mtlsgate.registry.store.Store.put`."""
        added = changed = 0
        remaining = iter(devices)
        while batch := list(islice(remaining, _PAGE)):
            counts = await self._write(self._statements.put, columns_of(batch))
            added += counts[0]
            changed += counts[1]
        return Written(added, changed)

    async def remove(self, keys: Collection[str]) -> int:
        """See `mtlsgate.registry.store.Store.remove`."""
        wanted = sorted(key for key in keys if is_key(key))

        async def remove(connection: Connection) -> int:
            return (await connection.execute(self._statements.remove, (wanted,))).rowcount

        return await self._changes.ask_for(remove)

    async def devices(self) -> AsyncIterator[Device]:
        """
        Sorted by their keys, page after page: what changes meanwhile may be seen or not.
        See `mtlsgate.registry.store.Store.devices`.
        """
        after = ""
        while True:

            async def page(connection: Connection, after: str = after) -> list[tuple[object, ...]]:
                cursor = await connection.execute(self._statements.page, (after, _PAGE))
                return await cursor.fetchall()

            rows = await self._changes.ask_for(page)
            for device in devices_of(rows).values():
                yield device
            if len(rows) < _PAGE:
                return
            after = str(rows[-1][0])

    async def count(self) -> int:
        """
        Exact up to 100,000 devices; beyond, as PostgreSQL estimates it.
        See `mtlsgate.registry.store.Store.count`.
        """
        return (await self._write(self._statements.count, ()))[0]

    async def lease(self, key: str, holder: str, places: int, seconds: float) -> bool:
        """See `mtlsgate.registry.store.Store.lease`."""

        async def lease(connection: Connection) -> bool:
            if self._until_sweep == 0:
                self._until_sweep = _SWEEP_EVERY
                await connection.execute(self._statements.sweep)
            self._until_sweep -= 1
            cursor = await connection.execute(
                self._statements.lease, (key, holder, places, seconds)
            )
            row = await cursor.fetchone()
            return row is not None and row[0] is True

        return await self._in_time(self._leases.ask_for(lease))

    async def release(self, key: str, holder: str) -> None:
        """See `mtlsgate.registry.store.Store.release`."""
        await self._in_time(self._releasing.ask([(key, holder)]))

    async def apply_schema(self) -> None:
        """
        Make the table and what belongs to it, or bring it up to date.

        :raises StoreError: if it fails; then nothing has changed.
        """

        async def apply(connection: Connection) -> None:
            await connection.execute(schema_sql(self._table))

        await self._changes.ask_for(apply)

    async def close(self) -> None:
        """See `mtlsgate.registry.store.Store.close`."""
        for session in (self._questions, self._leases, self._changes):
            await session.close()
        await self._finding.close()
        await self._releasing.close()

    async def _in_time(self, answer: Awaitable[_T]) -> _T:
        """:raises StoreUnavailable: if it takes too long."""
        try:
            async with asyncio.timeout(self._timeout):
                return await answer
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {self._timeout:g} s") from None

    async def _find_all(self, keys: Collection[str]) -> Mapping[str, Device]:
        # No key has a line end, see `is_key`.
        text = "\n".join(keys)

        async def find(connection: Connection) -> Sequence[Sequence[object]]:
            return await self._find.ask(connection, text)

        return devices_of(await self._questions.ask(find, lambda: self._server))

    async def _release_all(self, places: Collection[tuple[str, str]]) -> None:
        columns = [key for key, _ in places], [holder for _, holder in places]

        async def release(connection: Connection) -> None:
            await connection.execute(self._statements.release, columns)

        await self._leases.ask(release)

    async def _write(self, sql: bytes, parameters: Sequence[object]) -> tuple[int, ...]:
        async def write(connection: Connection) -> tuple[int, ...]:
            row = await (await connection.execute(sql, parameters)).fetchone()
            assert row is not None
            return tuple(int(str(one)) for one in row)

        return await self._changes.ask_for(write)

    async def _begun(self, server: str) -> None:
        """Connect for questions, too, so that the first one is as quick as the others."""
        self._server = server
        await self._finding.ask([])
