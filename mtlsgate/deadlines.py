"""
A heap of deadlines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")

#: A heap below this size is not cleared of obsolete entries.
_FEW = 1024


class Deadlines(Generic[T]):
    """
    A heap of things, ordered by the time they are due, on any clock.

    :ivar _heap: the entries.  A number between time and thing makes sure that
        things are never compared.
    """

    def __init__(self, matters: Callable[[T], bool]) -> None:
        """
        :param matters: tells whether a thing still matters.  Obsolete things are
            dropped from time to time, so that they never are more than half.
        """
        self._matters = matters
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = count()
        self._bound = _FEW

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """The things that still matter, in no order."""
        return (thing for _, _, thing in self._heap if self._matters(thing))

    @property
    def next(self) -> float | None:
        """When the first thing that still matters is due, or None."""
        while self._heap and not self._matters(self._heap[0][2]):
            heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def add(self, at: float, thing: T) -> None:
        """Add a thing that is due at that time."""
        heappush(self._heap, (at, next(self._numbers), thing))
        if len(self._heap) > self._bound:
            self._heap = [entry for entry in self._heap if self._matters(entry[2])]
            heapify(self._heap)
            self._bound = max(_FEW, 2 * len(self._heap))

    def due(self, now: float) -> Iterator[T]:
        """:returns: the things that are due and still matter, each once.  This
        includes things that are added meanwhile and already due."""
        while self._heap and self._heap[0][0] <= now:
            _, _, thing = heappop(self._heap)
            if self._matters(thing):
                yield thing
