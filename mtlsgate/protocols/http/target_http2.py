"""
A connection of HTTP/2 to a target, for many requests at a time.
"""

from __future__ import annotations

from functools import partial
from typing import Any
from typing import Protocol as Shape

from h2.errors import ErrorCodes
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.http.deadline import Deadline
from mtlsgate.http2.events import (
    Answered,
    Began,
    Came,
    Event,
    Leaving,
    Opened,
    Reset,
    Responded,
    Trailed,
)
from mtlsgate.http2.faults import ConnectionFault, code_name
from mtlsgate.http2.requesting import RequestSession
from mtlsgate.http2.turns import Turns
from mtlsgate.protocols.http.response import MAX_HEAD
from mtlsgate.protocols.http.target_connection import words
from mtlsgate.protocols.http.target_stream import TargetStream
from mtlsgate.upstream.greeted import IGreeted, NotGreeted
from mtlsgate.upstream.state import TargetState, TargetUse

#: Seconds of silence, while requests are underway, until a PING asks whether the target is
#: there; for its answer; and until the next PING to a target that said nothing but such
#: answers, which servers of gRPC take for an attack if it comes within five minutes.
_PING_AFTER, _PING_ANSWER, _PING_AGAIN = 30.0, 15.0, 330.0
#: Seconds until a connection that was closed is reset.
_FAREWELL = 10.0
_PING = b"mtlsgate"
_NO_HTTP2 = (
    'its TLS did not choose HTTP/2 (ALPN "h2"), which http_version = "2" asks for; '
    "it may speak HTTP/1.1 only"
)


class Keeper(Shape):
    """Where connections are kept."""

    def idle(self, connection: Http2Target) -> None:
        """A connection has no requests any more."""

    def remove(self, connection: Http2Target) -> None:
        """Forget a connection that takes no more requests."""


