"""Which Redis is asked while one takes another's place, with connections of a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest

from mtlsgate.registry.redis_address import Node
from mtlsgate.registry.redis_links import Command, Dialler, Link
from mtlsgate.registry.redis_nodes import OneMaster, Question
from mtlsgate.registry.store import StoreUnavailable
from tests.kits.following import run

OLD, NEW = Node("old", 1), Node("new", 2)


class Master(Link):
    """Says that it is a master, and answers all else with its own name."""

    def __init__(self, node: Node) -> None:
        self.where = str(node)

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        return [[b"master"] if one == ("ROLE",) else self.where for one in commands]

    async def close(self) -> None:
        """Nothing to close."""


class Masters:
    """A dialler of masters."""

    timeout = 5.0

    async def dial(self, node: Node) -> Link:
        return Master(node)


class OldIsGone(Masters):
    """A dialler that the old master refuses."""

    async def dial(self, node: Node) -> Link:
        if node == OLD:
            raise StoreUnavailable(f"{node} refuses connections")
        return await super().dial(node)


def nodes(
    named: list[Node], pauses: Sequence[float] = (), dialler: Masters | None = None
) -> OneMaster:
    """
    :param named: what the sentinels name, one after the other.
    :returns: the master that they name.
    """

    async def find() -> Node:
        return named.pop(0)

    async def watch(_: Node | None) -> None:
        raise AssertionError

    async def settle(_: str) -> None:
        raise AssertionError

    return OneMaster(cast(Dialler, dialler or OldIsGone()), "r", find, watch, settle, pauses)


GET = [Question(b"x", ("GET", "x"))]


def test_a_question_waits_until_the_sentinels_name_the_new_master() -> None:
    """Those that have not heard of it name one that is gone; nobody is rejected for that."""

    async def test() -> None:
        named = [OLD, OLD, NEW]
        asked = nodes(named, (0.0, 0.0))
        assert await asked.ask(GET) == [str(NEW)]
        assert named == []

    run(test)


def test_a_master_that_stays_away_is_said_to_be() -> None:
    """After some attempts, and with what is wrong with it."""

    async def test() -> None:
        asked = nodes([OLD] * 3, (0.0, 0.0))
        with pytest.raises(StoreUnavailable, match="old:1 refuses connections"):
            await asked.ask(GET)

    run(test)


def test_the_master_that_is_followed_is_asked_whatever_sentinels_say_meanwhile() -> None:
    """Else a gate would remember what one says, and never hear of a change there."""

    async def test() -> None:
        asked = nodes([OLD, NEW, OLD, OLD], dialler=Masters())
        assert await asked.ask(GET) == [str(OLD)]
        (link,) = await asked.masters()
        assert link.where == str(NEW)
        # Also on a new connection.
        for _ in range(2):
            assert await asked.ask(GET) == [str(NEW)]
        await asked.forget()
        assert await asked.ask(GET) == [str(OLD)]

    run(test)
