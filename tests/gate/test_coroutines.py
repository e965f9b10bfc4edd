"""
Users' coroutines are awaited on whatever the gate runs on.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.python.failure import Failure

from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.coroutines import NeedsAsyncio, later
from mtlsgate.reasons import Reason
from mtlsgate.testing import Version
from tests.kits.aio import ALICE, AUTHORITY, Loop
from tests.kits.gate import Log, MemoryGate, admitted, rejected, rule


def outcome(answer: object) -> list[Any]:
    """:returns: what the answer comes to, once it has come."""
    found: list[Any] = []
    deferred = later(answer)
    assert deferred is not None
    deferred.addBoth(found.append)
    return found


async def in_loop(answer: Callable[[], object]) -> Any:
    """:returns: what an answer comes to, in a running loop."""
    deferred = later(answer())
    assert deferred is not None
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    deferred.addBoth(done.set_result)
    return await done


def test_what_does_not_come_later_is_the_answer() -> None:
    assert later(True) is None
    assert later("x") is None


def test_a_deferred_is_itself() -> None:
    deferred = Deferred[object]()
    assert later(deferred) is deferred


# Without asyncio


def test_a_coroutine_may_await_deferreds() -> None:
    waited = Deferred[int]()

    async def ask() -> int:
        with pytest.raises(LookupError):
            await fail(LookupError())
        return await waited + await succeed(1)

    found = outcome(ask())
    assert found == []
    waited.callback(2)
    assert found == [3]


def test_its_exception_is_its_own() -> None:
    async def ask() -> None:
        raise LookupError("mine")

    [failure] = outcome(ask())
    assert failure.check(LookupError)


async def waits_for_the_clock() -> None:
    await asyncio.sleep(0.001)


async def waits_for_a_future() -> None:
    loop = asyncio.new_event_loop()
    try:
        await loop.create_future()
    finally:
        loop.close()


@pytest.mark.parametrize("ask", [waits_for_the_clock, waits_for_a_future])
def test_without_a_loop_nothing_else_can_be_awaited(ask: Callable[[], Awaitable[None]]) -> None:
    """The error says what to write."""
    [failure] = outcome(ask())
    assert failure.check(NeedsAsyncio)
    assert str(failure.value) == (
        "it awaits asyncio, but the gate runs on no asyncio event loop: write event_loop = "
        '"asyncio" in settings'
    )


def test_another_runtime_error_is_left_alone() -> None:
    async def ask() -> None:
        raise RuntimeError("mine")

    [failure] = outcome(ask())
    assert type(failure.value) is RuntimeError


def test_a_coroutine_that_is_given_up_is_told() -> None:
    told: list[str] = []

    async def ask() -> None:
        try:
            await Deferred()
        except CancelledError:
            told.append("cancelled")
            raise

    deferred = later(ask())
    assert deferred is not None
    deferred.cancel()
    assert told == ["cancelled"]
    deferred.addErrback(lambda failure: failure.trap(CancelledError))


def test_a_coroutine_that_nobody_waits_for_any_more_ends_quietly() -> None:
    async def ask() -> None:
        await Deferred()

    found = later(ask())
    assert found is not None
    del found
    # pytest fails on what a finaliser raises.
    gc.collect()


# With asyncio


async def waits_for_both() -> int:
    await asyncio.sleep(0)
    assert asyncio.current_task() is not None
    with pytest.raises(LookupError):
        await fail(LookupError())
    waited = Deferred[int]()
    asyncio.get_running_loop().call_soon(waited.callback, 2)
    async with asyncio.timeout(60):
        return await waited + await succeed(1)


def test_in_a_loop_a_coroutine_may_await_everything() -> None:
    """Deferreds and what asyncio has, one after the other."""
    assert asyncio.run(in_loop(waits_for_both)) == 3


def test_a_future_and_a_task_are_awaited_too() -> None:
    def future() -> object:
        found: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        found.set_result(True)
        return found

    assert asyncio.run(in_loop(future)) is True
    assert asyncio.run(in_loop(lambda: asyncio.ensure_future(asyncio.sleep(0, 3)))) == 3


def test_a_failed_deferred_reaches_the_coroutine() -> None:
    async def ask() -> None:
        waited = Deferred[int]()
        asyncio.get_running_loop().call_soon(waited.errback, Failure(LookupError("theirs")))
        await waited

    failure = asyncio.run(in_loop(ask))
    assert failure.check(LookupError)


@pytest.mark.parametrize("kind", ["deferred", "future"])
def test_what_is_given_up_is_cancelled_to_the_bottom(kind: str) -> None:
    told: list[str] = []

    async def ask() -> None:
        waited: Any = Deferred(lambda _: told.append("deferred"))
        if kind == "future":
            waited = asyncio.get_running_loop().create_future()
        try:
            await waited
        except asyncio.CancelledError:
            told.append("coroutine")
            raise

    async def run() -> None:
        deferred = later(ask())
        assert deferred is not None
        await asyncio.sleep(0)
        deferred.cancel()
        deferred.addErrback(lambda failure: None)
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert told == (["deferred", "coroutine"] if kind == "deferred" else ["coroutine"])


# As an authorizer


async def is_alice(peer: Any) -> bool:
    await asyncio.sleep(0)
    return bool(peer.common_name == "alice")


@pytest.mark.parametrize("name", ["alice", "eve"])
def test_an_authorizer_may_await_asyncio(loop: Loop, version: Version, name: str) -> None:
    gate = loop.authorized(is_alice)
    client = loop.connect(gate, version, ALICE if name == "alice" else AUTHORITY.issue(name))
    verdict = admitted() if name == "alice" else rejected(Reason.NOT_AUTHORIZED)
    assert gate.verdict() == verdict
    assert client.disconnected == (name == "eve")


def test_an_authorizer_that_needs_asyncio_and_has_none_rejects(log: Log, version: Version) -> None:
    authorizer = Authorizer("ask", is_alice, 5.0)
    gate = MemoryGate([rule(ca=AUTHORITY)], log, authorizer=authorizer)
    assert gate.try_in(ALICE, version) == rejected(Reason.AUTHORIZER_FAILED)
    log.expect_failure(NeedsAsyncio)
    assert 'write event_loop = "asyncio" in settings' in log.only["detail"]
