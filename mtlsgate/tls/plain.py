"""
A plain connection on a socket, as a Twisted transport.

It works like Twisted's TCP and unix transports, but sends written bytes at once if
the kernel takes them, without waiting for the reactor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
)
from twisted.python.failure import Failure

from mtlsgate.tls.stream import SocketStream


class PlainTransport(SocketStream):
    """
    The transport of one connection.

    :ivar _application: the protocol that gets the bytes.
    :ivar _on_lost: called when the connection is over.
    :ivar _is_read: whether no more bytes come from the other side.
    :ivar _is_ending: whether to end the stream to the other side when everything
        written has been sent.
    :ivar _is_written: whether that stream has ended.
    """

    _application: IProtocol | None = None
    _on_lost: Callable[[Failure], object] | None = None
    _is_read = False
    _is_ending = False
    _is_written = False

    def begin(
        self, application: IProtocol, on_lost: Callable[[Failure], object] | None = None
    ) -> None:
        """
        Connect a protocol, and read.

        :param on_lost: called with the reason, after the protocol has been told that
            the connection is over.
        """
        self._application = application
        self._on_lost = on_lost
        self.startReading()
        application.makeConnection(self)

    def detach(self) -> tuple[socket.socket, bytes]:
        """
        Give the socket away.  This object and its protocol must not be used
        afterwards.

        :returns: the socket, and the bytes written but not sent yet.
        """
        unsent = b"".join(self._unsent)
        self.stopReading()
        self.stopWriting()
        self.drop_unsent()
        self.connected, self.disconnected = 0, 1
        self._descriptor = -1
        self._application = self._on_lost = None
        return self._socket, unsent

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return type(self._application or self).__name__

    def bytes_came(self, data: bytes) -> None:
        """Hand on what was read."""
        if self._application is not None:
            self._application.dataReceived(data)

    def readConnectionLost(self, reason: Failure) -> None:
        """The other side sends no more."""
        self.stopReading()
        self._is_read = True
        half = IHalfCloseableProtocol(self._application, None)
        if half is None:
            self.connectionLost(reason)
        else:
            half.readConnectionLost()

    def write(self, data: bytes) -> None:
        """Write; after `loseConnection` only a registered producer still may."""
        if not self.connected or self.is_aborted or self._is_written:
            return
        if self.producer is not None or not (self.disconnecting or self._is_ending):
            self.send(data)
            self.make_producer_wait()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write all of it."""
        self.write(b"".join(iovec))

    def all_sent(self) -> Exception | None:
        """Ask the producer for more, or end."""
        if not self.ask_producer() and self.producer is None:
            if self.disconnecting:
                return ConnectionDone()
            if self._is_ending and not self._is_written:
                self._end_writing()
        if not self.unsent and (self.streamingProducer or self.producer is None):
            self.stopWriting()
        return None

    def _end_writing(self) -> None:
        self._is_written = True
        with suppress(OSError):
            # If the other side has left, reading will tell.
            self._socket.shutdown(socket.SHUT_WR)
        half = IHalfCloseableProtocol(self._application, None)
        if half is not None:
            half.writeConnectionLost()

    def loseConnection(self) -> None:
        """Close the connection after everything written."""
        if self.connected and not self.disconnecting:
            self.disconnecting = 1
            self.startWriting()

    def loseWriteConnection(self) -> None:
        """End the stream to the other side after everything written."""
        if self.connected and not self._is_ending:
            self._is_ending = True
            self.startWriting()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over: tell the protocol."""
        if self.disconnected:
            return
        if self.disconnecting and not self.is_aborted:
            self.drop_received()
        super().connectionLost(reason)
        application, self._application = self._application, None
        on_lost, self._on_lost = self._on_lost, None
        try:
            if application is not None:
                application.connectionLost(reason)
        finally:
            if on_lost is not None:
                on_lost(reason)

    # Producers and consumers.

    def unregisterProducer(self) -> None:
        """Stop writing from the producer."""
        self.producer = None
        self.producerPaused = False
        if self.connected and (self.disconnecting or self._is_ending):
            self.startWriting()

    def pauseProducing(self) -> None:
        """Read nothing for now."""
        self.stopReading()

    def resumeProducing(self) -> None:
        """Read again."""
        if self.connected and not (self.disconnecting or self._is_read):
            self.startReading()

    def stopProducing(self) -> None:
        """End the connection."""
        self.loseConnection()
