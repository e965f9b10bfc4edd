"""
What a `mtlsgate.http2.wire.Wire` reads.
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
class Responded:
    """A response's header fields came; interim ones say that another response follows."""

    stream: int
    fields: Sequence[Line]
    ended: bool


@frozen
class Began:
    """The target's first settings came: it speaks HTTP/2."""


@frozen
class Came:
    """A piece of a message's body came."""

    stream: int
    data: bytes
    ended: bool


@frozen
class Trailed:
    """A message's trailer fields came; it is complete."""

    stream: int
    fields: Sequence[Line]


@frozen
class Reset:
    """A stream is over before its time."""

    stream: int
    code: int
    by_other: bool


@frozen
class Opened:
    """The window of a stream is larger; 0 for that of the connection, None for all."""

    stream: int | None


@frozen
class Leaving:
    """
    The other end wants no more streams.

    :ivar last: the highest that it looked at.
    :ivar code: why.
    """

    last: int
    code: int


@frozen
class Answered:
    """The other end answered a PING."""

    data: bytes


#: Any of them.
Event: TypeAlias = (
    Requested | Responded | Began | Came | Trailed | Reset | Opened | Leaving | Answered
)
