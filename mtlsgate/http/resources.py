"""
twisted.web resources as exchanges: what answers a request is its `Request`.

twisted.web hands a request to a resource and takes its response; it reads and frames
nothing here.  To its `Request` an exchange is the channel that it came on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from twisted.internet.interfaces import (
    IAddress,
    IProducer,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer

from mtlsgate.http.authority import Asked
from mtlsgate.http.fields import HOP_BY_HOP, Line, tokens
from mtlsgate.http.forms import is_form, longest_form, read_form
from mtlsgate.http.headers import RequestHeaders
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.server import ONLY_HTTP_1, HttpServer, Versions
from mtlsgate.http.sides import ClientSide, Exchange, HttpClient
from mtlsgate.interfaces import IVerifiedPeer

_log = Logger("mtlsgate.web")


class ResourceRequest(Request):
    """
    A request, as resources know it.

    :ivar channel: the exchange that it belongs to; None once the client is gone.
    :ivar began: when its head was complete, in the clock's seconds.
    :ivar max_form_size: bytes of a form that becomes ``args``; 0 if none does.
    """

    channel: ResourceExchange  # type: ignore[assignment]

    def __init__(self, channel: ResourceExchange) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)
        self.began = channel.site.reactor.seconds()
        self.max_form_size = channel.max_form_size

    def begin(self, lines: Iterable[Line], length: int | None) -> None:
        """
        :param lines: the header fields.
        :param length: of the body; None if it comes in chunks.
        """
        self.requestHeaders = RequestHeaders(lines)
        self.gotLength(length)
        self.parseCookies()

    def parseCookies(self) -> None:
        """Take the cookies apart; twisted.web's own way is slow where they are none."""
        for value in self.requestHeaders.getRawHeaders(b"cookie", ()):
            for cookie in value.split(b";"):
                name, equals, content = cookie.lstrip().partition(b"=")
                if equals:
                    self.received_cookies[name] = content

    def peer(self) -> IVerifiedPeer | None:
        """:returns: the client, or None where the server asks for no certificate."""
        return self.channel.client.peer

    def process(self) -> None:
        """Hand it to a resource, with the fields of a form as ``args``."""
        content_type = self.getHeader(b"content-type") or b""
        if self.method == b"POST" and self.max_form_size and is_form(content_type):
            try:
                self._read_form(content_type)
            except Refusal as refusal:
                self.channel.refuse(refusal)
                return
        super().process()

    def _read_form(self, content_type: bytes) -> None:
        assert self.content is not None
        assert self.args is not None
        limit = longest_form(content_type, self.max_form_size)
        body = self.content.read(limit + 1)
        self.content.seek(0)
        if len(body) > limit:
            raise Refusal(413, f"a form of that kind may have {limit} bytes")
        self.args.update(read_form(content_type, body))


class ResourceExchange:
    """
    One request to a resource; it is also the channel that twisted.web's `Request` came on.

    :ivar client: who asks.
    :ivar transport: the client's connection.
    :ivar site: finds resources, and keeps sessions.
    :ivar max_form_size: bytes of a form that a request may have.
    :ivar request: as resources know it.
    :ivar _producer: produces the response as it is read.
    :ivar _slow: the client takes no more for now.
    """

    _producer: IPushProducer | None = None
    _slow = False

    def __init__(
        self,
        server: ResourceServer,
        head: RequestHead,
        target: bytes,
        lines: Iterable[Line],
        side: ClientSide,
    ) -> None:
        """
        :param target: what is asked for, as resources are to see it.
        :param lines: the header fields, likewise.
        """
        self._server = server
        self._side = side
        self._head = head
        self._target = target
        self._lines = lines
        self.client = side.client
        self.transport: ITransport = side.client.transport
        self.site = server.site
        self.max_form_size = server.max_form_size
        self.request = server.request_factory(self)

    # The exchange, as the client's side sees it.

    def start(self) -> None:
        """Take the request's head; the client may send its body."""
        self.request.begin(self._lines, self._head.length)
        if not self._side.complete:
            self._side.interim(100, b"Continue", ())

    def data(self, data: bytes) -> None:
        """Keep a piece of the body."""
        self.request.handleContentChunk(data)

    def end(self, trailers: Iterable[Line]) -> None:
        """Hand the request to a resource."""
        head = self._head
        self.request.requestReceived(head.method, self._target, head.version)

    def broken(self, refusal: Refusal) -> None:
        """The rest of the request cannot be read, or does not come."""
        self.refuse(refusal)

    def refuse(self, refusal: Refusal) -> None:
        """Answer in the resource's place, which never hears of the request."""
        self.request.connectionLost(Failure(refusal))
        self._server.refused(self.client, self._head, refusal)
        self._side.refuse(refusal)

    def client_slow(self, slow: bool) -> None:
        """The client takes no more for now, or does again."""
        self._slow = slow
        if self._producer is None:
            return
        if slow:
            self._producer.pauseProducing()
        else:
            self._producer.resumeProducing()

    def lost(self, cause: str, reason: Failure) -> None:
        """The client is gone."""
        producer, self._producer = self._producer, None
        self.request.connectionLost(reason)
        if producer is not None:
            producer.stopProducing()

    # The channel, as a twisted.web request sees it.

    def getPeer(self) -> IAddress:
        """:returns: the client's address."""
        return self.transport.getPeer()

    def getHost(self) -> IAddress:
        """:returns: the address that the client connected to."""
        return self.transport.getHost()

    def isSecure(self) -> bool:
        """:returns: whether the connection is encrypted."""
        return ISSLTransport(self.transport, None) is not None

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """Begin the response.  How its body is framed is the client's side's affair."""
        status = int(code)
        lines = [
            (name, value)
            for name, values in headers.getAllRawHeaders()
            if (lower := name.lower()) not in HOP_BY_HOP
            for value in values
            if lower != b"content-length" or _is_length(value, status)
        ]
        last = b"close" in tokens(headers.getRawHeaders(b"connection", ()))
        self.request.chunked = 0
        self._side.respond(status, b" ".join(reason.splitlines()), lines, last=last)

    def write(self, data: bytes) -> None:
        """Send a piece of the response's body."""
        self._side.send(data)

    def writeSequence(self, pieces: Iterable[bytes]) -> None:
        """Send several pieces of the response's body."""
        self._side.send(b"".join(pieces))

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """A response begins that is produced as it is read."""
        if streaming:
            self._producer = cast(IPushProducer, producer)
            if self._slow:
                self._producer.pauseProducing()
            return
        pull = Pull(cast(IPullProducer, producer), self._side.cut)
        self._producer = pull
        if self._slow:
            pull.pauseProducing()
        else:
            pull.resumeProducing()

    def unregisterProducer(self) -> None:
        """It is complete."""
        producer, self._producer = self._producer, None
        if isinstance(producer, Pull):
            producer.over = True

    def requestDone(self, request: Request) -> None:
        """The response is complete."""
        self._server.log(self.request)
        self._side.finish()

    def loseConnection(self) -> None:
        """Break the response off, whatever is left of it."""
        self._side.abandon()

    def cut(self) -> None:
        """Break the response off at once; the request hears that its client is gone."""
        self._side.cut()


