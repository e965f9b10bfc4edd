"""
What an asyncio transport needs of the gate's connection, and what it checks of what its
protocol asks for.
"""

from __future__ import annotations

from typing import Protocol

#: When this much waits to be encrypted, it goes out at once.
FLUSH_SIZE = 2**16
#: Seconds that a client may take to end a connection that was closed, as in asyncio.
CLOSE_TIMEOUT = 30.0
#: The default limits of the write buffer, as asyncio has them.
HIGH_WATER, LOW_WATER = 2**16, 2**14


class GateConnection(Protocol):
    """What the transport needs of the gate's connection."""

    unsent: int

    def write(self, data: bytes) -> None: ...
    def write_at_once(self, data: bytes) -> None: ...
    def keep_below(self, size: int) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def loseConnection(self) -> None: ...
    def loseWriteConnection(self) -> None: ...
    def abortConnection(self) -> None: ...


def buffer_limits(high: int | None, low: int | None) -> tuple[int, int]:
    """
    :returns: both limits of the write buffer, as asyncio makes them of those that are given.
    :raises ValueError: unless high is at least low, and low at least 0.
    """
    if high is None:
        high = HIGH_WATER if low is None else 4 * low
    if low is None:
        low = high // 4
    if not high >= low >= 0:
        raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
    return high, low


def as_bytes(data: object) -> bytes:
    """
    :returns: a copy of what is like bytes.
    :raises TypeError: if it is not.
    """
    if not isinstance(data, bytearray | memoryview):
        raise TypeError(f"data must be a bytes-like object, not {type(data).__name__}")
    return bytes(data)
