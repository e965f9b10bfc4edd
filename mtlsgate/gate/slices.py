"""
A long task beside everything else: a share of time for it, at any load.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger("mtlsgate.connections")

#: Seconds of a slice, at least and at most.
_SHORTEST = 0.01
_LONGEST = 0.05


class Slices:
    """
    Runs one task, a slice in each turn of the reactor.

    A turn can take seconds if thousands of clients come at once.  So whoever serves
    them calls `look`, and a slice is due within the turn, too, when the task has
    waited for as long as the longest slice takes.  The longer it waited, the longer
    its slice, so that it gets about half of the time.

    :ivar _steps: what is left of the task; None if there is none.
    :ivar _done: fires when the task is over, or gives way to another.
    :ivar _since: when the last slice ended, in the clock's seconds.
    :ivar _is_running: whether a slice runs now.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: for durations."""
        self._clock = clock
        self._steps: Iterator[None] | None = None
        self._done: Deferred[None] = Deferred()
        self._since = 0.0
        self._is_running = False

    def run(self, steps: Iterator[None]) -> Deferred[None]:
        """
        :param steps: of the task, each short; it takes the place of another that is
            not over.
        :returns: fires when it is over, or gave way.
        """
        before, self._done = self._done, Deferred()
        was_idle, self._steps = self._steps is None, steps
        self._since = self._clock.seconds()
        if was_idle:
            self._clock.callLater(0, self._turn)
        else:
            before.callback(None)
        return self._done

    def look(self) -> None:
        """Give the task its share, if it has waited for long."""
        if self._steps is not None and self._clock.seconds() - self._since >= _LONGEST:
            self._slice()

    def _turn(self) -> None:
        if self._steps is not None:
            self._slice()
        if self._steps is not None:
            self._clock.callLater(0, self._turn)

    def _slice(self) -> None:
        if self._is_running:
            # A step can lead to a look.
            return
        self._is_running = True
        try:
            self._run_for(self._clock.seconds() - self._since)
        finally:
            self._is_running = False
            self._since = self._clock.seconds()

    def _run_for(self, waited: float) -> None:
        steps = self._steps
        assert steps is not None
        end = self._clock.seconds() + min(_LONGEST, max(_SHORTEST, waited))
        try:
            for _ in steps:
                if self._steps is not steps or self._clock.seconds() >= end:
                    return
        except Exception:  # noqa: BLE001 -- it must not fail whoever looks
            _log.failure("a long task failed")
        if self._steps is steps:
            self._steps = None
            self._done.callback(None)
