"""
The client's side: twisted.web's HTTP/1.1, made to stream, and stricter.

What twisted.web and some target might read differently is refused, and the
connection closed: nothing of it goes on, and nothing after it is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress, IDelayedCall, IProducer
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web import http

from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.http.access import Record, who
from mtlsgate.protocols.http.exchange import Exchange
from mtlsgate.protocols.http.fields import folded, parse_line, tokens
from mtlsgate.protocols.http.refusal import own_response
from mtlsgate.protocols.pipelining import PatientChannel

if TYPE_CHECKING:
    from mtlsgate.protocols.http.plugin import Gate
    from mtlsgate.protocols.http.tunnel import Tunnel

#: More digits are no length that anybody sends (and int() takes 4,300 at most).
_MAX_DIGITS = 18
_FRAMING = (b"content-length", b"transfer-encoding")


class GateRequest(http.Request):
    """
    One request, as twisted.web reads it.

    :ivar exchange: what is done with it.
    """

    channel: GateChannel

    def __init__(self, channel: GateChannel, queued: object = False) -> None:
        super().__init__(channel, queued, parsePOSTFormSubmission=False)
        self.exchange = Exchange(self, channel)

    def parseCookies(self) -> None:
        """They are the target's."""

    def gotLength(self, length: int | None) -> None:
        """The head is complete: begin, unless there is no body to wait for."""
        channel = self.channel
        self.method, self.uri, self.clientproto = channel._command, channel._path, channel._version
        self.exchange.decoder = channel._transferDecoder
        if length != 0:
            self.exchange.begin(length)

    def handleContentChunk(self, data: bytes) -> None:
        """Pass a piece of the body on, and keep nothing of it."""
        self.exchange.body(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """The body is complete."""
        self.exchange.complete()

    def connectionLost(self, reason: Failure) -> None:
        """The client is gone."""
        super().connectionLost(reason)
        self.exchange.client_left()


class GateChannel(PatientChannel):
    """
    A client's connection.

    :ivar gate: what all connections share.
    :ivar peer: the client, or None where no certificate is asked for.
    :ivar who: the client, as logs name it.
    :ivar ended: nothing is read any more.
    :ivar server_name: what the client's TLS asked for, or None.
    :ivar identity: the fields that name the client.
    :ivar _deadline: ends a head that takes too long, or an idle connection.
    :ivar _idle: no byte of the next request has come.
    :ivar _tunnel: has the connection, after a switch to another protocol.
    :ivar _body_paused: the target does not take the body for now.
    """

    requestFactory: type[GateRequest] = GateRequest
    timeOut = None
    server_name: str | None = None
    _deadline: IDelayedCall | None = None
    _abortingCall: IDelayedCall | None = None
    _tunnel: Tunnel | None = None
    _idle = False
    _body_paused = False
    ended = False

    def __init__(self, gate: Gate, address: IAddress) -> None:
        super().__init__()
        self.gate = gate
        self.address = address
        # One more than is allowed, so that it is this class that refuses it.
        self.totalHeadersSize = gate.max_header_size + 1
        self.MAX_LENGTH = gate.max_header_size
        self._size = 0

    def connectionMade(self) -> None:
        """Find out who it is, and wait for the first request."""
        super().connectionMade()
        assert self.transport is not None
        gate = self.gate
        gate.channels.add(self)
        peer: IVerifiedPeer | None = IVerifiedPeer(self.transport, None)
        self.peer = peer
        self.who = who(self.address, peer)
        handle = self.transport.getHandle()  # type: ignore[attr-defined]
        name = handle.get_servername()
        self.server_name = None if name is None else name.decode("ascii", "replace")
        self.identity = gate.identity_of(peer, handle)
        self._arm(gate.header_timeout)

    # Time limits.

    def _arm(self, seconds: float) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.reset(seconds)
        else:
            self._deadline = self.gate.clock.callLater(seconds, self._late)

    def _late(self) -> None:
        self._deadline = None
        if self.ended or self.requests_underway:
            return
        if self._idle or not self._size:
            # Nothing is underway: a client has no use for a response here.
            self.loseConnection()
        else:
            self.refuse(408, "the head was not complete in time")

    @property
    def requests_underway(self) -> bool:
        """Whether the head of a request is complete, and its response is not."""
        return self._held is None and any(request.exchange.began for request in self.requests)

    # Receiving.

    def dataReceived(self, data: bytes) -> None:
        """Read requests, or hand the bytes to who has the connection."""
        if self._tunnel is not None:
            self._tunnel.from_client(data)
            return
        if self.ended:
            return
        if self._idle and self._held is None:
            self._idle = False
            self._arm(self.gate.header_timeout)
        if self.line_mode:
            self._size += len(data)
        super().dataReceived(data)
        reading = not self._busyReceiving and self.line_mode and not self.ended
        if reading and b"\n" in self._buffer:
            # Every line that ends in CR LF has been taken out.
            self.refuse(400, "a line that ends in LF alone")

    def lineReceived(self, line: bytes) -> None:
        """Refuse whatever could be read in two ways (RFC 9112, 2.2 and 5.2)."""
        if self.ended:
            return
        if self._receivedHeaderSize + len(line) > self.gate.max_header_size:
            self.refuse(400, f"the head is longer than {self.gate.max_header_size} bytes")
        elif line[:1] in (b" ", b"\t"):
            self.refuse(400, "a line that begins with whitespace")
        elif b"\n" in line or b"\r" in line or b"\0" in line:
            self.refuse(400, "a line that holds CR, LF or NUL")
        else:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Refuse a line that is longer than a whole head may be."""
        self.refuse(400, f"the head is longer than {self.gate.max_header_size} bytes")

    def rawDataReceived(self, data: bytes) -> None:
        """Read the body, or keep what comes after it for later."""
        if not self.ended:
            super().rawDataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        """:returns: whether the field line is in order."""
        if self.ended:
            return False
        try:
            name, value = parse_line(line)
        except ValueError as error:
            self.refuse(400, str(error))
            return False
        lower = name.lower()
        if lower == b"content-length":
            if not value.isdigit() or len(value) > _MAX_DIGITS:
                self.refuse(400, "Content-Length is not a number")
                return False
        elif lower == b"transfer-encoding":
            if value.lower() != b"chunked":
                self.refuse(400, "Transfer-Encoding is another than chunked")
                return False
        elif folded(name) in _FRAMING:
            # What the gate takes for any field would frame the body for CGI.
            self.refuse(400, "a field that only looks like Content-Length or Transfer-Encoding")
            return False
        accepted: bool = super().headerReceived(line)
        return accepted

    def _respondToBadRequestAndDisconnect(self) -> None:
        # What twisted.web calls for all that it refuses itself.
        self.refuse(400, "the request is malformed")

    def allHeadersReceived(self) -> None:
        """The head is complete."""
        if self.ended:
            return
        request = self.requests[-1]
        if self._version != b"HTTP/1.1" and self.length is None:
            # RFC 9112, 6.1: its framing cannot be trusted.
            self.refuse(400, "Transfer-Encoding in an HTTP/1.0 request")
            return
        self._size = 0
        self.persistent = self.checkPersistence(request, self._version)
        request.gotLength(self.length)

    def allContentReceived(self) -> None:
        """The body is complete."""
        if not self.ended:
            super().allContentReceived()

    def checkPersistence(self, request: http.Request, version: bytes) -> bool:
        """:returns: whether the connection may stay open after this request."""
        values = request.requestHeaders.getRawHeaders(b"Connection", ())
        persistent = version == b"HTTP/1.1" and b"close" not in tokens(values)
        persistent = persistent and not self.gate.stopping
        if not persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return persistent

    def requestDone(self, request: http.Request) -> None:
        """Go on to the next request, which may be here already."""
        self._body_paused = False
        if self.gate.stopping:
            self.persistent = False
        if self.persistent:
            self._idle = True
            self._arm(self.gate.keepalive_timeout)
        super().requestDone(request)

    # Backpressure.

    def pause_body(self) -> None:
        """Read no more from the client for now."""
        self._body_paused = True
        self._networkProducer.pauseProducing()

    def resume_body(self) -> None:
        """Read on."""
        self._body_paused = False
        if not self._waitingForTransport or self._tunnel is not None:
            self._networkProducer.resumeProducing()

    def resumeProducing(self) -> None:
        """The client takes bytes again."""
        super().resumeProducing()
        if self._body_paused:
            self._networkProducer.pauseProducing()

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Take a response's producer, which must wait if an earlier response still waits."""
        super().registerProducer(producer, streaming)
        if self._waitingForTransport:
            producer.pauseProducing()  # type: ignore[attr-defined]

    # Ending.

    def refuse(self, status: int, cause: str) -> None:
        """Answer what cannot be taken for a request, or no longer, and close."""
        if self.ended:
            return
        for request in self.requests:
            if request.exchange.began:
                request.exchange.malformed(status, cause)
                return
        gate = self.gate
        now = gate.clock.seconds()
        # Of a request line that was refused nothing is known.
        record = Record(now, status=status, first_byte=now, cause=cause)
        record.method = getattr(self, "_command", None)
        record.target = getattr(self, "_path", None)
        gate.access.request(self.who, record, now)
        assert self.transport is not None
        self.transport.write(own_response(status))
        self.loseConnection()

    def loseConnection(self) -> None:
        """End the connection when all is written; what still comes is not read."""
        if not self.ended:
            self.ended = True
            # Or the client's own end would not be read, for which TLS waits.
            self.resume_body()
            super().loseConnection()
            self._abortingCall = self.gate.clock.callLater(
                self.gate.body_timeout, self.forceAbortClient
            )

    def retire(self) -> None:
        """Take no further request, and end the connection if none is underway."""
        if self.requests:
            self.persistent = False
        elif self._idle and not self.ended:
            self.loseConnection()

    def forceAbortClient(self) -> None:
        """End the connection of a client that does not."""
        self._abortingCall = None
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def cut(self) -> None:
        """End the connection in a way that cannot be taken for a response's end."""
        self.ended = True
        self.forceAbortClient()

    def switch(self, tunnel: Tunnel) -> bytes:
        """
        Give the connection to a tunnel.

        :returns: what the client sent already.
        """
        self._tunnel = tunnel
        data, self._dataBuffer = b"".join(self._dataBuffer), []
        return data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the requests."""
        self.ended = True
        self.gate.channels.discard(self)
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        super().connectionLost(reason)
