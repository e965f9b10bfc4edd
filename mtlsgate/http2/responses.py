"""
Header fields from requests, and to responses: pure.  The client's end of `heads`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from mtlsgate.http.bodies import MAX_FIELDS
from mtlsgate.http.fields import Line
from mtlsgate.http2.faults import MalformedRequest
from mtlsgate.http2.heads import check_field, trailer_fields

_STATUS = re.compile(rb"[1-9][0-9]{2}")


class MalformedResponse(Exception):
    """
    One response cannot be read (RFC 9113, 8.1.1).  The others of its connection can.

    :ivar cause: why, in one line, for the log.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def request_fields(
    method: bytes, scheme: bytes, authority: bytes, path: bytes, lines: Iterable[Line]
) -> list[Line]:
    """
    :param lines: the other fields, without ``Host`` and those of one connection only.
    :returns: a request's head.
    """
    fields = [
        (b":method", method),
        (b":scheme", scheme),
        (b":authority", authority),
        (b":path", path),
    ]
    return fields + trailer_fields(lines)


def response_status(fields: Sequence[Line]) -> tuple[int, Sequence[Line]]:
    """
    :param fields: as they came.
    :returns: the status, and the other fields.
    :raises MalformedResponse: if they are no response's (RFC 9113, 8.3.2).
    """
    if not fields or fields[0][0] != b":status" or _STATUS.fullmatch(fields[0][1]) is None:
        raise MalformedResponse("it does not begin with a :status of three digits")
    lines = fields[1:]
    check_lines(lines)
    return int(fields[0][1]), lines


def check_lines(lines: Sequence[Line]) -> None:
    """:raises MalformedResponse: if one of these is no field of HTTP/2, or they are too many."""
    if len(lines) > MAX_FIELDS:
        raise MalformedResponse(f"it has more than {MAX_FIELDS} fields")
    for name, value in lines:
        try:
            check_field(name, value)
        except MalformedRequest as error:
            raise MalformedResponse(error.cause) from None
