"""
How the gate ends.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning


class Endable(Protocol):
    """What has connections."""

    @property
    def is_draining(self) -> bool:
        """Whether it accepts no more because it is ending."""

    def drain(self) -> Deferred[None]:
        """
        Accept no more connections, and let existing ones end.

        :returns: a Deferred that fires when all have ended.
        """

    def close_all(self) -> object:
        """End all connections at once."""


def end(connections: Endable, reactor: Any) -> None:
    """The first call lets connections end, and then stops the reactor; the second call
    ends them."""
    if connections.is_draining:
        connections.close_all()
        return

    def stop(_: object) -> None:
        # Somebody else may have stopped it meanwhile.
        with suppress(ReactorNotRunning):
            reactor.stop()

    connections.drain().addBoth(stop)
