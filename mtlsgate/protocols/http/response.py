"""
Reading a target's responses (RFC 9112), without any I/O.

A gateway passes on what twisted.web's own client drops: interim responses, 101, trailers,
and the case of names.  It refuses what it and its client might read differently.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from attrs import frozen
from twisted.web.http import RESPONSES

from mtlsgate.http.bodies import (
    BareLineFeed,
    Body,
    ChunkedBody,
    FixedBody,
    HeadFinder,
    MalformedMessage,
    fields,
)
from mtlsgate.http.fields import Line, end_to_end, tokens

MAX_HEAD = 128 * 1024
#: Interim responses to one request, whose heads are no longer in all than one may be:
#: nothing else keeps a target from sending more than the client takes.
MAX_INTERIM = 64
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
NO_BODY = (204, 304)


class BadResponse(Exception):
    """A target's response that cannot be passed on; the text says why."""


@frozen
class ResponseHead:
    """
    A status line and what comes with it.

    :ivar status: the status code.
    :ivar reason: the reason phrase.
    :ivar lines: all fields.
    :ivar length: of the body; None if it is not said.
    :ivar until_close: whether the body ends with the connection.
    :ivar persistent: whether the connection may be used again.
    :ivar empty: whether it is known that neither body nor trailers follow.
    """

    status: int
    reason: bytes
    lines: Sequence[Line]
    length: int | None = None
    until_close: bool = False
    persistent: bool = True
    empty: bool = False

    def values(self, name: bytes) -> list[bytes]:
        """:returns: the values of all fields of that name, which is in lower case."""
        return [value for each, value in self.lines if each.lower() == name]

    @property
    def phrase(self) -> bytes:
        """The reason phrase, or the usual one."""
        return self.reason or RESPONSES.get(self.status, b"")

    def fields(self) -> list[Line]:
        """:returns: those that pass, with ``Content-Length`` once; of 204, without (RFC 9110,
        8.6)."""
        kept: list[Line] = []
        seen = self.status == 204
        for name, value in end_to_end(self.lines, self.values(b"connection")):
            if name.lower() == b"content-length":
                if seen:
                    continue
                seen = True
            kept.append((name, value))
        return kept

    def fields_alone(self) -> list[Line]:
        """:returns: those that pass of a head that no body comes after, and that so has no
        length (RFC 9110, 8.6)."""
        return list(end_to_end(self.lines, [*self.values(b"connection"), b"content-length"]))


class ResponseHandler(Protocol):
    """What is told of a response."""

    def interim(self, head: ResponseHead) -> None:
        """A 1xx response came, and another will."""

    def switched(self, head: ResponseHead, rest: bytes) -> None:
        """101 came: from here on it is another protocol, beginning with ``rest``."""

    def head(self, head: ResponseHead) -> None:
        """The final response begins."""

    def received(self, data: bytes) -> None:
        """A piece of its body came."""

    def completed(self, trailers: Sequence[Line]) -> None:
        """It is complete."""


class ResponseReader:
    """
    Reads the response to one request.

    :ivar received: whether anything came.
    :ivar complete: whether the response is.
    :ivar reusable: whether another may follow on the same connection.
    """

    def __init__(self, method: bytes, handler: ResponseHandler, *, lenient: bool = False) -> None:
        """
        :param method: of the request.
        :param lenient: whether to take what some old servers write: lines that end in LF
            alone, and padded sizes of chunks.
        """
        self._method = method
        self._handler = handler
        self._lenient = lenient
        self._buffer = bytearray()
        self._finder = HeadFinder(MAX_HEAD, lenient=lenient)
        self._interim = self._interim_size = 0
        self._head: ResponseHead | None = None
        self._body: Body | None = None
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
        body = self._body
        if body is not None and not self._buffer and body.passes(data):
            # The usual case of a large body, which need not be copied.
            self._handler.received(data)
            self._finish_if_ended(body)
            return
        self._buffer += data
        try:
            while self._head is None and not self.complete and self._read_head():
                pass
            self._read_body()
        except BareLineFeed:
            raise BadResponse(
                "its lines end in LF alone: set lenient = true if it has to be an old server"
            ) from None
        except MalformedMessage as error:
            where = "its head" if self._body is None else "its body"
            raise BadResponse(f"{where} is malformed: {error.cause}") from None

    def _read_head(self) -> bool:
        """:returns: whether one was read."""
        buffer = self._buffer
        if not b"HTTP/1.".startswith(bytes(buffer[:7])):
            raise BadResponse("it is not HTTP/1")
        before = len(buffer)
        lines = self._finder.take(buffer)
        if lines is None:
            return False
        head = parse_head(lines, self._method)
        if head.status == 101:
            self.complete = True
            rest = bytes(buffer)
            buffer.clear()
            self._handler.switched(head, rest)
        elif head.status < 200:
            self._interim += 1
            self._interim_size += before - len(buffer)
            if self._interim > MAX_INTERIM or self._interim_size > MAX_HEAD:
                raise BadResponse("it has too many interim responses")
            self._handler.interim(head)
        else:
            self._head = head
            if head.length is None and not head.until_close:
                self._body = ChunkedBody(MAX_HEAD, lenient=self._lenient)
            else:
                self._body = FixedBody(head.length)
            # The body ends before the connection is told so.
            self._handler.head(head)
            self._finish_if_ended(self._body)
        return True

    def _read_body(self) -> None:
        body = self._body
        while body is not None and not self.complete:
            data = body.read(self._buffer)
            if data:
                self._handler.received(data)
            self._finish_if_ended(body)
            if not data:
                break

    def _finish_if_ended(self, body: Body) -> None:
        assert self._head is not None
        if body.ended and not self.complete:
            self.complete = True
            self.reusable = self._head.persistent and not self._buffer
            self._handler.completed(body.trailers)

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
        self.complete = True
        self._handler.completed(())


def parse_head(lines: Sequence[bytes], method: bytes) -> ResponseHead:
    """
    :param lines: status line and fields, without their ends.
    :param method: the request's.
    :raises BadResponse: if it is ambiguous, or no head.
    """
    first, *rest = lines
    found = _STATUS.fullmatch(first)
    if found is None:
        raise BadResponse("its status line is malformed")
    try:
        read = fields(rest)
    except MalformedMessage:
        raise BadResponse("one of its fields is malformed") from None
    old, status, reason = found[1] == b"0", int(found[2]), found[3] or b""
    connection, codings, lengths = [], [], set()
    for name, value in read:
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
    if method == b"HEAD" or status in NO_BODY or status < 200:
        return ResponseHead(status, reason, read, 0, persistent=persistent)
    if codings:
        return ResponseHead(status, reason, read, persistent=persistent)
    if lengths:
        return ResponseHead(status, reason, read, int(lengths.pop()), persistent=persistent)
    return ResponseHead(status, reason, read, until_close=True, persistent=False)
