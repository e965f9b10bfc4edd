"""
A client's HTTP/2 connection: its streams, whose turn it is, and how long the client may take.

Its stages and their time limits are those of HTTP/1.1, the table in `mtlsgate.http.stages`:
BUSY while there are streams, each of which has limits of its own for its body and response,
IDLE between.
"""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from mtlsgate.http.checks import check
from mtlsgate.http.deadline import Deadline
from mtlsgate.http.next_turn import NextTurn
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.sides import HttpClient, Owner, client_of
from mtlsgate.http.stages import TABLE, HttpStage, Late, seconds_for
from mtlsgate.http.valve import Valve
from mtlsgate.http2.events import (
    Answered,
    Came,
    Event,
    Leaving,
    Opened,
    Requested,
    Reset,
    Trailed,
)
from mtlsgate.http2.farewell import Farewell
from mtlsgate.http2.faults import ConnectionFault, MalformedRequest, code_name
from mtlsgate.http2.heads import VERSION, Tunnel, trailer_lines
from mtlsgate.http2.reading import HeadReader
from mtlsgate.http2.session import MAX_STREAMS, Session
from mtlsgate.http2.stream import Http2Stream
from mtlsgate.http2.turns import Turns

#: How many requests, and how many other events, are read before others get a turn.
_REQUESTS_AT_ONCE = 16
_EVENTS_AT_ONCE = 256
#: What stands for a request that could not be read.
_UNREAD = RequestHead(b"GET", b"*", VERSION, (), 0)
_OVER = (HttpStage.ENDED, HttpStage.LOST)


