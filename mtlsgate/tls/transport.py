"""
TLS on a socket, as a Twisted transport.

A `TlsTransport` connects an `Engine` to a socket and to an application's protocol.
It works like Twisted's TLS transports, with these differences:

- What the application writes while it handles received bytes goes out together
  when it is done, and at once.  What it writes at any other time goes out in the
  reactor's next turn.  Past `FLUSH_SIZE` bytes it goes out immediately.
- Nothing is delivered while the application has paused its transport.
- The two directions end one by one for a protocol that provides
  `IHalfCloseableProtocol`: the other side's close_notify calls
  ``readConnectionLost``, and the protocol may go on writing.  For any other
  protocol close_notify ends the connection, as in Twisted.
- A connection that ends without close_notify was cut off: `ConnectionLost`.
- Bytes after the other side's close_notify are read and dropped (RFC 8446, 6.1).

Subclasses decide when the application gets the transport: on a server only after
the verdict, on a client only after the server is verified.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from typing import cast

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
)
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.tls.engine import Event
from mtlsgate.tls.negotiated import NegotiatedStream
from mtlsgate.tls.openssl_errors import is_end_of_stream
from mtlsgate.tls.stream import StreamReactor

_log = Logger("mtlsgate.connections")

#: When this much waits to be encrypted, it goes out at once.
FLUSH_SIZE = 2**16

#: How much of TLS's own answers may wait for the other side to read.
_MAX_ANSWERS = 2**16


class TlsTransport(NegotiatedStream):
    """
    The transport of one TLS connection.

    :ivar _written: what the application wrote and is not encrypted yet.
    :ivar _is_busy: whether received bytes are being handled; written bytes go out
        afterwards.
    :ivar _is_in_read: whether the reactor has called `doRead`.
    :ivar _is_paused: whether the application has paused reading.
    :ivar _is_deaf: whether received bytes are dropped because the connection is
        ending.
    :ivar _is_read: whether no more bytes come from the other side.
    :ivar _is_written: whether close_notify was sent.
    :ivar _is_ending: whether to send close_notify when the producer is gone.
    :ivar _is_over: whether to close the socket when everything has been sent.
    :ivar _reason: why the connection is over, if the socket cannot tell.
    :ivar _answers: how many bytes of TLS's own wait since everything had been sent.
    """

    _written_size = 0
    _is_busy = False
    _is_in_read = False
    _is_paused = False
    _is_read = False
    _is_written = False
    _is_ending = False
    _is_over = False
    _is_deaf = False
    _reason: Failure | None = None
    _answers = 0

    def __init__(
        self, sock: socket.socket, reactor: StreamReactor, peer: IAddress, host: IAddress
    ) -> None:
        super().__init__(sock, reactor, peer, host)
        self._written: list[bytes] = []

    # What comes in.

    def bytes_came(self, data: bytes) -> None:
        """Decrypt what was read, and hand it to the application."""
        if self._is_read or self._engine is None:
            return
        self._engine.feed(data)
        self._handle_events()

    def doRead(self) -> Exception | None:
        """Read; then close if both sides have ended: the application is in no call here."""
        self._is_in_read = True
        try:
            why = super().doRead()
        finally:
            self._is_in_read = False
        if self._is_over and not self.disconnected and not self.is_aborted:
            if why is None and not self.unsent:
                self.connectionLost(Failure(ConnectionDone()))
            else:
                self.startWriting()
        return why

    def _handle_events(self) -> None:
        """Handle the received bytes, then send what came of it."""
        engine = self._engine
        assert engine is not None
        self._is_busy = True
        try:
            while self._may_deliver():
                try:
                    event = engine.next()
                except SSL.Error as error:
                    self.tls_failed(error)
                    break
                if event is Event.NEEDS_BYTES:
                    break
                if isinstance(event, bytes):
                    self._deliver(event)
                elif event is Event.ENDED:
                    self._other_side_ended()
                else:
                    self.handshake_completed()
        finally:
            self._is_busy = False
            if self.connected and not self.is_aborted:
                if self._written:
                    self._encrypt()
                elif engine.may_answer:
                    # Also session tickets that nobody needs: to wait for something to
                    # send with them costs a client with Nagle's algorithm 40 ms.
                    self._answer(engine.outgoing())
                self._end_if_due()

    def _answer(self, data: bytes) -> None:
        """Send what TLS has to say of its own, if the other side reads that."""
        self.send(data)
        if data and self.unsent and self._application is not None:
            self._answers += len(data)
            if self._answers > _MAX_ANSWERS:
                self._reason = Failure(ConnectionLost("it does not read the answers of TLS"))
                super().abortConnection()

    def _may_deliver(self) -> bool:
        return not (self._is_paused or self._is_read or self.is_aborted or self.disconnected)

    def _deliver(self, data: bytes) -> None:
        if self._application is not None and not self._is_deaf:
            self._application.dataReceived(data)

    def handshake_completed(self) -> None:
        """The handshake is complete.  Subclasses connect the application here."""
        raise NotImplementedError

    def _other_side_ended(self) -> None:
        """The other side sent close_notify."""
        self._is_read = True
        half = IHalfCloseableProtocol(self._application, None)
        if half is not None:
            half.readConnectionLost()
        elif not self._is_written:
            self._end_writing()

    def readConnectionLost(self, reason: Failure) -> None:
        """The kernel has no more bytes."""
        self.stopReading()
        if self._engine is not None and self._engine.has_more:
            # What came before is delivered first, as far as the application takes it;
            # when it wants the rest, the kernel says again that no more comes.
            self._handle_events()
            if self._is_paused or self.is_aborted or self.disconnected:
                return
        if not self._is_read:
            self._reason = self._reason or Failure(ConnectionLost())
            self.connectionLost(reason)

    def tls_failed(self, error: Exception) -> None:
        """TLS failed: send the alert, if there is one, and end."""
        # Drop the traceback: its frames keep this object alive.
        cause = ConnectionLost() if is_end_of_stream(error) else error.with_traceback(None)
        self.end_because(Failure(cause))

    def end_because(self, reason: Failure) -> None:
        """Send what OpenSSL has to send and nothing else, and end the connection."""
        self._reason = self._reason or reason
        self._is_read = self._is_written = self._is_over = True
        self._written.clear()
        self.stopReading()
        self.startWriting()

    # What goes out.

    def write(self, data: bytes) -> None:
        """Write; after `loseConnection` only a registered producer still may."""
        if not isinstance(data, bytes):
            data = data + b""  # whatever bytes can be made of, or else a TypeError
        if not data or self._is_written or not self.connected or self.is_aborted:
            return
        if self._is_ending and self.producer is None:
            return
        self._written.append(data)
        self._written_size += len(data)
        if self._written_size >= FLUSH_SIZE:
            self._encrypt()
        elif not self._is_busy:
            self.startWriting()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Write all of it."""
        self.write(b"".join(iovec))

    def write_at_once(self, data: bytes) -> None:
        """Write, and do not wait for more to be written in the same turn."""
        before, self._is_busy = self._is_busy, True
        try:
            self.write(data)
        finally:
            self._is_busy = before
        if self._written:
            self._encrypt()

    def together(self, call: Callable[[], object]) -> None:
        """Call a function; what it writes goes out together when it returns, and at once."""
        if self._is_busy:
            call()
            return
        self._is_busy = True
        try:
            call()
        finally:
            self._is_busy = False
            if self.connected and not self.is_aborted:
                if self._written:
                    self._encrypt()
                self._end_if_due()

    def _encrypt(self) -> None:
        """Encrypt what was written, and send it."""
        size = self._seal()
        if size:
            assert self._engine is not None
            self.send(self._engine.outgoing(size))
            self.make_producer_wait()

    def _seal(self) -> int:
        """
        Encrypt what was written.

        :returns: how many bytes that were; 0 if TLS failed.
        """
        engine = self._engine
        assert engine is not None
        data = self._written[0] if len(self._written) == 1 else b"".join(self._written)
        self._written.clear()
        self._written_size = 0
        try:
            engine.write(data)
        except SSL.Error as error:
            self.tls_failed(error)
            return 0
        return len(data)

    def doWrite(self) -> Exception | None:
        """Encrypt what was written since the last turn, and send."""
        if self._written and not self.disconnected and not self.is_aborted:
            self._encrypt()
        return super().doWrite()

    def all_sent(self) -> Exception | None:
        """Ask the producer for more, or end."""
        self._answers = 0
        if self._is_over:
            return ConnectionDone()
        self.ask_producer()
        if not (self._written or self.unsent or self._is_over):
            self.stopWriting()
        return None

    # The end.

    def loseConnection(self) -> None:
        """End the connection in good order after everything written."""
        if not self.disconnecting and self.connected:
            self.disconnecting = 1
            self._begin_ending()

    def loseWriteConnection(self) -> None:
        """Send close_notify after everything written.  Bytes from the other side are
        still delivered until it ends as well."""
        if self.connected:
            self._begin_ending()

    def _begin_ending(self) -> None:
        self._is_ending = True
        if self.disconnecting and self._is_paused:
            # Read on to the other side's close_notify, and drop what comes before it.
            self._is_paused = False
            self._is_deaf = True
            self._read_on()
        if not self._is_busy:
            self._end_if_due()

    def _end_if_due(self) -> None:
        if self._is_ending and self.producer is None and not self._is_written:
            self._end_writing()
        elif self._is_read and self._is_written:
            self._finish()

    def _end_writing(self) -> None:
        """Send what was written and close_notify, together."""
        size = self._seal() if self._written else 0
        if self._is_written:
            return
        self._is_written = True
        assert self._engine is not None
        self._engine.close()
        self.send(self._engine.outgoing(size))
        if self._is_read:
            self._finish()

    def _finish(self) -> None:
        """Both sides have ended: close the socket, but not in the middle of a call by the
        application."""
        self._is_over = True
        self.stopReading()
        if not self._is_in_read:
            self.startWriting()

    def abortConnection(self) -> None:
        """Reset the connection.  Nothing more is sent, not even close_notify: it would
        make a truncated stream look complete."""
        self._written.clear()
        super().abortConnection()

    def connectionLost(self, reason: Failure) -> None:
        """The connection is over: tell the application."""
        if self.disconnected:
            return
        if self._reason is not None and not self.is_aborted:
            self.drop_received()
        super().connectionLost(reason)
        reason = self._reason or reason
        application, self._application = self._application, None
        if application is not None:
            try:
                application.connectionLost(reason)
            except Exception:  # noqa: BLE001 -- the application's own; the connection is over
                _log.failure("a protocol failed at the end of its connection")
        if self._engine is not None:
            self._engine.free()

    # Producers and consumers.

    def unregisterProducer(self) -> None:
        """Stop writing from the producer."""
        self.producer = None
        self.producerPaused = False
        if self.connected and not self._is_busy:
            self._end_if_due()

    def pauseProducing(self) -> None:
        """Deliver nothing for now, and read nothing."""
        if self.connected and not self.disconnecting:
            self._is_paused = True
            self.stopReading()

    def resumeProducing(self) -> None:
        """Deliver again."""
        if self.connected and not self.disconnecting and self._is_paused:
            self._is_paused = False
            self._read_on()

    def _read_on(self) -> None:
        """Read again, and handle what was received before in another turn."""
        if not self._is_over:
            self.startReading()
        if self._engine is not None and self._engine.has_more:
            cast(StreamReactor, self.reactor).callLater(0, self._go_on)

    def _go_on(self) -> None:
        if self._is_busy or self.disconnected or self.is_aborted:
            return
        try:
            self._handle_events()
        except Exception as error:  # noqa: BLE001 -- the application's own; it ends the connection
            # As a reactor does when reading fails.
            _log.failure("a protocol failed to take what was received")
            self.connectionLost(Failure(error.with_traceback(None)))

    def stopProducing(self) -> None:
        """End the connection."""
        self.loseConnection()


def together(transport: object, call: Callable[[], object]) -> None:
    """Call a function; if the transport speaks TLS, what it writes goes out at once."""
    if isinstance(transport, TlsTransport):
        transport.together(call)
    else:
        call()
