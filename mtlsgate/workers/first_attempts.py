"""
Whether workers begin when the gate is started.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred


class FirstAttempts:
    """
    The first attempt of each worker to begin.

    :ivar over: fires with why a worker refuses to begin, as soon as one does: another one
        would, too.  Otherwise it fires with None when each has begun, or was lost.
    """

    def __init__(self, size: int) -> None:
        """:param size: how many workers there are."""
        self.over: Deferred[str | None] = Deferred()
        self._left = set(range(size))

    def awaits(self, index: int) -> bool:
        """:returns: whether this is a worker's first attempt."""
        return index in self._left

    def ended(self, index: int, refused: str | None = None) -> None:
        """:param refused: why the worker refuses, or None.  Of later attempts nothing follows."""
        self._left.discard(index)
        if not self.over.called and (refused is not None or not self._left):
            self.over.callback(refused)
