"""
One request on a connection of HTTP/2 to a target, which others share.

The response passes to the exchange as long as that takes it, and waits here otherwise, up to the
stream's window: a client that does not read stops its own stream, and no other.  The request's
body waits here while the target does not take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol as Shape

from h2.errors import ErrorCodes

from mtlsgate.http.bodies import MalformedMessage
from mtlsgate.http.fields import Line
from mtlsgate.http.reading import content_length
from mtlsgate.http2.events import Came, Responded, Trailed
from mtlsgate.http2.faults import MalformedRequest
from mtlsgate.http2.inbox import Inbox
from mtlsgate.http2.outbox import Outbox
from mtlsgate.http2.requesting import RequestSession
from mtlsgate.http2.responses import MalformedResponse, check_lines, response_status
from mtlsgate.protocols.http.outgoing import Outgoing, http2_head
from mtlsgate.protocols.http.response import MAX_INTERIM, NO_BODY, ResponseHead
from mtlsgate.protocols.http.target_side import TargetUser
from mtlsgate.upstream.state import TargetUse
from mtlsgate.upstream.targets import Target

#: Bytes of a request's body that are kept until its response begins, in case that the target
#: refuses to begin with it.
KEPT = 64 * 1024


class StreamCarrier(Shape):
    """A connection to a target, as its streams see it."""

    session: RequestSession
    scheme: bytes

    def started(self, stream: TargetStream, number: int) -> None:
        """A stream has begun."""

    def flush(self) -> None:
        """Send what the session has to send."""

    def write_soon(self, stream: TargetStream) -> None:
        """Let a stream write, when it is its turn."""

    def over(self, stream: TargetStream) -> None:
        """A stream is over."""


class TargetStream:
    """
    One request and its response (`mtlsgate.protocols.http.target_side.TargetSide`).

    :ivar target: where it leads.
    :ivar used: whether the connection carried a request before.
    :ivar number: the stream's; 0 before it began.
    :ivar was_refused: whether the target did nothing with it.
    :ivar _user: whose request it is; None before and after.
    :ivar _method: the request's.
    :ivar _closed: whether the target takes and sends nothing more of it.
    :ivar _kept: what was sent of the body, while it may have to be sent again.
    :ivar _kept_size: how many bytes that is.
    :ivar _touched: whether anything of a response came.
    :ivar _interim: how many interim responses came.
    :ivar _inbox: what came of the response's body; None before its head.
    :ivar _outbox: what waits to be sent of the request.
    :ivar _paused: whether the response is not to be passed on for now.
    :ivar _slow: whether the user was told that the target takes no more.
    """

    number = 0
    _user: TargetUser | None = None
    _method = b""
    _over = False
    _closed = False
    _kept_size = 0
    _touched = False
    _interim = 0
    _inbox: Inbox | None = None
    _outbox: Outbox | None = None
    _paused = False
    _slow = False
    was_refused = False

    def __init__(
        self, carrier: StreamCarrier, target: Target, use: TargetUse, *, used: bool
    ) -> None:
        """
        :param use: counts the request for the target.
        """
        self.target = target
        self.used = used
        self._carrier = carrier
        self._use = use
        self._kept: list[bytes] | None = []

    @property
    def user(self) -> TargetUser | None:
        """Whose request it is; None before and after."""
        return self._user

    # Sending.

    def start(self, user: TargetUser, sent: Outgoing) -> None:
        """Send a request's head (`TargetSide`)."""
        self._user = user
        if self._over:
            self._fail("it closed the connection without a response")
            return
        session = self._carrier.session
        fields = http2_head(sent, self._carrier.scheme)
        if not session.fits(fields):
            self._fail("the request's head is longer than the target takes")
            return
        self._method = sent.method
        self.number = session.begin()
        self._outbox = Outbox(session, self.number)
        self._outbox.begin(fields, end=sent.body == "none")
        self._carrier.started(self, self.number)
        self._carrier.flush()

    def send(self, data: bytes) -> None:
        """Send a piece of the request's body (`TargetSide`)."""
        outbox = self._outbox
        if outbox is None or self._closed or not data:
            return
        if self._kept is not None:
            self._kept.append(data)
            self._kept_size += len(data)
            if self._kept_size > KEPT:
                self._kept = None
        outbox.put(data)
        self._carrier.write_soon(self)
        self._note_slowness()

    def finish(self, trailers: Sequence[Line] = ()) -> None:
        """The request's body is complete (`TargetSide`)."""
        outbox = self._outbox
        if outbox is not None and not (self._closed or outbox.closed):
            outbox.finish(trailers)
            self._carrier.write_soon(self)

    # Writing, when the connection says so (`mtlsgate.http2.turns.Writer`).

    @property
    def has_output(self) -> bool:
        """Whether anything is left to be written."""
        return self._outbox is not None and not self._closed and self._outbox.has_output

    @property
    def waits_for_window(self) -> bool:
        """Whether the target has to open the window of this stream."""
        return self._outbox is not None and not self._closed and self._outbox.waits_for_window

    def write(self) -> bool:
        """
        Send one frame of what waits.

        :returns: whether another could be sent now.
        """
        if self._outbox is None or self._closed:
            return False
        return self._outbox.write() and self._outbox.has_output

    def wrote(self) -> None:
        """The turn to write is over."""
        self._note_slowness()

    def _note_slowness(self) -> None:
        slow = self._outbox is not None and not self._closed and self._outbox.has_body
        if slow != self._slow and self._user is not None:
            self._slow = slow
            self._user.target_slow(slow)

    # The response, as the connection reads it.

    def take(self, event: Responded | Came | Trailed) -> None:
        """Read a part of the response."""
        if self._closed or self._user is None:
            return
        self._touched, self._kept = True, None
        try:
            match event:
                case Responded():
                    self._take_head(event)
                case Came():
                    self._take_body(event)
                case Trailed():
                    check_lines(event.fields)
                    self._end(event.fields)
        except (MalformedResponse, MalformedRequest, MalformedMessage) as error:
            self._reset(ErrorCodes.PROTOCOL_ERROR)
            self._fail(f"its response is malformed: {error.cause}")

    def _take_head(self, event: Responded) -> None:
        assert self._user is not None
        status, lines = response_status(event.fields)
        length = content_length(lines)
        if status < 200:
            self._interim += 1
            if status == 101 or event.ended or self._inbox is not None:
                raise MalformedResponse("an interim response that cannot be one")
            if self._interim > MAX_INTERIM:
                raise MalformedResponse("it has too many interim responses")
            self._user.interim(ResponseHead(status, b"", lines, 0))
            return
        if self._inbox is not None:
            raise MalformedResponse("a second head")
        if self._method == b"HEAD" or status in NO_BODY:
            length = 0
        elif event.ended:
            if length:
                raise MalformedResponse("Content-Length is not the length of the body")
            length = 0
        self._inbox = Inbox(
            self._carrier.session, self.number, length, ended=False, paused=self._paused
        )
        self._user.head(ResponseHead(status, b"", lines, length, empty=event.ended))
        if event.ended:
            self._end(())

    def _take_body(self, event: Came) -> None:
        if self._inbox is None:
            raise MalformedResponse("a body without a head")
        if event.data:
            self._inbox.put(event.data)
        if event.ended:
            self._end(())
        else:
            self._inbox.pass_on(self._pass)

    def _end(self, trailers: Sequence[Line]) -> None:
        if self._inbox is not None:
            self._inbox.put_end(trailers)
            self._pass_on(self._inbox)

    def _pass(self, data: bytes) -> None:
        if self._user is not None:
            self._user.received(data)

    def _pass_on(self, inbox: Inbox) -> None:
        inbox.pass_on(self._pass)
        trailers = inbox.take_end()
        if trailers is not None and self._user is not None:
            self._user.completed(trailers)

    def pauseProducing(self) -> None:
        """Pass on no more of the response for now (`TargetSide`)."""
        self._paused = True
        if self._inbox is not None:
            self._inbox.pause()

    def resumeProducing(self) -> None:
        """Go on (`TargetSide`)."""
        self._paused = False
        if self._inbox is not None and self._inbox.paused:
            self._inbox.resume(self._pass)
            self._pass_on(self._inbox)
            self._carrier.flush()

    # Ending.

    def was_reset(self, code: ErrorCodes | int, name: str) -> None:
        """The target ended the stream before its time."""
        self._close()
        if self._has_response:
            # RFC 9113, 8.1: it does not want the rest of the request, and has answered.
            self._note_slowness()
        elif code == ErrorCodes.REFUSED_STREAM and not self._touched:
            self.refused("it refused the request, with REFUSED_STREAM")
        else:
            self._fail(f"it reset the stream, with {name}")

    def refused(self, cause: str) -> None:
        """The target did nothing with the request."""
        self.was_refused = True
        user, self._user = self._user, None
        kept = self._kept
        self._leave()
        if user is not None:
            user.refused(cause, kept)

    def lost(self, cause: str) -> None:
        """The connection is lost, or was given up."""
        self._close()
        if not self._has_response:
            self._fail(cause)

    @property
    def _has_response(self) -> bool:
        """Whether all of the response came, and waits to be passed on."""
        return self._user is not None and self._inbox is not None and self._inbox.ended

    def _fail(self, cause: str) -> None:
        user, self._user = self._user, None
        self._leave()
        if user is not None:
            user.failed(cause, not self._touched)

    def release(self) -> None:
        """The response is complete, and its user has no more to do with this (`TargetSide`)."""
        self._user = None
        self._carrier.session.completed(self.number)
        if self._outbox is not None and not self._outbox.closed:
            # The rest of the request is not wanted.
            self._reset(ErrorCodes.NO_ERROR)
        self._leave()

    def switch(self) -> None:
        """Never: no other protocol is asked for (`TargetSide`)."""
        raise NotImplementedError

    def close(self) -> None:
        """As `abort` (`TargetSide`)."""
        self.abort()

    def abort(self) -> None:
        """Give the request up (`TargetSide`)."""
        self._user = None
        self._reset(ErrorCodes.CANCEL)
        self._leave()

    def _reset(self, code: ErrorCodes) -> None:
        if self.number and not self._closed:
            self._close()
            self._carrier.session.reset(self.number, code)
            self._carrier.flush()

    def _close(self) -> None:
        """The target takes and sends nothing more of it."""
        self._closed = True
        if self._outbox is not None:
            self._outbox.clear()

    def _leave(self) -> None:
        """All is over."""
        self._close()
        if self._inbox is not None:
            self._inbox.clear()
        if not self._over:
            self._over = True
            self._use.end()
            self._carrier.over(self)
