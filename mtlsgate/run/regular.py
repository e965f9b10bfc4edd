"""
A service that looks at something regularly.
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall


class RegularService(Service):
    """Calls `look` while it runs."""

    def __init__(self, interval: float, reactor: Any, *, now: bool = True) -> None:
        """
        :param interval: the seconds from one look to the next.
        :param now: whether the first look is at the start.
        """
        self._interval = interval
        self._begins_now = now
        self._looking = LoopingCall(self.look)
        self._looking.clock = reactor

    def look(self) -> object:
        """Look once.  A Deferred keeps the next look waiting."""
        raise NotImplementedError

    def startService(self) -> None:
        """Look from now on."""
        super().startService()
        self._looking.start(self._interval, now=self._begins_now)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
