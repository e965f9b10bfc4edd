"""A kept connection that many ask through, with connections of which a test is the server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from mtlsgate.registry.redis_channel import Channel
from mtlsgate.registry.redis_links import Command, Link, packed
from mtlsgate.registry.store import StoreError, StoreUnavailable
from tests.kits.following import run


class FakeLink(Link):
    """
    Answers each command with its last word.

    :ivar is_broken: whether it breaks when it is used.
    :ivar is_closed: whether it was closed.
    """

    def __init__(self, is_broken: bool = False) -> None:
        self.where = "r:1"
        self.is_broken = is_broken
        self.is_closed = False

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        if self.is_broken:
            raise StoreUnavailable("r:1 closed the connection")
        return [command[-1] for command in commands]

    async def close(self) -> None:
        self.is_closed = True


def channel(*links: FakeLink | StoreError | asyncio.Future[FakeLink]) -> Channel:
    """:returns: a channel that gets these connections, one after the other."""
    rest = iter(links)

    async def connect() -> Link:
        link = next(rest)
        if isinstance(link, StoreError):
            raise link
        return await link if isinstance(link, asyncio.Future) else link

    return Channel(connect, "r:1", 5.0)


def test_a_kept_connection_that_is_dead_is_replaced_without_anybodys_noticing() -> None:
    async def test() -> None:
        kept, new = FakeLink(), FakeLink()
        asked = channel(kept, new)
        assert await asked.ask([("GET", "x")]) == ["x"]
        kept.is_broken = True
        assert await asked.ask([("GET", "y"), ("GET", "z")]) == ["y", "z"]
        assert kept.is_closed
        assert not new.is_closed

    run(test)


def test_a_new_connection_that_breaks_is_tried_once_only() -> None:
    async def test() -> None:
        asked = channel(FakeLink(is_broken=True), FakeLink())
        with pytest.raises(StoreUnavailable, match="closed the connection"):
            await asked.ask([("GET", "x")])

    run(test)


def test_all_who_wait_are_told_of_an_outage() -> None:
    async def test() -> None:
        down = StoreUnavailable("r:1 refuses connections")
        late: asyncio.Future[FakeLink] = asyncio.get_running_loop().create_future()
        asked = channel(late, down)
        questions = [asyncio.ensure_future(asked.ask([("GET", name)])) for name in "abc"]
        await asyncio.sleep(0)
        # The others wait, and are asked together once the first has its answer.
        late.set_exception(down)
        outcomes = await asyncio.gather(*questions, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [StoreUnavailable] * 3

    run(test)


def test_a_connection_that_was_being_made_when_it_was_to_be_forgotten_is_not_used() -> None:
    """It may lead to a server that was replaced meanwhile."""

    async def test() -> None:
        late: asyncio.Future[FakeLink] = asyncio.get_running_loop().create_future()
        old, new = FakeLink(), FakeLink()
        asked = channel(late, new)
        question = asyncio.ensure_future(asked.ask([("GET", "x")]))
        await asyncio.sleep(0)
        await asked.forget()
        late.set_result(old)
        assert await question == ["x"]
        assert (old.is_closed, new.is_closed) == (True, False)
        await asked.close()
        assert new.is_closed
        with pytest.raises(StoreUnavailable, match="is closed"):
            await asked.ask([("GET", "x")])

    run(test)


def test_a_connection_that_was_being_made_when_all_was_closed_is_closed() -> None:
    async def test() -> None:
        late: asyncio.Future[FakeLink] = asyncio.get_running_loop().create_future()
        old = FakeLink()
        asked = channel(late)
        question = asyncio.ensure_future(asked.ask([("GET", "x")]))
        await asyncio.sleep(0)
        await asked.close()
        late.set_result(old)
        with pytest.raises(StoreUnavailable, match="is closed"):
            await question
        assert old.is_closed

    run(test)


def test_a_fault_of_our_own_leaves_nobody_waiting() -> None:
    async def test() -> None:
        async def connect() -> Link:
            raise ValueError("odd")

        asked = Channel(connect, "r:1", 5.0)
        outcomes = await asyncio.gather(
            asked.ask([("GET", "x")]), asked.ask([("GET", "y")]), return_exceptions=True
        )
        assert all("cannot be understood: odd" in str(outcome) for outcome in outcomes)

    run(test)


def test_commands_are_arrays_of_strings() -> None:
    """As https://redis.io/docs/latest/develop/reference/protocol-spec/ has them."""
    assert packed([("GET", "Ø"), ("X", 5, b"\xff\r\n")]) == (
        b"*2\r\n$3\r\nGET\r\n$2\r\n\xc3\x98\r\n*3\r\n$1\r\nX\r\n$1\r\n5\r\n$3\r\n\xff\r\n\r\n"
    )
