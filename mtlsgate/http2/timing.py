"""
How long a client may take with one stream.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from mtlsgate.http.deadline import Deadline
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.next_turn import nothing

#: Bytes that a client has to take before its time begins anew: byte by byte it could keep a
#: response, and a connection to a target, for ever.
PROGRESS = 16 * 1024
#: Seconds for a client to read the response to a request that it has not sent in full.
_LINGER = 2.0


class StreamTime:
    """
    Limits the time for the next piece of a body, or to take something of a response.

    :ivar is_stalled: whether it is the latter.
    :ivar _taken: how much the client took in this time.
    """

    def __init__(self, limits: HttpLimits, clock: IReactorTime, late: Callable[[], object]) -> None:
        """:param late: is called when the time is over."""
        self._limits = limits
        self._clock = clock
        self._late = late
        self._deadline: Deadline | None = None
        self.is_stalled = False
        self._taken = 0

    def wait_for_body(self, waits: bool) -> None:
        """:param waits: whether the client has to send something; its time begins anew."""
        if self.is_stalled:
            return
        if waits:
            self._limit(self._limits.body_timeout)
        elif self._deadline is not None:
            self._deadline.within(None)

    def stall(self) -> None:
        """The client has to take something."""
        if not self.is_stalled:
            self.is_stalled, self._taken = True, 0
            self._limit(self._limits.send_timeout)

    def linger(self) -> None:
        """The client has to end its request, or the stream."""
        self._limit(_LINGER)

    def took(self, size: int) -> bool:
        """:returns: whether the client took enough to be given more time."""
        self._taken += size
        return self._taken >= PROGRESS

    def go_on(self) -> None:
        """It does not have to any more."""
        self.is_stalled = False

    def _limit(self, seconds: float) -> None:
        # Most streams need none.
        if self._deadline is None:
            self._deadline = Deadline(self._clock, self._late)
        self._deadline.within(seconds)

    def cancel(self) -> None:
        """The stream is over: keep nothing of it."""
        self._late = nothing
        if self._deadline is not None:
            self._deadline.end()
