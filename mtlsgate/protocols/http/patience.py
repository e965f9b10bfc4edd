"""
How long nothing has moved, and when to look at it again.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Patience:
    """
    Calls a function after a while, and knows for how long nothing has moved by then.

    :ivar progress: when something last moved, in the clock's seconds.
    """

    def __init__(self, clock: IReactorTime, look: Callable[[], object], progress: float) -> None:
        """
        :param look: is called; it starts the next wait, if there is one.
        :param progress: as the attribute.
        """
        self.progress = progress
        self._clock = clock
        self._look = look
        self._timer: IDelayedCall | None = None

    def moved(self) -> None:
        """Something moves."""
        self.progress = self._clock.seconds()

    @property
    def waited(self) -> float:
        """For how many seconds nothing has moved."""
        return self._clock.seconds() - self.progress

    def start(self, seconds: float) -> None:
        """Call the function after that time."""
        self._timer = self._clock.callLater(seconds, self._over)

    def restart(self, seconds: float) -> None:
        """Call it after that time instead, if it is to be called."""
        if self._timer is not None:
            self._timer.reset(seconds)

    def stop(self) -> None:
        """Call it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._timer = None
        self._look()
