"""
Doing what takes long in a thread of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Queue
from threading import Event, current_thread
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorThreads
from twisted.python.threadpool import ThreadPool

from mtlsgate.run.threads import OwnThread


class Turns:
    """A reactor that gets results, and whose pool is not to be used."""

    def __init__(self) -> None:
        self.results = Queue[tuple[Callable[..., object], tuple[Any, ...]]]()

    def callFromThread(self, function: Callable[..., object], *arguments: Any) -> None:
        self.results.put((function, arguments))

    def turn(self) -> None:
        function, arguments = self.results.get(timeout=60)
        function(*arguments)

    def getThreadPool(self) -> ThreadPool:
        raise AssertionError("the reactor's pool is for look-ups")


def test_the_result_comes_in_the_reactors_time() -> None:
    """Of a function that ran elsewhere."""
    turns, found = Turns(), list[object]()
    deferred = OwnThread(cast(Any, turns))(lambda: current_thread())
    deferred.addCallback(found.append)
    assert found == []
    turns.turn()
    assert found != [current_thread()]
    assert len(found) == 1


def test_a_failure_is_the_callers() -> None:
    """With the exception that the function raised."""
    turns = Turns()
    deferred: Deferred[float] = OwnThread(cast(Any, turns))(lambda: 1 / 0)
    failures = list[object]()
    deferred.addErrback(lambda failure: failures.append(failure.type))
    turns.turn()
    assert failures == [ZeroDivisionError]


def test_a_full_pool_delays_nothing() -> None:
    """The reactor's pool is full of look-ups that a silent name server does not answer."""
    pool = cast(IReactorThreads, reactor).getThreadPool()
    assert isinstance(pool, ThreadPool)
    release, turns = Event(), Turns()
    pool.start()
    try:
        for _ in range(pool.max + 1):
            pool.callInThread(release.wait)
        found = list[int]()
        OwnThread(cast(Any, turns))(lambda: 7).addCallback(found.append)
        turns.turn()
        assert found == [7]
    finally:
        release.set()
        pool.stop()


def test_one_waits_for_another_of_its_own_kind_no_longer_than_it_must() -> None:
    """Looking at files goes on while a load takes its time."""
    turns, release, found = Turns(), Event(), list[str]()
    in_thread = OwnThread(cast(Any, turns))
    in_thread(lambda: release.wait(60)).addCallback(lambda _: found.append("load"))
    in_thread(lambda: "look").addCallback(found.append)
    turns.turn()
    assert found == ["look"]
    release.set()
    turns.turn()
    assert found == ["look", "load"]
