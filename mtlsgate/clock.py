"""
Time: instants from the wall clock, durations from the monotonic clock.

Twisted's reactors time calls by the wall clock: if it is set back by an hour, all
timers stop for that hour.  The timers of a `MonotonicReactor` do not.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from threading import Timer
from typing import Any, Protocol

from attrs import define
from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from mtlsgate.deadlines import Deadlines

_log = Logger("mtlsgate.clock")

#: Linux's constants for ctypes, as in <sys/timerfd.h> and <fcntl.h>.
_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)


def utc_now() -> datetime:
    """:returns: the time now, by the system's clock."""
    return datetime.now(UTC)


def monotonic(reactor: Any) -> Any:
    """:returns: a reactor that uses the monotonic clock; an in-memory reactor is
    returned as it is."""
    return MonotonicReactor(reactor) if reactor.seconds is time.time else reactor


class Alarm(Protocol):
    """Wakes the reactor once, after a time."""

    def set(self, delay: float) -> None:
        """:param delay: seconds from now, more than 0; replaces what was set before."""

    def close(self) -> None:
        """Stop, and release the alarm's resources."""


@implementer(IReactorTime)
class MonotonicReactor:
    """
    Wraps a reactor.  It changes only the time: `seconds` and `callLater` use the
    monotonic clock.

    :ivar _reactor: the wrapped reactor.
    :ivar _calls: the pending calls by time.
    :ivar _next: when the alarm goes off, or None.
    :ivar _is_soon: whether a check in the reactor's next turn is scheduled.
    """

    def __init__(
        self,
        reactor: Any,
        alarm: Callable[[Any, Callable[[], object]], Alarm] | None = None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        :param reactor: a real reactor.
        :param alarm: makes an alarm from a reactor and a callback; by default the
            best kind that the system has.
        """
        self._reactor = reactor
        self._new_alarm = new_alarm if alarm is None else alarm
        self._alarm: Alarm | None = None
        self._calls = Deadlines[DelayedCall](DelayedCall.active)
        self._next: float | None = None
        self._is_soon = False
        self.seconds = seconds
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        """:returns: a call after this many seconds, whatever happens to the wall clock."""
        if delay < 0:
            raise ValueError(f"{delay} is not greater than or equal to 0 seconds")
        at = self.seconds() + delay
        call = DelayedCall(at, callable, args, kw, _ignore, self._wait_for, self.seconds)
        self._wait_for(call)
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        """:returns: the pending calls."""
        return list(dict.fromkeys(self._calls))

    def _wait_for(self, call: DelayedCall) -> None:
        self._calls.add(call.getTime(), call)
        self._set(call.getTime())

    def _set(self, at: float) -> None:
        """Check for due calls at that time at the latest."""
        if self._is_soon or (self._next is not None and self._next <= at):
            return
        delay = at - self.seconds()
        if delay <= 0:
            self._is_soon = True
            if self._next is None:
                # Not callLater(0): it also waits by the wall clock.
                self._reactor.callFromThread(self._soon)
            else:
                # This is cheaper.  If the clock is set back before the next turn, the
                # alarm already set will still wake the reactor.
                self._reactor.callLater(0, self._soon)
            return
        if self._alarm is None:
            self._alarm = self._new_alarm(self._reactor, self._run)
        self._next = at
        self._alarm.set(delay)

    def _soon(self) -> None:
        if self._is_soon:
            self._run()

    def _run(self) -> None:
        """Run the calls that are due.  Calls added meanwhile wait for the next turn."""
        self._is_soon = False
        now = self.seconds()
        if self._next is not None and self._next <= now:
            self._next = None
        for call in list(self._calls.due(now)):
            if call.active() and self._is_due(call, now):
                call.called = 1
                try:
                    call.func(*call.args, **call.kw)
                except Exception:  # noqa: BLE001 -- as reactors do: the others are called all the same
                    _log.failure("while handling timed call")
        at = self._calls.next
        if at is not None:
            self._set(at)
        elif self._alarm is not None:
            self._alarm.close()
            self._alarm = None

    def _is_due(self, call: DelayedCall, now: float) -> bool:
        """:returns: whether a call is due now and was not postponed."""
        if call.getTime() <= now:
            return True
        call.activate_delay()
        self._calls.add(call.getTime(), call)
        return False


def _ignore(call: DelayedCall) -> None:
    """Do nothing when a call is cancelled: it is dropped when its time comes."""


def new_alarm(reactor: Any, call: Callable[[], object]) -> Alarm:
    """:returns: the best alarm that the system has."""
    try:
        return TimerFile(reactor, call)
    except OSError:
        return TimerThread(reactor, call)


@implementer(IReadDescriptor)
class TimerFile:
    """
    A file that becomes readable after a time (Linux: timerfd, on the monotonic clock).
    """

    def __init__(self, reactor: Any, call: Callable[[], object]) -> None:
        """:raises OSError: if the system has no such files."""
        self._reactor = reactor
        self._call = call
        self._descriptor = _timerfd_create()
        reactor.addReader(self)

    def set(self, delay: float) -> None:
        """:param delay: seconds from now."""
        _timerfd_settime(self._descriptor, delay)

    def close(self) -> None:
        """Wake nobody any more."""
        if self._descriptor != -1:
            self._reactor.removeReader(self)
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """:returns: the descriptor; -1 if it is closed."""
        return self._descriptor

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return "mtlsgate"

    def doRead(self) -> None:
        """The time has come."""
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            # It was set again meanwhile.
            return
        self._call()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self.close()


@define(eq=False)
class TimerThread:
    """A waiting thread, for systems without `TimerFile`."""

    _reactor: Any
    _call: Callable[[], object]
    _timer: Timer | None = None

    def set(self, delay: float) -> None:
        """:param delay: seconds from now."""
        self.close()
        self._timer = Timer(delay, self._reactor.callFromThread, (self._call,))
        self._timer.daemon = True
        self._timer.start()

    def close(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()


def _timerfd_create() -> int:
    if hasattr(os, "timerfd_create"):  # Python 3.13
        return int(os.timerfd_create(time.CLOCK_MONOTONIC, flags=_TFD_FLAGS))
    return _checked("timerfd_create", _CLOCK_MONOTONIC, _TFD_FLAGS)


def _timerfd_settime(descriptor: int, delay: float) -> None:
    if hasattr(os, "timerfd_settime"):  # Python 3.13
        os.timerfd_settime(descriptor, initial=delay)
        return
    # 0 would disable the timer.
    nanoseconds = max(1, int(delay * 1e9))
    when = (ctypes.c_long * 4)(0, 0, *divmod(nanoseconds, 1_000_000_000))
    _checked("timerfd_settime", descriptor, 0, when, None)


@cache
def _c_library() -> ctypes.CDLL:
    # To load it takes longer than to call it, and the alarm is set very often.
    return ctypes.CDLL(None, use_errno=True)


def _checked(name: str, *arguments: Any) -> int:
    """:raises OSError: if the C library lacks the function, or it fails."""
    function = getattr(_c_library(), name, None)
    if function is None:
        raise OSError(f"the system has no {name}")
    result = int(function(*arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
