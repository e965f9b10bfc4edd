"""
Twistd's log as text, written once in a turn of the reactor.

The lines are those of Twisted's own ``textFileLogObserver``, in the same order.
Two things make it cheaper: an event that brings its finished text (the format
`WHOLE_TEXT`) is not formatted again, and all lines of a turn go out in one write.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import RLock
from time import time
from typing import Protocol

from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python import threadable
from zope.interface import implementer

#: The format of events that bring their whole text.
WHOLE_TEXT = "{text}"

_END, _INDENTED = "\n", "\n\t"
#: Fields of events that make another line of them.
_ELSEWHERE = frozenset({"log_failure", "log_system"})
_AT_ONCE = frozenset({LogLevel.error, LogLevel.critical})


class Turns(Protocol):
    """What the log needs of a reactor."""

    @property
    def running(self) -> bool:
        """Whether it runs."""

    def callLater(self, delay: float, function: Callable[[], object], /) -> object:
        """Have a function called in a later turn, whatever is done to the system's clock."""

    def callFromThread(self, function: Callable[[], object], /) -> object:
        """Have a function called in the next turn; from any thread."""


class TextStream(Protocol):
    """What lines are written to."""

    def write(self, data: str, /) -> object:
        """Write text, which may stay in a buffer."""

    def flush(self) -> object:
        """Write what is in the buffer."""


@implementer(ILogObserver)
class TextLog:
    """
    The log observer.

    Any thread may log.  A line is written at once if it is an error, or if no
    reactor runs.  Lines that cannot be written are counted; the log says how many
    are missing as soon as it can be written again.

    :ivar _lines: not written yet.
    :ivar _is_due: whether a later flush is arranged.
    :ivar _lost: how many lines could not be written since the latest that was.
    :ivar _second: the clock's latest second; `_second_text` is the same as text.
    """

    def __init__(
        self,
        stream: TextStream,
        reactor: Turns,
        now: Callable[[], float] = time,
    ) -> None:
        """
        :param stream: where lines go.
        :param reactor: in whose turns they are written.
        :param now: the clock.
        """
        self._stream = stream
        self._reactor = reactor
        self._now = now
        self._lines = deque[str]()
        self._is_due = False
        self._lost = 0
        self._second, self._second_text = -1, ""
        # Of one thread, a signal handler may interrupt a write and log, too.
        self._writing = RLock()

    def __call__(self, event: LogEvent) -> None:
        """Write an event, soon."""
        line = self._line(event)
        if line is None:
            return
        self._lines.append(line)
        if event.get("log_level") in _AT_ONCE or not self._reactor.running:
            self.flush()
        elif not self._is_due:
            self._is_due = True
            if threadable.isInIOThread():
                self._reactor.callLater(0, self.flush)
            else:
                self._reactor.callFromThread(self.flush)

    def _line(self, event: LogEvent) -> str | None:
        text, level = event.get("text"), event.get("log_level")
        is_whole = (
            event.get("log_format") == WHOLE_TEXT
            and text.__class__ is str
            and text != ""
            and level is not None
            and event.keys().isdisjoint(_ELSEWHERE)
        )
        if not is_whole:
            return formatEventAsClassicLogText(event, self._time_text)
        assert text is not None
        assert level is not None
        when, namespace = self._time_text(event.get("log_time")), event.get("log_namespace", "-")
        return f"{when} [{namespace}#{level.name}] {text.replace(_END, _INDENTED)}\n"

    def _time_text(self, when: float | None) -> str:
        if when is None:
            return formatTime(None)
        second = int(when)
        if second != self._second:
            self._second_text = formatTime(when)
            self._second = second
        return self._second_text

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
                self._stream.write(text)
                self._stream.flush()
            except OSError:
                # The log is the place to say it: `_gap` does, later.
                self._lost += len(lines)
            else:
                self._lost = 0

    def _gap(self) -> str:
        when = formatTime(self._now())
        return f"{when} [mtlsgate.log#error] {self._lost} lines of this log are missing\n"
