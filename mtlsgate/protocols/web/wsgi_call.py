"""
One call of a WSGI application (PEP 3333), in a thread: what it answers, piece by piece as the
client reads, and an end in good order whatever it does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from threading import Event
from typing import Any
from wsgiref.util import is_hop_by_hop

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from mtlsgate.protocols.importing import describe

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Head = tuple[str, list[tuple[str, str]]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_log = Logger("mtlsgate.web")

#: Bytes of an answer that are sent before the call looks again whether the client reads.
PIECE = 65536

_STATUS = re.compile(r"([2-9]\d\d)(?: ([^\x00-\x1f\x7f]*))?")
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


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


class WsgiCall:
    """
    One call of the application, made by twisted.web in a thread.

    :ivar _head: what the application called ``start_response`` with, or None.
    :ivar _begun: part of the body was sent, so the status cannot change any more.
    :ivar _left: bytes that the application's Content-Length still promises, or None.
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
        :param environ: what is added to twisted.web's environ.
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
        if self._flow.gone:
            # The client left before there was a thread, and took the body with it.
            return
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
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- it is not ours
            if self._flow.gone:
                # Likely because of that: no client shall fill the log with tracebacks.
                why = describe(error)
                _log.info("{what}, after its client had left: {why}", what=self._failed, why=why)
                return
            _log.failure("{what}", what=self._failed)
            if self._begun:
                # The client must not take what was sent for the whole.
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
            # twisted.web closes it only if nothing was raised.
            close = getattr(answer, "close", None)
            if close is not None:
                close()

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """The application calls this with its status and headers (PEP 3333)."""
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
                # It is the last piece, so nothing has to wait until it is sent.  Waiting for
                # the reactor would double the cost of a call.
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
