"""
The log of the program: events as lines, written once in a turn of the reactor.

What an event looks like is in `mtlsgate.observe.event_lines`, where the lines go in
`mtlsgate.observe.log_stream`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import RLock, current_thread, main_thread
from time import time
from typing import Protocol

from attrs import field, frozen
from twisted.logger import ILogObserver, LogEvent, LogLevel
from zope.interface import implementer

from mtlsgate.observe.event_lines import LineMaker
from mtlsgate.observe.log_stream import LogStream

_AT_ONCE = frozenset({LogLevel.error, LogLevel.critical})
#: The levels by name, the least urgent first.
LEVELS = ("debug", "info", "warn", "error", "critical")


class Turns(Protocol):
    """What the log needs of a reactor."""

    @property
    def running(self) -> bool:
        """Whether it runs."""

    def callLater(self, delay: float, function: Callable[[], object], /) -> object:
        """Have a function called in a later turn, whatever is done to the system's clock."""


@frozen
class LogOutput:
    """
    What is logged, how, and where.

    :ivar stream: gets the lines.
    :ivar lines: makes them.
    :ivar level: the least urgent level that is logged, one of `LEVELS`.
    """

    stream: LogStream
    lines: LineMaker
    level: str
    _dropped: frozenset[object] = field(init=False, repr=False)

    @_dropped.default
    def _below(self) -> frozenset[object]:
        below = LEVELS[: LEVELS.index(self.level)]
        return frozenset(LogLevel.levelWithName(name) for name in below)

    def line(self, event: LogEvent) -> str | None:
        """:returns: the event's lines; None if it is not logged."""
        return None if event.get("log_level") in self._dropped else self.lines(event)


@implementer(ILogObserver)
class EventLog:
    """
    The log observer.

    Any thread may log.  A line is written at once if it is an error, if no reactor
    runs, or if it comes from another thread than the main one, which is the
    reactor's.  Lines that cannot be
    written are counted; the log says how many are missing as soon as it can be
    written again.

    :ivar output: what is logged, how, and where.
    :ivar _lines: not written yet.
    :ivar _is_due: whether a later flush is arranged.
    :ivar _lost: how many lines could not be written since the latest that was.
    """

    def __init__(
        self,
        output: LogOutput,
        reactor: Turns,
        now: Callable[[], float] = time,
    ) -> None:
        """
        :param reactor: in whose turns lines are written.
        :param now: the clock.
        """
        self.output = output
        self._reactor = reactor
        self._now = now
        self._lines = deque[str]()
        self._is_due = False
        self._lost = 0
        # Of one thread, a signal handler may interrupt a write and log, too.
        self._writing = RLock()

    def __call__(self, event: LogEvent) -> None:
        """Write an event, soon."""
        line = self.output.line(event)
        if line is None:
            return
        self._lines.append(line)
        is_urgent = event.get("log_level") in _AT_ONCE or not self._reactor.running
        if is_urgent or current_thread() is not main_thread():
            self.flush()
        elif not self._is_due:
            self._is_due = True
            self._reactor.callLater(0, self.flush)

    def flush(self) -> None:
        """Write what there is."""
        with self._writing:
            # First: a line that comes from now on may be too late for this flush.
            self._is_due = False
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                return
            text = "".join(lines)
            if self._lost:
                text = f"{self._gap()}{text}"
            try:
                self.output.stream.write(text)
            except OSError:
                # The log is the place to say it: `_gap` does, later.
                self._lost += len(lines)
            else:
                self._lost = 0

    def relay(self, lines: str) -> None:
        """
        Write lines of another process.

        :param lines: finished.
        """
        with self._writing:
            self._lines.append(lines)
            self.flush()

    def _gap(self) -> str:
        return (
            self.output.lines(
                {
                    "log_format": "{count} lines of this log are missing",
                    "log_time": self._now(),
                    "log_level": LogLevel.error,
                    "log_namespace": "mtlsgate.log",
                    "count": self._lost,
                }
            )
            or ""
        )

    def rotate(self) -> None:
        """Go on in a new file, if it is a file."""
        with self._writing:
            self.flush()
            self.output.stream.rotate()

    def turn_to(self, output: LogOutput) -> None:
        """Log in this way from now on."""
        with self._writing:
            self.flush()
            before, self.output = self.output, output
            before.stream.close_unless_in(output.stream)