@implementer(IPushProducer)
class Pull:
    """
    Asks a producer for more as long as there is room for it.

    :ivar over: it has no more.
    :ivar _room: there is room.
    :ivar _asking: it is being asked right now, which may well lead back here.
    """

    def __init__(self, producer: IPullProducer, abort: Callable[[], object]) -> None:
        """
        :param abort: ends the connection, should the producer fail.
        """
        self.over = False
        self._producer = producer
        self._abort = abort
        self._room = True
        self._asking = False

    def pauseProducing(self) -> None:
        """There is no room."""
        self._room = False

    def resumeProducing(self) -> None:
        """There is room."""
        self._room = True
        if self._asking:
            return
        self._asking = True
        try:
            while self._room and not self.over:
                self._producer.resumeProducing()
        except Exception:  # noqa: BLE001 -- what was sent must not look like all of it
            _log.failure("an answer could not be produced")
            self._producer.stopProducing()
            self.over = True
            self._abort()
        finally:
            self._asking = False

    def stopProducing(self) -> None:
        """Nothing will be read any more."""
        if not self.over:
            self.over = True
            self._producer.stopProducing()


class ResourceServer(HttpServer):
    """
    Serves a tree of twisted.web resources.

    :cvar request_factory: makes a request of an exchange.
    :ivar resource: the root.
    :ivar site: finds resources, and keeps sessions.
    :ivar max_form_size: bytes of a form that becomes a request's ``args``; 0 if none does.
    """

    request_factory: Callable[[ResourceExchange], ResourceRequest] = ResourceRequest

    def __init__(
        self,
        resource: IResource,
        limits: HttpLimits,
        clock: IReactorTime,
        serves: Callable[[str], bool] | None = None,
        *,
        versions: Versions = ONLY_HTTP_1,
        max_form_size: int = 0,
    ) -> None:
        super().__init__(limits, clock, serves, versions=versions)
        self.resource = resource
        self.site = Site(resource, reactor=clock, parsePOSTFormSubmission=False)
        self.max_form_size = max_form_size

    def exchange(self, head: RequestHead, asked: Asked, side: ClientSide) -> Exchange:
        """:returns: what hands the request to a resource."""
        return ResourceExchange(self, head, asked.target, _with_host(head, asked), side)

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """A request was refused before a resource heard of it; log it here."""

    def log(self, request: ResourceRequest) -> None:
        """A request was answered; log it here."""


def _is_length(value: bytes, status: int) -> bool:
    """:returns: whether a resource's ``Content-Length`` is one.  Without a body twisted.web
    says 0, which is not the length that another status would have."""
    return value.isdigit() and status not in (204, 304)


def _with_host(head: RequestHead, asked: Asked) -> list[Line]:
    """:returns: the fields with the host that counts (RFC 9112, 3.2.2)."""
    lines = [line for line in head.lines if line[0].lower() != b"host"]
    return [(b"Host", asked.authority), *lines] if asked.authority else lines
