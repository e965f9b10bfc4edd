"""
How a server says that it wants no more requests (RFC 9113, 6.8).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mtlsgate.http.next_turn import nothing
from mtlsgate.http2.session import LAST_CALL, Session

#: Seconds for a client to learn it, if it does not say so.
_PATIENCE = 1.0


class Farewell:
    """
    Two GOAWAY frames.  The first says that no more requests are wanted, the second which was the
    last: between them the client may send what it had begun, and loses none of it.

    :ivar is_over: whether requests that come now are refused.
    :ivar _begun: whether the client was told.
    :ivar _timer: ends the time between the two.
    """

    def __init__(
        self,
        session: Session,
        clock: IReactorTime,
        flush: Callable[[], object],
        over: Callable[[], object],
    ) -> None:
        """
        :param flush: sends what the session has to send.
        :param over: is called when requests that come are refused.
        """
        self._session = session
        self._clock = clock
        self._flush = flush
        self._over = over
        self._begun = False
        self._timer: IDelayedCall | None = None
        self.is_over = False

    def begin(self) -> None:
        """Send the first, unless one of both sides did."""
        if not self._begun:
            self._begun = True
            self._session.announce()
            self._flush()
            self._timer = self._clock.callLater(_PATIENCE, self._end)

    def answered(self, data: bytes) -> None:
        """The client answered a PING: it has read what came before."""
        if data == LAST_CALL and self._timer is not None:
            self._timer.cancel()
            self._end()

    def _end(self) -> None:
        self._timer = None
        self._session.close()
        self._flush()
        self.is_over = True
        self._over()

    def by_client(self) -> None:
        """The client says that it sends no more requests."""
        self._begun = self.is_over = True

    def stop(self) -> None:
        """The connection is over: keep nothing of it."""
        self._begun = True
        self._flush = self._over = nothing
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
