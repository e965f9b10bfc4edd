"""
A connection's entry in `Connections`.
"""

from __future__ import annotations

from typing import Protocol

import attrs
from twisted.internet.interfaces import IDelayedCall

from mtlsgate.admission import Path
from mtlsgate.gate.events import Admission, AdmittedConnection, Arrival, Closing
from mtlsgate.gate.terms import Terms


class Endable(Protocol):
    """The part of a connection that `Connections` uses."""

    @property
    def traffic(self) -> tuple[int, int]:
        """How many bytes the client has sent to the application, and got from it."""

    def presented(self) -> Path:
        """:returns: the certificates that the client sent, its leaf first, as far as is
        known; empty if it sent none."""

    def abortConnection(self) -> None:
        """End the connection at once."""


@attrs.define(eq=False)
class Entry:
    """
    What `Connections` knows about one connection.  Only it changes it;
    others read it as a `LiveConnection`.

    :ivar arrival: where and when it came.
    :ivar server: the server's name; the listener's name while the server is not
        known.
    :ivar terms: its terms.
    :ivar source: the source that limits count it by, or None.
    :ivar connection: the connection; None before it is attached and after its end.
    :ivar admission: why it was admitted; None before that.
    :ivar closing: why the gate is ending it, or None.
    :ivar ended: whether it is over.
    :ivar reprieve: a timer that ends it when its grace period is over, or None.
    :ivar generation: counts changes of its terms; appointments made under earlier
        terms are void.
    :ivar last_traffic: the byte count at the last check, and since when it is so.
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
        Since when no byte has come or gone, in the clock's seconds; None if the
        terms have no idle timeout.
        """
        if self.admission is None or self.terms.idle_timeout is None:
            return None
        return self.last_traffic[1]

    @property
    def identity(self) -> bytes | None:
        """The identity that limits count it by, or None."""
        return None if self.admission is None else self.admission.identity

    def as_admitted(self, admission: Admission) -> AdmittedConnection:
        """:returns: the event for observers."""
        return AdmittedConnection(
            arrival=self.arrival,
            server=self.server,
            admission=admission,
            is_logged=self.terms.log_admitted,
            presented=self.presented,
        )

    def presented(self) -> Path:
        """:returns: the certificates that the client sent, see `Endable.presented`."""
        return () if self.connection is None else self.connection.presented()
