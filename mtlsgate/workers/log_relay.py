"""
Hands on what a worker logs, line by line.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure


class LogRelay(Factory):
    """Hands on what a worker logs."""

    noisy = False

    def __init__(self, relay: Callable[[str], object]) -> None:
        self._relay = relay

    def buildProtocol(self, _: object) -> Protocol:
        """:returns: what hands on whole lines."""
        return _Lines(self._relay)


_CLOSED = Failure(ConnectionDone())
#: Bytes; the rest of a longer line is another one.
_LONGEST_LINE = 2**20


@define(eq=False)
class _Lines(Protocol):
    """
    :ivar _relay: gets whole lines.
    :ivar _rest: the beginning of the next line.
    """

    _relay: Callable[[str], object]
    _rest: bytearray = field(factory=bytearray)

    def dataReceived(self, data: bytes) -> None:
        """Hand on the lines that are complete."""
        self._rest += data
        end = self._rest.rfind(b"\n") + 1
        if not end and len(self._rest) > _LONGEST_LINE:
            end = len(self._rest)
        if end:
            lines = bytes(self._rest[:end])
            del self._rest[:end]
            self._relay(lines.decode(errors="backslashreplace"))

    def connectionLost(self, reason: Failure = _CLOSED) -> None:
        """Hand on the rest, too."""
        if self._rest:
            self._relay(f"{self._rest.decode(errors='backslashreplace')}\n")
