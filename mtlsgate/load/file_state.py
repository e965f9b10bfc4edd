"""
The state of a file, by which a change is noticed.
"""

from __future__ import annotations

import os
from pathlib import Path

#: Tells one state of a file or directory from another; None where there is none.
Stamp = tuple[int, int, int, int] | None


def stamp(path: Path) -> Stamp:
    """:returns: the state of what is there now."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
