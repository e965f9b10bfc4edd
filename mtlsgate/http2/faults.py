"""
What a client did wrong.
"""

from __future__ import annotations

from h2.errors import ErrorCodes


class ConnectionFault(Exception):
    """
    The connection cannot go on (RFC 9113, 5.4.1).

    :ivar code: what the client is told with GOAWAY.
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
