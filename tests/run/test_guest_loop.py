"""
Asyncio as a guest of a reactor.

The reactor is a real one, which nobody has installed: it turns when a test says so.
"""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.epollreactor import EPollReactor
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure

from mtlsgate.run.registries.guest_loop import AsyncioRunner

#: Turns of the reactor after which a test gives up, and how long each waits at most.
TURNS, WAIT = 2000, 0.05


class Host:
    """
    A reactor with a guest.

    :ivar runner: the guest.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.runner = AsyncioRunner(reactor)

    def turn_until(self, done: Callable[[], object]) -> None:
        """Let the reactor turn until something is so."""
        for _ in range(TURNS):
            if done():
                return
            self.reactor.iterate(WAIT)
        raise AssertionError("it takes too long")

    def result(self, deferred: Deferred[Any]) -> Any:
        """:returns: what comes of a Deferred, or its failure."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        self.turn_until(lambda: found)
        return found[0]


@pytest.fixture(params=[EPollReactor, SelectReactor])
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    reactor = request.param()
    made = Host(reactor)
    yield made
    made.runner.close()
    assert not [one for one in reactor.removeAll() if one is not reactor.waker]
    reactor.waker.connectionLost(Failure(CancelledError()))


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        yield one, other


async def receive(one: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(one, 100)


def test_a_coroutine_begins_at_once_and_its_result_comes_later(host: Host) -> None:
    """So that whoever asks is not interrupted by answers."""
    begun: list[bool] = []

    async def ask() -> str:
        begun.append(True)
        return "answer"

    deferred = host.runner.start(ask())
    assert begun == [True]
    assert not deferred.called
    assert host.result(deferred) == "answer"


def test_results_come_outside_of_the_loop(host: Host) -> None:
    """What they set off must not depend on whether a store was asked."""

    async def ask() -> None:
        await asyncio.sleep(0)

    def heard(_: None) -> str:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return "outside"

    assert host.result(host.runner.start(ask()).addCallback(heard)) == "outside"


def test_a_failure_is_the_callers(host: Host) -> None:
    """With the exception that the coroutine raised."""

    async def ask() -> None:
        await asyncio.sleep(0)
        raise ZeroDivisionError("no")

    assert host.result(host.runner.start(ask())).check(ZeroDivisionError)


def test_it_waits_for_timers(host: Host) -> None:
    """Those of several coroutines, and later ones that come first."""
    order: list[float] = []

    async def rest(seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    slow, fast = (host.runner.start(rest(seconds)) for seconds in (0.06, 0.01))
    host.result(slow)
    host.result(fast)
    assert order == [0.01, 0.06]


def test_it_waits_for_sockets(host: Host, pair: tuple[socket.socket, socket.socket]) -> None:
    """Again and again."""
    one, other = pair
    for number in range(3):
        deferred = host.runner.start(receive(one))
        other.send(b"%d" % number)
        assert host.result(deferred) == b"%d" % number


def test_it_waits_for_threads(host: Host) -> None:
    """As for a name that is looked up."""

    async def look_up() -> str:
        return await asyncio.get_running_loop().run_in_executor(None, lambda: "found")

    assert host.result(host.runner.start(look_up())) == "found"


def test_a_limit_ends_what_waits_for_a_socket(
    host: Host, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Nothing but the time wakes it."""

    async def ask() -> None:
        async with asyncio.timeout(0.02):
            await receive(pair[0])

    assert host.result(host.runner.start(ask())).check(TimeoutError)


def test_what_is_there_comes_before_a_timer_that_is_due(
    host: Host, pair: tuple[socket.socket, socket.socket]
) -> None:
    """As with asyncio everywhere: an answer counts although its time is over as well."""
    one, other = pair
    other.send(b"x")

    async def ask() -> str:
        loop = asyncio.get_running_loop()
        first: asyncio.Future[str] = loop.create_future()

        def end(how: str) -> None:
            if not first.done():
                first.set_result(how)

        loop.add_reader(one, end, "answer")
        loop.call_later(0, end, "late")
        try:
            return await first
        finally:
            loop.remove_reader(one)

    assert host.result(host.runner.start(ask())) == "answer"


def test_what_a_result_sets_off_may_ask_again(host: Host) -> None:
    """As a client whose place is asked for when its device is known."""

    async def ask(what: int) -> int:
        await asyncio.sleep(0)
        return what + 1

    deferred = host.runner.start(ask(1))
    assert host.result(deferred.addCallback(lambda found: host.runner.start(ask(found)))) == 3


def test_a_coroutine_may_start_another(host: Host) -> None:
    """From within the loop, which must not be run twice."""
    found: list[Deferred[str]] = []

    async def inner() -> str:
        await asyncio.sleep(0)
        return "inner"

    async def outer() -> None:
        found.append(host.runner.start(inner()))

    host.result(host.runner.start(outer()))
    assert host.result(found[0]) == "inner"


def test_cancelling_does_not_wait_for_the_end(host: Host) -> None:
    """A store that does not answer cannot hold anybody up by not ending, either."""
    ended: list[str] = []

    async def ask() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append("told")
            await asyncio.sleep(0.01)
            ended.append("ended")

    deferred = host.runner.start(ask())
    found: list[Failure] = []
    deferred.addErrback(found.append)
    deferred.cancel()
    assert found[0].check(CancelledError)
    assert ended == ["told"]
    host.turn_until(lambda: ended == ["told", "ended"])


def test_what_never_rests_holds_nobody_up(
    host: Host, pair: tuple[socket.socket, socket.socket]
) -> None:
    """Neither the reactor nor another coroutine that waits for a socket."""
    one, other = pair
    turned: list[bool] = []

    async def toil() -> None:
        while not turned:
            await asyncio.sleep(0)

    toiling, receiving = host.runner.start(toil()), host.runner.start(receive(one))
    other.send(b"x")
    assert host.result(receiving) == b"x"
    assert not toiling.called
    host.reactor.callLater(0, turned.append, True)
    assert host.result(toiling) is None


def test_closing_ends_what_runs(host: Host) -> None:
    """And a later start begins anew."""
    ended: list[bool] = []

    async def follow() -> None:
        try:
            await asyncio.sleep(1000)
        finally:
            ended.append(True)

    async def ask() -> str:
        return "answer"

    host.runner.start(follow()).addErrback(lambda _: None)
    host.runner.close()
    assert ended == [True]
    assert host.result(host.runner.start(ask())) == "answer"


def test_who_gives_up_after_the_end_is_told_so(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a time limit that runs out when the gate has ended already."""
    forgotten: list[object] = []
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_exception_handler", forgotten.append)

    async def ask() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            raise ZeroDivisionError("late") from None

    deferred = host.runner.start(ask())
    found: list[Failure] = []
    deferred.addErrback(found.append)
    host.runner.close()
    assert not found
    deferred.cancel()
    assert found[0].check(CancelledError)
    del deferred
    gc.collect()
    assert not forgotten


def test_what_a_late_result_starts_ends_too(host: Host) -> None:
    """As a place that is given back when the gate ends: nothing stays in the reactor."""
    begun: list[bool] = []

    async def ask() -> None:
        await asyncio.sleep(0)

    async def give_back() -> None:
        begun.append(True)
        await asyncio.sleep(1000)

    def heard(_: None) -> None:
        host.runner.start(give_back())

    host.runner.start(ask()).addCallback(heard)
    host.runner.close()
    assert begun == [True]
    assert not [one for one in host.reactor.getReaders() if one is not host.reactor.waker]


def test_a_reactor_on_asyncio_needs_no_guest() -> None:
    """Its own loop runs already, as a second one could not."""

    class NoReactor:
        """Nothing is asked of it."""

    async def ask() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def main() -> object:
        runner = AsyncioRunner(NoReactor())
        found: list[object] = []
        runner.start(ask()).addCallback(found.append)
        while not found:
            await asyncio.sleep(0)
        runner.close()
        return found[0] is asyncio.get_running_loop()

    assert asyncio.run(main())
