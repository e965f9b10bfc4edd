"""
Requests out of bytes (RFC 9112), without any I/O.

`RequestReader` turns what a client sends into events; what two programs might read
differently is `MalformedMessage`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from attrs import field, frozen

from mtlsgate.http.bodies import Body, ChunkedBody, FixedBody, HeadFinder, MalformedMessage, fields
from mtlsgate.http.fields import Line, folded

#: More digits are no length that anybody sends (and int() takes 4,300 at most).
_MAX_DIGITS = 18
_START = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) (HTTP/1\.[01])")
_FRAMING = (b"content-length", b"transfer-encoding")


@frozen
class RequestHead:
    """
    A request line and what comes with it.

    :ivar target: the request target, as it was sent.
    :ivar version: ``HTTP/1.1`` or ``HTTP/1.0``; ``HTTP/2.0`` if it came so.
    :ivar lines: all fields, in order.
    :ivar length: of the body; None if only its end tells.
    :ivar _named: the values of the fields, by their name in lower case.
    """

    method: bytes
    target: bytes
    version: bytes
    lines: Sequence[Line]
    length: int | None
    _named: Mapping[bytes, Sequence[bytes]] = field(init=False, eq=False, repr=False)

    @_named.default
    def _by_name(self) -> Mapping[bytes, Sequence[bytes]]:
        named: dict[bytes, list[bytes]] = {}
        for name, value in self.lines:
            named.setdefault(name.lower(), []).append(value)
        return named

    def values(self, name: bytes) -> Sequence[bytes]:
        """:returns: the values of all fields of that name, which is in lower case."""
        return self._named.get(name, ())


@frozen
class RequestEnd:
    """
    The end of a request that has a body.

    :ivar trailers: the fields that came after it.
    """

    trailers: Sequence[Line] = ()


#: What a `RequestReader` reads; bytes are a piece of the body.
Event: TypeAlias = RequestHead | bytes | RequestEnd


def request_head(lines: Sequence[bytes]) -> RequestHead:
    """
    :param lines: of a head, without their ends.
    :raises MalformedMessage: if it is no request, or its framing is ambiguous (RFC 9112, 6).
    """
    first, *rest = lines
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise MalformedMessage("the request line is malformed")
    method, target, version = found.groups()
    return head_of(method, target, version, fields(rest))


def head_of(method: bytes, target: bytes, version: bytes, lines: Sequence[Line]) -> RequestHead:
    """
    :param lines: the fields, each of them valid by itself.
    :returns: the head of these parts, with the length of its body.
    :raises MalformedMessage: if its framing is ambiguous (RFC 9112, 6).
    """
    return RequestHead(method, target, version, lines, _length(*_framing(lines), version))


def content_length(lines: Sequence[Line]) -> int | None:
    """
    :returns: what the fields say of a body that something else frames; None if nothing.
    :raises MalformedMessage: if that is ambiguous.
    """
    lengths, _ = _framing(lines)
    return _one_length(lengths) if lengths else None


def _framing(lines: Sequence[Line]) -> tuple[list[bytes], list[bytes]]:
    """:returns: the values of ``Content-Length`` and of ``Transfer-Encoding``."""
    lengths, codings = [], []
    for name, value in lines:
        lower = name.lower()
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"transfer-encoding":
            codings.append(value.lower())
        elif folded(name) in _FRAMING:
            # CGI would take it for the field that frames the body.
            raise MalformedMessage(
                "a field that only looks like Content-Length or Transfer-Encoding"
            )
    return lengths, codings


def _length(lengths: list[bytes], codings: list[bytes], version: bytes) -> int | None:
    if codings:
        if codings != [b"chunked"]:
            raise MalformedMessage("Transfer-Encoding is another than chunked")
        if lengths:
            raise MalformedMessage("both Content-Length and Transfer-Encoding")
        if version != b"HTTP/1.1":
            # RFC 9112, 6.1: its framing cannot be trusted.
            raise MalformedMessage("Transfer-Encoding in an HTTP/1.0 request")
        return None
    return _one_length(lengths) if lengths else 0


def _one_length(lengths: Sequence[bytes]) -> int:
    """:raises MalformedMessage: if it is not one length."""
    if len(lengths) > 1:
        raise MalformedMessage("several Content-Length fields")
    [value] = lengths
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise MalformedMessage("Content-Length is not a number")
    return int(value)


class RequestReader:
    """
    Reads the requests of one connection, one after the other.

    After the end of each it stops until `proceed` is called, because the next is not
    begun before the first is answered.

    :ivar _body: of the request that is being read.
    :ivar _waits: a request is complete, and the next is not to be read yet.
    :ivar _first_checked: the first line of the head that is being read was looked at.
    """

    def __init__(self, max_head: int) -> None:
        """
        :param max_head: bytes of a head, without its line ends.
        """
        self._max_head = max_head
        self._finder = HeadFinder(max_head)
        self._buffer = bytearray()
        self._piece: bytes | None = None
        self._body: Body | None = None
        self._waits = False
        self._first_checked = False

    @property
    def waiting(self) -> int:
        """How many bytes are here that were not read yet."""
        return len(self._buffer) + len(self._piece or b"")

    @property
    def in_head(self) -> bool:
        """Whether part of a head is here."""
        return self._body is None and not self._waits and bool(self._buffer)

    def feed(self, data: bytes) -> None:
        """:param data: what came."""
        if self._piece is None and not self._buffer and self._body and self._body.passes(data):
            # The usual case of a large body, which need not be copied.
            self._piece = data
            return
        self._buffer += data

    def next(self) -> Event | None:
        """
        :returns: what comes next, or None if that is not here yet.
        :raises MalformedMessage: if it is no request.
        """
        if self._waits:
            return None
        if self._body is None:
            return self._next_head()
        if self._piece is not None:
            piece, self._piece = self._piece, None
            return piece
        if self._body.ended:
            return self._end(self._body)
        data = self._body.read(self._buffer)
        if data:
            return data
        return self._end(self._body) if self._body.ended else None

    def _next_head(self) -> RequestHead | None:
        buffer = self._buffer
        while buffer.startswith(b"\r\n"):
            # RFC 9112, 2.2: some clients send an empty line after a body.
            del buffer[:2]
        if buffer and buffer != b"\r" and _START.match(buffer) is None:
            raise MalformedMessage("no method begins like that")
        lines = self._finder.take(buffer)
        if lines is None:
            self._check_first_line()
            return None
        self._first_checked = False
        head = request_head(lines)
        if head.length is None:
            self._body = ChunkedBody(self._max_head)
        elif head.length:
            self._body = FixedBody(head.length)
        else:
            self._waits = True
        return head

    def _check_first_line(self) -> None:
        """Whoever speaks another protocol is told so at once."""
        end = -1 if self._first_checked else self._buffer.find(b"\r\n")
        if end >= 0:
            self._first_checked = True
            if _REQUEST_LINE.fullmatch(self._buffer, 0, end) is None:
                raise MalformedMessage("the request line is malformed")

    def _end(self, body: Body) -> RequestEnd:
        self._body = None
        self._waits = True
        return RequestEnd(body.trailers)

    def proceed(self) -> None:
        """Read the next request: the last one was answered."""
        self._waits = False

    def take_rest(self) -> bytes:
        """:returns: what is here and was not read, for another protocol."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest
