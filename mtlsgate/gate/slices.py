"""
Running a long task in slices, so that it gets its share of time at any load.
"""

from __future__ import annotations

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger("mtlsgate.connections")

#: The shortest and the longest slice, in seconds.
_SHORTEST = 0.01
_LONGEST = 0.05


class Slices:
    """
    Runs one task, a slice in each turn of the reactor.

    A turn can take seconds when thousands of clients connect at once.  So the code
    that serves them calls `look`: it runs a slice within the turn if the task has
    waited longer than the longest slice.  A longer wait makes a longer slice, so the
    task gets about half of the time.

    :ivar _steps: the rest of the task; None if there is no task.
    :ivar _done: fires when the task is over or replaced.
    :ivar _since: when the last slice ended, in the clock's seconds.
    :ivar _is_running: whether a slice is running.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """:param clock: measures durations."""
        self._clock = clock
        self._steps: Iterator[None] | None = None
        self._done: Deferred[None] = Deferred()
        self._since = 0.0
        self._is_running = False

    def run(self, steps: Iterator[None]) -> Deferred[None]:
        """
        Start a task.  It replaces an unfinished one.

        :param steps: the task's steps; each is short.
        :returns: a Deferred that fires when the task is over or replaced.
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
        """Run a slice if the task has waited long enough."""
        if self._steps is not None and self._clock.seconds() - self._since >= _LONGEST:
            self._slice()

    def _turn(self) -> None:
        if self._steps is not None:
            self._slice()
        if self._steps is not None:
            self._clock.callLater(0, self._turn)

    def _slice(self) -> None:
        if self._is_running:
            # A step may call look.
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
