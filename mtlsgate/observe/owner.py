"""
The user that the gate will be, while it is still root: whose files it makes, and
with whose powers.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: User and group by number; -1 leaves it as it is.
Owner = tuple[int, int]
NOBODY_ELSE: Owner = (-1, -1)
#: As the kernel has it.
_MAX_LINKS = 40


@contextmanager
def acting_as(owner: Owner) -> Iterator[None]:
    """
    Have that user's powers, and no others, for a while.

    The whole process does, so only before threads run.
    """
    uid, gid = owner
    if owner == NOBODY_ELSE or os.geteuid() != 0:
        yield
        return
    groups, own_gid = os.getgroups(), os.getegid()
    try:
        if gid != -1:
            os.setgroups(groups_of(uid, gid))
            os.setegid(gid)
        if uid != -1:
            os.seteuid(uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(own_gid)
        os.setgroups(groups)


def groups_of(uid: int, gid: int) -> list[int]:
    """:returns: all groups of a user whose first group is this."""
    try:
        name = pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return [gid]
    return os.getgrouplist(name, gid)


def make_for(owner: Owner, path: Path, make: Callable[[], T]) -> T:
    """
    Open or make a file with the powers of the user who will own it: a name in a
    directory of theirs may lead to a file that only root may touch.  Root's own
    powers are used only if the user cannot change where the name leads.

    :param path: of the file, absolute.
    :param make: opens or makes it.
    :raises OSError: as `make` does.
    """
    try:
        with acting_as(owner):
            return make()
    except PermissionError:
        if is_changeable_by(owner, path):
            raise
    return make()


def is_changeable_by(owner: Owner, path: Path) -> bool:
    """:returns: whether that user can change what an absolute path leads to."""
    try:
        steps = list(_steps(path))
    except OSError:
        # Too many links, and whatever else no name should be.
        return True
    with acting_as(owner):
        return any(_is_changeable(directory, entry, owner[0]) for directory, entry in steps)


def _steps(path: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """
    :returns: each directory in which a part of the path is looked up, and what is
        there by that part's name; links are followed.
    """
    here, todo = "/", list(path.parts[1:])
    links = _MAX_LINKS
    while todo:
        name = os.path.join(here, todo.pop(0))
        try:
            found = os.lstat(name)
        except (FileNotFoundError, NotADirectoryError):
            found = None
        yield here, found
        if found is None or not stat.S_ISLNK(found.st_mode):
            here = os.path.normpath(name)
            continue
        links -= 1
        if links < 0:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target = Path(os.readlink(name))
        todo[:0] = target.parts
        if target.is_absolute():
            here = "/"
            del todo[0]


def _is_changeable(directory: str, entry: os.stat_result | None, uid: int) -> bool:
    if not os.access(directory, os.W_OK, effective_ids=True):
        # Its owner could make it writable.
        return os.access(directory, os.X_OK, effective_ids=True) and _owner(directory) == uid
    found = os.stat(directory)
    is_sticky = found.st_mode & stat.S_ISVTX and found.st_uid != uid
    # In /tmp nobody moves what belongs to others.
    return not (is_sticky and entry is not None and entry.st_uid != uid)


def _owner(path: str) -> int:
    return os.stat(path).st_uid
