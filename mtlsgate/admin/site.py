"""
HTTP connections that are short: one request each, small, and soon.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

#: In seconds: how long a request may take to come, and an answer to be read.
REQUEST_TIMEOUT = 10.0
ANSWER_TIMEOUT = 60.0
#: How many connections there are at most.
MOST_CONNECTIONS = 64
#: In bytes.  A body is never wanted; one that is larger is not even refused politely.
_LARGEST_HEAD = 8192
_LARGEST_BODY = 65536


class AdminRequest(Request):
    """
    A request whose body is counted and thrown away.

    :ivar body_length: in bytes, so far.
    """

    channel: AdminChannel
    body_length = 0

    def gotLength(self, length: int | None) -> None:
        """Keep nothing of what comes, neither in memory nor in a file."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Count."""
        self.body_length += len(data)
        if self.body_length > _LARGEST_BODY:
            self.channel.abort()


class AdminChannel(HTTPChannel):
    """
    A connection.

    :ivar _deadline: ends it, whatever it is at.
    """

    factory: AdminSite
    totalHeadersSize = _LARGEST_HEAD
    _deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Give the request until its deadline."""
        self.factory.channels.add(self)
        self._end_in(REQUEST_TIMEOUT)
        super().connectionMade()

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        """:returns: False: a connection is for one request."""
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def allContentReceived(self) -> None:
        """Answer, which may take its time: loading anew does."""
        self._end_in(None)
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """Give the client until another deadline to read the answer."""
        self._end_in(ANSWER_TIMEOUT)
        super().requestDone(request)

    def abort(self) -> None:
        """End it at once."""
        # Which any transport of a stream has.
        cast(Any, self.transport).abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        self._end_in(None)
        super().connectionLost(reason)
        self.factory.lost(self)

    def _end_in(self, seconds: float | None) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = (
            None if seconds is None else self.factory.reactor.callLater(seconds, self.abort)
        )


class AdminSite(Site):
    """
    The factory of such connections.

    :ivar channels: all there are.
    """

    # Not the one that may turn into HTTP/2.
    protocol = AdminChannel  # type: ignore[assignment]
    noisy = False

    def __init__(self, resource: IResource, reactor: Any) -> None:
        # No timeout of twisted.web's: a byte now and then puts that off for ever.
        super().__init__(
            resource,
            requestFactory=AdminRequest,
            parsePOSTFormSubmission=False,
            reactor=reactor,
            timeout=None,
        )
        self.channels: set[AdminChannel] = set()
        self._waiting: list[Deferred[None]] = []

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> AdminChannel | None:
        """:returns: the protocol for a connection; None where there are too many."""
        if len(self.channels) >= MOST_CONNECTIONS:
            return None
        made: AdminChannel = super().buildProtocol(addr)
        return made

    def acceptableProtocols(self) -> list[bytes]:
        """:returns: HTTP/1.1, and not HTTP/2, which takes more."""
        return [b"http/1.1"]

    def log(self, request: object) -> None:
        """Say nothing: who looks once a second would fill the log."""

    def lost(self, channel: AdminChannel) -> None:
        """A connection is over."""
        self.channels.discard(channel)
        if not self.channels:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def finish(self, patience: float) -> Deferred[None]:
        """
        :param patience: seconds that answers have to be read.
        :returns: fires when there is no connection.
        """
        if not self.channels:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        late = self.reactor.callLater(patience, self._abort)

        def no_longer(_: None) -> None:
            if late.active():
                late.cancel()

        return done.addCallback(no_longer)

    def _abort(self) -> None:
        for channel in tuple(self.channels):
            channel.abort()
