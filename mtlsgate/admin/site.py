"""
HTTP connections that are short: one request each, small, and soon.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.web.resource import IResource

from mtlsgate.http.authority import Asked
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.resources import ResourceExchange, ResourceRequest, ResourceServer
from mtlsgate.http.sides import ClientConnection, ClientSide, Exchange

#: In seconds: how long a request may take to come, and an answer to be read.
REQUEST_TIMEOUT = 10.0
ANSWER_TIMEOUT = 60.0
#: How many connections there are at most.
MOST_CONNECTIONS = 64
#: Bytes of a request's body: a chain of certificates.
MOST_BODY = 64 * 1024
_LIMITS = HttpLimits(
    head_size=8192,
    body_size=MOST_BODY,
    first_timeout=REQUEST_TIMEOUT,
    head_timeout=REQUEST_TIMEOUT,
    body_timeout=REQUEST_TIMEOUT,
    idle_timeout=REQUEST_TIMEOUT,
    send_timeout=ANSWER_TIMEOUT,
    close_timeout=ANSWER_TIMEOUT,
    refused_timeout=REQUEST_TIMEOUT,
    keeps=False,
    tells_late=False,
    connections=MOST_CONNECTIONS,
)


class AdminRequest(ResourceRequest):
    """
    A request whose body stays in memory.

    :ivar body_length: in bytes, so far.
    """

    body_length = 0

    def gotLength(self, length: int | None) -> None:
        """Keep nothing of the body in a file."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Count."""
        self.body_length += len(data)
        super().handleContentChunk(data)

    @property
    def body(self) -> bytes:
        """The body."""
        assert self.content is not None
        self.content.seek(0)
        return bytes(self.content.read())


class AdminSite(ResourceServer):
    """The factory of such connections."""

    request_factory = AdminRequest

    def __init__(self, resource: IResource, reactor: Any) -> None:
        super().__init__(resource, _LIMITS, reactor)
        self._waiting: list[Deferred[None]] = []

    def exchange(self, head: RequestHead, asked: Asked, side: ClientSide) -> Exchange:
        """:returns: what hands the request to a resource, with its target as it was sent:
        a route can be written in one way only."""
        return ResourceExchange(self, head, head.target, head.lines, side)

    def closed(self, connection: ClientConnection) -> None:
        """A connection is over."""
        super().closed(connection)
        if not self.connections:
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.callback(None)

    def finish(self, patience: float) -> Deferred[None]:
        """
        :param patience: seconds that answers have to be read.
        :returns: fires when there is no connection.
        """
        if not self.connections:
            return succeed(None)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        late = self.clock.callLater(patience, self._abort)

        def no_longer(_: None) -> None:
            if late.active():
                late.cancel()

        return done.addCallback(no_longer)

    def _abort(self) -> None:
        for connection in tuple(self.connections):
            connection.cut()
