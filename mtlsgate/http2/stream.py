"""
One stream of a connection: the client's side of one exchange.

The request's body passes to the exchange as long as that takes it, and waits here otherwise, up
to the stream's window.  The response's body waits here while the client does not take it: its
window for the stream may be closed, or that for the connection, or its socket may be full.  The
exchange is told so, and told again when nothing waits any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from mtlsgate.http.checks import check_size, expects_continue
from mtlsgate.http.deadline import Deadline
from mtlsgate.http.fields import Line
from mtlsgate.http.framing import ResponseFraming
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import REASONS, Refusal, own_body, own_fields
from mtlsgate.http.sides import Exchange, HttpClient
from mtlsgate.http2.faults import MalformedRequest
from mtlsgate.http2.heads import Tunnel, response_fields, trailer_fields, tunnel_fields
from mtlsgate.http2.session import Session

#: Bytes that a client has to take before its time begins anew: byte by byte it could keep a
#: response, and a connection to a target, for ever.
PROGRESS = 16 * 1024


class Carrier(Protocol):
    """The connection, as its streams see it."""

    session: Session
    client: HttpClient
    limits: HttpLimits
    clock: IReactorTime

    def flush(self) -> None:
        """Send what the session has to send."""

    def write_soon(self, stream: Http2Stream) -> None:
        """Let the stream write, when it is its turn."""

    def retire(self) -> None:
        """Take no more requests."""

    def over(self, stream: Http2Stream) -> None:
        """A stream is over."""


class Http2Stream:
    """
    One request and its response (`mtlsgate.http.sides.ClientSide`).

    :ivar number: the stream's.
    :ivar is_queued: whether it waits for its turn to write; the connection's own note.
    :ivar _tunnel: the WebSocket that the request asks for, or None.
    :ivar _switched: whether bytes pass unchanged, after the target agreed to it.
    :ivar _exchange: answers the request; None before and after.
    :ivar _ended: whether the client has sent all of the request.
    :ivar _arrived: how many bytes of its body came.
    :ivar _expecting: whether the client waits for 100 before it sends the body.
    :ivar _paused: whether the exchange takes no more of the body for now.
    :ivar _held: what came meanwhile.
    :ivar _held_end: the trailers, if the end came meanwhile.
    :ivar _untaken: bytes that the exchange got, but that did not leave it yet.
    :ivar _framing: counts the response's body; None before it begins.
    :ivar _out: what waits to be sent of it.
    :ivar _last: the trailers after it, once the end is known.
    :ivar _closed: whether the response was sent to its end.
    :ivar _slow: whether the exchange was told that the client takes no more.
    :ivar _stalled: whether the client's time to take something is running.
    :ivar _taken: how much it took in this time.
    :ivar _malformed: whether the request turned out to be none.
    """

    is_queued = False
    _switched = False
    _exchange: Exchange | None = None
    _arrived = 0
    _held_end: Sequence[Line] | None = None
    _untaken = 0
    _framing: ResponseFraming | None = None
    _last: Sequence[Line] | None = None
    _closed = False
    _slow = False
    _stalled = False
    _taken = 0
    _malformed = False
    _over = False
    _deadline: Deadline | None = None

    def __init__(
        self,
        carrier: Carrier,
        number: int,
        head: RequestHead,
        *,
        ended: bool,
        tunnel: Tunnel | None = None,
    ) -> None:
        """
        :param ended: whether the request has no body.
        :param tunnel: the WebSocket that it asks for, or None.
        """
        self.number = number
        self._carrier = carrier
        self._head = head
        self._ended = ended
        self._tunnel = tunnel
        self._expecting = expects_continue(head)
        # What comes before the target has agreed is not for it.
        self._paused = tunnel is not None
        self._held: deque[bytes] = deque()
        self._out: deque[memoryview] = deque()

    @property
    def client(self) -> HttpClient:
        """Who it is (`ClientSide`)."""
        return self._carrier.client

    @property
    def complete(self) -> bool:
        """Whether all of the request was read (`ClientSide`)."""
        if self._tunnel is not None:
            return True
        return self._ended and not self._held and self._held_end is None

    # The request.

    def begin(self, exchange: Exchange) -> None:
        """:param exchange: what answers it."""
        self._exchange = exchange
        self._time()
        exchange.start()
        if self.complete and self._exchange is exchange:
            exchange.end(())

    def came(self, data: bytes) -> None:
        """
        A piece of the body came.

        :raises MalformedRequest: if it is more than the request's length.
        """
        self._arrived += len(data)
        exchange, length = self._exchange, self._head.length
        if exchange is None:
            return
        if self._tunnel is None:
            if length is not None and self._arrived > length:
                raise MalformedRequest("the body is longer than Content-Length")
            try:
                check_size(self._arrived, self._carrier.limits)
            except Refusal as refusal:
                self.broken(refusal)
                return
        self._expecting = False
        if self._paused:
            self._held.append(data)
        else:
            self._pass(exchange, data)
        self._time()

    def _pass(self, exchange: Exchange, data: bytes) -> None:
        self._untaken += len(data)
        exchange.data(data)
        self._open_window()

    def _open_window(self) -> None:
        """Let the client send more, if nothing waits."""
        if not (self._paused or self._ended or self._over) and self._untaken:
            size, self._untaken = self._untaken, 0
            self._carrier.session.taken(self.number, size)

    def came_to_end(self, trailers: Sequence[Line] = ()) -> None:
        """
        The request is complete.

        :raises MalformedRequest: if it is not, by its own length.
        """
        self._ended = True
        length = self._head.length
        if self._tunnel is not None:
            self._end_tunnel()
            return
        if length is not None and self._arrived != length:
            raise MalformedRequest("the body is shorter than Content-Length")
        if self._paused or self._held:
            self._held_end = trailers
        else:
            self._finish_request(trailers)

    def _finish_request(self, trailers: Sequence[Line]) -> None:
        self._held_end = None
        self._time()
        if self._exchange is not None:
            self._exchange.end(trailers)

    def _end_tunnel(self) -> None:
        """The client ended its WebSocket, or does not want it any more."""
        switched = self._switched
        self.lose("the client left", Failure(ConnectionDone()))
        if switched:
            self._finish_response(())
        else:
            self.reset(ErrorCodes.CANCEL)

    def proceeds(self) -> None:
        """Part of a piece of the body came."""
        self._time()

    def malformed(self, error: MalformedRequest) -> None:
        """What came is no part of the request (RFC 9113, 8.1.1): it is refused, and the
        stream is reset."""
        self._malformed = True
        self.broken(Refusal(400, error.cause))
        self.reset(ErrorCodes.PROTOCOL_ERROR)

    def refuse_malformed(self, refusal: Refusal) -> None:
        """Refuse what never became a request, and reset the stream."""
        self._malformed = True
        self.refuse(refusal)
        self.reset(ErrorCodes.PROTOCOL_ERROR)

    def broken(self, refusal: Refusal) -> None:
        """The rest of the request cannot be read, or does not come."""
        self._held.clear()
        exchange = self._exchange
        if exchange is not None:
            exchange.broken(refusal)
            if self._exchange is exchange:
                self.abandon()

    def lose(self, cause: str, reason: Failure) -> None:
        """Tell the exchange that the client is gone."""
        self._out.clear()
        self._held.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(cause, reason)

    # The client's side.

    def interim(self, status: int, reason: bytes, lines: Iterable[Line]) -> None:
        """Send an interim response (`ClientSide`)."""
        if self._framing is not None or self._over:
            return
        if status == 100:
            if not self._expecting:
                return
            self._expecting = False
            self._time()
        self._carrier.session.headers(self.number, response_fields(status, lines), end=False)
        self._carrier.flush()

    def respond(
        self, status: int, reason: bytes, lines: Iterable[Line], *, last: bool = False
    ) -> None:
        """Begin the final response (`ClientSide`)."""
        if self._over:
            return
        sent = list(lines)
        framing = ResponseFraming(self._head.method, self._head.version, status, sent)
        self._framing = framing
        self._expecting = False
        self._closed = framing.is_complete
        self._carrier.session.headers(self.number, response_fields(status, sent), end=self._closed)
        self._carrier.flush()
        if last:
            self._carrier.retire()

    def send(self, data: bytes) -> None:
        """Send a piece of the response's body (`ClientSide`)."""
        framing = self._framing
        if self._over or self._closed or not data or (framing is None and not self._switched):
            return
        for piece in [data] if framing is None else framing.piece(data):
            if piece:
                self._out.append(memoryview(piece))
        if framing is not None and framing.is_complete:
            self._last = ()
        self._carrier.write_soon(self)
        self._note_slowness()

    def finish(self, trailers: Iterable[Line] = ()) -> None:
        """The response is complete (`ClientSide`)."""
        self._exchange = None
        framing = self._framing
        if (framing is None and not self._switched) or (framing is not None and framing.is_short):
            self.reset(ErrorCodes.INTERNAL_ERROR)
        else:
            self._finish_response(list(trailers))

    def _finish_response(self, trailers: Sequence[Line]) -> None:
        self._time()
        if self._closed:
            self._end_if_due()
        elif not self._over:
            self._last = trailers
            self._carrier.write_soon(self)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in one line (`ClientSide`)."""
        status = refusal.status
        self._held.clear()
        if self._malformed:
            # The reset that follows would take a body with it.
            lines = [*own_fields(status)[:1], (b"content-length", b"0")]
            self._exchange = None
            self._carrier.session.headers(self.number, response_fields(status, lines), end=False)
            return
        self.respond(status, REASONS[status], own_fields(status))
        self.send(own_body(status))
        self.finish()

    def abandon(self) -> None:
        """The response breaks off (`ClientSide`)."""
        self._exchange = None
        self.reset(ErrorCodes.PROTOCOL_ERROR if self._malformed else ErrorCodes.INTERNAL_ERROR)

    def cut(self) -> None:
        """The response breaks off at once (`ClientSide`)."""
        exchange, self._exchange = self._exchange, None
        self.reset(ErrorCodes.INTERNAL_ERROR)
        if exchange is not None:
            lost = Failure(ConnectionAborted())
            self._carrier.clock.callLater(0, exchange.lost, "the response broke off", lost)

    def pause_body(self) -> None:
        """Pass no more of the body for now (`ClientSide`)."""
        if not self._paused:
            self._paused = True
            self._time()

    def resume_body(self) -> None:
        """Pass the body again (`ClientSide`)."""
        if not self._paused or (self._tunnel is not None and not self._switched):
            return
        self._paused = False
        while self._held and not self._paused and self._exchange is not None:
            self._pass(self._exchange, self._held.popleft())
        self._open_window()
        self._carrier.flush()
        self._time()
        if self._held_end is not None and not self._paused and not self._held:
            self._finish_request(self._held_end)

    def switch(self, reason: bytes, lines: Iterable[Line]) -> bytes:
        """Accept the WebSocket, and pass all further bytes (`ClientSide`)."""
        assert self._tunnel is not None
        sent = list(lines)
        self._tunnel.check(sent)
        self._switched = True
        self._paused = False
        self._carrier.session.headers(self.number, tunnel_fields(sent), end=False)
        early = b"".join(self._held)
        self._held.clear()
        self._untaken += len(early)
        self._open_window()
        self._carrier.flush()
        return early

    # Writing, when the connection says so.

    def write(self) -> bool:
        """
        Write one frame of what waits.

        :returns: whether another could be written now.
        """
        session, out = self._carrier.session, self._out
        if self._over or self._closed:
            return False
        if out:
            room = session.room(self.number)
            if room <= 0:
                self._stall(not session.has_window(self.number))
                return False
            data = out[0]
            if len(data) > room:
                data, out[0] = data[:room], data[room:]
            else:
                out.popleft()
            self._took(len(data))
            self._closed = not out and self._last is not None and not self._last
            session.data(self.number, data, end=self._closed)
        elif self._last is not None:
            self._closed = True
            if self._last:
                session.headers(self.number, trailer_fields(self._last), end=True)
            else:
                session.data(self.number, b"", end=True)
        return bool(out) or (self._last is not None and not self._closed)

    @property
    def waits_for_window(self) -> bool:
        """Whether the client has to open the window of this stream."""
        return bool(self._out) and not self._carrier.session.has_window(self.number)

    @property
    def has_output(self) -> bool:
        """Whether anything is left to be written."""
        return bool(self._out) or (self._last is not None and not self._closed)

    def wrote(self) -> None:
        """The turn to write is over: tell the exchange, or end."""
        self._note_slowness()
        self._end_if_due()

    def _note_slowness(self) -> None:
        slow = bool(self._out)
        if slow == self._slow or self._over:
            return
        self._slow = slow
        if not slow and self._stalled:
            self._stall(False)
        if self._exchange is not None:
            self._exchange.client_slow(slow)

    def _end_if_due(self) -> None:
        """End, if both the exchange and the response are over."""
        if self._over or self._exchange is not None or not self._closed:
            return
        if self._ended:
            self._carrier.session.answered(self.number)
            self._end()
        else:
            # RFC 9113, 8.1: the rest of the request is not wanted.
            self.reset(ErrorCodes.NO_ERROR)

    # Time limits.

    def _stall(self, stalled: bool) -> None:
        """The client's window for this stream is closed, or is not."""
        if stalled and not self._stalled:
            self._stalled, self._taken = True, 0
            self._limit(self._carrier.limits.send_timeout)
        elif not stalled and self._stalled:
            self._stalled = False
            self._time()

    def _took(self, size: int) -> None:
        """The client takes bytes, of which a few do not count."""
        self._taken += size
        if self._stalled and self._taken >= PROGRESS:
            self._stall(False)

    def _time(self) -> None:
        """Begin the time anew that the client has for the next piece of the body."""
        if self._stalled or self._over:
            return
        waits = not (self._ended or self._paused or self._expecting or self._tunnel is not None)
        if waits and self._exchange is not None:
            self._limit(self._carrier.limits.body_timeout)
        elif self._deadline is not None:
            self._deadline.within(None)

    def _limit(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = Deadline(self._carrier.clock, self._late)
        self._deadline.within(seconds)

    def _late(self) -> None:
        limits = self._carrier.limits
        if self._stalled:
            cause = f"the client took nothing for {limits.send_timeout:g} s"
            self.lose(cause, Failure(TimeoutError(cause)))
            self.reset(ErrorCodes.CANCEL)
        else:
            self.broken(Refusal(408, f"the client was silent for {limits.body_timeout:g} s"))

    # Ending.

    def reset(self, code: ErrorCodes) -> None:
        """End the stream so that it does not look like the end of a response."""
        if not self._over:
            self._carrier.session.reset(self.number, code)
            self._carrier.flush()
            self._end()

    def was_reset(self, cause: str, reason: Failure) -> None:
        """The stream is over for both sides."""
        self._over = True
        self.lose(cause, reason)
        self._end()

    def _end(self) -> None:
        self._over = True
        self._out.clear()
        self._held.clear()
        if self._deadline is not None:
            self._deadline.cancel()
        self._carrier.over(self)
