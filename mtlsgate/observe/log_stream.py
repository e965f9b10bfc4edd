"""
Where the lines of the log go: a standard stream, a device, or a file that is rotated.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

from attrs import define, field, frozen
from twisted.logger import Logger

from mtlsgate.observe.owner import NOBODY_ELSE, Owner, make_for
from mtlsgate.text import printable

_log = Logger("mtlsgate.log")

#: The mode of a new file: of its group, who may collect it.
MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY


class LogStream(Protocol):
    """What lines are written to."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The names of files that it opens again, or renames."""

    def write(self, text: str, /) -> object:
        """
        Write lines.

        :raises OSError: if that is not possible.
        """

    def rotate(self) -> object:
        """Go on in a new file."""

    def close_unless_in(self, other: LogStream, /) -> object:
        """Close it, unless another stream uses it, too."""


@frozen(eq=False)
class PlainStream:
    """
    A standard stream, a pipe or a device: written to, and never moved away.

    :ivar _is_own: whether nobody else writes to it, so that it may be closed.
    """

    _stream: TextIO
    _is_own: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """None: it stays open."""
        return ()

    def write(self, text: str, /) -> None:
        """:raises OSError: if the text cannot be written."""
        self._stream.write(text)
        self._stream.flush()

    def rotate(self) -> None:
        """There is no new one."""

    def close_unless_in(self, other: LogStream, /) -> None:
        """Close it, if it is not a standard stream."""
        if self._is_own and other is not self:
            self._stream.close()


@define(eq=False)
class OpenFile:
    """
    An open log file.

    :ivar path: its name.
    :ivar size: of the file, in bytes.
    :ivar _descriptor: of the file.
    :ivar _is_broken: whether the last line in it is incomplete.
    """

    path: Path
    _descriptor: int
    size: int
    _is_broken: bool = False

    @classmethod
    def open(cls, path: Path, owner: Owner = NOBODY_ELSE) -> OpenFile:
        """
        :param owner: owns the file if it is created.
        :raises OSError: if it cannot be opened.
        """
        descriptor = make_for(owner, path, lambda: _open_or_make(path, owner))
        return cls(path, descriptor, os.fstat(descriptor).st_size)

    def append(self, data: bytes) -> None:
        """:raises OSError: if not all of it can be written."""
        if self._is_broken:
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        finally:
            self.size += written
            if written:
                self._is_broken = written < len(data)

    @property
    def has_its_name(self) -> bool:
        """Whether the file can still be found by its name."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), os.stat(self.path))
        except OSError:
            return False

    def reopen(self) -> None:
        """
        Go on in the file that has the name now; make one if there is none.

        :raises OSError: if it cannot be opened; then nothing has changed.
        """
        descriptor = _open_or_make(self.path, NOBODY_ELSE)
        before, self._descriptor = self._descriptor, descriptor
        self.size, self._is_broken = os.fstat(descriptor).st_size, False
        os.close(before)

    def close(self) -> None:
        """Close it."""
        # An error here is of no use to anybody.
        with suppress(OSError):
            os.close(self._descriptor)


@define(eq=False)
class RotatedFile:
    """
    A file that is renamed when it has grown, as ``x.log.1``; the others move on by one.

    :ivar file: the open file.
    :ivar _max_size: bytes after which it is renamed; 0 for never.
    :ivar _keep: how many of the renamed files are kept.
    :ivar _wanted: the size at which to rotate next; more than `_max_size` after that
        failed.
    """

    file: OpenFile
    _max_size: int
    _keep: int
    _wanted: int = field(init=False)

    @_wanted.default
    def _first_wanted(self) -> int:
        return self._max_size

    @property
    def files(self) -> tuple[Path, ...]:
        """The file; the others are beside it."""
        return (self.file.path,)

    def write(self, text: str, /) -> None:
        """:raises OSError: if the lines cannot be written."""
        data = text.encode(errors="backslashreplace")
        if self._max_size and self.file.size and self.file.size + len(data) > self._wanted:
            self._rotate_by_size()
        self.file.append(data)

    def _rotate_by_size(self) -> None:
        # Whether or not it works: not to try again with every line.
        self._wanted = self.file.size + self._max_size
        if self._rotated():
            self._wanted = self._max_size

    def rotate(self) -> None:
        """
        Go on in a new file.  If somebody else has renamed or removed this one already, as
        logrotate does, only that; else rename it.
        """
        self._rotated()

    def _rotated(self) -> bool:
        try:
            if self.file.has_its_name:
                self._move_on()
            self.file.reopen()
        except OSError as error:
            _log.error(
                "the log {path} cannot be rotated: {why}; it continues in the open file",
                path=printable(str(self.file.path)),
                why=error.strerror,
            )
            return False
        return True

    def _move_on(self) -> None:
        """:raises OSError: if the file cannot be renamed."""
        path = self.file.path
        names = [path, *(Path(f"{path}.{number}") for number in range(1, self._keep + 1))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            with suppress(FileNotFoundError):
                newer.rename(older)

    def close_unless_in(self, other: LogStream, /) -> None:
        """Close the file, unless another stream has it."""
        if not (isinstance(other, RotatedFile) and other.file is self.file):
            self.file.close()


def _open_or_make(path: Path, owner: Owner) -> int:
    try:
        descriptor = os.open(path, _FLAGS | os.O_EXCL, MODE)
    except FileExistsError:
        return os.open(path, _FLAGS, MODE)
    try:
        # Whatever the umask says: a daemon's is 077.
        os.fchmod(descriptor, MODE)
        if owner != NOBODY_ELSE:
            os.fchown(descriptor, *owner)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
