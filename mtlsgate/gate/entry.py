"""
One connection's line in the registry.
"""

from __future__ import annotations

from typing import Protocol

import attrs
from twisted.internet.interfaces import IDelayedCall

from mtlsgate.gate.events import Admission, AdmittedConnection, Arrival, Closing
from mtlsgate.gate.terms import Terms


class Endable(Protocol):
    """The connection itself, as far as the registry needs it."""

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the client sent to the application so far, and got from it."""

    def abortConnection(self) -> None:
        """End it at once."""


@attrs.define(eq=False)
class Entry:
    """
    What the registry knows of one connection.  Only the registry changes it;
    others read it, as a `LiveConnection`.

    :ivar arrival: what came.
    :ivar server: the server's name; where it is not known yet, the listener's.
    :ivar terms: what it is held to.
    :ivar source: what limits for each IP address count it by, or None.
    :ivar connection: the connection itself; None before it is attached, and
        after its end.
    :ivar admission: why it is in, or None while it is not.
    :ivar closing: that the gate ends it, or None.
    :ivar ended: whether it is over.
    :ivar reprieve: ends it when its grace is over, or None.
    :ivar generation: of the terms; what was noted under others is void.
    :ivar last_traffic: how many bytes there had been at the last look, and since when.
    """

    arrival: Arrival
    server: str
    terms: Terms
    source: str | None
    connection: Endable | None = None
    admission: Admission | None = None
    closing: Closing | None = None
    ended: bool = False
    reprieve: IDelayedCall | None = None
    generation: int = 0
    last_traffic: tuple[int, float] = (0, 0.0)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the client sent to the application so far, and got from it."""
        return (0, 0) if self.connection is None else self.connection.traffic

    @property
    def quiet_since(self) -> float | None:
        """
        Since when no byte is known to have come or gone, in the clock's
        seconds; None where nobody looks.
        """
        if self.admission is None or self.terms.idle_timeout is None:
            return None
        return self.last_traffic[1]

    @property
    def identity(self) -> bytes | None:
        """What limits for each identity count it by, or None."""
        return None if self.admission is None else self.admission.identity

    def as_admitted(self, admission: Admission) -> AdmittedConnection:
        """:returns: what observers get of it."""
        return AdmittedConnection(arrival=self.arrival, server=self.server, admission=admission)
