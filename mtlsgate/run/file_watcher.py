"""
Notices that files have changed since they were read.

It looks at them every second. That works on every file system, for files that are
renamed into place, and for links that change their target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mtlsgate.load.disk import DISK, FileSource
from mtlsgate.load.file_state import Stamp
from mtlsgate.run.regular import RegularService
from mtlsgate.run.threads import InThread

_log = Logger("mtlsgate.watching")

#: How often to look, in seconds.
INTERVAL = 1.0


class FileWatcher(RegularService):
    """
    Calls a function when files have changed.

    :ivar _last: what was seen last.
    :ivar _tried: what was seen when the function was last called.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[Path, Stamp]],
        changed: Callable[[], object],
        reactor: IReactorTime,
        in_thread: InThread,
        source: FileSource = DISK,
    ) -> None:
        """
        :param read: tells which files the latest load read, and their state then;
            empty if nothing is to be watched.
        :param changed: called when a change has settled: when two looks in a row
            found the same.
        :param in_thread: where to look at the files.
        :param source: has the files.
        """
        super().__init__(INTERVAL, reactor, now=False)
        self._read = read
        self._changed = changed
        self._in_thread = in_thread
        self._source = source
        self._last: Mapping[Path, Stamp] = {}
        self._tried: Mapping[Path, Stamp] = {}

    def look(self) -> Deferred[None] | None:
        """Look at the files, in a thread."""
        paths = tuple(self._read())
        if not paths:
            return None
        return (
            self._in_thread(lambda: {path: self._source.stamp(path) for path in paths})
            .addCallback(self._compare)
            # Without this the loop would end.
            .addErrback(lambda failure: _log.failure("looking at files failed", failure))
        )

    def _compare(self, now: Mapping[Path, Stamp]) -> None:
        read = self._read()
        if not self.running or now.keys() != read.keys() or now in (read, self._tried):
            self._last = now
            return
        is_settled, self._last = now == self._last, now
        if is_settled:
            self._tried = now
            self._changed()
