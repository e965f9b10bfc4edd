"""
Reading a target's responses (RFC 9112), without any I/O.

twisted.web's own client is for clients: it gives a response only once the
whole request is sent, drops all 1xx responses (101 among them) and trailers,
and reads leniently.  A gateway needs all of these, and has to refuse whatever
it and its client might read differently.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from attrs import frozen
from twisted.web.http import (
    _ChunkedTransferDecoder,
    _IdentityTransferDecoder,
    _MalformedChunkedDataError,
)

from mtlsgate.protocols.http.fields import Line, parse_line, tokens

MAX_HEAD = 128 * 1024
#: Interim responses to one request, whose heads are no longer in all than one may be:
#: nothing else keeps a target from sending more than the client takes.
MAX_INTERIM = 64
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_NO_BODY = (204, 304)


class BadResponse(Exception):
    """A target's response that cannot be passed on; the text says why."""


@frozen
class Head:
    """
    A status line and what comes with it.

    :ivar status: the status code.
    :ivar reason: the reason phrase.
    :ivar lines: all fields.
    :ivar length: of the body; None if it is not said.
    :ivar until_close: whether the body ends with the connection.
    :ivar persistent: whether the connection may be used again.
    """

    status: int
    reason: bytes
    lines: Sequence[Line]
    length: int | None = None
    until_close: bool = False
    persistent: bool = True

    def values(self, name: bytes) -> list[bytes]:
        """:returns: the values of all fields of that name, in lower case."""
        return [value for each, value in self.lines if each.lower() == name]


class ResponseHandler(Protocol):
    """What is told of a response."""

    def interim(self, head: Head) -> None:
        """A 1xx response came, and another will."""

    def switched(self, head: Head, rest: bytes) -> None:
        """101 came: from here on it is another protocol, beginning with ``rest``."""

    def head(self, head: Head) -> None:
        """The final response begins."""

    def data(self, data: bytes) -> None:
        """A piece of its body came."""

    def end(self, trailers: Sequence[Line]) -> None:
        """It is complete."""


class ResponseReader:
    """
    Reads the response to one request.

    :ivar received: whether anything came.
    :ivar complete: whether the response is.
    :ivar reusable: whether another may follow on the same connection.
    """

    def __init__(self, method: bytes, handler: ResponseHandler) -> None:
        self._method = method
        self._handler = handler
        self._buffer = b""
        self._interim = self._interim_size = 0
        self._head: Head | None = None
        self._decoder: _ChunkedTransferDecoder | _IdentityTransferDecoder | None = None
        self.received = False
        self.complete = False
        self.reusable = False

    @property
    def begun(self) -> bool:
        """Whether the final response has begun."""
        return self._head is not None

    def feed(self, data: bytes) -> None:
        """
        :param data: what came.
        :raises BadResponse: if it is no response.
        """
        self.received = True
        if self.complete:
            # Nobody asked for it: the connection is out of step.
            self.reusable = False
            return
        while data and self._head is None and not self.complete:
            data = self._feed_head(data)
        if data and not self.complete:
            self._feed_body(data)
        elif data:
            self.reusable = False

    def _feed_head(self, data: bytes) -> bytes:
        """:returns: what comes after the head."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if (end if end >= 0 else len(self._buffer)) > MAX_HEAD:
            raise BadResponse(f"its head is longer than {MAX_HEAD} bytes")
        if end < 0:
            if not b"HTTP/1.".startswith(self._buffer[:7]):
                raise BadResponse("it is not HTTP/1")
            return b""
        raw, rest = self._buffer[:end], self._buffer[end + 4 :]
        self._buffer = b""
        head = parse_head(raw, self._method)
        if head.status == 101:
            self.complete = True
            self._handler.switched(head, rest)
            return b""
        if head.status < 200:
            self._interim += 1
            self._interim_size += len(raw)
            if self._interim > MAX_INTERIM or self._interim_size > MAX_HEAD:
                raise BadResponse("it has too many interim responses")
            self._handler.interim(head)
            return rest
        self._head = head
        self._decoder = self._choose_decoder(head)
        # The body ends before the connection is told so.
        self._handler.head(head)
        if head.length == 0:
            self._finish(rest, ())
            return b""
        return rest

    def _choose_decoder(
        self, head: Head
    ) -> _ChunkedTransferDecoder | _IdentityTransferDecoder | None:
        if head.length == 0:
            return None
        if head.length is None and not head.until_close:
            decoder = _ChunkedTransferDecoder(self._handler.data, self._chunks_ended)
            self._chunks = decoder
            return decoder
        finish: Callable[[bytes], None] = lambda rest: self._finish(rest, ())  # noqa: E731
        return _IdentityTransferDecoder(head.length, self._handler.data, finish)

    def _feed_body(self, data: bytes) -> None:
        assert self._decoder is not None
        try:
            self._decoder.dataReceived(data)
        except _MalformedChunkedDataError as error:
            raise BadResponse(f"its chunks are malformed: {error}") from None

    def _chunks_ended(self, rest: bytes) -> None:
        self._finish(rest, read_trailers(self._chunks))

    def _finish(self, rest: bytes, trailers: Sequence[Line]) -> None:
        assert self._head is not None
        self.complete = True
        self.reusable = self._head.persistent and not rest
        self._handler.end(trailers)

    def closed(self, clean: bool) -> None:
        """
        The connection ended.

        :param clean: whether the target ended it in good order.
        :raises BadResponse: if the response is not complete.
        """
        if self.complete:
            return
        if self._head is None:
            when = "in the middle of a response's head" if self._buffer else "without a response"
            raise BadResponse(f"it closed the connection {when}")
        if not (self._head.until_close and clean):
            raise BadResponse("it closed the connection in the middle of a response")
        self._finish(b"", ())


def read_trailers(decoder: _ChunkedTransferDecoder) -> list[Line]:
    """
    :param decoder: at its end.
    :returns: the trailer fields; of malformed ones, none.
    """
    try:
        return [parse_line(bytes(line)) for line in decoder._trailerHeaders]
    except ValueError:
        return []


def parse_head(raw: bytes, method: bytes) -> Head:
    """
    :param raw: status line and fields, without the empty line.
    :param method: the request's.
    :raises BadResponse: if it is ambiguous, or no head.
    """
    first, *rest = raw.split(b"\r\n")
    found = _STATUS.fullmatch(first)
    if found is None:
        raise BadResponse("its status line is malformed")
    try:
        lines = [parse_line(line) for line in rest]
    except ValueError:
        raise BadResponse("one of its fields is malformed") from None
    old, status, reason = found[1] == b"0", int(found[2]), found[3] or b""
    connection, codings, lengths = [], [], set()
    for name, value in lines:
        match name.lower():
            case b"connection":
                connection.append(value)
            case b"transfer-encoding":
                codings.append(value.lower())
            case b"content-length":
                lengths.add(value)
    persistent = not old and b"close" not in tokens(connection)
    if len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths)):
        raise BadResponse("its Content-Length is ambiguous")
    if codings and (old or lengths or codings != [b"chunked"]):
        raise BadResponse("its Transfer-Encoding is ambiguous, or another than chunked")
    if method == b"HEAD" or status in _NO_BODY or status < 200:
        return Head(status, reason, lines, 0, persistent=persistent)
    if codings:
        return Head(status, reason, lines, persistent=persistent)
    if lengths:
        return Head(status, reason, lines, int(lengths.pop()), persistent=persistent)
    return Head(status, reason, lines, until_close=True, persistent=False)
