"""
The HTTP side: twisted.web's server with limits of size and time, and one log
event for each request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import ClassVar, cast

from attrs import frozen
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProducer,
    IPullProducer,
    IPushProducer,
    IReactorTime,
)
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES
from twisted.web.http import Request as BaseRequest
from twisted.web.iweb import INonQueuedRequestFactory
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer, provider

from mtlsgate.interfaces import IRetirable, IVerifiedPeer
from mtlsgate.protocols.pipelining import PatientChannel
from mtlsgate.text import printable

_log = Logger("mtlsgate.web")

_ABSOLUTE = re.compile(rb"https?://(?P<authority>[^/?#@]+)(?P<rest>[/?].*)?", re.IGNORECASE)


@frozen
class Limits:
    """
    :ivar header: bytes of a request's line and headers.
    :ivar body: bytes of its body.
    :ivar header_timeout: seconds from the first byte of a request to the end
        of its headers.
    :ivar keep_alive_timeout: seconds that a connection may be silent, between
        requests or within one.
    :ivar send_timeout: seconds that a client may take to read what is buffered
        of an answer, while there is more of it.
    """

    header: int = 16384
    body: int = 16 << 20
    header_timeout: float = 10.0
    keep_alive_timeout: float = 60.0
    send_timeout: float = 60.0


class WebChannel(PatientChannel):
    """
    A connection.

    :ivar site: the site that it belongs to.
    :ivar variables: what a WSGI environ says of it, once that was asked for.
    :ivar _head: ends a connection whose request takes too long to begin.
    :ivar _stalled: ends a connection whose answer is not read.
    :ivar _farewell: ends a connection that was told to end and does not.
    :ivar _producing: an answer is being produced as it is read.
    :ivar _pull: asks its producer for it, if that wants to be asked.
    :ivar _idle: a request was answered, and no byte of the next one has come.
    """

    site: WebSite
    transport: TLSMemoryBIOProtocol
    variables: dict[str, object] | None = None
    _head: IDelayedCall | None = None
    _stalled: IDelayedCall | None = None
    _farewell: IDelayedCall | None = None
    _producing = False
    _pull: Pull | None = None
    _idle = False

    def connectionMade(self) -> None:
        """Take the site's limits for one's own."""
        self.totalHeadersSize = self.MAX_LENGTH = self.site.limits.header
        self.site.channels.add(self)
        self.site.connected()
        super().connectionMade()

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        """Forget the time limits, and let the site know."""
        super().connectionLost(reason)
        if self._pull is not None:
            self._pull.stopProducing()
        self._stop_timing_head()
        self._stop_timing_answer()
        if self._farewell is not None and self._farewell.active():
            self._farewell.cancel()
        self.site.channels.discard(self)
        self.site.disconnected()

    # Requests

    def dataReceived(self, data: bytes) -> None:
        """Read on, unless the connection is over."""
        if self.transport.disconnecting:
            return
        self._idle = False
        if self.line_mode and self._head is None:
            limit = self.site.limits.header_timeout
            self._head = self.callLater(limit, lambda: self.refuse(408))
        super().dataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        """Say so, where LineReceiver would close the connection without a word."""
        self.refuse(400)

    def allHeadersReceived(self) -> None:
        """Refuse what need not be read to the end."""
        self._stop_timing_head()
        hosts = self.requests[-1].requestHeaders.getRawHeaders(b"host", [])
        if len(hosts) > 1 or (not hosts and self._version == b"HTTP/1.1"):
            # RFC 9112, 3.2.
            self.refuse(400)
        elif self.length is not None and self.length > self.site.limits.body:
            self.refuse(413)
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """Hand the request on, unless it was refused while it came."""
        if not self.transport.disconnecting:
            super().allContentReceived()

    def refuse(self, status: int) -> None:
        """Answer no more than that, and end the connection."""
        if self.transport.disconnecting:
            return
        self.transport.write(
            b"HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            % (status, RESPONSES[status])
        )
        self.leave()

    def retire(self) -> None:
        """End the connection, after what is underway."""
        if self.requests:
            self.persistent = False
        elif self._idle:
            self.leave()

    def leave(self) -> None:
        """End the connection in good order, or if the client does not, without."""
        self.loseConnection()
        self._insist(self.abortTimeout)

    def checkPersistence(self, request: BaseRequest, version: bytes) -> bool:
        """:returns: whether the connection may stay open after this request."""
        persistent: bool = super().checkPersistence(request, version)
        if self.site.retired:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])
        return persistent and not self.site.retired

    def requestDone(self, request: BaseRequest) -> None:
        """Go on to the next one, or if this was the last, see that the client leaves."""
        self._idle = True
        if self.site.retired:
            self.persistent = False
        super().requestDone(request)
        if self.transport.disconnecting:
            # There may be some of the answer left to read.
            self._insist(self.site.limits.keep_alive_timeout)

    def _insist(self, seconds: float) -> None:
        # TLS ends when both sides have said so, and a client need not.
        if self._farewell is None:
            self._farewell = self.callLater(seconds, self.transport.abortConnection)

    def timeoutConnection(self) -> None:
        """A connection was silent for too long, which is nothing to log."""
        self.leave()

    def _respondToBadRequestAndDisconnect(self) -> None:
        # Twisted's would leave open how long the answer is, and wait for ever
        # for the client to close the connection.
        self.refuse(400)

    # Answers

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """An answer begins that is made as it is read."""
        self._producing = True
        if streaming:
            super().registerProducer(producer, True)
            return
        # twisted.web's own way takes two turns of the reactor for the smallest file.
        self._pull = Pull(cast(IPullProducer, producer), self.transport.abortConnection)
        super().registerProducer(self._pull, True)
        self._pull.resumeProducing()

    def unregisterProducer(self) -> None:
        """It is complete."""
        self._producing = False
        if self._pull is not None:
            self._pull.over = True
            self._pull = None
        self._stop_timing_answer()
        super().unregisterProducer()

    def pauseProducing(self) -> None:
        """The client does not keep up: from here on its time is counted."""
        if self._producing and self._stalled is None:
            limit = self.site.limits.send_timeout
            self._stalled = self.callLater(limit, self.transport.abortConnection)
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """It has read everything."""
        self._stop_timing_answer()
        super().resumeProducing()

    def _stop_timing_head(self) -> None:
        if self._head is not None and self._head.active():
            self._head.cancel()
        self._head = None

    def _stop_timing_answer(self) -> None:
        if self._stalled is not None and self._stalled.active():
            self._stalled.cancel()
        self._stalled = None


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


@provider(INonQueuedRequestFactory)
class WebRequest(Request):
    """
    A request.

    :ivar channel: its connection, until that is lost.
    :ivar began: when it came, in the reactor's seconds.
    :ivar paced: its producer is to be unregistered when it is finished.
    """

    channel: WebChannel
    paced = False
    _received = 0

    def __init__(self, channel: WebChannel) -> None:
        super().__init__(channel)
        self.began = channel.site.reactor.seconds()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        self._received += len(data)
        if self._received > self.channel.site.limits.body:
            self.channel.refuse(413)
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Bring the request target into the form that resources expect."""
        if not path.startswith(b"/") and path != b"*":
            # RFC 9112, 3.2.2: a proxy's form, whose authority overrides Host.
            absolute = _ABSOLUTE.fullmatch(path)
            if absolute is None:
                self.channel.refuse(400)
                return
            self.requestHeaders.setRawHeaders(b"host", [absolute["authority"]])
            path = absolute["rest"] or b"/"
            path = path if path.startswith(b"/") else b"/" + path
        if not path.isascii():
            self.channel.refuse(400)
            return
        super().requestReceived(command, path, version)

    def peer(self) -> IVerifiedPeer | None:
        """:returns: the client, or None where the server asks for no certificate."""
        return IVerifiedPeer(self.channel.transport, None)

    def finish(self) -> None:
        """Complete the answer."""
        if self.paced and self.channel is not None:
            self.unregisterProducer()
        super().finish()


