"""
A client's HTTP/1.1 connection: reads requests, one at a time, and frames their responses.

=============  =========================================  ==========================
stage          what it waits for                          for how long
=============  =========================================  ==========================
`Stage.FIRST`  the first byte of the first request        ``head_timeout``; closed
`Stage.IDLE`   the first byte of the next request         ``idle_timeout``; closed
`Stage.HEAD`   the rest of a head                         ``head_timeout``; 408
`Stage.BODY`   more of a body                             ``body_timeout``; 408
`Stage.BUSY`   the exchange, which has its own limits
`Stage.HELD`   a client that takes the last response      ``idle_timeout``; closed
`Stage.RAW`    either end of another protocol
`Stage.ENDED`  the client's end of the connection         ``close_timeout``; reset
`Stage.LOST`
=============  =========================================  ==========================

Whatever else the stage, a client that takes nothing of a response for ``send_timeout`` is
given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Any
from typing import Protocol as Shape

from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.http.authority import Asked, ask, check_server
from mtlsgate.http.fields import Line, tokens
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import Malformed, RequestEnd, RequestHead, RequestReader
from mtlsgate.http.refusal import REASONS, Refusal, own_body, own_fields, own_response
from mtlsgate.http.sides import ClientSide, Exchange, HttpClient
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer

#: How many heads, ends and pieces of bodies are read in one go, before others have theirs.
_AT_ONCE = 16
#: Bytes of the next requests that are kept while one is answered.
_AHEAD = 16 * 1024
_NO_BODY = (204, 304)


class Stage(Enum):
    """What a connection waits for; the module's docstring has the table."""

    FIRST = auto()
    IDLE = auto()
    HEAD = auto()
    BODY = auto()
    BUSY = auto()
    HELD = auto()
    RAW = auto()
    ENDED = auto()
    LOST = auto()


#: The attribute of `HttpLimits` that is a stage's time.
_TIMES = {
    Stage.FIRST: "first_timeout",
    Stage.IDLE: "idle_timeout",
    Stage.HEAD: "head_timeout",
    Stage.BODY: "body_timeout",
    Stage.HELD: "idle_timeout",
    Stage.ENDED: "close_timeout",
}
_BETWEEN = (Stage.FIRST, Stage.IDLE)
_ANSWERING = (Stage.BODY, Stage.BUSY)
_OVER = (Stage.ENDED, Stage.LOST)
#: In these nothing of a request is read.
_UNREAD = (Stage.HELD, Stage.RAW, Stage.ENDED, Stage.LOST)


class Owner(Shape):
    """What a connection asks of its server."""

    limits: HttpLimits
    clock: IReactorTime
    serves: Callable[[str], bool] | None
    retired: bool

    def opened(self, connection: HttpConnection) -> None:
        """A connection has come."""

    def closed(self, connection: HttpConnection) -> None:
        """A connection is over."""

    def exchange(self, head: RequestHead, asked: Asked, side: ClientSide) -> Exchange:
        """
        :returns: what answers the request, once it is started.
        :raises Refusal: if nothing does.
        """

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """A request, or what could not be read as one, was refused before its exchange."""


