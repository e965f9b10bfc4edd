"""
A client's HTTP/1.1 connection: reads requests, one at a time, and frames their responses.

Its stages and their time limits are the table in `mtlsgate.http.stages`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.internet.interfaces import IAddress, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.http.bodies import MalformedMessage
from mtlsgate.http.checks import check, check_size, expects_continue
from mtlsgate.http.deadline import Deadline
from mtlsgate.http.fields import Line, tokens
from mtlsgate.http.framing import ResponseFraming, head_bytes
from mtlsgate.http.next_turn import NextTurn
from mtlsgate.http.reading import RequestEnd, RequestHead, RequestReader
from mtlsgate.http.refusal import REASONS, Refusal, own_body, own_fields, own_response
from mtlsgate.http.sides import Exchange, HttpClient, Owner, client_of
from mtlsgate.http.stages import ANSWERING, TABLE, HttpStage, Late, seconds_for, wants_bytes
from mtlsgate.http.valve import Valve

#: How many heads, ends and pieces of bodies are read at once, before others get a turn.
_AT_ONCE = 16
#: How many bytes of heads are read at once.
_AT_ONCE_BYTES = 16 * 1024
_OVER = (HttpStage.ENDED, HttpStage.LOST)


@implementer(IPushProducer)
class HttpConnection(Protocol):
    """
    One client's connection, and the client's side of each of its requests.

    :ivar client: the client.
    :ivar stage: what it waits for.
    :ivar complete: whether all of the current request was read.
    :ivar _head: the head of the current request.
    :ivar _exchange: answers the current request; None before and after.
    :ivar _persistent: whether another request may follow.
    :ivar _expecting: whether the client waits for 100 before it sends the body.
    :ivar _received: how many bytes of the body came.
    :ivar _framing: frames the final response; None before it begins.
    :ivar _refused: whether the server itself, without an exchange, answered the last
        request.
    :ivar _congested: whether the client does not read for now.
    :ivar _paused: whether the exchange takes no more of the body for now.
    :ivar _valve: lets the transport read, or not.
    :ivar _looping: whether requests are being read right now.
    :ivar _again: reads on in the reactor's next turn.
    :ivar _deadline: the time limit of the stage.
    """

    transport: Any
    client: HttpClient
    complete = False
    _head: RequestHead | None = None
    _exchange: Exchange | None = None
    _persistent = True
    _expecting = False
    _received = 0
    _framing: ResponseFraming | None = None
    _refused = False
    _congested = False
    _paused = False
    _looping = False

    def __init__(self, server: Owner, address: IAddress | None) -> None:
        self._server = server
        self._limits = server.limits
        self._address = address
        self._reader = RequestReader(server.limits.head_size)
        self._deadline = Deadline(server.clock, self._late)
        self._valve = Valve()
        self._again = NextTurn(server.clock, self._read)
        self.stage = HttpStage.FIRST

    def connectionMade(self) -> None:
        """Identify the client, and wait for the first request."""
        transport = self.transport
        self.client = client_of(transport, self._address)
        transport.registerProducer(self, True)
        self._server.opened(self)
        self._enter(HttpStage.FIRST)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the exchange, and clean up."""
        self.stage = HttpStage.LOST
        self._deadline.end()
        self._again.cancel()
        self._lose_exchange("the client left", reason)
        self._server.closed(self)

    def _lose_exchange(self, cause: str, reason: Failure) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.lost(cause, reason)

    # Reading requests.

    def dataReceived(self, data: bytes) -> None:
        """Read requests; after a switch pass the bytes on."""
        if self.stage is HttpStage.RAW:
            assert self._exchange is not None
            self._exchange.data(data)
        elif self.stage is not HttpStage.ENDED:
            self._reader.feed(data)
            self._read()

    def _read(self) -> None:
        """Read what has come, up to a limit; the rest follows in the next turn."""
        if self._looping:
            return
        self._looping = True
        try:
            room = _AT_ONCE_BYTES
            for _ in range(_AT_ONCE):
                before = self._reader.waiting
                event = None if self._waits() else self._reader.next()
                if event is None:
                    break
                self._take(event)
                if isinstance(event, RequestHead):
                    room -= before - self._reader.waiting
                    if room <= 0:
                        self._again.ask()
                        break
            else:
                self._again.ask()
        except MalformedMessage as error:
            self._broken(Refusal(400, error.cause))
        except Refusal as refusal:
            self._broken(refusal)
        finally:
            self._looping = False
        if self.stage in (HttpStage.FIRST, HttpStage.IDLE) and self._reader.in_head:
            self._enter(HttpStage.HEAD)
        self._watch_transport()

    def _waits(self) -> bool:
        """Whether nothing should be read now, even if bytes have come."""
        return not TABLE[self.stage].reads or (self._paused and self.stage is HttpStage.BODY)

    def _take(self, event: RequestHead | bytes | RequestEnd) -> None:
        if isinstance(event, RequestHead):
            self._begin(event)
            return
        exchange = self._exchange
        assert exchange is not None
        if isinstance(event, RequestEnd):
            self.complete = True
            self._enter(HttpStage.BUSY)
            exchange.end(event.trailers)
            return
        self._received += len(event)
        self._expecting = False
        self._time()
        check_size(self._received, self._limits)
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
        self._received, self._framing, self._refused = 0, None, False
        self._paused, self._expecting = False, expects_continue(head)
        self._enter(HttpStage.BUSY if self.complete else HttpStage.BODY)
        try:
            asked = check(head, self.client.server_name, self._server.serves, self._limits)
            exchange = self._server.exchange(head, asked, self)
        except Refusal as refusal:
            self._server.refused(self.client, head, refusal)
            self.refuse(refusal)
            return
        self._exchange = exchange
        exchange.start()
        if self.complete and self._exchange is exchange:
            exchange.end(())

    def _broken(self, refusal: Refusal) -> None:
        """The request cannot be read, or the rest of it does not come."""
        exchange = self._exchange
        if exchange is not None:
            exchange.broken(refusal)
            if self.stage is HttpStage.BODY:
                self.abandon()
            return
        self._server.refused(self.client, None, refusal)
        self.transport.write(own_response(refusal.status))
        self.close(refused=True)

    # The client's side of a request.

    def interim(self, status: int, reason: bytes, lines: Iterable[Line]) -> None:
        """Send an interim response if the client understands it (`ClientSide`)."""
        assert self._head is not None
        if self._framing is not None or self._head.version != b"HTTP/1.1":
            return
        if status == 100:
            if not self._expecting:
                return
            self._expecting = False
            self._time()
        self.transport.write(head_bytes(self._head.version, status, reason, lines))

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
        head = self._head
        assert head is not None
        sent = list(lines)
        framing = self._framing = ResponseFraming(head.method, head.version, status, sent)
        if framing.chunked:
            sent.append((b"Transfer-Encoding", b"chunked"))
        # If the request is not complete, the rest of it is not read.
        if last or framing.ends_with_connection or not self.complete or self._server.retired:
            self._persistent = False
        if not self._persistent:
            sent.append((b"Connection", b"close"))
        self._expecting = False
        self.transport.write(head_bytes(head.version, status, reason, sent))

    def send(self, data: bytes) -> None:
        """Send a piece of the response's body (`ClientSide`)."""
        if self.stage is HttpStage.RAW:
            self.transport.write(data)
        elif self._framing is not None:
            self.transport.writeSequence(self._framing.piece(data))

    def finish(self, trailers: Iterable[Line] = ()) -> None:
        """The response is complete (`ClientSide`)."""
        framing, self._framing, self._exchange = self._framing, None, None
        if framing is None or framing.is_short:
            self._persistent = False
        else:
            self.transport.write(framing.end(trailers))
        if not self._persistent or not self.complete or self._server.retired:
            self.close(refused=self._refused)
        elif self._congested:
            self._enter(HttpStage.HELD)
            self._watch_transport()
        else:
            self._await_next()

    def _await_next(self) -> None:
        self._reader.proceed()
        self._enter(HttpStage.IDLE)
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
        framing, self._framing, self._exchange = self._framing, None, None
        if framing is not None and framing.ends_with_connection:
            # A proper end would look like the end of the body.
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
        """Read the body again (`ClientSide`)."""
        if self._paused:
            self._paused = False
            self._time()
            self._read()

    def switch(self, reason: bytes, lines: Iterable[Line]) -> bytes:
        """From now on, pass all bytes unchanged (`ClientSide`)."""
        self.transport.write(head_bytes(b"HTTP/1.1", 101, reason, lines))
        self._persistent = False
        self._enter(HttpStage.RAW)
        self._watch_transport()
        return self._reader.take_rest()

    # Backpressure: the transport says when the client does not read.

    def pauseProducing(self) -> None:
        """The client takes no more for now."""
        self._congest(True)

    def resumeProducing(self) -> None:
        """The client takes bytes again."""
        self._congest(False)
        if self.stage is HttpStage.HELD:
            self._await_next()

    def _congest(self, congested: bool) -> None:
        self._congested = congested
        if self._exchange is not None:
            self._time()
            self._exchange.client_slow(congested)

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows."""

    def _watch_transport(self) -> None:
        """Let the transport read, or not."""
        if self.stage is not HttpStage.LOST:
            later, waiting = self._again.is_due, self._reader.waiting
            on = wants_bytes(self.stage, paused=self._paused, later=later, waiting=waiting)
            self._valve.turn(self.transport, on=on)

    # Time limits.

    def _enter(self, stage: HttpStage) -> None:
        before, self.stage = self.stage, stage
        if before is HttpStage.FIRST and stage is HttpStage.HEAD:
            # The time for the head is part of the time for the first request.
            left = self._deadline.left
            assert left is not None
            self._deadline.within(min(left, self._limits.head_timeout))
        else:
            self._time()

    def _time(self) -> None:
        """Restart the time limit of the stage."""
        self._deadline.within(
            seconds_for(
                self.stage,
                self._limits,
                congested=self._congested,
                client_waits=self._paused or self._expecting,
                refused=self._refused,
            )
        )

    def _late(self) -> None:
        limits, rule = self._limits, TABLE[self.stage]
        if self._congested and self.stage in ANSWERING:
            cause = f"the client took nothing for {limits.send_timeout:g} s"
            self._lose_exchange(cause, Failure(TimeoutError(cause)))
            self.cut()
        elif rule.late is Late.RESET or not limits.tells_late:
            self.cut()
        elif rule.late is Late.TOLD:
            self._broken(Refusal(408, rule.cause.format(seconds=rule.time(limits))))
        else:
            self.close()

    # Ending.

    def retire(self) -> None:
        """End the connection, unless a request is underway or the first has not come yet."""
        if self.stage in (HttpStage.IDLE, HttpStage.HELD):
            self.close()

    def close(self, *, refused: bool = False) -> None:
        """
        End the connection when everything is written.  Bytes that still come are dropped.

        :param refused: whether the client only has to read a refusal.
        """
        if self.stage in _OVER:
            return
        self._refused = refused
        self._enter(HttpStage.ENDED)
        self._watch_transport()
        # TLS does not end while a producer is registered.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def cut(self) -> None:
        """End the connection so that it does not look like the end of a response
        (`ClientSide`)."""
        if self.stage not in _OVER:
            self._enter(HttpStage.ENDED)
            self._watch_transport()
        self.transport.abortConnection()
