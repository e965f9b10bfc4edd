"""
Finds the end of heads, and reads bodies from bytes (RFC 9112), without any I/O.

Requests and responses share this.  Bytes that two programs might read differently raise
`MalformedMessage`.  Each byte is looked at a bounded number of times, however it arrives.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from mtlsgate.http.fields import Line, parse_line

#: The most fields in a head.
MAX_FIELDS = 500
#: The longest chunk size line with its extension, in bytes.
_MAX_SIZE_LINE = 1024
#: How many chunks are read at once.  Without a limit tiny chunks would delay others.
CHUNKS_AT_ONCE = 1024

_END = re.compile(rb"\r\n\r\n|(?<!\r)\n")
_LENIENT_END = re.compile(rb"\r?\n\r?\n")
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_LENIENT_SIZE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r?\n")


class MalformedMessage(Exception):
    """
    Bytes that are not HTTP, or that could be read in two ways.

    :ivar cause: why, in one line, for the log.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class BareLineFeed(MalformedMessage):
    """A line that ends in LF alone."""


class HeadFinder:
    """
    Finds the empty line at the end of a head, in a growing buffer.

    :ivar _seen: how much of the buffer is known not to have the end.
    """

    def __init__(self, limit: int, *, lenient: bool = False) -> None:
        """
        :param limit: the most bytes of a head, without its line ends.
        :param lenient: whether LF alone may end a line.
        """
        self._limit = limit
        self._lenient = lenient
        self._end = _LENIENT_END if lenient else _END
        self._seen = 0

    def take(self, buffer: bytearray) -> list[bytes] | None:
        """
        Take a head out of the buffer.

        :returns: its lines without their ends; None if it is not complete.
        :raises MalformedMessage: if it is too long, or a line ends in LF alone.
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
            raise MalformedMessage(f"the head has more than {MAX_FIELDS} fields")
        return lines

    def _too_long(self) -> MalformedMessage:
        return MalformedMessage(f"the head is longer than {self._limit} bytes")


def fields(lines: Sequence[bytes]) -> list[Line]:
    """:raises MalformedMessage: if a line is not a field line, or continues another."""
    try:
        return [parse_line(line) for line in lines]
    except ValueError as error:
        raise MalformedMessage(str(error)) from None


class FixedBody:
    """
    A body of known length; None means that it ends with the connection.

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
        """:returns: whether all of the data belongs to the body; it then counts as read."""
        if self._left is None:
            return True
        if len(data) > self._left:
            return False
        self._left -= len(data)
        return True

    def read(self, buffer: bytearray) -> bytes:
        """:returns: the bytes of the body in the buffer, which are removed from it."""
        size = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = bytes(buffer) if size == len(buffer) else bytes(buffer[:size])
        del buffer[:size]
        if self._left is not None:
            self._left -= size
        return data


class ChunkedBody:
    """
    A body in chunks (RFC 9112, 7.1).  Chunk extensions are ignored.

    :ivar ended: whether all of it was read, including the trailers.
    :ivar trailers: the fields after the last chunk.
    :ivar _left: how many bytes of the current chunk are left.
    :ivar _in_chunk: whether the line end after the current chunk is still missing.
    :ivar _in_trailers: whether the last chunk was read.
    """

    def __init__(self, max_trailers: int, *, lenient: bool = False) -> None:
        """
        :param max_trailers: the most bytes of the trailer section.
        :param lenient: whether sizes may be padded and lines may end in LF alone, as
            some old servers write them.
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
        """:returns: False: the framing of chunks must not be passed on as data."""
        return False

    def read(self, buffer: bytearray) -> bytes:
        """
        :returns: the bytes of the body in the buffer, which are removed from it; at
            most `CHUNKS_AT_ONCE` chunks.
        :raises MalformedMessage: if the chunks or the trailers are malformed.
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
        """:returns: where the next chunk begins; None if that is not known yet."""
        end = bytes(buffer[place : place + 2])
        if end == b"\r\n":
            return place + 2
        if self._lenient and end[:1] == b"\n":
            return place + 1
        if end not in (b"", b"\r"):
            raise MalformedMessage("a chunk is longer than its size")
        return None

    def _check_unfinished(self, buffer: bytearray, place: int) -> None:
        if len(buffer) - place > _MAX_SIZE_LINE or b"\n" in buffer[place:]:
            raise MalformedMessage("a chunk's size is malformed")

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
