"""
The state of a file, to notice changes; and how files are opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

#: The index of the mode in a `Stamp`.
MODE = 5

#: Opens a file as `os.open` does, perhaps with more rights than the process has.
Opener = Callable[[str, int], int]

#: The state of a file or directory; None if it does not exist.  It includes who may
#: read it: when a key becomes readable, that is a change.
Stamp = tuple[int, ...] | None


def stamp(path: Path, opener: Opener = os.open) -> Stamp:
    """
    :param opener: used if this process must not look into the directory.
    :returns: the current state.
    """
    try:
        return stamp_of(os.stat(path))
    except PermissionError:
        return _stamp_opened(path, opener)
    except (OSError, ValueError):
        return None


def is_directory(found: Stamp) -> bool:
    """:returns: whether it is the state of a directory."""
    return found is not None and stat.S_ISDIR(found[MODE])


def _stamp_opened(path: Path, opener: Opener) -> Stamp:
    try:
        descriptor = opener(str(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        return stamp_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def stamp_of(found: os.stat_result) -> tuple[int, ...]:
    """:returns: the state in a stat result; `MODE` is the index of the mode."""
    return (
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_size,
        found.st_ino,
        found.st_dev,
        found.st_mode,
        found.st_uid,
        found.st_gid,
    )


def list_directory(path: Path, opener: Opener = os.open) -> list[Path]:
    """
    :returns: the paths in a directory, sorted by name, so that every load reads the
        same.
    :raises OSError: if it cannot be read.
    """
    try:
        names = os.listdir(path)
    except PermissionError:
        descriptor = opener(str(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            names = os.listdir(descriptor)
        finally:
            os.close(descriptor)
    return [path / name for name in sorted(names)]
