"""
Lets a transport read, or not.
"""

from __future__ import annotations

from typing import Any


class Valve:
    """
    Tells a transport to read, or not to, each time that this changes.

    :ivar _open: whether it reads.
    """

    def __init__(self) -> None:
        self._open = True

    def turn(self, transport: Any, *, on: bool) -> None:
        """:param on: whether the transport is to read."""
        if on != self._open:
            self._open = on
            if on:
                transport.resumeProducing()
            else:
                transport.pauseProducing()