@implementer(IGreeted)
class Http2Target(Protocol):
    """
    One connection (`mtlsgate.protocols.http.target_stream.StreamCarrier`).

    :ivar session: frames and windows.
    :ivar scheme: what requests are told that they came by.
    :ivar state: the target's; known once it is connected.
    :ivar idle_since: when its last request was over, in the clock's seconds.
    :ivar _streams: the requests that are underway, and those that are about to begin.
    :ivar _numbered: those that have begun, by number.
    :ivar _turns: those of them that have something to write.
    :ivar _ready: fires when the target's settings came.
    :ivar _leaving: whether there are no more requests on it.
    :ivar _ended: whether nothing more is read of it.
    :ivar _full: whether the target refused a stream, and none ended since.
    :ivar _pinged: when a PING was sent, and nothing but its answer came since.
    :ivar _waits_for_ping: whether its answer is awaited.
    :ivar _deadline: for the next sign of life, or the end of the connection.
    """

    transport: Any
    state: TargetState
    idle_since = 0.0
    _leaving = _lost = _ended = _full = _waits_for_ping = False
    _pinged: float | None = None

    def __init__(self, keeper: Keeper, clock: IReactorTime, *, tls: bool, seconds: float) -> None:
        """
        :param keeper: where it is kept.
        :param tls: whether it is a connection with TLS.
        :param seconds: for which a target may take nothing.
        """
        self._keeper = keeper
        self._clock = clock
        self._tls = tls
        self.scheme = b"https" if tls else b"http"
        self.session = RequestSession(clock.seconds, MAX_HEAD)
        cause = f"it took nothing for {seconds:g} s"
        self._turns = Turns(self.session, clock, seconds, self.flush, partial(self._fail, cause))
        self._streams: set[TargetStream] = set()
        self._numbered: dict[int, TargetStream] = {}
        self._deadline = Deadline(clock, self._silent)
        self._ready: Deferred[Http2Target] = Deferred(self._cancelled)

    def connectionMade(self) -> None:
        """Say that HTTP/2 is spoken, and how."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self._turns, True)
        self.flush()

    def ready(self) -> Deferred[Http2Target]:
        """:returns: fires when the target's settings came: now it is known that it speaks
        HTTP/2, and how many requests it takes."""
        is_open = not self._ready.called
        if is_open and self._tls and self.transport.negotiatedProtocol != b"h2":
            self._ready.errback(NotGreeted(_NO_HTTP2))
            self.transport.abortConnection()
        return self._ready

    def _cancelled(self, _: object) -> None:
        self.transport.abortConnection()

    def reached(self, state: TargetState) -> None:
        """:param state: of the target that it leads to."""
        self.state = state

    # Requests.

    @property
    def has_room(self) -> bool:
        """Whether it can carry one more request now."""
        out_of_use = self._leaving or self._ended or self._lost or self._full
        return not out_of_use and len(self._streams) < self.session.most

    @property
    def is_idle(self) -> bool:
        """Whether no request is underway."""
        return not self._streams

    def retire(self) -> None:
        """Take no more requests, and end after those that are underway."""
        self._leaving = True
        if not self._streams:
            self.close()

    def take(self, use: TargetUse) -> TargetStream:
        """
        :param use: counts the request.
        :returns: a place for one request.
        """
        stream = TargetStream(self, self.state.target, use, used=self.session.last > 0)
        self._streams.add(stream)
        return stream

    def started(self, stream: TargetStream, number: int) -> None:
        """A stream has begun (`StreamCarrier`)."""
        self._numbered[number] = stream
        if not self._waits_for_ping:
            self._deadline.within(_PING_AFTER)

    def over(self, stream: TargetStream) -> None:
        """A stream is over (`StreamCarrier`)."""
        self._streams.discard(stream)
        self._numbered.pop(stream.number, None)
        if not stream.was_refused:
            self._full = False
        if self._streams or self._ended or self._lost:
            return
        self._deadline.within(None)
        self._waits_for_ping = False
        if self._leaving or self._full:
            self.close()
        else:
            self.idle_since = self._clock.seconds()
            self._keeper.idle(self)

    # Reading.

    def dataReceived(self, data: bytes) -> None:
        """Read frames."""
        if self._ended:
            return
        self._waits_for_ping = False
        if self._streams:
            self._deadline.within(_PING_AFTER)
        try:
            self.session.feed(data)
            event = self.session.next()
            while event is not None and not self._ended:
                event = self._take(event)
        except ConnectionFault as fault:
            # The target was told why.
            self._part()
            cause = f"{code_name(fault.code)}: {fault.cause}"
            self._lose(cause, f"it does not speak HTTP/2: {cause}")
        self.flush()
        self._turns.write()

    def _take(self, event: Event) -> Event | None:
        """:returns: what comes next."""
        match event:
            case Responded() | Came() | Trailed():
                self._pinged = None
                return self._pass(event)
            case Opened():
                self._turns.window_opened(event.stream, self._numbered)
            case Reset():
                self._was_reset(event)
            case Leaving():
                self._leave(event)
            case Began():
                self._ready.callback(self)
            case Answered():
                """It is there."""
            case _:
                raise AssertionError(event)
        return self.session.next()

    def _pass(self, event: Responded | Came | Trailed) -> Event | None:
        """
        Pass on what came of a response.

        :returns: what comes next.
        """
        stream = self._numbered.get(event.stream)
        user = None if stream is None else stream.user
        if stream is None or user is None:
            return self.session.next()
        following: Event | None = event

        def pass_all() -> None:
            # What came in one piece goes out in one.
            nonlocal following
            while isinstance(following, Responded | Came | Trailed):
                if following.stream != event.stream:
                    break
                stream.take(following)
                following = self.session.next()

        user.together(pass_all)
        return following

    def _was_reset(self, event: Reset) -> None:
        stream = self._numbered.get(event.stream)
        if stream is None:
            return
        if event.code == ErrorCodes.REFUSED_STREAM:
            # It takes fewer than it says; another connection may have room.
            self._full = True
        stream.was_reset(event.code, code_name(event.code))

    def _leave(self, event: Leaving) -> None:
        """The target wants no more requests, and did not look at the last ones (RFC 9113, 6.8)."""
        self._leaving = True
        self._keeper.remove(self)
        cause = f"it closes the connection, with {code_name(event.code)}"
        for number, stream in tuple(self._numbered.items()):
            if number > event.last:
                stream.refused(cause)
        if not self._streams:
            self.close()

    # Writing.

    def flush(self) -> None:
        """Send what the session has to send (`StreamCarrier`)."""
        data = self.session.outgoing()
        if data and not self._lost:
            self.transport.write(data)

    def write_soon(self, stream: TargetStream) -> None:
        """Let a stream write, when it is its turn (`StreamCarrier`)."""
        self._turns.add(stream)
        self._turns.write()

    # Ending.

    def _silent(self) -> None:
        if self._ended:
            self.transport.abortConnection()
            return
        now = self._clock.seconds()
        due = now if self._pinged is None else self._pinged + _PING_AGAIN
        if self._waits_for_ping:
            self._fail(f"it did not answer a PING within {_PING_ANSWER:g} s")
        elif now < due:
            self._deadline.within(due - now)
        else:
            self._pinged, self._waits_for_ping = now, True
            self.session.ping(_PING)
            self.flush()
            self._deadline.within(_PING_ANSWER)

    def _fail(self, cause: str) -> None:
        """Give the connection up."""
        self._end()
        self.transport.abortConnection()
        self._lose(cause, cause)

    def _lose(self, cause: str, problem: str) -> None:
        """
        :param cause: why requests end.
        :param problem: what is wrong with the target, if it never was ready.
        """
        if not self._ready.called:
            self._ready.errback(NotGreeted(problem))
        for stream in tuple(self._streams):
            stream.lost(cause)

    def _end(self) -> None:
        self._ended = True
        self._turns.stop()
        self._deadline.end()
        self._keeper.remove(self)

    def close(self) -> None:
        """End the connection, on which nothing is underway."""
        if self._ended or self._lost:
            return
        self.session.close()
        self._part()

    def _part(self) -> None:
        """End the connection, once what is written is sent."""
        self.flush()
        self._end()
        self._deadline.within(_FAREWELL)
        # TLS does not end while a producer is registered.
        self.transport.unregisterProducer()
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the streams."""
        self._lost = True
        self._end()
        cause = f"it closed the connection ({words(reason)})"
        self._lose(cause, f"{cause} before it said that it speaks HTTP/2")