@implementer(IRetirable)
class WebSite(Site):
    """
    The factory of connections.

    :ivar name: the server's, for logs.
    :ivar limits: of size and time.
    :ivar channels: the connections.
    :ivar retired: no more of them come, so that none should be kept.
    """

    noisy = False
    protocol = WebChannel  # type: ignore[assignment]
    requestFactory = WebRequest  # type: ignore[assignment]
    #: HTTP/1.1 alone: the limits are not those of twisted.web's HTTP/2.
    ALPN: ClassVar = (b"http/1.1",)

    def __init__(
        self,
        resource: IResource,
        *,
        name: str,
        reactor: IReactorTime,
        limits: Limits,
        access_log: bool,
        parse_forms: bool = False,
    ) -> None:
        """
        :param access_log: whether to log an event for each request.
        :param parse_forms: whether the resource wants ``request.args`` of bodies.
        """
        super().__init__(
            resource,
            timeout=limits.keep_alive_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=parse_forms,
        )
        self.name = name
        self.limits = limits
        self._access_log = access_log
        self.channels: set[WebChannel] = set()
        self.retired = False

    def acceptableProtocols(self) -> list[bytes]:
        """:returns: what is offered by ALPN."""
        return list(self.ALPN)

    def startFactory(self) -> None:
        """Without twisted.web's log file."""

    def stopFactory(self) -> None:
        """Without twisted.web's log file."""

    def retire(self) -> None:
        """End each connection after what is underway on it (`IRetirable`)."""
        self.retired = True
        for channel in tuple(self.channels):
            channel.retire()

    def connected(self) -> None:
        """A connection has come."""

    def disconnected(self) -> None:
        """One is over."""

    def log(self, request: BaseRequest) -> None:
        """Log a request that was answered."""
        if not self._access_log:
            return
        assert isinstance(request, WebRequest)
        peer = request.peer()
        facts = {} if peer is None else {"rule": peer.rule, "fingerprint": peer.sha256}
        method, path = (printable(one.decode("latin-1")) for one in (request.method, request.path))
        client = _text(request.getClientAddress())
        seconds = self.reactor.seconds() - request.began
        _log.info(
            # Put together here: Twisted's own formatting costs more.
            "{text}",
            text=f"{self.name}: {client} {method} {path} {request.code} {request.sentLength}"
            + (f" rule={peer.rule} sha256={peer.sha256}" if peer is not None else ""),
            server=self.name,
            peer_address=client,
            method=method,
            path=path,
            status=request.code,
            bytes=request.sentLength,
            seconds=seconds,
            **facts,
        )


def _text(address: IAddress) -> str:
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return "unix"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
