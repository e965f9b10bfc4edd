"""
What is to be looked at again, and when.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")

#: Below this size, entries of no more interest are not worth clearing out.
_FEW = 1024


class Deadlines(Generic[T]):
    """
    A heap of things by the time they are due, on whatever clock.

    :ivar _heap: with a number in between, so that equal times never compare
        things.
    """

    def __init__(self, matters: Callable[[T], bool]) -> None:
        """
        :param matters: whether a thing is still of interest.  Those that are not are
            dropped now and then, so that at most half of what is kept is of no interest.
        """
        self._matters = matters
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = count()
        self._bound = _FEW

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """What still matters, in no order."""
        return (thing for _, _, thing in self._heap if self._matters(thing))

    @property
    def next(self) -> float | None:
        """When the first thing that still matters is due, or None."""
        while self._heap and not self._matters(self._heap[0][2]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def add(self, at: float, thing: T) -> None:
        """Note that a thing is due at that time."""
        heappush(self._heap, (at, next(self._numbers), thing))
        if len(self._heap) > self._bound:
            self._heap = [entry for entry in self._heap if self._matters(entry[2])]
            heapify(self._heap)
            self._bound = max(_FEW, 2 * len(self._heap))

    def due(self, now: float) -> Iterator[T]:
        """:returns: what is due and still matters; each is given once.  What
        is added meanwhile and is due, too, is given in the same turn."""
        while self._heap and self._heap[0][0] <= now:
            _, _, thing = heappop(self._heap)
            if self._matters(thing):
                yield thing
