"""
Tells whoever waits that something has happened.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mtlsgate.gate.events import AdmittedConnection, ClosedConnection, RejectedConnection, Reload

#: Seconds from an event to the answer.  Many events in a short time are one change.
GATHERED = 0.5


class Changes:
    """
    The observer that counts events, for those who want to know that there was one.

    :ivar number: how many events there were.
    :ivar _waiting: fire with the number, each with its end.
    :ivar _telling: the call that tells them.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: measures how long to wait."""
        self.number = 0
        self._clock = clock
        self._waiting: dict[Deferred[int], IDelayedCall] = {}
        self._telling: IDelayedCall | None = None

    def admitted(self, connection: AdmittedConnection) -> None:
        """A client was admitted."""
        self.happened()

    def rejected(self, connection: RejectedConnection) -> None:
        """A client was rejected."""
        self.happened()

    def closed(self, connection: ClosedConnection) -> None:
        """A connection is over."""
        self.happened()

    def reloaded(self, reload: Reload) -> None:
        """The configuration was reloaded, or the attempt failed."""
        self.happened()

    def happened(self) -> None:
        """Something has changed."""
        self.number += 1
        if self._waiting and self._telling is None:
            self._telling = self._clock.callLater(GATHERED, self._tell)

    def _tell(self) -> None:
        self._telling = None
        waiting, self._waiting = self._waiting, {}
        for one, end in waiting.items():
            end.cancel()
            one.callback(self.number)

    def after(self, number: int, seconds: float) -> Deferred[int]:
        """
        :param number: the number known so far.
        :param seconds: how long to wait at most.
        :returns: fires with the number when it is another one, or when the time is
            over.
        """
        if number != self.number:
            return succeed(self.number)
        found: Deferred[int] = Deferred()
        self._waiting[found] = self._clock.callLater(seconds, self._late, found)
        return found

    def _late(self, waiting: Deferred[int]) -> None:
        del self._waiting[waiting]
        waiting.callback(self.number)
