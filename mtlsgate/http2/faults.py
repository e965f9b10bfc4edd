"""
What the other end did wrong.
"""

from __future__ import annotations

from h2.errors import ErrorCodes


class ConnectionFault(Exception):
    """
    The connection cannot go on (RFC 9113, 5.4.1).

    :ivar code: what it is told with GOAWAY.
    :ivar cause: why, in one line, for the log.
    """

    def __init__(self, code: ErrorCodes, cause: str) -> None:
        super().__init__(code, cause)
        self.code = code
        self.cause = cause


class MalformedRequest(Exception):
    """
    One request cannot be read (RFC 9113, 8.1.1).  The others of its connection can.

    :ivar cause: why, in one line, for the log.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def code_name(code: int) -> str:
    """:returns: what RFC 9113, 7, calls a reason."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code:#x}"
