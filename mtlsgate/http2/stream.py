"""
One stream of a connection: the client's side of one exchange.

The request's body passes to the exchange as long as that takes it, and waits here otherwise, up
to the stream's window.  The response's body waits here while the client does not take it: its
window for the stream may be closed, or that for the connection, or its socket may be full.  The
exchange is told so, and told again when nothing waits any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.python.failure import Failure

from mtlsgate.http.checks import check_size, expects_continue
from mtlsgate.http.fields import Line
from mtlsgate.http.framing import ResponseFraming
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import REASONS, Refusal, own_body, own_fields
from mtlsgate.http.sides import Exchange, HttpClient
from mtlsgate.http2.carrier import Carrier
from mtlsgate.http2.faults import MalformedRequest
from mtlsgate.http2.heads import Tunnel, response_fields, tunnel_fields
from mtlsgate.http2.inbox import Inbox
from mtlsgate.http2.outbox import Outbox
from mtlsgate.http2.timing import StreamTime


class Http2Stream:
    """
    One request and its response (`mtlsgate.http.sides.ClientSide`).

    :ivar number: the stream's.
    :ivar _tunnel: the WebSocket that the request asks for, or None.
    :ivar _switched: whether bytes pass unchanged, after the target agreed to it.
    :ivar _exchange: answers the request; None before and after.
    :ivar _expecting: whether the client waits for 100 before it sends the body.
    :ivar _inbox: what came of the request's body.
    :ivar _slow: whether the exchange was told that the client takes no more.
    :ivar _outbox: what waits to be sent of the response.
    :ivar _time: how long the client may take.
    :ivar _malformed: whether the request turned out to be none.
    """

    _switched = False
    _exchange: Exchange | None = None
    _slow = False
    _malformed = False
    _over = False

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
        self._tunnel = tunnel
        self._expecting = expects_continue(head)
        self._inbox = Inbox(
            carrier.session,
            number,
            None if tunnel is not None else head.length,
            ended=ended,
            # What comes before the target has agreed is not for it.
            paused=tunnel is not None,
        )
        self._outbox = Outbox(carrier.session, number)
        self._time = StreamTime(carrier.limits, carrier.clock, self._late)

    @property
    def client(self) -> HttpClient:
        """Who it is (`ClientSide`)."""
        return self._carrier.client

    @property
    def complete(self) -> bool:
        """Whether all of the request was read (`ClientSide`)."""
        return self._tunnel is not None or self._inbox.complete

    # The request.

    def begin(self, exchange: Exchange) -> None:
        """:param exchange: what answers it."""
        self._exchange = exchange
        self.restart_time()
        exchange.start()
        if self.complete and self._exchange is exchange:
            exchange.end(())

    def came(self, data: bytes) -> None:
        """
        A piece of the body came.

        :raises MalformedRequest: if it is more than the request's length.
        """
        if self._exchange is None:
            return
        self._inbox.put(data)
        self._expecting = False
        if self._tunnel is None:
            try:
                check_size(self._inbox.arrived, self._carrier.limits)
            except Refusal as refusal:
                self.broken(refusal)
                return
        self._inbox.pass_on(self._pass)
        self.restart_time()

    def _pass(self, data: bytes) -> None:
        if self._exchange is not None:
            self._exchange.data(data)

    def came_to_end(self, trailers: Sequence[Line] = ()) -> None:
        """
        The request is complete.

        :raises MalformedRequest: if it is not, by its own length.
        """
        if self._exchange is None and self._tunnel is None:
            self._inbox.end_unread()
            self._end_if_due()
            return
        self._inbox.put_end(trailers)
        if self._tunnel is None:
            self._pass_end()
        else:
            self._end_tunnel()

    def _pass_end(self) -> None:
        trailers = self._inbox.take_end()
        if trailers is not None:
            self.restart_time()
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

    def malformed(self, error: MalformedRequest) -> None:
        """It is no request (RFC 9113, 8.1.1): refuse it, and reset the stream."""
        self._malformed = True
        refusal = Refusal(400, error.cause)
        if self._exchange is not None:
            self.broken(refusal)
        elif not self._outbox.begun:
            self.refuse(refusal)
        self.reset(ErrorCodes.PROTOCOL_ERROR)

    def broken(self, refusal: Refusal) -> None:
        """The rest of the request cannot be read, or does not come."""
        self._inbox.clear()
        exchange = self._exchange
        if exchange is not None:
            exchange.broken(refusal)
            if self._exchange is exchange:
                self.abandon()

    def lose(self, cause: str, reason: Failure) -> None:
        """Tell the exchange that the client is gone."""
        self._outbox.clear()
        self._inbox.clear()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(cause, reason)

    # The client's side.

    def interim(self, status: int, reason: bytes, lines: Iterable[Line]) -> None:
        """Send an interim response (`ClientSide`)."""
        if self._outbox.begun or self._over:
            return
        if status == 100:
            if not self._expecting:
                return
            self._expecting = False
            self.restart_time()
        self._carrier.session.headers(self.number, response_fields(status, lines), end=False)
        self._carrier.flush()

    def respond(
        self,
        status: int,
        reason: bytes,
        lines: Iterable[Line],
        *,
        last: bool = False,
        empty: bool = False,
    ) -> None:
        """Begin the final response (`ClientSide`)."""
        if self._over:
            return
        if self._tunnel is not None and status < 300:
            # RFC 8441, 4: to the client that is a WebSocket.
            raise Refusal(502, f"the target's answer to a WebSocket is {status}, and not 101")
        sent = list(lines)
        self._expecting = False
        framing = ResponseFraming(self._head.method, self._head.version, status, sent)
        self._outbox.begin(response_fields(status, sent), framing, end=empty)
        self._carrier.flush()
        if last:
            self._carrier.retire()

    def send(self, data: bytes) -> None:
        """Send a piece of the response's body (`ClientSide`)."""
        outbox = self._outbox
        if data and outbox.begun and not (self._over or outbox.closed):
            outbox.put(data)
            self._carrier.write_soon(self.number)
            self._note_slowness()

    def finish(self, trailers: Iterable[Line] = ()) -> None:
        """The response is complete (`ClientSide`)."""
        self._exchange = None
        if self._outbox.is_whole:
            self._finish_response(trailers)
        else:
            self.reset(ErrorCodes.INTERNAL_ERROR)

    def _finish_response(self, trailers: Iterable[Line]) -> None:
        self.restart_time()
        if self._outbox.closed:
            self._end_if_due()
        elif not self._over:
            self._outbox.finish(trailers)
            self._carrier.write_soon(self.number)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in one line (`ClientSide`)."""
        status = refusal.status
        self._inbox.clear()
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
        if not self._inbox.paused:
            self._inbox.pause()
            self.restart_time()

    def resume_body(self) -> None:
        """Pass the body again (`ClientSide`)."""
        if not self._inbox.paused or (self._tunnel is not None and not self._switched):
            return
        self._inbox.resume(self._pass)
        self._carrier.flush()
        self.restart_time()
        self._pass_end()

    def switch(self, reason: bytes, lines: Iterable[Line]) -> bytes:
        """Accept the WebSocket, and pass all further bytes (`ClientSide`)."""
        assert self._tunnel is not None
        sent = list(lines)
        self._tunnel.check(sent)
        self._switched = True
        self._outbox.begin(tunnel_fields(sent))
        early: list[bytes] = []
        self._inbox.resume(early.append)
        self._carrier.flush()
        return b"".join(early)

    # Writing, when the connection says so.

    def write(self) -> bool:
        """
        Send one frame of what waits.

        :returns: whether another could be sent now.
        """
        outbox, before = self._outbox, self._outbox.sent
        if self._over:
            return False
        if not outbox.write():
            if outbox.waits_for_window:
                self._time.stall()
            else:
                self._stop_waiting()
            return False
        if self._time.took(outbox.sent - before):
            self._stop_waiting()
        return outbox.has_output

    def _stop_waiting(self) -> None:
        """The client does not have to take anything for now."""
        if self._time.is_stalled:
            self._time.go_on()
            self.restart_time()

    @property
    def waits_for_window(self) -> bool:
        """Whether the client has to open the window of this stream."""
        return not self._over and self._outbox.waits_for_window

    @property
    def has_output(self) -> bool:
        """Whether anything is left to be written."""
        return not self._over and self._outbox.has_output

    def wrote(self) -> None:
        """The turn to write is over: tell the exchange, or end."""
        self._note_slowness()
        self._end_if_due()

    def _note_slowness(self) -> None:
        slow = self._outbox.has_body
        if slow == self._slow or self._over:
            return
        self._slow = slow
        if not slow:
            self._stop_waiting()
        if self._exchange is not None:
            self._exchange.client_slow(slow)

    @property
    def _is_answered(self) -> bool:
        """Whether both the exchange and the response are over."""
        return self._exchange is None and self._outbox.closed

    def _end_if_due(self) -> None:
        """End, if the request is over as well."""
        if self._over or not self._is_answered:
            return
        if self._inbox.ended:
            self._carrier.session.answered(self.number)
            self._end()
        else:
            # RFC 9113, 8.1, resets it now; but curl 7.88, still sending, then forgets the response.
            self._time.linger()

    # Time limits.

    def restart_time(self) -> None:
        """Begin the time anew that the client has for the next piece of the body."""
        if not (self._over or self._is_answered):
            inbox = self._inbox
            done = inbox.ended or inbox.paused or self._expecting or self._tunnel is not None
            self._time.wait_for_body(self._exchange is not None and not done)

    def _late(self) -> None:
        limits = self._carrier.limits
        if self._is_answered:
            self.reset(ErrorCodes.NO_ERROR)
        elif self._time.is_stalled:
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
        self._outbox.clear()
        self._inbox.clear()
        self._time.cancel()
        self._carrier.over(self.number)
