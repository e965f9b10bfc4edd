"""
Gives freed memory back to the system.

The C library keeps freed memory that lies between used memory.  A gate that once
had thousands of connections would stay as large as if it still had them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

#: How many connections must have ended before it pays: each takes about 40 KB.
_WORTH_WHILE = 256


def give_back() -> None:
    """Make the C library return free memory; only glibc needs that."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryTrim:
    """
    Gives memory back after a flood of connections.

    :ivar _most: the most connections there were since it last did.
    """

    def __init__(self, give_back: Callable[[], object] = give_back) -> None:
        self._give_back = give_back
        self._most = 0

    def look(self, connections: int) -> None:
        """
        Check whether it pays; to be called now and then.

        :param connections: how many there are.
        """
        self._most = max(self._most, connections)
        if connections <= self._most // 2 and self._most - connections >= _WORTH_WHILE:
            self._most = connections
            self._give_back()
