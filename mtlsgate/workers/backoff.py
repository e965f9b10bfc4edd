"""
How long to wait before another worker is started.
"""

from __future__ import annotations

from collections.abc import Callable

#: So many deaths in a row are answered at once; one is forgiven in so many seconds.
FREE, FORGIVEN_IN = 20.0, 5.0
#: A worker that never ran is worse than one that did.
_NEVER_RAN = 5.0
#: In seconds.
LONGEST = 30.0


class Backoff:
    """
    Counts deaths: a level rises with each and falls with time.

    :ivar is_looping: whether workers die too often to be replaced at once.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """:param seconds: a clock."""
        self.is_looping = False
        self._seconds = seconds
        self._level, self._since = 0.0, seconds()

    def died(self, *, had_run: bool) -> float:
        """
        :param had_run: whether the worker had taken connections.
        :returns: after how many seconds to start another.
        """
        now = self._seconds()
        passed = (now - self._since) / FORGIVEN_IN
        self._level = max(0.0, self._level - passed) + (1.0 if had_run else _NEVER_RAN)
        self._since = now
        self.is_looping = self._level > FREE
        return min(LONGEST, 2.0 ** (self._level - FREE)) if self.is_looping else 0.0

    def runs(self) -> None:
        """A worker takes connections."""
        self.is_looping = False
