"""
Doing what takes long in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Protocol, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


class InThread(Protocol):
    """Runs a function where it does not keep the reactor from going on."""

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]:
        """:returns: what the function returns."""


@frozen
class OwnThread:
    """
    Runs each function in a thread of its own.

    Not in the reactor's pool: its ten threads look up names, too, and a silent name
    server keeps all of them busy for half a minute.

    :ivar reactor: gets the results.
    """

    reactor: IReactorFromThreads

    def __call__(self, function: Callable[[], T], /) -> Deferred[T]:
        """:returns: what the function returns."""
        done: Deferred[T] = Deferred()

        def run() -> None:
            result: T | Failure
            try:
                result = function()
            except BaseException:  # noqa: BLE001 -- it is the caller's
                result = Failure()
            self.reactor.callFromThread(done.callback, result)

        # A daemon: the process may end before the function does.
        try:
            Thread(target=run, name="mtlsgate", daemon=True).start()
        except RuntimeError:
            # The system has none left.
            done.errback()
        return done
