"""
The threads that a WSGI application runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from threading import Lock, Thread
from typing import Protocol, cast

from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

_log = Logger("mtlsgate.web")


class Threads(Protocol):
    """What a thread pool must be able to do."""

    def start(self) -> object: ...

    def stop(self) -> object: ...

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, object], object], func: Callable[..., object], *args: object
    ) -> object: ...


def make_pool(threads: int, name: str) -> Threads:
    """:returns: a thread pool whose threads do not keep the process alive."""
    pool = ThreadPool(0, threads, name)
    pool.threadFactory = partial(Thread, daemon=True)  # type: ignore[assignment]
    return pool


class Workers:
    """
    The threads that an application runs in.

    They start with the factory.  They stop when the factory has stopped, the last connection
    is gone and the last call has returned.  Stopping earlier could wait for ever, because a
    thread may wait for the reactor.

    :ivar _connections: how many there are, each of which may bring calls.
    :ivar _running: how many calls there are.
    :ivar _stopping: no more connections will come.
    """

    def __init__(self, reactor: IReactorFromThreads, make: Callable[[], Threads]) -> None:
        """
        :param make: makes a pool.
        """
        self._reactor = reactor
        self._make = make
        self._connections = 0
        self._pool: Threads | None = None
        self._lock = Lock()
        self._running = 0
        self._stopping = False

    def start(self) -> None:
        """Start the threads."""
        self._stopping = False
        self._have_pool()

    def _have_pool(self) -> None:
        if self._pool is None:
            self._pool = self._make()
            self._pool.start()

    def stop(self) -> None:
        """Stop the threads as soon as nobody needs them."""
        with self._lock:
            self._stopping = True
        self.stop_if_unused()

    def connected(self) -> None:
        """A connection has come.  It may come after `stop`, if its handshake began before."""
        self._connections += 1
        self._have_pool()

    def disconnected(self) -> None:
        """One is over."""
        self._connections -= 1
        self.stop_if_unused()

    def stop_if_unused(self) -> None:
        """Stop, if that is due."""
        with self._lock:
            unused = self._stopping and self._running == 0 and self._connections == 0
        if unused and self._pool is not None:
            pool, self._pool = self._pool, None
            pool.stop()

    def callInThread(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in a thread; twisted.web calls this as it would a pool's."""
        assert self._pool is not None, "the factory was not started"
        with self._lock:
            self._running += 1
        self._pool.callInThreadWithCallback(self._returned, function, *args)

    def _returned(self, success: bool, result: object) -> None:
        if not success:
            _log.failure("a call in a thread failed", failure=cast(Failure, result))
        with self._lock:
            self._running -= 1
            stopping = self._stopping
        if stopping:
            self._reactor.callFromThread(self.stop_if_unused)
