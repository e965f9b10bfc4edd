"""
Notices when the reactor is stalled, and what stalled it.

A heartbeat in the reactor is due every `INTERVAL`.  A thread looks whether it has come;
if it is late, the thread sees in which function the reactor is, and warns.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from threading import Event, Thread, main_thread
from types import FrameType
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mtlsgate.observe.counts import Durations

_log = Logger("mtlsgate.reactor")

#: Seconds between two heartbeats.
INTERVAL = 0.1
#: A heartbeat that is later than this, in seconds, is worth a warning.
LATE = 0.2
#: Seconds between two warnings.
BETWEEN_WARNINGS = 10.0
#: How many functions a warning names, the innermost first.
_FRAMES = 6
#: Modules in which the reactor waits for events.
_WAITING = ("twisted.internet.epollreactor", "twisted.internet.pollreactor", "selectors")


def reactor_frame() -> FrameType | None:
    """:returns: what the main thread, which runs the reactor, is in."""
    number = main_thread().ident
    return None if number is None else sys._current_frames().get(number)  # noqa: SLF001


class ReactorLag(Service):
    """
    Measures how late the reactor is.

    :ivar seconds: how late heartbeats were.
    :ivar _due: when the next heartbeat is due.
    :ivar _sampled: the heartbeat for which the thread has looked at the reactor.
    :ivar _told: the heartbeat that the thread has warned of.
    :ivar _warned: when the latest warning was logged; None before any.
    """

    def __init__(
        self,
        reactor: Any,
        clock: Callable[[], float] = time.monotonic,
        frame: Callable[[], FrameType | None] = reactor_frame,
    ) -> None:
        """
        :param clock: tells seconds, from any thread.
        :param frame: tells in which function the reactor is.
        """
        self.seconds = Durations()
        self._clock = clock
        self._frame = frame
        self._beating = LoopingCall(self.beat)
        self._beating.clock = reactor
        self._reactor = reactor
        self._due: float | None = None
        self._sampled: float | None = None
        self._warned: float | None = None
        self._told: float | None = None
        self._ended = Event()

    def startService(self) -> None:
        """Measure from now on."""
        super().startService()
        self._reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        if self.running:
            self._beating.start(INTERVAL)
            Thread(target=self._watch, name="mtlsgate-lag", daemon=True).start()

    def stopService(self) -> None:
        """Measure no more."""
        super().stopService()
        self._ended.set()
        if self._beating.running:
            self._beating.stop()

    def _watch(self) -> None:
        while not self._ended.wait(INTERVAL):
            self.look()

    def beat(self) -> None:
        """The reactor is in a turn."""
        now, due = self._clock(), self._due
        self._due = now + INTERVAL
        if due is None:
            return
        late = max(0.0, now - due)
        self.seconds.add(late)
        if late <= LATE:
            return
        if self._told == due:
            _log.info("the reactor goes on after {seconds:.2f} s", seconds=late)
        elif self._sampled != due and self._may_warn(now):
            # The thread could not look either: it needs the interpreter's lock, too.
            _log.warn(
                "the reactor was stalled for {seconds:.2f} s, and no thread could look: the "
                "process was stopped, or a library held the interpreter",
                seconds=late,
            )

    def look(self) -> None:
        """Warn if the heartbeat is late, once for each that is; called from a thread."""
        now, due = self._clock(), self._due
        if due is None or due == self._sampled or now - due <= LATE:
            return
        self._sampled = due
        if not self._may_warn(now):
            return
        self._told = due
        _log.warn(
            "the reactor is stalled for {seconds:.2f} s; it is in {where}",
            seconds=now - due,
            where=described(self._frame()),
        )

    def _may_warn(self, now: float) -> bool:
        if self._warned is not None and now - self._warned < BETWEEN_WARNINGS:
            return False
        self._warned = now
        return True


def described(frame: FrameType | None) -> str:
    """:returns: the innermost functions on a stack, as ``module:line function < …``."""
    found: list[str] = []
    if frame is not None and frame.f_globals.get("__name__") in _WAITING:
        return "its wait for events: the processor was busy elsewhere, or another thread was"
    while frame is not None and len(found) < _FRAMES:
        module = frame.f_globals.get("__name__", "?")
        found.append(f"{module}:{frame.f_lineno} {frame.f_code.co_qualname}")
        frame = frame.f_back
    return " < ".join(found) or "no function"
