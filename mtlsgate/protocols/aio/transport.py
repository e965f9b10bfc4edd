"""
An `asyncio.Transport` on the gate's connection.

The gate hands a connection to a `GateTransport`, which is a Twisted protocol on one side,
and on the other the transport of an asyncio protocol.

- What is written goes out at the end of the call in which bytes were received, or else in
  the loop's next turn.  Past `FLUSH_SIZE` bytes it goes out at once.
- The limits of the write buffer count what the kernel has not taken.
- The two directions end one by one.  If the client ends its own, ``eof_received`` decides
  whether the connection goes on.  ``write_eof`` sends TLS's close_notify.
- A connection that ends without close_notify was cut off, and ``connection_lost`` gets a
  `ConnectionResetError`.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, BaseProtocol, Handle
from collections.abc import Callable, Iterable
from typing import Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.protocols.aio.connection import (
    CLOSE_TIMEOUT,
    FLUSH_SIZE,
    HIGH_WATER,
    LOW_WATER,
    as_bytes,
    buffer_limits,
)
from mtlsgate.protocols.aio.facts import EXTRA_INFO
from mtlsgate.protocols.aio.receiving import ReceivingTransport

_log = Logger("mtlsgate.asyncio")

Bytes = bytes | bytearray | memoryview


@implementer(IHalfCloseableProtocol, IPushProducer)
class GateTransport(ReceivingTransport):
    """
    The transport of one asyncio protocol.

    :ivar _written: what the protocol wrote and the connection has not got yet.
    :ivar _flushing: passes that on in the loop's next turn.
    :ivar _is_full: whether the protocol was told to stop writing.
    :ivar _is_at_end: whether ``write_eof`` was called.
    :ivar _timer: ends a connection that its client does not end.
    """

    _flushing: Handle | None = None
    _timer: IDelayedCall | None = None
    _written_size = 0
    _is_full = False
    _is_at_end = False
    _high, _low = HIGH_WATER, LOW_WATER

    def __init__(
        self,
        protocol: BaseProtocol,
        loop: AbstractEventLoop,
        clock: IReactorTime,
        server: str,
        lost: Callable[[GateTransport], object],
        piece_size: int | None = None,
    ) -> None:
        """
        :param protocol: the asyncio protocol.
        :param loop: the loop that runs.
        :param clock: keeps the time.
        :param server: the server's name, for logs.
        :param lost: is told when the connection is over.
        :param piece_size: the most bytes that the protocol gets at once; None for all.
        """
        super().__init__(protocol, loop, server, piece_size)
        self._clock = clock
        self._lost = lost
        self._written: list[bytes] = []

    # As a Twisted protocol.

    def connectionMade(self) -> None:
        """Give the asyncio protocol its transport."""
        self.transport.keep_below(self._low)
        self.transport.registerProducer(self, True)
        assert self._protocol is not None
        self._protocol.connection_made(self)

    def dataReceived(self, data: bytes) -> None:
        """Pass bytes to the protocol, and send what it answers."""
        if not self._is_closing:
            self._receive(data)

    def _received(self) -> None:
        if self._written:
            self._flush()

    def readConnectionLost(self) -> None:
        """The client sent close_notify: ask the protocol whether to go on."""
        if self._is_closing:
            return
        goes_on = False
        try:
            goes_on = bool(cast(asyncio.Protocol, self._protocol).eof_received())
        except Exception:  # noqa: BLE001 -- the protocol's own; it costs this connection
            self._failed("eof_received")
        if not goes_on:
            self.close()

    def writeConnectionLost(self) -> None:
        """Nothing more can be written: `connectionLost` follows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol, and let go of it."""
        protocol, self._protocol = self._protocol, None
        self._buffered = None
        error: Exception | None = None
        if not (self._is_closing or reason.check(ConnectionDone)):
            error = ConnectionResetError("the client cut the connection off")
        self._is_closing = True
        self._written.clear()
        self._written_size = 0
        self._stop_timing()
        self._lost(self)
        if protocol is None:
            return
        try:
            protocol.connection_lost(error)
        except Exception:  # noqa: BLE001 -- the protocol's own; the connection is over
            _log.failure("{server}: connection_lost() failed", server=self._server)

    # As a Twisted producer: the connection says whether the client reads.

    def pauseProducing(self) -> None:
        """More is unsent than the low limit."""
        self._look_if_full()

    def resumeProducing(self) -> None:
        """No more is unsent than the low limit."""
        self._look_if_full()

    def stopProducing(self) -> None:
        """`connectionLost` follows."""

    def _look_if_full(self) -> None:
        size = self.get_write_buffer_size()
        if self._is_full:
            if size <= self._low:
                self._is_full = False
                self._tell("resume_writing")
        elif size > self._high:
            self._is_full = True
            self._tell("pause_writing")

    def _tell(self, method: str) -> None:
        try:
            if self._protocol is not None:
                getattr(self._protocol, method)()
        except Exception:  # noqa: BLE001 -- the protocol's own; it costs this connection
            self._failed(method)

    # asyncio.BaseTransport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """
        :param name: ``peername``, ``sockname``, ``socket``, ``ssl_object``, ``peercert``,
            ``cipher``, ``compression`` or ``verified_peer``; or ``sslcontext``, which is
            something true, for those that look whether there is TLS.
        :returns: what is known; the default for any other name.
        """
        known = EXTRA_INFO.get(name)
        return default if known is None else known(self.transport)

    def is_closing(self) -> bool:
        """:returns: whether the connection is ending, or over."""
        return self._is_closing

    def close(self) -> None:
        """End the connection when everything is sent.  Nothing is received any more."""
        if self._is_closing:
            return
        self._is_closing = True
        self._stop_flushing()
        if self._written:
            # It goes out together with close_notify.
            self.transport.write(self._taken())
        self._end_writing()
        self._timer = self._clock.callLater(CLOSE_TIMEOUT, self.abort)
        self.transport.loseConnection()

    # asyncio.WriteTransport

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """
        :param high: with more unsent bytes than this the protocol is told to stop.
        :param low: with no more than this it is told to go on.
        :raises ValueError: unless high is at least low, and low at least 0.
        """
        self._high, self._low = buffer_limits(high, low)
        if not self._is_closing and self.transport is not None:
            self.transport.keep_below(self._low)
            self._look_if_full()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """:returns: the low limit and the high one."""
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        """:returns: how many bytes the kernel has not taken; what is encrypted is longer."""
        return self._written_size + self.transport.unsent

    def write(self, data: Bytes) -> None:
        """Write.  After the connection was closed or lost, nothing happens."""
        if not isinstance(data, bytes):
            data = as_bytes(data)
        if self._is_at_end:
            raise RuntimeError("write() after write_eof()")
        if not data or self._is_closing:
            return
        self._written.append(data)
        self._written_size += len(data)
        if self._written_size >= FLUSH_SIZE:
            self._flush()
        elif not self._is_receiving and self._flushing is None:
            self._flushing = self._loop.call_soon(self._flush_in_turn)
        if not self._is_full and self._written_size + self.transport.unsent > self._high:
            self._look_if_full()

    def writelines(self, list_of_data: Iterable[Bytes]) -> None:
        """Write all of it."""
        self.write(b"".join(list_of_data))

    def _flush_in_turn(self) -> None:
        self._flushing = None
        self._flush()

    def _taken(self) -> bytes:
        """:returns: what was written, which is not kept any longer."""
        written = self._written
        data = written[0] if len(written) == 1 else b"".join(written)
        written.clear()
        self._written_size = 0
        return data

    def _flush(self) -> None:
        """Pass what was written to the connection."""
        self._stop_flushing()
        if not self._written:
            return
        self.transport.write_at_once(self._taken())
        if self._is_full or self.transport.unsent > self._high:
            self._look_if_full()

    def can_write_eof(self) -> bool:
        """:returns: True: TLS ends its directions one by one."""
        return True

    def write_eof(self) -> None:
        """Send close_notify when everything is sent.  Bytes are still received."""
        if self._is_at_end or self._is_closing:
            return
        self._flush()
        if self._is_closing:
            return
        self._is_at_end = True
        self._end_writing()
        self.transport.loseWriteConnection()

    def abort(self) -> None:
        """End the connection at once.  What is unsent is dropped."""
        self._is_closing = True
        self._stop_flushing()
        self._written.clear()
        self._written_size = 0
        self.transport.abortConnection()

    def _end_writing(self) -> None:
        # TLS does not end while a producer is registered.
        self.transport.unregisterProducer()
        if self._is_full:
            self._is_full = False
            self._loop.call_soon(self._tell, "resume_writing")

    def _stop_flushing(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None

    def _stop_timing(self) -> None:
        self._stop_flushing()
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
