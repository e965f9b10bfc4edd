"""
The state of a file, by which a change is noticed; and how files are opened.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

#: Where the mode stands in a `Stamp`.
MODE = 5

#: Opens a file as `os.open` does: with the process's own powers, or with more.
Opener = Callable[[str, int], int]

#: Tells one state of a file or directory from another; None where there is none.
#: Who may read it is a part of it: a key that becomes readable is a change.
Stamp = tuple[int, ...] | None


def stamp(path: Path, opener: Opener = os.open) -> Stamp:
    """
    :param opener: for what is in a directory that must not be looked into.
    :returns: the state of what is there now.
    """
    try:
        return stamp_of(os.stat(path))
    except PermissionError:
        return _stamp_opened(path, opener)
    except (OSError, ValueError):
        return None


def is_directory(path: Path, opener: Opener = os.open) -> bool:
    """:returns: whether a directory is there, be the user allowed to look or not."""
    found = stamp(path, opener)
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
    """:returns: the state of a file that the system tells of; `MODE` is its mode's place."""
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
    :returns: what is in a directory, in the order of the names, so that every load
        reads the same.
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
