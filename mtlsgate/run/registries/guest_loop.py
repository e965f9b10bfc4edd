"""
asyncio as a guest of the reactor: stores are asked in asyncio, and the gate runs on any
reactor.

The guest never waits by itself.  When it has nothing to do but wait, it returns to the
reactor, which calls it again as soon as one of its sockets is ready or one of its timers is
due.  So clients' connections do not pay for asyncio.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from selectors import DefaultSelector, SelectorKey
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.run.event_loop import report

T = TypeVar("T")

#: How often in a row the guest goes through what is ready, before clients have their turn.
_MOST_ROUNDS = 8
#: Seconds by which a timer may be late: to set another alarm would cost more.
_CLOSE = 0.001


class Runner(Protocol):
    """Runs what asks stores."""

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """
        :returns: a Deferred with what the coroutine returns.  Cancelling it cancels the
            coroutine, without waiting for its end.
        """

    def close(self) -> None:
        """Cancel what still runs, and tell nobody."""


class AsyncioRunner:
    """Runs coroutines of asyncio: on the reactor's own loop if it has one, else as a guest."""

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._guest: GuestLoop | None = None

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """:returns: as `Runner.start`.  It fires outside of the guest's loop."""
        if self._guest is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                self._guest = GuestLoop(self._reactor)
            else:
                return _deferred_of(loop.create_task(coroutine), _fire)
        return self._guest.start(coroutine)

    def close(self) -> None:
        """As `Runner.close`."""
        if self._guest is not None:
            self._guest.close()
            self._guest = None


@implementer(IReadDescriptor)
class GuestLoop:
    """
    One loop of asyncio's in a reactor.

    :ivar _ended: tasks that have ended, with their Deferreds, which have not fired yet.
    :ivar _alarm: wakes it for its next timer, or because it has more to do.
    :ivar _rest: for how many seconds it may rest; None if it waits for sockets only.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._selector = _RestingSelector(self._is_at_rest)
        self._loop = asyncio.SelectorEventLoop(self._selector)
        self._loop.set_exception_handler(report)
        self._ended: list[tuple[Deferred[Any], asyncio.Task[Any]]] = []
        self._alarm: IDelayedCall | None = None
        self._rest: float | None = None
        reactor.addReader(self)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Deferred[T]:
        """:returns: as `AsyncioRunner.start`; the coroutine has begun."""
        task = self._loop.create_task(coroutine)
        deferred = _deferred_of(task, self._note_end, self._go_on)
        self._go_on()
        return deferred

    def close(self) -> None:
        """Tell what has ended, cancel what still runs, and close the loop."""
        self.doRead()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._run()
        for _, task in self._ended:
            if not task.cancelled():
                # So that asyncio does not log the error as forgotten.
                task.exception()
        if self._alarm is not None:
            self._alarm.cancel()
        self._reactor.removeReader(self)
        self._loop.close()

    # What the reactor calls.

    def fileno(self) -> int:
        """:returns: a descriptor that is ready when one of the loop's sockets is."""
        return self._selector.fileno()

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return "mtlsgate"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""

    def doRead(self) -> None:
        """A socket is ready, or a timer is due."""
        self._run()
        ended, self._ended = self._ended, []
        for deferred, task in ended:
            _fire(deferred, task)

    # The loop.

    def _go_on(self) -> None:
        """Run at once.  Deferreds fire later: whoever calls this expects no answers yet."""
        # After `close` nothing is left to be cancelled.
        if not (self._loop.is_running() or self._loop.is_closed()):
            self._run()
            if self._ended:
                self._wake_after(0)

    def _run(self) -> None:
        """Run until there is nothing to do but wait."""
        self._selector.rounds = _MOST_ROUNDS
        self._loop.run_forever()
        if self._rest is not None:
            self._wake_after(self._rest)

    def _is_at_rest(self, seconds: float | None) -> None:
        self._rest = seconds
        self._loop.stop()

    def _wake_after(self, seconds: float) -> None:
        at = self._reactor.seconds() + seconds
        if self._alarm is not None:
            if self._alarm.getTime() < at + _CLOSE:
                return
            self._alarm.cancel()
        self._alarm = self._reactor.callLater(seconds, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self.doRead()

    def _note_end(self, deferred: Deferred[T], task: asyncio.Task[T]) -> None:
        self._ended.append((deferred, task))


class _RestingSelector(DefaultSelector):
    """
    Where asyncio would wait, it says for how long.

    :ivar rounds: how often the loop may still go on.
    """

    def __init__(self, at_rest: Callable[[float | None], object]) -> None:
        """:param at_rest: is called with the seconds that the loop would wait, or None."""
        super().__init__()
        self.rounds = 0
        self._at_rest = at_rest

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """:returns: the sockets that are ready now."""
        ready = super().select(0)
        self.rounds -= 1
        if not ready and timeout != 0:
            self._at_rest(timeout)
        elif self.rounds <= 0:
            self._at_rest(0)
        return ready


def _deferred_of(
    task: asyncio.Task[T],
    ended: Callable[[Deferred[T], asyncio.Task[T]], object],
    cancelled: Callable[[], object] = lambda: None,
) -> Deferred[T]:
    def cancel(_: Deferred[T]) -> None:
        task.cancel()
        cancelled()

    deferred: Deferred[T] = Deferred(cancel)
    task.add_done_callback(partial(ended, deferred))
    return deferred


def _fire(deferred: Deferred[T], task: asyncio.Task[T]) -> None:
    """Tell how a task ended, also if nobody wants to know any more."""
    result: T | Failure
    if task.cancelled():
        result = Failure(CancelledError())
    else:
        error = task.exception()
        result = task.result() if error is None else Failure(error)
    if not deferred.called:
        deferred.callback(result)
