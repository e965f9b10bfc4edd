"""
What a server answers when it does not pass a request on.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from twisted.web.http import datetimeToString

from mtlsgate.http.fields import Line

#: Status codes that servers give of their own (RFC 9110, 15).
REASONS: Mapping[int, bytes] = MappingProxyType(
    {
        400: b"Bad Request",
        408: b"Request Timeout",
        413: b"Content Too Large",
        417: b"Expectation Failed",
        421: b"Misdirected Request",
        501: b"Not Implemented",
        502: b"Bad Gateway",
        503: b"Service Unavailable",
        504: b"Gateway Timeout",
    }
)


class Refusal(Exception):
    """
    A request that is not passed on, or no longer.

    :ivar status: the response's, one of `REASONS`.
    :ivar cause: why, in one line, for the log alone.
    """

    def __init__(self, status: int, cause: str) -> None:
        super().__init__(status, cause)
        self.status = status
        self.cause = cause


def own_body(status: int) -> bytes:
    """:returns: the one line that clients are told."""
    return b"%d %s\n" % (status, REASONS[status])


def own_fields(status: int) -> list[Line]:
    """:returns: the fields of a response that has this line as its body."""
    lines = [
        (b"Date", datetimeToString()),
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", b"%d" % len(own_body(status))),
    ]
    return [*lines, (b"Retry-After", b"1")] if status == 503 else lines


def own_response(status: int) -> bytes:
    """:returns: a whole response, after which the connection is closed."""
    lines = [*own_fields(status), (b"Connection", b"close")]
    fields = b"".join([b"%s: %s\r\n" % line for line in lines])
    return b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (status, REASONS[status], fields, own_body(status))
