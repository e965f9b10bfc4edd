"""
Responses into bytes (RFC 9112, 6), without any I/O.
"""

from __future__ import annotations

from collections.abc import Iterable

from mtlsgate.http.fields import Line

_NO_BODY = (204, 304)


def head_bytes(version: bytes, status: int, reason: bytes, lines: Iterable[Line]) -> bytes:
    """:returns: a status line and fields, with the empty line after them."""
    fields = b"".join([b"%s: %s\r\n" % line for line in lines])
    return b"%s %d %s\r\n%s\r\n" % (version, status, reason, fields)


class ResponseFraming:
    """
    Frames one response, as its request's method and version have it.

    :ivar chunked: whether the body is sent in chunks.
    :ivar _bodiless: whether there is no body, whatever the fields say.
    :ivar _left: bytes that ``Content-Length`` still promises, or None.
    """

    def __init__(self, method: bytes, version: bytes, status: int, lines: Iterable[Line]) -> None:
        """
        :param method: the request's.
        :param version: the request's.
        :param lines: the response's fields, of which ``Content-Length`` counts.
        """
        lengths = [value for name, value in lines if name.lower() == b"content-length"]
        self._bodiless = method == b"HEAD" or status in _NO_BODY
        self._left = int(lengths[0]) if lengths and not self._bodiless else None
        self.chunked = not self._bodiless and not lengths and version == b"HTTP/1.1"

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection is the end of the body."""
        return not (self.chunked or self._bodiless or self._left is not None)

    @property
    def is_complete(self) -> bool:
        """Whether no more of the body can come, which is known where its length is."""
        return self._bodiless or self._left == 0

    @property
    def is_short(self) -> bool:
        """Whether bytes that were promised were not sent."""
        return bool(self._left)

    def piece(self, data: bytes) -> list[bytes]:
        """:returns: what to write for a piece of the body."""
        if self.chunked:
            return [b"%x\r\n" % len(data), data, b"\r\n"] if data else []
        if self._bodiless:
            return []
        if self._left is not None:
            # More than was promised would be taken for the next response.
            data = data[: self._left]
            self._left -= len(data)
        return [data]

    def end(self, trailers: Iterable[Line]) -> bytes:
        """:returns: what to write after the body."""
        if not self.chunked:
            return b""
        return b"0\r\n%s\r\n" % b"".join([b"%s: %s\r\n" % line for line in trailers])
