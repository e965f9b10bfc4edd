"""
Which file below a directory a URL means, and whether it may be seen.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from attrs import frozen

#: Where Linux tells what was opened.
DESCRIPTORS = "/proc/self/fd"


class NotThere(Exception):
    """
    There is no such file, or it may not be shown.

    :ivar status: what to answer.
    """

    def __init__(self, status: int) -> None:
        self.status = status


@frozen
class Opened:
    """
    An open file or directory.  The caller closes it.

    :ivar descriptor: of the operating system.
    :ivar status: what it was when it was opened.
    """

    descriptor: int
    status: os.stat_result

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.status.st_mode)

    def close(self) -> None:
        """Close it."""
        os.close(self.descriptor)


@frozen
class Directory:
    """
    What is below a directory.  Symbolic links are followed, as long as what they lead to is
    in it.

    :ivar path: of the directory; it may be a link that is switched at any time.
    :ivar dot_files: whether there are names that begin with a dot.
    """

    path: str
    dot_files: bool = False

    def names(self, segments: Sequence[bytes]) -> list[str]:
        """
        :param segments: of a URL's path, decoded.
        :returns: the names in it; the last is empty for a directory.  Empty segments before
            that mean nothing, as with nginx.
        :raises NotThere: if one of them is no name that could be there.
        """
        *above, last = segments or [b""]
        names = [self.name(one) for one in above if one]
        return [*names, self.name(last) if last else ""]

    def name(self, segment: bytes) -> str:
        """:raises NotThere: if it is no name that could be there."""
        try:
            name = segment.decode("utf-8")
        except UnicodeDecodeError:
            raise NotThere(404) from None
        hidden = name.startswith(".") and not self.dot_files
        if name in ("", ".", "..") or "/" in name or "\0" in name or hidden:
            raise NotThere(404)
        return name

    def open(self, names: Sequence[str]) -> Opened:
        """
        :param names: from the directory on.
        :returns: what is there, which is in the directory.
        :raises NotThere: if there is nothing, or nothing that may be seen.
        """
        root = _real(self.path)
        return _open(root, os.path.join(root, *names))

    def visible(self, names: Sequence[str]) -> Iterator[str]:
        """Yield the names in a directory that could be asked for, sorted."""
        root = _real(self.path)
        directory = os.path.join(root, *names)
        try:
            found = sorted(os.listdir(directory))
        except OSError:
            raise NotThere(404) from None
        for name in found:
            try:
                real = os.path.realpath(os.path.join(directory, self.name(name.encode())))
                mode = os.stat(real).st_mode
            except (NotThere, OSError, UnicodeEncodeError):
                continue
            if _inside(root, real) and (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                yield name


def _open(root: str, path: str) -> Opened:
    try:
        # Only to name what is there: this opens no device and waits for no writer of a FIFO.
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        raise NotThere(404) from None
    try:
        # What is asked is what was opened, whatever became of the path since.
        opened = f"{DESCRIPTORS}/{place}"
        status = os.fstat(place)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR) or not _inside(root, os.readlink(opened)):
            raise NotThere(404)
        return Opened(os.open(opened, os.O_RDONLY | os.O_CLOEXEC), status)
    except PermissionError:
        raise NotThere(403) from None
    except OSError:
        raise NotThere(404) from None
    finally:
        os.close(place)


def _real(path: str) -> str:
    """:returns: where a directory is, without symbolic links."""
    try:
        place = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        raise NotThere(404) from None
    try:
        return os.readlink(f"{DESCRIPTORS}/{place}")
    finally:
        os.close(place)


def _inside(root: str, real: str) -> bool:
    return real == root or real.startswith(root.rstrip("/") + "/")
