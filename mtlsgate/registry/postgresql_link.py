"""
Connections to a PostgreSQL, with a time limit on everything.

A statement that gets no answer in time costs its connection: the socket is shut down, at
which the client sees the end of the stream.  psycopg's own way to cancel would first ask
the server, which is the one that does not answer.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import make_conninfo

from mtlsgate.registry.postgresql_errors import connect_error, question_error
from mtlsgate.registry.postgresql_hosts import FILES, Host, hosts_of
from mtlsgate.registry.read_files import ReadFiles
from mtlsgate.registry.schema import Table
from mtlsgate.registry.store import StoreError, StoreOptions, StoreUnavailable

_T = TypeVar("_T")
Connection = psycopg.AsyncConnection[tuple[object, ...]]
#: Asks something on a connection.
Question = Callable[[Connection], Awaitable[_T]]

# Which server this is: a restarted one began at another time.  Leases need READ COMMITTED, and a
# role may have another default.  The server must end a statement that nobody waits for any more:
# others wait behind it.
_WHO = """
SELECT set_config('default_transaction_isolation', 'read committed', false),
    set_config('statement_timeout', %s, false),
    pg_is_in_recovery(), pg_postmaster_start_time()::text
"""
# The timeline: a promoted server has a higher one than the server that it replaces.  Anybody
# may ask for it, but not all who host PostgreSQL have an answer.
_TIMELINE = "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint"
_CLOSED = "the store is closed"


class Link:
    """
    A connection to one server.

    :ivar host: which server of the URL.
    :ivar server: differs from that of any other server, and of this one before a restart.
    :ivar timeline: how often this server, or those before it, were promoted; 0 if the URL
        has no other server.
    """

    def __init__(self, connection: Connection, table: Table, host: Host) -> None:
        self.connection = connection
        self.host = host
        self.server = ""
        self.timeline = 0
        self._table = table
        self._is_cut = False

    async def ask(self, question: Question[_T], seconds: float) -> _T:
        """
        Ask.  The caller must not be cancelled meanwhile: psycopg would wait for the server
        to cancel the question.

        :raises StoreError: if the answer is an error, or does not come in time.
        """
        timer = asyncio.get_running_loop().call_later(seconds, self.cut)
        try:
            return await question(self.connection)
        except psycopg.Error as error:
            if self._is_cut:
                raise StoreUnavailable(
                    f"no answer from {self.host.name} within {seconds:g} s"
                ) from None
            raise question_error(error, self._table) from None
        except UnicodeEncodeError:
            raise StoreError("half of a surrogate pair cannot be stored") from None
        finally:
            timer.cancel()

    async def ask_or_leave(self, question: Question[_T], seconds: float) -> _T:
        """As `ask`, but a caller that is cancelled costs the connection."""
        task = asyncio.ensure_future(self.ask(question, seconds))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self.cut()
            await asyncio.wait({task})
            task.exception()
            raise

    def cut(self) -> None:
        """Shut the socket down: whoever waits for an answer gets an error at once."""
        self._is_cut = True
        with (
            suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self.connection.fileno())) as one,
        ):
            one.shutdown(socket.SHUT_RDWR)

    def is_usable(self) -> bool:
        """:returns: whether the server has not hung up, as far as can be seen."""
        if self._is_cut or self.connection.broken or self.connection.closed:
            return False
        # A server says nothing without being asked, unless it hangs up.
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        """Close the connection, without asking the server."""
        self.connection.pgconn.finish()


class Connector:
    """Connects to the primary among the servers of a URL."""

    def __init__(self, options: StoreOptions, table: Table) -> None:
        """:raises StoreError: if the URL or the other options are wrong."""
        self.hosts = hosts_of(options)
        self._read = ReadFiles(dict(options.contents))
        self._table = table
        self._timeout = options.timeout
        # The highest timeline that was seen: servers with a lower one were replaced.
        self._timeline = 0

    async def connect(self, limit: float) -> Link:
        """
        Connect to all servers at once, and keep the first that is the primary.

        :param limit: how long the server may work on a statement, in seconds.
        :raises StoreError: if there is none within the time limit.
        """
        found, problems = await self._connect(self.hosts, 1, limit)
        if found:
            return found[0]
        # Tell first what will not pass by itself: more than that another server is down.
        problems.sort(key=lambda one: isinstance(one[1], StoreUnavailable))
        kind = type(problems[0][1])
        if len(self.hosts) == 1:
            raise kind(str(problems[0][1]))
        raise kind("; ".join(f"{host.name}: {error}" for host, error in problems))

    async def check_others(self, link: Link) -> None:
        """
        :raises StoreUnavailable: if another server was promoted after this one, which then
            does not know that it was replaced.
        """
        others = [host for host in self.hosts if host is not link.host]
        for found in (await self._connect(others, len(others), self._timeout))[0]:
            found.close()
        if self.is_replaced(link):
            raise StoreUnavailable(f"{link.host.name} was replaced: another server was promoted")

    def is_replaced(self, link: Link) -> bool:
        """:returns: whether a server was seen that was promoted after this one."""
        return link.timeline < self._timeline

    async def _connect(
        self, hosts: Sequence[Host], enough: int, limit: float
    ) -> tuple[list[Link], list[tuple[Host, StoreError]]]:
        tasks = [asyncio.ensure_future(self._to_primary(host, limit)) for host in hosts]
        found: list[Link] = []
        problems: list[tuple[Host, StoreError]] = []
        try:
            for ended in asyncio.as_completed(tasks):
                try:
                    found.append(await ended)
                except _ConnectError as error:
                    problems.append((error.host, error.problem))
                if len(found) >= enough:
                    break
        except asyncio.CancelledError:
            found.clear()
            raise
        finally:
            # Close those that nobody waits for any more.
            for task in tasks:
                task.cancel()
                task.add_done_callback(lambda task: _close_unless_in(found, task))
        return found, problems

    async def _to_primary(self, host: Host, limit: float) -> Link:
        try:
            async with asyncio.timeout(self._timeout):
                return await self._open(host, limit)
        except TimeoutError:
            why = StoreUnavailable(f"no connection to {host.name} within {self._timeout:g} s")
            raise _ConnectError(host, why) from None
        except psycopg.Error as error:
            problem = connect_error(error)
            problem = type(problem)(self._read.named(str(problem)))
            raise _ConnectError(host, problem) from None
        except StoreError as error:
            raise _ConnectError(host, error) from None

    async def _open(self, host: Host, limit: float) -> Link:
        files = {
            name: self._read.path(host.parameters[name]) for name in FILES & host.parameters.keys()
        }
        try:
            connection = await psycopg.AsyncConnection.connect(
                make_conninfo(**{**host.parameters, **files}), autocommit=True
            )
        except asyncio.CancelledError as error:
            # The traceback keeps the half-made connection open: drop it.
            raise error.with_traceback(None) from None
        kept = False
        try:
            if (found := connection.info.parameter_status("server_encoding")) != "UTF8":
                raise StoreError(f"the database's encoding is {found}: it must be UTF8")
            link = Link(connection, self._table, host)
            standby, link.server = await link.ask_or_leave(_who(limit), self._timeout)
            if standby:
                raise StoreUnavailable("is a standby, which cannot tell changes")
            if len(self.hosts) > 1:
                link.timeline = await link.ask_or_leave(_timeline, self._timeout)
            if self.is_replaced(link):
                raise StoreUnavailable("was replaced: another server was promoted after it")
            self._timeline = link.timeline
            kept = True
            return link
        finally:
            if not kept:
                connection.pgconn.finish()


class Session:
    """
    Asks one question after the other, on a connection that is kept.

    :param limit: how long an answer may take, in seconds.
    """

    def __init__(self, connector: Connector, limit: float) -> None:
        self._connector = connector
        self._limit = limit
        self._turn = asyncio.Lock()
        self._connecting: asyncio.Future[Link] | None = None
        self._link: Link | None = None
        self._is_closed = False

    async def ask(
        self, question: Question[_T], server: Callable[[], str | None] = lambda: None
    ) -> _T:
        """
        Ask when those before are answered.  The caller must not be cancelled meanwhile.

        :param server: which one must answer, or None.
        :raises StoreError: if there is no connection, or no good answer.
        """
        async with self._turn:
            return await self._ask(question, server)

    async def ask_for(self, question: Question[_T]) -> _T:
        """As `ask`.  If the caller is cancelled, a question that is asked goes on."""
        await self._turn.acquire()
        task = asyncio.ensure_future(self._ask(question, lambda: None))
        task.add_done_callback(self._answered)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End the question that is asked, and the connection."""
        self._is_closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.cut()
        async with self._turn:
            self._drop()

    async def _ask(self, question: Question[_T], server: Callable[[], str | None]) -> _T:
        if self._is_closed:
            raise StoreUnavailable(_CLOSED)
        link = await self._usable(server)
        try:
            return await link.ask(question, self._limit)
        except StoreError:
            # After an error in one statement the connection is as good as before.
            if not link.is_usable():
                self._drop()
            raise

    async def _usable(self, server: Callable[[], str | None]) -> Link:
        link = self._link
        if link is not None and not (
            link.is_usable()
            and not self._connector.is_replaced(link)
            and server() in (None, link.server)
        ):
            self._drop()
            link = None
        if link is None:
            link = self._link = await self._connect()
        if server() not in (None, link.server):
            raise StoreUnavailable(f"{link.host.name} is not the server that tells the changes")
        return link

    async def _connect(self) -> Link:
        self._connecting = asyncio.ensure_future(self._connector.connect(self._limit))
        try:
            return await self._connecting
        except asyncio.CancelledError:
            raise StoreUnavailable(_CLOSED) from None
        finally:
            self._connecting = None

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _answered(self, task: asyncio.Future[Any]) -> None:
        self._turn.release()
        if not task.cancelled():
            # Whoever asked may be gone: do not let asyncio log the error as forgotten.
            task.exception()


class _ConnectError(Exception):
    """Which server, and why there is no connection to it."""

    def __init__(self, host: Host, problem: StoreError) -> None:
        super().__init__(problem)
        self.host = host
        self.problem = problem


def _close_unless_in(kept: Sequence[Link], task: asyncio.Future[Link]) -> None:
    if not task.cancelled() and task.exception() is None and task.result() not in kept:
        task.result().close()


def _who(limit: float) -> Question[tuple[bool, str]]:
    async def ask(connection: Connection) -> tuple[bool, str]:
        # A little earlier than the client, which then can keep the connection.
        milliseconds = max(1, round(limit * 900))
        row = await (await connection.execute(_WHO, (str(milliseconds),))).fetchone()
        assert row is not None
        return bool(row[2]), str(row[3])

    return ask


async def _timeline(connection: Connection) -> int:
    row = await (await connection.execute(_TIMELINE)).fetchone()
    assert row is not None
    return int(str(row[0]))
