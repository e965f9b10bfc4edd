"""
One prepared statement, asked again and again, by libpq's own functions.

For each client that a gate does not know it asks one question.  psycopg's cursors would do
the same for three times the CPU time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from psycopg import errors, pq

from mtlsgate.registry.postgresql_link import Connection

_NAME = b"mtlsgate"


class Prepared:
    """
    A statement with one parameter, a text.

    :param text: the statement, with ``$1`` for the parameter.
    """

    def __init__(self, text: bytes) -> None:
        self._text = text
        self._on: Connection | None = None

    async def ask(self, connection: Connection, parameter: str) -> list[Sequence[str | None]]:
        """
        :param connection: nobody else uses it meanwhile.
        :returns: the rows, as text.
        :raises psycopg.Error: if the server says so, or does not answer.
        """
        if self._on is not connection:
            await connection.execute(b"PREPARE " + _NAME + b" (text) AS " + self._text)
            self._on = connection
        link = connection.pgconn
        link.send_query_prepared(_NAME, [parameter.encode()])
        while link.flush():
            await until_ready(asyncio.get_running_loop().add_writer, link.socket)
        rows: list[Sequence[str | None]] = []
        error: errors.Error | None = None
        # To the end also after an error: the next question comes on the same connection.
        while (result := await _result(link)) is not None:
            if result.status != pq.ExecStatus.TUPLES_OK:
                error = errors.error_from_result(result)
                continue
            columns = range(result.nfields)
            rows += [[_text(result, row, one) for one in columns] for row in range(result.ntuples)]
        if error is not None:
            raise error
        return rows


async def _result(link: pq.abc.PGconn) -> pq.abc.PGresult | None:
    while link.is_busy():
        await until_ready(asyncio.get_running_loop().add_reader, link.socket)
        link.consume_input()
    return link.get_result()


async def until_ready(watch: Callable[..., object], socket: int) -> None:
    """
    Wait until a socket is ready.

    :param watch: the loop's ``add_reader`` or ``add_writer``.
    :param socket: its descriptor; nothing else waits for it meanwhile.
    """
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    watch(socket, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(socket)
        loop.remove_writer(socket)


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _text(result: pq.abc.PGresult, row: int, column: int) -> str | None:
    value = result.get_value(row, column)
    return None if value is None else value.decode()
