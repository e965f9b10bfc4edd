"""
Runs a coroutine for each connection, which gets the client and asyncio's streams.
"""

from __future__ import annotations

from asyncio import (
    AbstractEventLoop,
    StreamReader,
    StreamReaderProtocol,
    StreamWriter,
    Task,
    WriteTransport,
)
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.interfaces import IVerifiedPeer

#: What ``handler`` names.
Handle = Callable[[IVerifiedPeer | None, StreamReader, StreamWriter], Coroutine[Any, Any, object]]

_log = Logger("mtlsgate.asyncio")


class HandlerTask:
    """
    The task of one connection.

    It is cancelled when the connection is over.  When it is done, the connection ends: in
    good order, or at once if the handler failed, so that what it sent does not look like
    all of it.
    """

    def __init__(self, handle: Handle, loop: AbstractEventLoop, server: str) -> None:
        """
        :param handle: the handler.
        :param server: the server's name, for logs.
        """
        self._handle = handle
        self._loop = loop
        self._server = server
        self._task: Task[object] | None = None

    def begin(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Run the handler."""
        peer = writer.get_extra_info("verified_peer")
        self._task = self._loop.create_task(self._run(peer, reader, writer))

    async def _run(
        self, peer: IVerifiedPeer | None, reader: StreamReader, writer: StreamWriter
    ) -> None:
        transport = writer.transport
        try:
            await self._handle(peer, reader, writer)
        except ConnectionError:
            # The client left: that is no fault of the handler's.
            if not transport.is_closing():
                self._failed(transport)
        except Exception:  # noqa: BLE001 -- the handler's own; it costs this connection
            self._failed(transport)
        finally:
            writer.close()

    def _failed(self, transport: WriteTransport) -> None:
        _log.failure("{server}: the handler failed", failure=Failure(), server=self._server)
        transport.abort()

    def end(self) -> None:
        """Cancel it: the connection is over."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()


class HandlerProtocol(StreamReaderProtocol):
    """The protocol of one connection whose handler uses streams."""

    def __init__(self, task: HandlerTask, loop: AbstractEventLoop) -> None:
        """:param task: runs the handler."""
        super().__init__(StreamReader(loop=loop), task.begin, loop)
        self._task_of_handler = task

    def eof_received(self) -> bool:
        """:returns: True: the handler may answer a client that has ended its direction."""
        super().eof_received()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the streams know, and end the task."""
        super().connection_lost(exc)
        self._task_of_handler.end()