@implementer(IPushProducer)
class HttpConnection(Protocol):
    """
    One client's connection, and the client's side of each of its requests.

    :ivar client: who it is.
    :ivar stage: what it waits for.
    :ivar complete: whether all of the present request was read.
    :ivar _head: of the present request.
    :ivar _exchange: what answers it; None before and after.
    :ivar _persistent: whether another request may follow it.
    :ivar _expecting: the client waits for 100 with its body.
    :ivar _received: bytes of its body.
    :ivar _begun: whether its final response has begun.
    :ivar _chunked: whether the response's body is sent in chunks.
    :ivar _bodiless: whether the response has no body, whatever its fields say.
    :ivar _left: bytes that the response's ``Content-Length`` still promises, or None.
    :ivar _refused: the server, and no exchange, answered the last request.
    :ivar _congested: the client takes no more for now.
    :ivar _paused: the exchange takes no more of the body for now.
    :ivar _reading: whether the transport was left to read.
    :ivar _looping: requests are being read right now.
    :ivar _again: reads on in the reactor's next turn.
    :ivar _due: when the stage's time is over, or None.
    :ivar _timer: looks whether it is.
    """

    transport: Any
    client: HttpClient
    complete = False
    _head: RequestHead | None = None
    _exchange: Exchange | None = None
    _persistent = True
    _expecting = False
    _received = 0
    _begun = False
    _chunked = False
    _bodiless = False
    _left: int | None = None
    _refused = False
    _congested = False
    _paused = False
    _reading = True
    _looping = False
    _again: IDelayedCall | None = None
    _due: float | None = None
    _timer: IDelayedCall | None = None

    def __init__(self, server: Owner, address: IAddress | None) -> None:
        self._server = server
        self._limits = server.limits
        self._address = address
        self._reader = RequestReader(server.limits.head_size)
        self.stage = Stage.FIRST

    def connectionMade(self) -> None:
        """Find out who it is, and wait for the first request."""
        transport = self.transport
        address = transport.getPeer() if self._address is None else self._address
        self.client = HttpClient(
            address, IVerifiedPeer(transport, None), ITlsFacts(transport, None), transport
        )
        transport.registerProducer(self, True)
        self._server.opened(self)
        self._enter(Stage.FIRST)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the exchange, and leave nothing behind."""
        self.stage, self._due = Stage.LOST, None
        for call in (self._timer, self._again):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._again = None
        self._lose_exchange("the client left", reason)
        self._server.closed(self)

    def _lose_exchange(self, cause: str, reason: Failure) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(cause, reason)

    # Reading requests.

    def dataReceived(self, data: bytes) -> None:
        """Read requests; or hand the bytes on, after a switch."""
        if self.stage is Stage.RAW:
            assert self._exchange is not None
            self._exchange.data(data)
        elif self.stage is not Stage.ENDED:
            self._reader.feed(data)
            self._read()

    def _read(self) -> None:
        """Read what is here, but not all of much: that goes on in the next turn."""
        if self._looping:
            return
        self._looping = True
        try:
            for _ in range(_AT_ONCE):
                event = None if self._waits() else self._reader.next()
                if event is None:
                    break
                self._take(event)
            else:
                if self._again is None:
                    self._again = self._server.clock.callLater(0, self._read_again)
        except Malformed as error:
            self._broken(Refusal(400, error.cause))
        finally:
            self._looping = False
        if self.stage in _BETWEEN and self._reader.in_head:
            self._enter(Stage.HEAD)
        self._watch_transport()

    def _read_again(self) -> None:
        self._again = None
        self._read()

    def _waits(self) -> bool:
        """Whether nothing is to be read now, be it here or not."""
        return self.stage in _UNREAD or (self._paused and self.stage is Stage.BODY)

    def _take(self, event: RequestHead | bytes | RequestEnd) -> None:
        if isinstance(event, RequestHead):
            self._begin(event)
            return
        exchange = self._exchange
        assert exchange is not None
        if isinstance(event, RequestEnd):
            self.complete = True
            self._enter(Stage.BUSY)
            exchange.end(event.trailers)
            return
        self._received += len(event)
        self._expecting = False
        if self._received > self._limits.body_size:
            self._broken(self._too_long())
        else:
            self._time()
            exchange.data(event)

    def _begin(self, head: RequestHead) -> None:
        self._head = head
        self.complete = head.length == 0
        self._persistent = (
            self._limits.keeps
            and head.version == b"HTTP/1.1"
            and b"close" not in tokens(head.values(b"connection"))
            and not self._server.retired
        )
        self._received, self._begun, self._refused = 0, False, False
        self._paused, self._expecting = False, False
        self._enter(Stage.BUSY if self.complete else Stage.BODY)
        try:
            asked = self._check(head)
            exchange = self._server.exchange(head, asked, self)
        except Refusal as refusal:
            self._server.refused(self.client, head, refusal)
            self.refuse(refusal)
            return
        self._exchange = exchange
        exchange.start()
        if self.complete and self._exchange is exchange:
            exchange.end(())

    def _check(self, head: RequestHead) -> Asked:
        """:raises Refusal: if the request is none that this server answers."""
        asked = ask(head.method, head.target, head.values(b"host"), head.version)
        check_server(asked.host, self.client.server_name, self._server.serves)
        if head.length is not None and head.length > self._limits.body_size:
            raise self._too_long()
        expected = [one.lower() for one in head.values(b"expect")]
        if expected and expected != [b"100-continue"]:
            raise Refusal(417, "it expects what nobody knows")
        self._expecting = bool(expected) and not self.complete and head.version == b"HTTP/1.1"
        self._time()
        return asked

    def _too_long(self) -> Refusal:
        return Refusal(413, f"the body is longer than {self._limits.body_size} bytes")

    def _broken(self, refusal: Refusal) -> None:
        """What comes cannot be read, or the rest of it does not come."""
        exchange = self._exchange
        if exchange is not None:
            exchange.broken(refusal)
            if self.stage is Stage.BODY:
                self.abandon()
            return
        self._server.refused(self.client, None, refusal)
        self.transport.write(own_response(refusal.status))
        self.close(refused=True)

    # The client's side of a request.

    def interim(self, status: int, reason: bytes, lines: Iterable[Line]) -> None:
        """Send an interim response, if the client can read one (`ClientSide`)."""
        assert self._head is not None
        if self._begun or self._head.version != b"HTTP/1.1":
            return
        if status == 100:
            if not self._expecting:
                return
            self._expecting = False
            self._time()
        self._write_head(status, reason, lines)

    def respond(
        self, status: int, reason: bytes, lines: Iterable[Line], *, last: bool = False
    ) -> None:
        """Begin the final response (`ClientSide`)."""
        head = self._head
        assert head is not None
        self._begun = True
        sent = list(lines)
        lengths = [value for name, value in sent if name.lower() == b"content-length"]
        self._bodiless = head.method == b"HEAD" or status in _NO_BODY
        self._left = int(lengths[0]) if lengths and not self._bodiless else None
        self._chunked = False
        if not self._bodiless and not lengths:
            if head.version == b"HTTP/1.1":
                self._chunked = True
                sent.append((b"Transfer-Encoding", b"chunked"))
            else:
                self._persistent = False
        if last or not self.complete or self._server.retired:
            # If it is not complete, the rest of the body is not read.
            self._persistent = False
        if not self._persistent:
            sent.append((b"Connection", b"close"))
        self._expecting = False
        self._write_head(status, reason, sent)

    def _write_head(self, status: int, reason: bytes, lines: Iterable[Line]) -> None:
        fields = b"".join([b"%s: %s\r\n" % line for line in lines])
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n" % (status, reason, fields))

    def send(self, data: bytes) -> None:
        """Send a piece of the response's body (`ClientSide`)."""
        if self._chunked:
            if data:
                self.transport.writeSequence([b"%x\r\n" % len(data), data, b"\r\n"])
            return
        if self._bodiless:
            return
        if self._left is not None:
            # More than was promised would be taken for the next response.
            data = data[: self._left]
            self._left -= len(data)
        self.transport.write(data)

    def finish(self, trailers: Iterable[Line] = ()) -> None:
        """The response is complete (`ClientSide`)."""
        if self._chunked:
            lines = b"".join([b"%s: %s\r\n" % line for line in trailers])
            self.transport.write(b"0\r\n%s\r\n" % lines)
        self._exchange = None
        if not self._persistent or not self.complete or self._left or self._server.retired:
            self.close(refused=self._refused)
        elif self._congested:
            self._enter(Stage.HELD)
            self._watch_transport()
        else:
            self._await_next()

    def _await_next(self) -> None:
        self._reader.proceed()
        self._enter(Stage.IDLE)
        self._read()

    def refuse(self, refusal: Refusal) -> None:
        """Answer in one line (`ClientSide`)."""
        status = refusal.status
        if status == 400:
            self._persistent = False
        self._refused = True
        self.respond(status, REASONS[status], own_fields(status))
        self.send(own_body(status))
        self.finish()

    def abandon(self) -> None:
        """The response breaks off (`ClientSide`)."""
        self._exchange = None
        if self._begun and not self._chunked and self._left is None:
            # Its end in good order would be the end of the body.
            self.cut()
        else:
            self.close()

    def pause_body(self) -> None:
        """Read no more of the body for now (`ClientSide`)."""
        if not self._paused:
            self._paused = True
            self._time()
            self._watch_transport()

    def resume_body(self) -> None:
        """Read on (`ClientSide`)."""
        if self._paused:
            self._paused = False
            self._time()
            self._read()

    def switch(self, reason: bytes, lines: Iterable[Line]) -> bytes:
        """Pass all bytes as they are from now on (`ClientSide`)."""
        self._write_head(101, reason, lines)
        self._chunked, self._bodiless, self._left, self._begun = False, False, None, True
        self._persistent = False
        self._enter(Stage.RAW)
        self._watch_transport()
        return self._reader.take_rest()

    # Backpressure: the client that does not read, as the transport tells of it.

    def pauseProducing(self) -> None:
        """The client takes no more for now."""
        self._congest(True)

    def resumeProducing(self) -> None:
        """The client takes bytes again."""
        self._congest(False)
        if self.stage is Stage.HELD:
            self._await_next()

    def _congest(self, congested: bool) -> None:
        self._congested = congested
        if self._exchange is not None:
            self._time()
            self._exchange.client_slow(congested)

    def stopProducing(self) -> None:
        """The connection is lost, of which `connectionLost` tells."""

    def _watch_transport(self) -> None:
        """Let the transport read, or not."""
        wants = self._wants_bytes()
        if wants != self._reading and self.stage is not Stage.LOST:
            self._reading = wants
            if wants:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _wants_bytes(self) -> bool:
        if self.stage is Stage.ENDED:
            # TLS waits for the client's own end.
            return True
        if self.stage is Stage.RAW or (self.stage is Stage.BODY and self._paused):
            return not self._paused
        if self._again is not None:
            return False
        return self.stage not in (Stage.BUSY, Stage.HELD) or self._reader.waiting < _AHEAD

    # Time limits.

    def _enter(self, stage: Stage) -> None:
        before, self.stage = self.stage, stage
        due = self._due
        self._time()
        if before is Stage.FIRST and stage is Stage.HEAD and due is not None:
            assert self._due is not None
            self._due = min(self._due, due)

    def _time(self) -> None:
        """Give the client anew the time that its stage has."""
        if self._congested and self.stage in _ANSWERING:
            name: str | None = "send_timeout"
        elif self.stage is Stage.BODY and (self._paused or self._expecting):
            name = None
        elif self.stage is Stage.ENDED and self._refused:
            name = "refused_timeout"
        else:
            name = _TIMES.get(self.stage)
        if name is None:
            self._due = None
            return
        seconds: float = getattr(self._limits, name)
        self._due = self._server.clock.seconds() + seconds
        if self._timer is None:
            self._timer = self._server.clock.callLater(seconds, self._look)
        elif self._timer.getTime() > self._due:
            self._timer.reset(seconds)

    def _look(self) -> None:
        """See whether the time is over.  It may have been put off many times since."""
        self._timer = None
        if self._due is None:
            return
        left = self._due - self._server.clock.seconds()
        if left > 0:
            self._timer = self._server.clock.callLater(left, self._look)
        else:
            self._due = None
            self._late()

    def _late(self) -> None:
        limits = self._limits
        if self.stage is Stage.ENDED:
            self.transport.abortConnection()
        elif self._congested and self.stage in _ANSWERING:
            cause = f"the client took nothing for {limits.send_timeout:g} s"
            self._lose_exchange(cause, Failure(TimeoutError(cause)))
            self.cut()
        elif not limits.tells_late:
            self.cut()
        elif self.stage is Stage.BODY:
            self._broken(Refusal(408, f"the client was silent for {limits.body_timeout:g} s"))
        elif self.stage is Stage.HEAD:
            self._broken(Refusal(408, "the head was not complete in time"))
        else:
            self.close()

    # Ending.

    def retire(self) -> None:
        """End the connection, unless a request is underway on it or its first is to come."""
        if self.stage in (Stage.IDLE, Stage.HELD):
            self.close()

    def close(self, *, refused: bool = False) -> None:
        """
        End the connection when all is written; what still comes is not read.

        :param refused: whether there is no more to read than a refusal.
        """
        if self.stage in _OVER:
            return
        self._refused = refused
        self._enter(Stage.ENDED)
        self._watch_transport()
        # TLS does not end while something says that it has more to write.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def cut(self) -> None:
        """End the connection in a way that cannot be taken for a response's end."""
        if self.stage not in _OVER:
            self._enter(Stage.ENDED)
            self._watch_transport()
        self.transport.abortConnection()
