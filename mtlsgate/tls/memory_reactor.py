"""
A reactor that is run step by step, for connections whose other end is in the same
process.

It watches real sockets of a socket pair, as Twisted's reactors do.  But it never
waits, and it takes its time from a `Clock`.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorFDSet,
    IReadDescriptor,
    IWriteDescriptor,
)
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger()

_LOST = select.POLLHUP | select.POLLERR | select.POLLNVAL


@implementer(IReactorFDSet)
class MemoryReactor:
    """
    Watches descriptors and calls those that are ready in `turn`.
    """

    def __init__(self, clock: Clock) -> None:
        """:param clock: keeps the time."""
        self._clock = clock
        self._readers: set[Any] = set()
        self._writers: set[Any] = set()

    def addReader(self, reader: object) -> None:
        self._readers.add(reader)

    def removeReader(self, reader: object) -> None:
        self._readers.discard(reader)

    def addWriter(self, writer: object) -> None:
        self._writers.add(writer)

    def removeWriter(self, writer: object) -> None:
        self._writers.discard(writer)

    def removeAll(self) -> list[IReadDescriptor | IWriteDescriptor]:
        removed = list(self._readers | self._writers)
        self._readers.clear()
        self._writers.clear()
        return removed

    def getReaders(self) -> list[IReadDescriptor]:
        return list(self._readers)

    def getWriters(self) -> list[IWriteDescriptor]:
        return list(self._writers)

    def callLater(
        self, delay: float, function: Callable[..., object], *arguments: object
    ) -> IDelayedCall:
        return self._clock.callLater(delay, function, *arguments)

    def turn(self) -> bool:
        """
        Call each descriptor that is ready, once.

        :returns: whether any was ready.
        """
        watched = {one.fileno(): one for one in self._readers | self._writers}
        poll = select.poll()
        for descriptor, one in watched.items():
            wanted = select.POLLIN if one in self._readers else 0
            poll.register(descriptor, wanted | (select.POLLOUT if one in self._writers else 0))
        ready = poll.poll(0)
        for descriptor, events in ready:
            if watched[descriptor] in self._readers | self._writers:
                self._call(watched[descriptor], events)
        return bool(ready)

    def _call(self, one: Any, events: int) -> None:
        why: BaseException | None = None
        is_read = False
        if events & _LOST and not events & select.POLLIN:
            is_read = one in self._readers
            why = ConnectionDone() if is_read else ConnectionLost()
        else:
            try:
                if events & select.POLLIN:
                    why, is_read = one.doRead(), True
                if why is None and events & select.POLLOUT:
                    why, is_read = one.doWrite(), False
            except Exception as error:  # noqa: BLE001 -- as in a reactor: it costs this one
                _log.failure("Unhandled error in a descriptor")
                why = error
        if why is not None:
            self.removeReader(one)
            if is_read and isinstance(why, ConnectionDone):
                one.readConnectionLost(Failure(why))
            else:
                self.removeWriter(one)
                one.connectionLost(Failure(why))
