"""
A WSGI application behind the gate.

twisted.web calls it, in threads.  What is here adds what that leaves open: who
the client is, in words that no header can imitate; answers that wait for the
client to read; and an end in good order whatever the application does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from threading import Event
from typing import Any, cast
from weakref import WeakKeyDictionary
from wsgiref.util import FileWrapper, is_hop_by_hop

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IPushProducer, IReactorFromThreads
from twisted.logger import Logger
from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.wsgi import WSGIResource
from zope.interface import implementer

from mtlsgate.http.connection import HttpConnection
from mtlsgate.http.sides import HttpClient
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.web.site import WebRequest, WebSite
from mtlsgate.protocols.web.threads import Workers
from mtlsgate.protocols.web.variables import connection_variables, days_left, wsgi_string
from mtlsgate.text import loggable

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Head = tuple[str, list[tuple[str, str]]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_log = Logger("mtlsgate.web")

#: At most so many bytes of an answer are on their way between two looks at
#: whether the client reads.
PIECE = 65536

_STATUS = re.compile(r"([2-9]\d\d)(?: ([^\x00-\x1f\x7f]*))?")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: Headers that are something else by the time they are in an environ: PROXY
#: would be HTTP_PROXY (CVE-2016-5388).
_DROPPED = (b"proxy",)


@implementer(IPushProducer)
class Flow:
    """Makes a thread wait while the client does not read."""

    def __init__(self) -> None:
        self._open = Event()
        self._open.set()
        self.gone = False

    def wait(self) -> None:
        """Wait, in a thread, until there is room for more."""
        self._open.wait()

    def pauseProducing(self) -> None:
        """There is no room."""
        if not self.gone:
            self._open.clear()

    def resumeProducing(self) -> None:
        """There is room."""
        self._open.set()

    def stopProducing(self) -> None:
        """Nothing will be read any more."""
        self.gone = True
        self._open.set()


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
    """``wsgi.file_wrapper``, in blocks that are worth a switch of threads."""
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
        # One for each request: what it is called with is how an environ gets
        # to know its client, and no header can.
        resource = WSGIResource(self._reactor, self.workers, call)
        return resource.render(request)

    def _environ(self, request: WebRequest) -> Environ:
        """:returns: what of the environ is not out of the request."""
        client = request.channel.client
        peer, variables = client.peer, self._variables.get(client)
        if variables is None:
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
        # What is not one printable line is nobody's name.
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
    if headers.hasHeader(b"transfer-encoding"):
        # The body is here, in full, and its length is known.
        content = request.content
        assert content is not None
        headers.setRawHeaders(b"content-length", [b"%d" % content.seek(0, 2)])
        content.seek(0)
        headers.removeHeader(b"transfer-encoding")
    if not isinstance(request.client, IPv4Address | IPv6Address):
        # Over a unix socket nobody has an address, least of all a trusted one.
        request.client = IPv4Address("TCP", "", 0)
        request.host = IPv4Address("TCP", "localhost", 443)


def _described(request: Request) -> str:
    return " ".join(loggable(one.decode("latin-1")) for one in (request.method, request.path))


def _abort(request: WebRequest) -> None:
    if request.channel is not None:
        cast(Any, request.channel.transport).abortConnection()


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
    request.write(data)


class WsgiCall:
    """
    One call of the application, made by twisted.web in a thread.

    :ivar _head: what the application called ``start_response`` with, or None.
    :ivar _begun: something of the body was handed on, so that the status is beyond change.
    :ivar _left: how many bytes the application still owes by its Content-Length, or None.
    """

    def __init__(
        self,
        application: Application,
        environ: Environ,
        flow: Flow,
        abort: Callable[[], object],
        send_last: Callable[[Head | None, bytes], object],
        failed: str,
        has_body: bool,
    ) -> None:
        """
        :param environ: what is to be in the environ besides what twisted.web puts there.
        :param abort: ends the connection.
        :param send_last: sends what completes the answer, without waiting for it.
        :param failed: says in the log what went wrong.
        :param has_body: whether this method's answers have a body.
        """
        self._application = application
        self._environ = environ
        self._flow = flow
        self._abort = abort
        self._send_last = send_last
        self._failed = failed
        self._has_body = has_body
        self._head: Head | None = None
        self._begun = False
        self._left: int | None = None

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
        """Call the application, and yield its answer as fast as it is read."""
        self._start_response = start_response
        environ.pop("HTTP_CONTENT_TYPE", None)
        environ.pop("HTTP_CONTENT_LENGTH", None)
        environ.update(self._environ)
        try:
            yield from self._answer(environ)
            if self._head is None:
                raise RuntimeError("the application did not call start_response")
            if self._left and not self._flow.gone:
                raise RuntimeError(f"{self._left} bytes are missing by its own Content-Length")
        except (Exception, SystemExit):  # noqa: BLE001 -- it is not ours
            _log.failure("{what}", what=self._failed)
            if self._begun:
                # What was sent must not look like all of it.
                self._abort()
                return
            text = b"Internal Server Error\n"
            start_response(
                "500 Internal Server Error",
                [("Content-Type", "text/plain"), ("Content-Length", str(len(text)))],
            )
            yield text

    def _answer(self, environ: Environ) -> Iterator[bytes]:
        answer = self._application(environ, self.start_response)
        try:
            for data in answer:
                yield from self._pieces(data)
                if self._flow.gone:
                    break
        finally:
            # twisted.web does so only if nothing was raised.
            close = getattr(answer, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """What the application gets to call, as PEP 3333 has it."""
        if exc_info is not None:
            if self._begun:
                raise exc_info[1].with_traceback(exc_info[2])
        elif self._head is not None:
            raise RuntimeError("the application called start_response twice")
        found = _STATUS.fullmatch(status)
        if found is None:
            raise ValueError(f"not a status: {status!r}")
        status.encode("latin-1")
        length: int | None = None
        kept = []
        for name, value in headers:
            _check_header(name, value)
            if name.lower() == "content-length":
                length = _length(value)
            if not is_hop_by_hop(name):
                kept.append((name, value))
        bodiless = found[1] in ("204", "304") or not self._has_body
        self._left = None if bodiless else length
        self._head = f"{found[1]} {found[2] or 'Unknown'}", kept
        write = self._start_response(*self._head)

        def write_pieces(data: bytes) -> None:
            for piece in self._pieces(data):
                write(piece)

        return write_pieces

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what is to be sent, each piece when there is room for it."""
        if not isinstance(data, bytes):
            raise TypeError(f"the application answers in {type(data).__name__}, not in bytes")
        if data and self._head is None:
            raise RuntimeError("the application did not call start_response")
        if self._left is not None:
            if len(data) > self._left:
                _log.warn("{what}: more than its Content-Length", what=self._failed)
                data = data[: self._left]
            self._left -= len(data)
        for start in range(0, len(data), PIECE):
            self._flow.wait()
            if self._flow.gone:
                return
            begun, self._begun = self._begun, True
            piece = data[start : start + PIECE]
            if self._left == 0 and start + PIECE >= len(data):
                # Nothing more comes that would have to wait for it, and for a thread to wait
                # for the reactor takes as long as all else that it does.
                self._send_last(None if begun else self._head, piece)
            else:
                yield piece


def _check_header(name: str, value: str) -> None:
    if not (isinstance(name, str) and _HEADER_NAME.fullmatch(name)):
        raise ValueError(f"not the name of a header: {name!r}")
    if not isinstance(value, str):
        raise TypeError(f"{name} is a {type(value).__name__}, not a str")
    if any(one in value for one in "\r\n\0"):
        raise ValueError(f"{name} has a line break or NUL in it")
    value.encode("latin-1")


def _length(value: str) -> int:
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"not a Content-Length: {value!r}")
    return int(value)


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

    def opened(self, connection: HttpConnection) -> None:
        """A connection may want threads."""
        super().opened(connection)
        self._workers.connected()

    def closed(self, connection: HttpConnection) -> None:
        """It no longer does."""
        super().closed(connection)
        self._workers.disconnected()
