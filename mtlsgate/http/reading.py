"""
Requests and bodies out of bytes (RFC 9112), without any I/O.

`RequestReader` turns what a client sends into events; the bodies below also read
the responses of targets.  What two programs might read differently is `Malformed`.
Each byte is looked at a bounded number of times, in whatever pieces it comes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

from mtlsgate.http.fields import Line, folded, parse_line

#: A head has no more fields than this.
MAX_FIELDS = 500
#: In bytes: a chunk's size with its extension.
_MAX_SIZE_LINE = 1024
#: How many chunks are read in one go, so that tiny ones hold nobody else up.
CHUNKS_AT_ONCE = 1024
#: More digits are no length that anybody sends (and int() takes 4,300 at most).
_MAX_DIGITS = 18

_START = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]")
_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) ([^\x00-\x20\x7f]+) (HTTP/1\.[01])")
_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")
_LENIENT_END = re.compile(rb"\r?\n\r?\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LENIENT_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r?\n")
_FRAMING = (b"content-length", b"transfer-encoding")


class Malformed(Exception):
    """
    Bytes that are no HTTP, or could be read in two ways.

    :ivar cause: why, in one line, for the log.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class BareLineFeed(Malformed):
    """A line that ends in LF alone."""


@frozen
class RequestHead:
    """
    A request line and what comes with it.

    :ivar target: the request target, as it was sent.
    :ivar version: ``HTTP/1.1`` or ``HTTP/1.0``.
    :ivar lines: all fields, in order.
    :ivar length: of the body; None if it comes in chunks.
    """

    method: bytes
    target: bytes
    version: bytes
    lines: Sequence[Line]
    length: int | None

    def values(self, name: bytes) -> list[bytes]:
        """:returns: the values of all fields of that name, which is in lower case."""
        return [value for each, value in self.lines if each.lower() == name]


@frozen
class RequestEnd:
    """
    The end of a request that has a body.

    :ivar trailers: the fields that came after it.
    """

    trailers: Sequence[Line] = ()


#: What a `RequestReader` reads; bytes are a piece of the body.
Event: TypeAlias = RequestHead | bytes | RequestEnd


class HeadFinder:
    """
    Finds the empty line at a head's end, in a buffer that grows.

    :ivar _seen: how much of the buffer holds no end.
    """

    def __init__(self, limit: int, *, lenient: bool = False) -> None:
        """
        :param limit: bytes of a head, without its line ends.
        :param lenient: whether LF alone may end a line, too.
        """
        self._limit = limit
        self._lenient = lenient
        self._end = _LENIENT_END if lenient else _END
        self._seen = 0

    def take(self, buffer: bytearray) -> list[bytes] | None:
        """
        Take a head out of the buffer.

        :returns: its lines without their ends; None if it is not complete.
        :raises Malformed: if it is too long, or a line ends in LF alone.
        """
        found = self._end.search(buffer, max(self._seen - 3, 0))
        end = len(buffer) if found is None else found.start()
        if end > self._limit + 2 * MAX_FIELDS:
            raise self._too_long()
        if found is None:
            self._seen = len(buffer)
            return None
        if found[0] == b"\n":
            raise BareLineFeed("a line that ends in LF alone")
        raw = bytes(buffer[:end])
        del buffer[: found.end()]
        self._seen = 0
        lines = raw.split(b"\r\n")
        if self._lenient:
            lines = raw.replace(b"\r\n", b"\n").split(b"\n")
        if sum(map(len, lines)) > self._limit:
            raise self._too_long()
        if len(lines) > MAX_FIELDS + 1:
            raise Malformed(f"the head has more than {MAX_FIELDS} fields")
        return lines

    def _too_long(self) -> Malformed:
        return Malformed(f"the head is longer than {self._limit} bytes")


def fields(lines: Sequence[bytes]) -> list[Line]:
    """:raises Malformed: if one of them is no field line, or continues another."""
    try:
        return [parse_line(line) for line in lines]
    except ValueError as error:
        raise Malformed(str(error)) from None


def request_head(lines: Sequence[bytes]) -> RequestHead:
    """
    :param lines: of a head, without their ends.
    :raises Malformed: if it is no request, or its framing is ambiguous (RFC 9112, 6).
    """
    first, *rest = lines
    found = _REQUEST_LINE.fullmatch(first)
    if found is None:
        raise Malformed("the request line is malformed")
    method, target, version = found.groups()
    read = fields(rest)
    lengths, codings = [], []
    for name, value in read:
        lower = name.lower()
        if lower == b"content-length":
            lengths.append(value)
        elif lower == b"transfer-encoding":
            codings.append(value.lower())
        elif folded(name) in _FRAMING:
            # CGI would take it for the field that frames the body.
            raise Malformed("a field that only looks like Content-Length or Transfer-Encoding")
    return RequestHead(method, target, version, read, _length(lengths, codings, version))


