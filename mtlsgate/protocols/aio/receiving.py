"""
The receiving half of the transport: passes bytes to an asyncio protocol, as many and as long
as it takes them.
"""

from __future__ import annotations

import asyncio
import sys
from abc import abstractmethod
from asyncio import AbstractEventLoop, BaseProtocol, BufferedProtocol
from typing import cast

from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.logger import Logger

from mtlsgate.protocols.aio.connection import GateConnection

_log = Logger("mtlsgate.asyncio")


class ReceivingTransport(asyncio.Transport, TwistedProtocol):
    """
    :ivar _protocol: the asyncio protocol; None after the end.
    :ivar _buffered: the same, if it is a `asyncio.BufferedProtocol`.
    :ivar _held: what was received when the protocol paused reading in the middle of it.
    :ivar _is_receiving: whether received bytes are being handled.
    :ivar _is_reading: whether the protocol takes bytes.
    :ivar _is_closing: whether the connection is ending, or over.
    """

    transport: GateConnection  # type: ignore[assignment]  # it is no less than ITransport
    _buffered: BufferedProtocol | None = None
    _held = memoryview(b"")
    _is_receiving = False
    _is_reading = True
    _is_closing = False

    def __init__(
        self,
        protocol: BaseProtocol,
        loop: AbstractEventLoop,
        server: str,
        piece_size: int | None,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._server = server
        self._piece_size = piece_size or sys.maxsize
        self._protocol: BaseProtocol | None = None
        self.set_protocol(protocol)

    @abstractmethod
    def _received(self) -> None:
        """The protocol has taken bytes: send what it answers."""

    def _receive(self, data: bytes | memoryview) -> None:
        self._is_receiving = True
        try:
            if self._buffered is None and type(data) is bytes and len(data) <= self._piece_size:
                cast(asyncio.Protocol, self._protocol).data_received(data)
            else:
                self._held = self._deliver(memoryview(data))
        except Exception:  # noqa: BLE001 -- the protocol's own; it costs this connection
            self._failed("data_received")
        finally:
            self._is_receiving = False
        self._received()

    def _deliver(self, left: memoryview) -> memoryview:
        """:returns: what the protocol does not take for now."""
        while left and self._is_reading and not self._is_closing:
            if self._buffered is None:
                size = min(len(left), self._piece_size)
                cast(asyncio.Protocol, self._protocol).data_received(bytes(left[:size]))
            else:
                size = self._fill(left)
            left = left[size:]
        return left

    def _fill(self, data: memoryview) -> int:
        """:returns: how many bytes the protocol's own buffer took."""
        assert self._buffered is not None
        buffer = memoryview(self._buffered.get_buffer(len(data))).cast("B")
        if not buffer:
            raise RuntimeError("get_buffer() returned an empty buffer")
        size = min(len(buffer), len(data))
        buffer[:size] = data[:size]
        self._buffered.buffer_updated(size)
        return size

    def _receive_held(self) -> None:
        """Go on with what was received before the protocol paused reading."""
        held, self._held = self._held, memoryview(b"")
        if self._is_closing:
            return
        if held:
            self._receive(held)
        if self.is_reading() and not self._held:
            self.transport.resumeProducing()

    def _failed(self, method: str) -> None:
        _log.failure("{server}: {method}() failed", server=self._server, method=method)
        self.abort()

    def set_protocol(self, protocol: BaseProtocol) -> None:
        """:param protocol: gets everything from now on."""
        self._protocol = protocol
        self._buffered = protocol if isinstance(protocol, BufferedProtocol) else None

    def get_protocol(self) -> BaseProtocol:
        """:returns: the protocol."""
        return cast(BaseProtocol, self._protocol)

    # asyncio.ReadTransport

    def is_reading(self) -> bool:
        """:returns: whether the protocol takes bytes."""
        return self._is_reading and not self._is_closing

    def pause_reading(self) -> None:
        """Pass the protocol no bytes."""
        if self.is_reading():
            self._is_reading = False
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Pass it bytes again."""
        if not self._is_reading and not self._is_closing:
            self._is_reading = True
            if self._held:
                self._loop.call_soon(self._receive_held)
            else:
                self.transport.resumeProducing()
