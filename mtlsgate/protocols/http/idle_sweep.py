"""
Closing connections to targets that no request has used for a time.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class IdleSweep:
    """
    Looks when the next connection may have been idle for too long, and not more often.

    :ivar _look: the next look, or None if no connection is idle.
    """

    def __init__(
        self,
        clock: IReactorTime,
        keep_for: float,
        close_old: Callable[[Callable[[float], bool]], float | None],
    ) -> None:
        """
        :param keep_for: how many seconds a connection may be idle.
        :param close_old: closes those of which the function that it gets says that they have
            been idle for too long since an instant; returns since when the next one is idle, or
            None if there is none.
        """
        self._clock = clock
        self._keep_for = keep_for
        self._close_old = close_old
        self._look: IDelayedCall | None = None

    def begin(self) -> None:
        """A connection is idle from now on."""
        if self._look is None:
            self._look = self._clock.callLater(self._keep_for, self._close)

    def _close(self) -> None:
        self._look = None
        now = self._clock.seconds()
        since = self._close_old(lambda since: since + self._keep_for <= now)
        if since is not None:
            again = max(0.0, since + self._keep_for - now)
            self._look = self._clock.callLater(again, self._close)

    def stop(self) -> None:
        """Look no more."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
