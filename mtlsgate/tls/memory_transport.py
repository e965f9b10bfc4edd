"""
The server's end of a connection that exists only in memory.

:class:`MemoryTransport` behaves like a reactor's TCP transport, with the same order
of events: it never calls a protocol from within a call that the protocol made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ParamSpec, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProducer,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

Address = IPv4Address | IPv6Address

_P = ParamSpec("_P")


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport:
    """
    A server's TCP transport.  The other end uses :meth:`deliver`, :meth:`finish`
    and :meth:`take`.

    :cvar SEND_LIMIT: how many bytes may wait to be taken before a streaming
        producer is paused; the same number as in Twisted's transports.
    :ivar protocol: the server's protocol, from :meth:`accept` until the
        connection is lost.
    :ivar connected: true until the connection is lost, for whatever reason.
    :ivar disconnecting: ``loseConnection`` was called.
    :ivar aborted: ``abortConnection`` was called.
    :ivar _to_client: bytes written and not yet taken.
    :ivar _to_server: bytes delivered while reading is paused.
    :ivar write_ended: ``loseWriteConnection`` was called.
    :ivar _finished: the other end will send no more.
    :ivar _told: the protocol has been told so.
    :ivar _reading: the protocol wants bytes.
    :ivar _producer_paused: the producer waits for :meth:`take`.
    """

    SEND_LIMIT = 64 * 1024

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, host: Address, peer: Address, piece_size: int | None = None
    ) -> None:
        """
        :param clock: schedules later events.
        :param host: the server's address.
        :param peer: the client's address.
        :param piece_size: how many bytes the protocol gets at once; by
            default all that have come.
        """
        self._clock = clock
        self._host = host
        self._peer = peer
        self._piece_size = piece_size
        self.protocol: IProtocol | None = None
        self.producer: IPushProducer | None = None
        self.connected = True
        self.disconnecting = False
        self.aborted = False
        self.write_ended = False
        self._to_client = bytearray()
        self._to_server = bytearray()
        self._finished = False
        self._told = False
        self._reading = True
        self._streaming = False
        self._producer_paused = False
        self._no_delay = False
        self._keep_alive = False

    # The other end.

    def accept(self, factory: IProtocolFactory) -> bool:
        """
        Connect to a protocol of ``factory``, as a listening port does.

        :returns: whether the factory built a protocol.
        """
        try:
            self.protocol = factory.buildProtocol(self._peer)
            if self.protocol is not None:
                # As with a listening port: if this raises, nothing closes the connection.
                self.protocol.makeConnection(self)
        except Exception:  # noqa: BLE001 -- whatever an application raises
            self._log.failure("Unhandled error in accepting for {factory}", factory=factory)
        self.connected = self.connected and self.protocol is not None
        return self.protocol is not None

    def deliver(self, data: bytes) -> None:
        """Pass bytes to the protocol, now or as soon as it reads."""
        self._to_server += data
        self._read()

    def finish(self) -> None:
        """Say that no more bytes follow, as a FIN does."""
        self._finished = True
        self._read()

    def take(self) -> bytes:
        """
        Take all written bytes.  Then the producer goes on, or a pending
        disconnection happens.
        """
        data, self._to_client = bytes(self._to_client), bytearray()
        if data:
            self._drained()
        return data

    def turn(self) -> None:
        """Do nothing: this transport has already done everything."""

    def lose(self, error: Exception) -> None:
        """Lose the connection and every byte underway, at once."""
        if not self.connected:
            return
        self.connected = False
        self._to_client.clear()
        self._to_server.clear()
        if self.producer is not None:
            producer, self.producer = self.producer, None
            self._call(producer.stopProducing)
        if self.protocol is not None:
            protocol, self.protocol = self.protocol, None
            self._call(protocol.connectionLost, Failure(error))

    def _read(self) -> None:
        while self._may_read() and self._to_server:
            size = self._piece_size or len(self._to_server)
            piece = bytes(self._to_server[:size])
            del self._to_server[:size]
            assert self.protocol is not None
            self._call(self.protocol.dataReceived, piece)
        if self._may_read() and self._finished and not self._told:
            self._told = True
            half = IHalfCloseableProtocol(self.protocol, None)
            if half is None:
                self.lose(ConnectionDone())
            else:
                self._call(half.readConnectionLost)

    def _may_read(self) -> bool:
        return self._reading and self.connected and not self.disconnecting

    def _drained(self) -> None:
        if self._to_client or not self.connected:
            return
        if self.producer is not None and (self._producer_paused or not self._streaming):
            self._producer_paused = False
            self._call(self.producer.resumeProducing)
        elif self.disconnecting:
            self.lose(ConnectionDone())

    def _call(self, function: Callable[_P, object], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Call the application.  If it raises, the connection is lost, as in a reactor."""
        try:
            function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 -- whatever an application raises
            self._log.failure("Unhandled error in {function}", function=function)
            self.lose(error)

    # ITransport and ITCPTransport

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes):
            raise TypeError(f"data must be bytes, not {type(data).__name__}")
        if not self.connected or self.aborted:
            return
        self._to_client += data
        producer = self.producer
        if producer is None or not self._streaming or len(self._to_client) <= self.SEND_LIMIT:
            return
        self._producer_paused = True
        producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._clock.callLater(0, self._drained)

    def loseWriteConnection(self) -> None:
        self.write_ended = True

    def connectionLost(self, reason: Failure) -> None:
        """End the connection, as a reactor does when it is lost."""
        assert isinstance(reason.value, Exception)
        self.lose(reason.value)

    def abortConnection(self) -> None:
        if self.connected and not self.aborted:
            self.aborted = self.disconnecting = True
            self._to_client.clear()
            self._clock.callLater(0, self.lose, ConnectionAborted())

    def getHost(self) -> Address:
        return self._host

    def getPeer(self) -> Address:
        return self._peer

    def getTcpNoDelay(self) -> bool:
        return self._no_delay

    def setTcpNoDelay(self, enabled: bool) -> None:
        self._no_delay = bool(enabled)

    def getTcpKeepAlive(self) -> bool:
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self._keep_alive = bool(enabled)

    # IConsumer

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        if self.producer is not None:
            raise RuntimeError(f"a producer is registered already: {self.producer!r}")
        if not self.connected:
            producer.stopProducing()
            return
        # The ``streaming`` flag tells the kind; the types cannot.
        self.producer = cast(IPushProducer, producer)
        self._streaming = streaming
        self._producer_paused = False
        if not streaming:
            self.producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        if self.disconnecting:
            self._clock.callLater(0, self._drained)

    # IPushProducer

    def pauseProducing(self) -> None:
        self._reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self._reading = True
            self._clock.callLater(0, self._read)

    def stopProducing(self) -> None:
        self.loseConnection()
