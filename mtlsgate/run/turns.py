"""
Doing what takes long in the reactor's thread, a bit in each of its turns.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Cooperator

T = TypeVar("T")


def in_turns(
    clock: IReactorTime, tasks: Iterable[Generator[None, None, T]]
) -> Deferred[tuple[T, ...]]:
    """
    :param tasks: done one after another; each step is short.
    :returns: fires with what they return.
    """
    found: list[T] = []

    def steps() -> Iterator[None]:
        for task in tasks:
            found.append((yield from task))

    cooperator = Cooperator(scheduler=partial(clock.callLater, 0))
    done: Deferred[Iterator[None]] = cooperator.coiterate(steps())
    return done.addCallback(lambda _: tuple(found))
