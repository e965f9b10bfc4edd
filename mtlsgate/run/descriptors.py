"""
File descriptors: to stop accepting before they run out.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.logger import Logger

_log = Logger("mtlsgate.descriptors")

#: How many are kept for everything but clients' connections, at most: targets,
#: files of a reload, logs, and what one turn of the reactor accepts.
_RESERVE = 256
#: Connections between two looks; few against a quarter of the least limit.
_EVERY = 8


def lowest_free() -> int | None:
    """:returns: the lowest descriptor that is free; None if there is none left."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    os.close(descriptor)
    return descriptor


class Pausable(Protocol):
    """What accepts connections."""

    def pause(self) -> None:
        """Accept none for a while."""

    def resume(self) -> None:
        """Accept connections again."""


class Descriptors:
    """
    Pauses listeners while descriptors are scarce.

    A new descriptor is always the lowest free one, so its number tells how many
    are in use.

    :ivar is_scarce: whether listeners are paused.
    """

    def __init__(
        self,
        listeners: Callable[[], Iterable[Pausable]],
        next_one: Callable[[], int | None] = lowest_free,
        limit: int | None = None,
    ) -> None:
        """
        :param listeners: what to pause.
        :param next_one: tells the lowest free descriptor.
        :param limit: how many there may be; by default the process's soft limit.
        """
        self.is_scarce = False
        self._accepted = 0
        self._listeners = listeners
        self._next_one = next_one
        if limit is None:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._enough = limit - min(_RESERVE, limit // 4)

    def accepted(self) -> None:
        """A connection was accepted: look now and then."""
        self._accepted += 1
        if self._accepted % _EVERY == 0:
            self.look()

    def exhausted(self) -> None:
        """A connection could not be accepted: pause until the next look."""
        if not self.is_scarce:
            self._turn(True, None)

    def opened(self, listener: Pausable) -> None:
        """Let another listener wait, too, if the others do."""
        if self.is_scarce:
            listener.pause()

    def look(self) -> None:
        """Pause or resume the listeners; to be called now and then, too."""
        free = self._next_one()
        is_scarce = free is None or free >= self._enough
        if is_scarce != self.is_scarce:
            self._turn(is_scarce, free)

    def _turn(self, is_scarce: bool, free: int | None) -> None:
        self.is_scarce = is_scarce
        for listener in self._listeners():
            if is_scarce:
                listener.pause()
            else:
                listener.resume()
        if is_scarce:
            _log.warn(
                "{count} file descriptors are in use: no connection is accepted until some end; "
                "raise the limit (LimitNOFILE, ulimit -n) or set max_connections",
                count="all" if free is None else free,
            )
        else:
            _log.info("file descriptors are there again: connections are accepted")
