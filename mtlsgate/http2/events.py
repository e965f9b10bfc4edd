"""
What a `mtlsgate.http2.session.Session` reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from attrs import frozen

from mtlsgate.http.fields import Line


@frozen
class Requested:
    """A request's header fields came."""

    stream: int
    fields: Sequence[Line]
    ended: bool


@frozen
class Came:
    """A piece of a request's body came."""

    stream: int
    data: bytes
    ended: bool


@frozen
class Trailed:
    """A request's trailer fields came; it is complete."""

    stream: int
    fields: Sequence[Line]


@frozen
class Reset:
    """A stream is over before its time."""

    stream: int
    code: int
    by_client: bool


@frozen
class Opened:
    """The window of a stream is larger; 0 for that of the connection, None for all."""

    stream: int | None


@frozen
class Leaving:
    """The client begins no more requests."""


@frozen
class Answered:
    """The client answered a PING."""

    data: bytes


#: Any of them.
Event: TypeAlias = Requested | Came | Trailed | Reset | Opened | Leaving | Answered
