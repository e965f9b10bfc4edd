"""
File descriptors: to stop accepting before they run out.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterable

from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

_log = Logger("mtlsgate.descriptors")

#: How many are kept for everything but clients' connections, at most: targets,
#: files that are loaded anew, logs, and what one turn of the reactor accepts.
_RESERVE = 256
#: Connections between two looks; few against a quarter of the least limit.
_EVERY = 8


def lowest_free() -> int | None:
    """:returns: the descriptor that would be had next; None if there is none left."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    os.close(descriptor)
    return descriptor


class Descriptors:
    """
    Pauses ports while descriptors are scarce.

    Since the lowest free one is always had next, its number tells how many are
    in use.

    :ivar is_scarce: whether ports are paused.
    """

    def __init__(
        self,
        ports: Callable[[], Iterable[IListeningPort]],
        next_one: Callable[[], int | None] = lowest_free,
        limit: int | None = None,
    ) -> None:
        """
        :param ports: what to pause.
        :param next_one: tells the lowest free descriptor.
        :param limit: how many there may be; by default the process's soft limit.
        """
        self.is_scarce = False
        self._accepted = 0
        self._ports = ports
        self._next_one = next_one
        if limit is None:
            limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._enough = limit - min(_RESERVE, limit // 4)

    def accepted(self) -> None:
        """To be called for each connection: looks now and then."""
        self._accepted += 1
        if self._accepted % _EVERY == 0:
            self.look()

    def opened(self, port: IListeningPort) -> None:
        """Let another port wait, too, if the others do."""
        if self.is_scarce:
            _call(port, "stopReading")

    def look(self) -> None:
        """Pause or resume the ports; to be called now and then, too."""
        free = self._next_one()
        is_scarce = free is None or free >= self._enough
        if is_scarce == self.is_scarce:
            return
        self.is_scarce = is_scarce
        for port in self._ports():
            _call(port, "stopReading" if is_scarce else "startReading")
        if is_scarce:
            _log.warn(
                "{count} file descriptors are in use: no connection is accepted until some end; "
                "raise the limit (LimitNOFILE, ulimit -n) or set max_connections",
                count=free,
            )
        else:
            _log.info("file descriptors are there again: connections are accepted")


def _call(port: IListeningPort, name: str) -> None:
    # Which ports of sockets have, but not everything that an endpoint may make.
    method: Callable[[], object] | None = getattr(port, name, None)
    if method is not None:
        method()
