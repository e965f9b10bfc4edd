"""
A WSGI application behind the gate.

twisted.web calls the application in threads.  This module adds who the client is, in
variables that no header can set.  `wsgi_call` makes answers wait for slow clients and ends
them in good order.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, cast
from weakref import WeakKeyDictionary
from wsgiref.util import FileWrapper

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.wsgi import WSGIResource
from zope.interface import implementer

from mtlsgate.http.sides import ClientConnection, HttpClient
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.web.site import WebRequest, WebSite
from mtlsgate.protocols.web.threads import Workers
from mtlsgate.protocols.web.variables import connection_variables, days_left, wsgi_string
from mtlsgate.protocols.web.wsgi_call import PIECE, Application, Environ, Flow, Head, WsgiCall
from mtlsgate.text import loggable
from mtlsgate.tls.transport import together

_log = Logger("mtlsgate.web")

#: Headers with another meaning in an environ: PROXY becomes HTTP_PROXY (CVE-2016-5388).
_DROPPED = (b"proxy",)


class ErrorStream:
    """``wsgi.errors``: each write is a log event."""

    def __init__(self, server: str) -> None:
        self._server = server

    def write(self, text: str) -> None:
        """Log a text."""
        if text.strip():
            _log.error("{server}: {text}", server=self._server, text=text.rstrip("\n"))

    def writelines(self, lines: Iterable[str]) -> None:
        """Log lines that belong together."""
        self.write("".join(lines))

    def flush(self) -> None:
        """Nothing is held back."""


def file_wrapper(file: Any, block_size: int = PIECE) -> Iterable[bytes]:
    """``wsgi.file_wrapper``, with blocks large enough to be worth a switch of threads."""
    return FileWrapper(file, max(block_size, PIECE))


@implementer(IResource)
class WsgiApplication:
    """
    The resource at a site's root.

    :ivar workers: the threads that it runs in.
    :ivar _variables: what an environ says of each connection.
    """

    isLeaf = True

    def __init__(
        self,
        application: Application,
        workers: Workers,
        reactor: IReactorFromThreads,
        server: str,
        remote_user: str | None = None,
    ) -> None:
        """
        :param server: its name, for logs.
        :param remote_user: the attribute of `IVerifiedPeer` that REMOTE_USER is.
        """
        self.application = application
        self.workers = workers
        self.server = server
        self._reactor = reactor
        self._errors = ErrorStream(server)
        self._remote_user = remote_user
        self._variables: WeakKeyDictionary[HttpClient, dict[str, object]] = WeakKeyDictionary()

    def render(self, request: Request) -> object:
        """:returns: NOT_DONE_YET, always."""
        assert isinstance(request, WebRequest)
        flow = Flow()
        request.registerProducer(flow, True)
        request.pace()
        request.notifyFinish().addErrback(lambda reason: flow.stopProducing())
        _clean(request)
        call = WsgiCall(
            self.application,
            self._environ(request),
            flow,
            partial(self._reactor.callFromThread, _abort, request),
            partial(self._reactor.callFromThread, _send_last, request),
            f"{self.server}: the application failed on {_described(request)}",
            request.method != b"HEAD",
        )
        # One for each request: the call carries what the environ says of the client.
        resource = WSGIResource(self._reactor, self.workers, call)
        return resource.render(request)

    def _environ(self, request: WebRequest) -> Environ:
        """:returns: the part of the environ that does not come from the request."""
        client = request.channel.client
        peer, variables = client.peer, self._variables.get(client)
        if variables is None or variables["mtlsgate.peer"] is not peer:
            variables = self._variables[client] = connection_variables(peer, client.tls)
        told: Environ = {
            **variables,
            "wsgi.errors": self._errors,
            "wsgi.file_wrapper": file_wrapper,
            "wsgi.input_terminated": True,
        }
        if peer is not None:
            told["SSL_CLIENT_V_REMAIN"] = days_left(peer.not_after)
            user = self._user(peer)
            if user is not None:
                told["REMOTE_USER"] = user
        return told

    def _user(self, peer: IVerifiedPeer) -> str | None:
        value = getattr(peer, self._remote_user) if self._remote_user else None
        # A name must be one printable line.
        return wsgi_string(value) if value and value.isprintable() else None

    def getChildWithDefault(self, name: bytes, request: Request) -> IResource:
        """The application has the whole of every path."""
        raise NotImplementedError("a WSGI application has no children")

    def putChild(self, path: bytes, child: IResource) -> None:
        """The application has the whole of every path."""
        raise NotImplementedError("a WSGI application has no children")


def _clean(request: WebRequest) -> None:
    """Make a request one that CGI's names can say without ambiguity."""
    headers = request.requestHeaders
    for name, _ in list(headers.getAllRawHeaders()):
        # As X_A would be HTTP_X_A, which is what X-A is.
        if b"_" in name or name.lower() in _DROPPED:
            headers.removeHeader(name)
    if not headers.hasHeader(b"content-length"):
        # The body is here, in full, and its length is known.  Over HTTP/2 nothing need say
        # that there is one.
        content = request.content
        assert content is not None
        size = content.seek(0, 2)
        content.seek(0)
        if size or headers.hasHeader(b"transfer-encoding"):
            headers.setRawHeaders(b"content-length", [b"%d" % size])
            headers.removeHeader(b"transfer-encoding")
    if not isinstance(request.client, IPv4Address | IPv6Address):
        # Over a unix socket nobody has an address, least of all a trusted one.
        request.client = IPv4Address("TCP", "", 0)
        request.host = IPv4Address("TCP", "localhost", 443)


def _described(request: Request) -> str:
    return " ".join(loggable(one.decode("latin-1")) for one in (request.method, request.path))


def _abort(request: WebRequest) -> None:
    if request.channel is not None:
        request.channel.cut()


def _send_last(request: WebRequest, head: Head | None, data: bytes) -> None:
    """
    Send what completes an answer.

    :param head: its status and headers, unless they were sent before.
    """
    if request.channel is None:
        return
    if head is not None:
        status, headers = head
        code, _, words = status.partition(" ")
        request.setResponseCode(int(code), words.encode("latin-1"))
        for name, value in headers:
            # As in twisted.web, these are the server's.
            if name.lower() not in ("server", "date"):
                request.responseHeaders.addRawHeader(name.encode("ascii"), value.encode("latin-1"))
    together(request.channel.client.transport, partial(request.write, data))


class WsgiSite(WebSite):
    """A site of one application, whose threads come and go with it."""

    def __init__(
        self, resource: WsgiApplication, workers: Workers, *rest: Any, **more: Any
    ) -> None:
        """
        :param rest: what a `WebSite` takes besides.
        """
        super().__init__(cast(IResource, resource), *rest, **more)
        self._workers = workers

    def startFactory(self) -> None:
        """Have threads."""
        super().startFactory()
        self._workers.start()

    def stopFactory(self) -> None:
        """Let them go, as soon as the last connection is over."""
        super().stopFactory()
        self._workers.stop()

    def opened(self, connection: ClientConnection) -> None:
        """A connection may want threads."""
        super().opened(connection)
        self._workers.connected()

    def closed(self, connection: ClientConnection) -> None:
        """It no longer does."""
        super().closed(connection)
        self._workers.disconnected()
