"""
Downloads a document by HTTP, within limits.

Redirects are not followed: the configuration says where documents come from, and the
gate connects nowhere else.
"""

from __future__ import annotations

from typing import Any, cast

from attrs import frozen
from treq.client import HTTPClient
from treq.content import collect
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionClosed, TCPTimedOutError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from twisted.web.client import URI, Agent, RequestTransmissionFailed, ResponseFailed
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from mtlsgate.config.urls import Url
from mtlsgate.text import printable
from mtlsgate.upstream.backends import words_of
from mtlsgate.upstream.targets import parse_target
from mtlsgate.upstream.tls import TlsClient
from mtlsgate.upstream.verified import HandshakeFailed

#: The largest document, in bytes, and the longest time, in seconds.
MAX_BYTES = 64 * 2**20
TIMEOUT = 60.0
_CONNECT_TIMEOUT = 10.0
_OK = 200


class DownloadError(Exception):
    """A document that could not be had.  The text says why, in one line."""


@implementer(IStreamClientEndpoint)
@frozen
class _Quiet:
    """Connects without a line in the log for each factory that starts and stops."""

    endpoint: IStreamClientEndpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if isinstance(factory, Factory):
            factory.noisy = False
        return self.endpoint.connect(factory)


@implementer(IAgentEndpointFactory)
@frozen
class _Endpoints:
    """Connects as to any target: to all addresses of a name, and by verified TLS."""

    reactor: Any
    url: Url

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        target = parse_target(self.url.authority)
        endpoint: IStreamClientEndpoint = _Quiet(target.endpoint(self.reactor, _CONNECT_TIMEOUT))
        # None: the system's trust store.
        return TlsClient(None).wrap(endpoint, self.url.host) if self.url.is_https else endpoint


@frozen
class Downloader:
    """
    Downloads documents.

    :ivar reactor: makes the connections.
    :ivar most: the largest document, in bytes.
    :ivar timeout: the longest time, in seconds.
    """

    reactor: Any
    most: int = MAX_BYTES
    timeout: float = TIMEOUT

    def __call__(self, url: Url, request: bytes | None = None) -> Deferred[bytes]:
        """
        :param request: an OCSP request, or None.
        :returns: the document; fails with an exception, see `why_not`.
        """
        agent = Agent.usingEndpointFactory(
            cast(Any, self.reactor), cast(Any, _Endpoints(self.reactor, url))
        )
        headers = {"User-Agent": ["mtlsgate"]}
        if request is not None:
            headers["Content-Type"] = ["application/ocsp-request"]
        asked: Deferred[Any] = HTTPClient(agent).request(
            "GET" if request is None else "POST",
            url.text,
            headers=Headers(headers),
            data=request,
            allow_redirects=False,
            unbuffered=True,
        )
        body: Deferred[bytes] = asked.addCallback(self._body)
        return body.addTimeout(self.timeout, self.reactor, _late)

    def _body(self, response: IResponse) -> Deferred[bytes]:
        if response.code != _OK:
            raise DownloadError(_refusal(response))
        found = bytearray()

        def keep(data: bytes) -> None:
            if len(found) + len(data) > self.most:
                raise DownloadError(f"it is larger than {self.most} bytes")
            found.extend(data)

        return collect(response, keep).addCallback(lambda _: bytes(found))


def _late(result: bytes | Failure, _: float) -> bytes | Failure:
    # treq and the Agent fail with different errors when they are cancelled.
    return Failure(TimeoutError()) if isinstance(result, Failure) else result


def why_not(error: BaseException | None) -> str:
    """:returns: why a download failed, in one line."""
    if isinstance(error, ResponseFailed | RequestTransmissionFailed) and error.reasons:
        return why_not(error.reasons[0].value)
    if isinstance(error, DownloadError | HandshakeFailed):
        return printable(str(error))
    if isinstance(error, TimeoutError | TCPTimedOutError):
        return "no answer in time"
    if isinstance(error, ConnectionClosed):
        return "the server ended the connection"
    return printable(" ".join(words_of(error).split()))


def _refusal(response: IResponse) -> str:
    phrase = response.phrase.decode("latin-1")
    text = f"the server answers {response.code} {phrase}".rstrip()
    places = response.headers.getRawHeaders("location")
    if places and 300 <= response.code < 400:
        text += f"; redirects are not followed, so name the URL itself: {places[0]}"
    return printable(text)
