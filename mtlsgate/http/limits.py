"""
What a server's clients are held to.
"""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class HttpLimits:
    """
    Limits of one connection; times are in seconds.

    :ivar head_size: bytes of a request line and its fields.
    :ivar body_size: bytes of a request's body.
    :ivar first_timeout: for the first byte of the first request.
    :ivar head_timeout: from the first byte of a head to its end.
    :ivar body_timeout: for the next byte of a body.
    :ivar idle_timeout: for the next request, and to take the end of a response.
    :ivar send_timeout: for a client that takes nothing of a response.
    :ivar close_timeout: for a client's own end of a connection that was closed.
    :ivar refused_timeout: the same after a refusal, of which there is little to read.
    :ivar keeps: whether a connection is for several requests.
    :ivar tells_late: whether a client whose head is late is told so (408).
    :ivar connections: how many there may be; None if any number.
    """

    head_size: int
    body_size: int
    first_timeout: float
    head_timeout: float
    body_timeout: float
    idle_timeout: float
    send_timeout: float
    close_timeout: float
    refused_timeout: float
    keeps: bool = True
    tells_late: bool = True
    connections: int | None = None
