"""
What the gate does on signals.
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
    Calls functions, in the reactor's own time, on signals.

    :ivar _before: what the signals did before.
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
        """Take the signals over before anybody knows that the gate is there."""
        super().privilegedStartService()
        self._install()

    def startService(self) -> None:
        """Take over again what the reactor takes when it begins to run."""
        super().startService()
        self._reactor.callWhenRunning(self._install)

    def _install(self) -> None:
        for number in self._handlers:
            before = signal.signal(number, self._received)
            if before != self._received:
                self._before[number] = before

    def stopService(self) -> None:
        """Give them back."""
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
