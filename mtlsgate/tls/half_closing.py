"""
What Twisted's transports leave to be wished for between two streams: writes
that go out at once, and TLS that ends in one direction at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from typing import NoReturn, cast

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    ITransport,
)
from twisted.internet.tcp import Connection
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementedBy, implementer
from zope.interface.declarations import Declaration
from zope.interface.interface import InterfaceClass

#: What a TLS record holds at most, and how much of several records is handed
#: on as one piece.
_RECORD = 2**14
_GATHER = 2**16
#: More than TLS adds to what is written at once.
_OVERHEAD = 1024


def no_more(protocol: object, transport: ITransport) -> None:
    """
    Say that a TCP connection brings no more.

    :param protocol: what handles the connection's bytes, or None.
    :param transport: the connection's, which is lost if that protocol cannot
        tell its directions apart, as it is in Twisted.
    """
    half = IHalfCloseableProtocol(protocol, None)
    if half is None:
        cast(Connection, transport).connectionLost(Failure(ConnectionDone()))
    else:
        half.readConnectionLost()


class HalfClosingConnection(SSL.Connection):
    """
    An OpenSSL connection that asks what the other side's close_notify means.

    :ivar on_end: called when it has come; answers whether the connection goes
        on in the other direction.
    :ivar _met: what reading met behind data that was handed out before it.
    """

    on_end: Callable[[], bool] | None = None
    _met: SSL.Error | None = None

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """
        :returns: what has come, of as many records as `_GATHER` bytes take;
            OpenSSL gives one record at a time.
        :raises SSL.ZeroReturnError: if the connection is over.
        """
        if self._met is not None:
            self._raise_met()
        try:
            data = SSL.Connection.recv(self, bufsiz, flags)
        except SSL.ZeroReturnError as error:
            self._met = error
            self._raise_met()
        if len(data) < _RECORD:
            return data
        records, size = [data], len(data)
        try:
            while size < _GATHER and len(data) == _RECORD:
                data = super().recv(bufsiz, flags)
                records.append(data)
                size += len(data)
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            # For the next call, after the data before it.
            self._met = error
        return b"".join(records)

    def _raise_met(self) -> NoReturn:
        met, self._met = self._met, None
        assert met is not None
        if isinstance(met, SSL.ZeroReturnError) and self.on_end is not None and self.on_end():
            raise SSL.WantReadError
        try:
            raise met
        finally:
            # Or else the error holds this frame, which holds the error and, with
            # its callers, the whole connection.
            del met


@implementer(IHalfCloseableProtocol)
class HalfClosingTransport(BufferingTLSTransport):
    """
    TLS whose two directions end one by one, as those of TCP do, for an
    application protocol that provides `IHalfCloseableProtocol`.

    Such a protocol is told of the other side's close_notify by
    ``readConnectionLost`` and may go on writing; for any other, the connection
    is then over, as ever in Twisted.  A TCP connection that ends without a
    close_notify was cut off, and is lost for both.

    :ivar _ended: the application was told that no more will come.
    """

    _ended = False

    def makeConnection(self, transport: ITransport) -> None:
        """Connect to what carries the TLS records."""
        super().makeConnection(prompt(transport))

    def write_at_once(self, data: bytes) -> None:
        """Write without waiting for more to come in the same turn of the
        reactor, and all of it in one go."""
        self._aggregator.flush()
        connection: SSL.Connection | None = self._tlsConnection
        if not data or connection is None or self.disconnecting or self._appSendBuffer:
            TLSMemoryBIOProtocol.write(self, data)
            return
        sent = 0
        try:
            # One call for all of it, where the context was made by `new_context`.
            while sent < len(data):
                sent += connection.send(memoryview(data)[sent:] if sent else data)
        except SSL.Error:
            # Into memory it never stops for want of room: TLS is over.
            TLSMemoryBIOProtocol.write(self, data[sent:])
            return
        size = len(data) + _OVERHEAD
        sealed = connection.bio_read(size)
        cast(ITransport, self.transport).write(sealed)
        if len(sealed) == size:
            self._flush_rest()

    def _flush_rest(self) -> None:
        with suppress(SSL.WantReadError):
            while True:
                cast(ITransport, self.transport).write(self.getHandle().bio_read(_OVERHEAD))

    def loseWriteConnection(self) -> None:
        """
        Send close_notify after what was written.  What the other side still
        sends is delivered, until it ends, too.
        """
        self.loseConnection()

    def abortConnection(self) -> None:
        """Reset the connection; nothing more is sent, not even a close_notify,
        which would make what is cut off look whole."""
        mute = getattr(self.transport, "mute", None)
        if mute is not None:
            mute()
        super().abortConnection()

    def readConnectionLost(self) -> None:
        """The TCP connection brings no more."""
        if not self._ended:
            no_more(None, cast(ITransport, self.transport))

    def writeConnectionLost(self) -> None:
        """Not called: this never ends one direction of TCP alone."""

    def on_end(self) -> bool:
        """:returns: whether the connection goes on after the other side's close_notify."""
        connection: SSL.Connection | None = self._tlsConnection
        application = self.wrappedProtocol
        if connection is None or not IHalfCloseableProtocol.providedBy(application):
            return False
        if not self._ended:
            self._ended = True
            application.readConnectionLost()
        return not connection.get_shutdown() & SSL.SENT_SHUTDOWN


def prompt(transport: ITransport) -> ITransport:
    """:returns: the transport, made prompt if it is that of a socket."""
    if not isinstance(transport, Connection):
        return transport
    return cast(ITransport, PromptTransport(transport))


@cache
def _provided_by(kind: type) -> Declaration:
    """
    :returns: all that a kind of transport provides, as one interface.  Twisted's
        TLS declares of itself, one by one, whatever its transport provides, which
        for nine interfaces costs a twentieth of a handshake.
    """
    every = InterfaceClass("ISocketTransport", tuple(implementedBy(kind)), __module__=__name__)
    return Declaration(every)


class PromptTransport:
    """
    A socket's transport, but for its writes, which go out at once as far as
    the system takes them.

    Twisted's own wait for the reactor to find the socket writable, which costs
    a turn of the reactor, and two changes to what it watches, for each write.

    :ivar _muted: nothing is to be sent any more.
    """

    _muted = False

    def __init__(self, transport: Connection) -> None:
        self._transport = transport

    @property
    def __providedBy__(self) -> object:
        # What zope.interface asks, so that it need not be declared of each object.
        return _provided_by(type(self._transport))  # type: ignore[arg-type]

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send, and leave to the transport what the system does not take."""
        transport = self._transport
        if self._muted:
            return
        # Not past what is still waiting there.  Both are empty once all is
        # sent; the one without a public name is what the next write would fill.
        if data and not (
            transport._tempDataBuffer or transport.dataBuffer or not transport.connected
        ):
            sent = transport.writeSomeData(data)
            if not isinstance(sent, int):
                # The reactor will meet the same error, and knows what to do about it.
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        transport.write(data)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send all of it."""
        self.write(b"".join(data))

    def mute(self) -> None:
        """Send nothing any more."""
        self._muted = True
