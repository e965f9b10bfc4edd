"""
Signals: the gate's answers to them.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any

from twisted.application.service import Service

Handler = Callable[[], object]


class SignalService(Service):
    """
    Calls functions in the reactor when signals arrive.

    :ivar _before: the handlers before.
    """

    def __init__(self, handlers: Mapping[signal.Signals, Handler], reactor: Any) -> None:
        """
        :param handlers: by signal.  What handled it before is called as well if
            that is a function and the signal is not one to end by.
        """
        self._handlers = handlers
        self._reactor: Any = reactor
        self._before: dict[signal.Signals, Any] = {}

    def privilegedStartService(self) -> None:
        """Install the handlers before anybody knows that the gate runs."""
        super().privilegedStartService()
        self._install()

    def startService(self) -> None:
        """Install them again after the reactor has installed its own."""
        super().startService()
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        for number in self._handlers:
            before = signal.signal(number, self._received)
            if before != self._received:
                self._before[number] = before

    def stopService(self) -> None:
        """Restore the handlers of before."""
        super().stopService()
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)

    def _received(self, number: int, frame: FrameType | None) -> None:
        caught = signal.Signals(number)
        self._reactor.callFromThread(self._handlers[caught])
        before = self._before.get(caught)
        if caught not in _ENDING and callable(before):
            before(number, frame)


_ENDING = (signal.SIGTERM, signal.SIGINT)
