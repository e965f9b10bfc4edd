"""
A connection, as its streams see it.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime

from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.sides import HttpClient
from mtlsgate.http2.session import Session


class Carrier(Protocol):
    """What carries streams; each is known by its number."""

    session: Session
    client: HttpClient
    limits: HttpLimits
    clock: IReactorTime

    def flush(self) -> None:
        """Send what the session has to send."""

    def write_soon(self, number: int) -> None:
        """Let a stream write, when it is its turn."""

    def retire(self) -> None:
        """Take no more requests."""

    def over(self, number: int) -> None:
        """A stream is over."""
