"""
The state of a file, by which a change is noticed.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Tells one state of a file or directory from another; None where there is none.
#: Who may read it is a part of it: a key that becomes readable is a change.
Stamp = tuple[int, ...] | None


def stamp(path: Path) -> Stamp:
    """:returns: the state of what is there now."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
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