class Http2Connection(Protocol):
    """
    One client's connection.

    :ivar client: the client.
    :ivar stage: what it waits for.
    :ivar session: frames and windows.
    :ivar limits: what the client is held to.
    :ivar clock: the reactor.
    :ivar _streams: those that are not over, by number.
    :ivar _turns: those of them that have something to write.
    :ivar _looping: whether events are read right now.
    :ivar _heads: reads requests.
    :ivar _again: reads on in the reactor's next turn.
    :ivar _farewell: tells the client that no more requests are wanted.
    :ivar _deadline: the time limit of the stage.
    :ivar _valve: lets the transport read, or not.
    """

    transport: Any
    client: HttpClient
    _looping = False

    def __init__(self, server: Owner, address: IAddress | None) -> None:
        self._server = server
        self._address = address
        self.limits = server.limits
        self.clock = server.clock
        self.session = Session(
            server.clock.seconds, server.limits.head_size, websockets=server.websockets
        )
        self._heads = HeadReader(server.limits.head_size, websockets=server.websockets)
        self._streams: dict[int, Http2Stream] = {}
        self._turns = Turns(
            self.session, server.clock, server.limits.send_timeout, self.flush, self._took_nothing
        )
        self._farewell = Farewell(self.session, server.clock, self.flush, self._settle)
        self._deadline = Deadline(server.clock, self._late)
        self._valve = Valve()
        self._again = NextTurn(server.clock, self._read)
        self.stage = HttpStage.FIRST

    def connectionMade(self) -> None:
        """Identify the client, and tell it the settings."""
        self.client = client_of(self.transport, self._address)
        self.transport.registerProducer(self._turns, True)
        self._server.opened(self)
        self._enter(HttpStage.FIRST)
        self.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the exchanges, and clean up."""
        self.stage = HttpStage.LOST
        self._deadline.end()
        self._turns.stop()
        self._farewell.stop()
        self._again.cancel()
        self._lose_streams("the client left", reason)
        self._server.closed(self)

    def _lose_streams(self, cause: str, reason: Failure) -> None:
        for stream in tuple(self._streams.values()):
            stream.was_reset(cause, reason)

    # Reading.

    def dataReceived(self, data: bytes) -> None:
        """Read frames."""
        if self.stage in _OVER:
            return
        try:
            self.session.feed(data)
        except ConnectionFault as fault:
            self._fail(fault)
        self._read()

    def _read(self) -> None:
        """Read what has come, up to a limit; the rest follows in the next turn."""
        if self._looping:
            return
        self._looping = True
        requests = 0
        try:
            for _ in range(_EVENTS_AT_ONCE):
                event = None if self.stage in _OVER else self.session.next()
                if event is None:
                    break
                self._take(event)
                requests += isinstance(event, Requested)
                if requests == _REQUESTS_AT_ONCE:
                    self._again.ask()
                    break
            else:
                self._again.ask()
        except ConnectionFault as fault:
            self._fail(fault)
        finally:
            self._looping = False
        if self.stage in _OVER:
            return
        arriving = self._streams.get(self.session.begun_data or 0)
        if arriving is not None:
            arriving.restart_time()
        self._settle()
        self.flush()
        self._turns.write()
        self._watch_transport()

    def _take(self, event: Event) -> None:
        match event:
            case Requested():
                self._begin(event)
            case Came():
                self._take_body(event)
            case Trailed():
                self._take_trailers(event)
            case Opened():
                self._turns.window_opened(event.stream, self._streams)
            case Reset():
                self._was_reset(event)
            case Leaving():
                self._farewell.by_client()
            case Answered():
                self._farewell.answered(event.data)

    def _begin(self, event: Requested) -> None:
        """:raises ConnectionFault: if the client does such things too often."""
        number = event.stream
        if self._farewell.is_over or len(self._streams) >= MAX_STREAMS:
            # RFC 9113, 5.1.2 and 6.8: it may be sent again, elsewhere.
            self.session.reset(number, ErrorCodes.REFUSED_STREAM)
            self.session.blame()
            return
        try:
            head, tunnel = self._heads.read(event.fields, ended=event.ended)
        except MalformedRequest as error:
            self._refuse_unread(event, Refusal(400, error.cause)).malformed(error)
            self.session.blame()
            return
        except Refusal as refusal:
            self._refuse_unread(event, refusal).refuse(refusal)
            return
        stream = self._add(event, head, tunnel)
        try:
            asked = check(head, self.client.server_name, self._server.serves, self.limits)
            exchange = self._server.exchange(head, asked, stream)
        except Refusal as refusal:
            self._server.refused(self.client, head, refusal)
            stream.refuse(refusal)
            return
        stream.begin(exchange)
        if self._server.retired or not self.limits.keeps:
            self.retire()

    def _refuse_unread(self, event: Requested, refusal: Refusal) -> Http2Stream:
        self._server.refused(self.client, None, refusal)
        return self._add(event, _UNREAD, None)

    def _add(self, event: Requested, head: RequestHead, tunnel: Tunnel | None) -> Http2Stream:
        stream = Http2Stream(self, event.stream, head, ended=event.ended, tunnel=tunnel)
        self._streams[event.stream] = stream
        self._enter_once(HttpStage.BUSY)
        return stream

    def _take_body(self, event: Came) -> None:
        stream = self._streams.get(event.stream)
        if stream is None:
            return
        try:
            if event.data:
                stream.came(event.data)
            if event.ended:
                stream.came_to_end()
        except MalformedRequest as error:
            stream.malformed(error)
            self.session.blame()

    def _take_trailers(self, event: Trailed) -> None:
        stream = self._streams.get(event.stream)
        if stream is None:
            return
        try:
            stream.came_to_end(trailer_lines(event.fields, self.limits.head_size))
        except MalformedRequest as error:
            stream.malformed(error)
            self.session.blame()

    def _was_reset(self, event: Reset) -> None:
        stream = self._streams.get(event.stream)
        if stream is not None:
            who = "client" if event.by_other else "gate"
            cause = f"the {who} reset the stream, with {code_name(event.code)}"
            stream.was_reset(cause, Failure(ConnectionAborted()))

    def _fail(self, fault: ConnectionFault) -> None:
        """The connection cannot go on; the client was told why."""
        self._server.refused(
            self.client, None, Refusal(400, f"{code_name(fault.code)}: {fault.cause}")
        )
        self._lose_streams(fault.cause, Failure(ConnectionAborted()))
        self.close(refused=True)

    # Writing.

    def flush(self) -> None:
        """Send what the session has to send (`Carrier`)."""
        data = self.session.outgoing()
        if data and self.stage is not HttpStage.LOST:
            self.transport.write(data)

    def write_soon(self, number: int) -> None:
        """Let a stream write, when it is its turn (`Carrier`)."""
        self._turns.add(self._streams[number])
        self._turns.write()

    def _watch_transport(self) -> None:
        """Let the transport read, unless there is enough to do."""
        # After the end TLS waits for the client's close_notify.
        on = not self._again.is_due or self.stage is HttpStage.ENDED
        if self.stage is not HttpStage.LOST:
            self._valve.turn(self.transport, on=on)

    # Streams that are over.

    def over(self, number: int) -> None:
        """A stream is over (`Carrier`)."""
        self._streams.pop(number, None)
        self._settle()

    def _settle(self) -> None:
        """Choose the stage anew."""
        if self.stage in _OVER or self._streams or self._looping:
            return
        if self._farewell.is_over:
            self.flush()
            self.close()
        elif self.session.in_head:
            self._enter_once(HttpStage.HEAD)
        elif self.stage in (HttpStage.BUSY, HttpStage.HEAD):
            self._enter(HttpStage.IDLE)

    # Time limits.

    def _enter_once(self, stage: HttpStage) -> None:
        if self.stage is not stage:
            self._enter(stage)

    def _enter(self, stage: HttpStage, *, refused: bool = False) -> None:
        before, self.stage = self.stage, stage
        if before is HttpStage.FIRST and stage is HttpStage.HEAD:
            return
        self._deadline.within(
            seconds_for(stage, self.limits, congested=False, client_waits=False, refused=refused)
        )

    def _late(self) -> None:
        rule = TABLE[self.stage]
        if rule.late is Late.RESET:
            self.cut()
            return
        if rule.late is Late.TOLD:
            cause = rule.cause.format(seconds=rule.time(self.limits))
            self._server.refused(self.client, None, Refusal(408, cause))
        self.close()

    def _took_nothing(self) -> None:
        cause = f"the client took nothing for {self.limits.send_timeout:g} s"
        self._lose_streams(cause, Failure(TimeoutError(cause)))
        self.cut()

    # Ending.

    def retire(self) -> None:
        """Take no more requests, once the client knows, and end after the last response."""
        self._farewell.begin()

    def close(self, *, refused: bool = False) -> None:
        """
        End the connection when everything is written.  What still comes is dropped.

        :param refused: whether the client only has to read why.
        """
        if self.stage in _OVER:
            return
        self.session.leave(ErrorCodes.NO_ERROR)
        self.flush()
        self._enter(HttpStage.ENDED, refused=refused)
        self._turns.stop()
        self._farewell.stop()
        self._watch_transport()
        # TLS does not end while a producer is registered.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def cut(self) -> None:
        """End the connection so that it does not look like the end of a response."""
        if self.stage not in _OVER:
            self._enter(HttpStage.ENDED)
        self._turns.stop()
        self._farewell.stop()
        self.transport.abortConnection()
