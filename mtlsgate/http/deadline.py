"""
A time limit that is put off often and rarely runs out.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mtlsgate.http.next_turn import nothing


class Deadline:
    """
    Calls a function when a time is over, unless it is put off before.

    Putting it off costs no timer: the one that there is looks again when it comes.

    :ivar _due: when the time is over, in the clock's seconds, or None.
    :ivar _timer: looks whether it is.
    """

    def __init__(self, clock: IReactorTime, late: Callable[[], object]) -> None:
        """
        :param late: is called once, when the time is over.
        """
        self._clock = clock
        self._late = late
        self._due: float | None = None
        self._timer: IDelayedCall | None = None

    @property
    def left(self) -> float | None:
        """Seconds until the time is over; None if there is none."""
        return None if self._due is None else self._due - self._clock.seconds()

    def within(self, seconds: float | None) -> None:
        """:param seconds: from now on; None for no limit."""
        if seconds is None:
            self._due = None
            return
        self._due = self._clock.seconds() + seconds
        if self._timer is None:
            self._timer = self._clock.callLater(seconds, self._look)
        elif self._timer.getTime() > self._due:
            self._timer.reset(seconds)

    def cancel(self) -> None:
        """There is no limit any more, and no timer."""
        self._due = None
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def end(self) -> None:
        """There will be no limit any more, and nothing is kept of whom it was for: the two
        would be a reference cycle."""
        self.cancel()
        self._late = nothing

    def _look(self) -> None:
        self._timer = None
        left = self.left
        if left is None:
            return
        if left > 0:
            self._timer = self._clock.callLater(left, self._look)
        else:
            self._due = None
            self._late()
