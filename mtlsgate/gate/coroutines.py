"""
Answers that come later: what a user's callable returns, as a Deferred.

A coroutine may await Deferreds and, where the gate runs on an asyncio event loop,
whatever asyncio can await.  There it is a task of its own.  Without such a loop only
Deferreds can be awaited, and anything else fails with an error that names the remedy.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Awaitable, Callable, Generator
from inspect import isawaitable
from types import coroutine
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred, ensureDeferred

T = TypeVar("T")

#: Waits for what a coroutine awaits, as a part of what drives it.
Wait = Callable[[object], Generator[Any, Any, object]]

#: What asyncio says where no loop runs.
_NO_LOOP = "no running event loop"


class NeedsAsyncio(RuntimeError):
    """A coroutine awaits asyncio, and the gate does not run on it."""

    def __init__(self) -> None:
        super().__init__(
            "it awaits asyncio, but the gate runs on no asyncio event loop: write "
            'event_loop = "asyncio" in settings'
        )


def later(answer: object) -> Deferred[Any] | None:
    """
    :param answer: what a callable returned.
    :returns: a Deferred with the answer, if that comes later; cancel it if nobody wants it
        any more.  None if it is the answer itself.
    """
    if isinstance(answer, Deferred):
        return answer
    if not isawaitable(answer):
        return None
    awaited = cast(Awaitable[object], answer)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return ensureDeferred(_without_asyncio(awaited))
    return Deferred.fromFuture(loop.create_task(_in_task(awaited, loop)))


async def _without_asyncio(awaited: Awaitable[T]) -> T:
    """:raises NeedsAsyncio: if something other than a Deferred is awaited."""
    try:
        return await _driven(awaited, _wait_for_deferred)
    except RuntimeError as error:
        if str(error) == _NO_LOOP:
            raise NeedsAsyncio from error
        raise


def _wait_for_deferred(awaited: object) -> Generator[Any, Any, object]:
    if not isinstance(awaited, Deferred):
        raise NeedsAsyncio
    return (yield awaited)


async def _in_task(awaited: Awaitable[T], loop: AbstractEventLoop) -> T:
    def wait(one: object) -> Generator[Any, Any, object]:
        if not isinstance(one, Deferred):
            return (yield one)
        yield from _fired(one, loop).__await__()
        return None

    return await _driven(awaited, wait)


async def _fired(deferred: Deferred[Any], loop: AbstractEventLoop) -> None:
    """Wait until a Deferred has fired, and leave its result where it is."""
    fired = loop.create_future()

    def fire(result: T) -> T:
        if not fired.done():
            fired.set_result(None)
        return result

    deferred.addBoth(fire)
    try:
        await fired
    except asyncio.CancelledError:
        deferred.cancel()
        # Nobody asks for its result any more.
        deferred.addErrback(lambda _: None)
        raise


@coroutine
def _driven(awaited: Awaitable[T], wait: Wait) -> Generator[Any, Any, T]:
    """
    Run a coroutine to its end.

    :param wait: waits for each thing that it awaits.
    """
    running = awaited.__await__()
    answer: object = None
    error: BaseException | None = None
    while True:
        try:
            one = running.send(answer) if error is None else running.throw(error)
        except StopIteration as end:
            return cast(T, end.value)
        answer = error = None
        try:
            answer = yield from wait(one)
        except GeneratorExit:
            # Nobody waits any more.
            running.close()
            raise
        except BaseException as caught:  # noqa: BLE001 -- it is for the coroutine, cancellation too
            error = caught
