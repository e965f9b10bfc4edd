"""
Memory that is free again: giving it back to the system.

The C library keeps for itself what is freed among what is not.  A gate that
once had thousands of connections would be as large for ever as if it still
had them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

#: How many connections less make it worth while: each takes some 40 KB.
_WORTH_WHILE = 256


def give_back() -> None:
    """Have the C library return what is free; only glibc has to be told."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class MemoryTrim:
    """
    Gives memory back once a flood of connections is over.

    :ivar _most: how many connections there were, at most, since it last did.
    """

    def __init__(self, give_back: Callable[[], object] = give_back) -> None:
        self._give_back = give_back
        self._most = 0

    def look(self, connections: int) -> None:
        """
        To be called now and then.

        :param connections: how many there are.
        """
        self._most = max(self._most, connections)
        if connections <= self._most // 2 and self._most - connections >= _WORTH_WHILE:
            self._most = connections
            self._give_back()
