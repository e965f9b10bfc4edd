"""
A file to which lines are appended while the gate runs.

Writing neither raises nor waits. A line that cannot be written is lost and counted.
The log says so once, and the file itself as soon as a line can be written again.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from twisted.logger import Logger

from mtlsgate.observe.owner import NOBODY_ELSE, Owner, make_for
from mtlsgate.text import printable

_log = Logger("mtlsgate.audit")

#: The mode of a new file; an existing file keeps its mode.
MODE = 0o600

#: O_APPEND, so that lines of several writers do not overwrite each other;
#: O_NONBLOCK, so that a pipe that nobody reads is an error and not a wait;
#: O_NOFOLLOW, so that nobody redirects the name to another file.
_FLAGS = (
    os.O_WRONLY
    | os.O_APPEND
    | os.O_CREAT
    | os.O_CLOEXEC
    | os.O_NOCTTY
    | os.O_NONBLOCK
    | os.O_NOFOLLOW
)

#: Seconds between two checks whether the file was removed.
_EVERY = 1.0

#: These names are links, but to the process's own output.
_STANDARD = {Path("/dev/stdout"): 1, Path("/dev/stderr"): 2}


class LogFile:
    """
    An open file.

    :ivar path: where.
    :ivar lost: how many lines could not be written.
    :ivar _descriptor: of the open file; None once it is closed.
    :ivar _rest: the end of a line of which the file has the beginning.
    :ivar _missing: how many lines were lost since the last one written.
    :ivar _lost_before: the value of `lost` when the trouble began.
    :ivar _unwritable: whether writing failed, and the log says so.
    :ivar _unopened: whether reopening failed, and the log says so.
    :ivar _removed: whether the file was removed and cannot be created again.
    :ivar _looked: when that was last checked, in seconds.
    """

    def __init__(
        self,
        path: Path,
        gap: Callable[[int], bytes],
        owner: Owner = NOBODY_ELSE,
        write: Callable[[int, bytes], int] = os.write,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param gap: makes the line that says how many lines are missing.
        :param owner: owns the file if it is created.
        :param write: as `os.write`.
        :param seconds: a clock.
        :raises OSError: if it cannot be opened.
        :raises ValueError: if no file can have that name.
        """
        self.path = path
        self.lost = 0
        self._gap = gap
        self._write = write
        self._seconds = seconds
        self._descriptor: int | None = _open(path, owner)
        self._rest = b""
        self._missing = self._lost_before = 0
        self._unwritable = self._unopened = self._removed = False
        self._looked = seconds()

    @property
    def is_failing(self) -> bool:
        """Whether the file cannot be written, or cannot be reopened."""
        return self._unwritable or self._unopened

    def write(self, line: bytes) -> None:
        """Append a line. If that fails, count it as lost."""
        if self._descriptor is None:
            return
        if not self._is_there(self._descriptor):
            self._lose()
            return
        if self._missing and self._append(self._descriptor, self._gap(self._missing)):
            self._missing = 0
        if self._missing or not self._append(self._descriptor, line):
            self._lose()
        elif self._unwritable and not self._rest:
            self._unwritable = False
            _log.info(
                "the audit log {path} is written again; {lost} lines are missing",
                path=printable(str(self.path)),
                lost=self.lost - self._lost_before,
            )

    def _append(self, descriptor: int, line: bytes) -> bool:
        """:returns: whether the line is in the file, or its beginning is: then the rest
        is written next."""
        data, written = self._rest + line, 0
        try:
            while written < len(data):
                count = self._write(descriptor, data[written:])
                if count == 0:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))
                written += count
        except OSError as error:
            begun = written > len(self._rest)
            self._rest = data[written:] if begun else data[written : len(self._rest)]
            self._say_unwritable(error)
            return begun
        self._rest = b""
        return True

    def _lose(self) -> None:
        self.lost += 1
        self._missing += 1

    def _say_unwritable(self, error: OSError) -> None:
        if self._unwritable:
            return
        self._unwritable = True
        self._lost_before = self.lost
        _log.error(
            "the audit log {path} cannot be written: {why}; connections continue, but "
            "their events are missing from it",
            path=printable(str(self.path)),
            why=error.strerror,
        )

    def _is_there(self, descriptor: int) -> bool:
        """Check now and then whether the file was removed; if so, create it again."""
        now = self._seconds()
        if now - self._looked >= _EVERY:
            self._looked = now
            if _is_removed(descriptor):
                self._removed = not self.reopen()
        return not self._removed

    def reopen(self) -> bool:
        """
        Open the file by its name again, as after it was renamed.

        :returns: whether that worked; if not, writing continues in the old file.
        """
        try:
            descriptor = _open(self.path)
        except OSError as error:
            if not self._unopened:
                self._unopened = True
                self._lost_before = self.lost
                _log.error(
                    "the audit log {path} cannot be opened again: {why}; it continues in the old "
                    "file while that is open",
                    path=printable(str(self.path)),
                    why=error.strerror,
                )
            return False
        self._leave(descriptor)
        self._descriptor = descriptor
        self._removed = False
        if self._unopened:
            self._unopened = False
            _log.info(
                "the audit log {path} is open again; {lost} lines are missing",
                path=printable(str(self.path)),
                lost=self.lost - self._lost_before,
            )
        return True

    def _leave(self, following: int | None) -> None:
        """:param following: the descriptor that replaces it, or None."""
        before, self._descriptor = self._descriptor, None
        if before is None:
            return
        if self._rest and (following is None or not os.path.sameopenfile(before, following)):
            try:
                self._write(before, self._rest)
            except OSError:
                # Only the beginning of that line remains.
                self._lose()
            self._rest = b""
        # An error here is of no use to anybody.
        with suppress(OSError):
            os.close(before)

    def close(self) -> None:
        """Close the file."""
        self._leave(None)


def _open(path: Path, owner: Owner = NOBODY_ELSE) -> int:
    if path in _STANDARD:
        return _open_standard(path)
    try:
        return make_for(owner, path, lambda: _open_or_make(path, owner))
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.ELOOP, "it is a symbolic link, which is not followed") from error
        raise


def _open_standard(path: Path) -> int:
    try:
        # A descriptor of its own, so that only its writes do not wait for a reader.
        return os.open(path, _FLAGS & ~(os.O_NOFOLLOW | os.O_CREAT))
    except OSError:
        # It is a socket, as under systemd, or belongs to another user.
        return os.dup(_STANDARD[path])


def _open_or_make(path: Path, owner: Owner) -> int:
    try:
        descriptor = os.open(path, _FLAGS | os.O_EXCL, MODE)
    except FileExistsError:
        return os.open(path, _FLAGS, MODE)
    if owner != NOBODY_ELSE:
        try:
            os.fchown(descriptor, *owner)
        except OSError:
            os.close(descriptor)
            raise
    return descriptor


def _is_removed(descriptor: int) -> bool:
    try:
        return os.fstat(descriptor).st_nlink == 0
    except OSError:
        # A network file system may report a removed file like this.
        return True