def _length(lengths: list[bytes], codings: list[bytes], version: bytes) -> int | None:
    if codings:
        if codings != [b"chunked"]:
            raise Malformed("Transfer-Encoding is another than chunked")
        if lengths:
            raise Malformed("both Content-Length and Transfer-Encoding")
        if version != b"HTTP/1.1":
            # RFC 9112, 6.1: its framing cannot be trusted.
            raise Malformed("Transfer-Encoding in an HTTP/1.0 request")
        return None
    if len(lengths) > 1:
        raise Malformed("several Content-Length fields")
    return content_length(lengths[0]) if lengths else 0


def content_length(value: bytes) -> int:
    """:raises Malformed: if it is no length."""
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        raise Malformed("Content-Length is not a number")
    return int(value)


class FixedBody:
    """
    A body whose length is known; None stands for one that ends with the connection.

    :ivar ended: whether all of it was read.
    :ivar trailers: none.
    """

    trailers: Sequence[Line] = ()

    def __init__(self, length: int | None) -> None:
        self._left = length

    @property
    def ended(self) -> bool:
        """Whether all of it was read."""
        return self._left == 0

    def passes(self, data: bytes) -> bool:
        """:returns: whether all of the data is of the body, which then counts as read."""
        if self._left is None:
            return True
        if len(data) > self._left:
            return False
        self._left -= len(data)
        return True

    def read(self, buffer: bytearray) -> bytes:
        """:returns: what the buffer holds of the body, which is taken out of it."""
        size = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = bytes(buffer) if size == len(buffer) else bytes(buffer[:size])
        del buffer[:size]
        if self._left is not None:
            self._left -= size
        return data


class ChunkedBody:
    """
    A body in chunks (RFC 9112, 7.1), whose extensions mean nothing here.

    :ivar ended: whether all of it was read, its trailers included.
    :ivar trailers: the fields after the last chunk.
    :ivar _left: of the present chunk.
    :ivar _in_chunk: whether the line end after the present chunk is still to come.
    :ivar _in_trailers: the last chunk was read.
    """

    def __init__(self, max_trailers: int, *, lenient: bool = False) -> None:
        """
        :param max_trailers: bytes of the trailer section.
        :param lenient: whether sizes may be padded and lines end in LF alone, as some
            old servers write them.
        """
        self.ended = False
        self.trailers: Sequence[Line] = ()
        self._left = 0
        self._in_chunk = False
        self._in_trailers = False
        self._lenient = lenient
        self._size = _LENIENT_SIZE if lenient else _SIZE
        self._finder = HeadFinder(max_trailers, lenient=lenient)

    def passes(self, data: bytes) -> bool:
        """:returns: False: what frames a chunk is nobody's data."""
        return False

    def read(self, buffer: bytearray) -> bytes:
        """
        :returns: what the buffer holds of the body, of so many chunks at most.  It is
            taken out of the buffer.
        :raises Malformed: if these are no chunks, or the trailers are malformed.
        """
        pieces: list[bytearray] = []
        place = 0
        for _ in range(CHUNKS_AT_ONCE):
            if self._in_chunk:
                piece = buffer[place : place + self._left]
                self._left -= len(piece)
                place += len(piece)
                pieces.append(piece)
                after = None if self._left else self._after_chunk(buffer, place)
                if after is None:
                    break
                place, self._in_chunk = after, False
            if self._in_trailers:
                break
            found = self._size.match(buffer, place)
            if found is None or found.end() - place > _MAX_SIZE_LINE:
                self._check_unfinished(buffer, place)
                break
            place, self._left = found.end(), int(found[1], 16)
            self._in_trailers = self._left == 0
            self._in_chunk = not self._in_trailers
        del buffer[:place]
        if self._in_trailers:
            self._read_trailers(buffer)
        return b"".join(pieces)

    def _after_chunk(self, buffer: bytearray, place: int) -> int | None:
        """:returns: where the next chunk begins; None if that cannot be told yet."""
        end = bytes(buffer[place : place + 2])
        if end == b"\r\n":
            return place + 2
        if self._lenient and end[:1] == b"\n":
            return place + 1
        if end not in (b"", b"\r"):
            raise Malformed("a chunk is longer than its size")
        return None

    def _check_unfinished(self, buffer: bytearray, place: int) -> None:
        if len(buffer) - place > _MAX_SIZE_LINE or b"\n" in buffer[place:]:
            raise Malformed("a chunk's size is malformed")

    def _read_trailers(self, buffer: bytearray) -> None:
        blank = (b"\r\n", b"\n") if self._lenient else (b"\r\n",)
        for end in blank:
            if buffer.startswith(end):
                del buffer[: len(end)]
                self.ended = True
                return
        lines = self._finder.take(buffer)
        if lines is not None:
            self.trailers = fields(lines)
            self.ended = True


#: How a body is read.
Body: TypeAlias = FixedBody | ChunkedBody


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
        :raises Malformed: if it is no request.
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
            raise Malformed("no method begins like that")
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
                raise Malformed("the request line is malformed")

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
