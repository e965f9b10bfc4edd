"""
What survives a failover, as a master says it, with connections of which a test is the server.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from redis.exceptions import NoPermissionError, ResponseError

from mtlsgate.registry.redis_confirming import replicate
from mtlsgate.registry.redis_links import Command, Link
from mtlsgate.registry.store import StoreError, StoreUnavailable, WriteUnconfirmed
from tests.kits.following import run


def role(offset: int, *acknowledged: int) -> list[object]:
    """:returns: what a master answers to ROLE."""
    return [b"master", offset, [[b"127.0.0.1", b"1", b"%d" % one] for one in acknowledged]]


class Master(Link):
    """
    Answers WAIT and ROLE.

    :param replies: to the ROLE after each WAIT, in order; the last one for ever.  An error is
        the reply to the WAIT.
    """

    def __init__(self, *replies: list[object] | Exception) -> None:
        self.where = "r:1"
        self.waits: list[Command] = []
        self._replies = list(replies)

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        wait, asked = commands
        assert (wait[0], asked) == ("WAIT", ("ROLE",))
        self.waits.append(wait)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, StoreError):
            raise reply
        return [reply, role(0)] if isinstance(reply, Exception) else [0, reply]


def test_a_master_without_replicas_is_asked_nothing() -> None:
    async def test() -> None:
        await replicate(Master(), role(7), 1.0)

    run(test)


def test_what_all_replicas_have_already_is_asked_for_no_more() -> None:
    async def test() -> None:
        await replicate(Master(), role(7, 7, 9), 1.0)

    run(test)


def test_every_replica_is_waited_for() -> None:
    async def test() -> None:
        master = Master(role(9, 7, 7))
        await replicate(master, role(7, 5, 7), 1.0)
        assert master.waits == [("WAIT", 2, 500)]

    run(test)


def test_what_was_there_before_is_waited_for_though_wait_does_not() -> None:
    """WAIT awaits what its own connection has written, and that may be nothing."""

    async def test() -> None:
        master = Master(role(7, 5), role(8, 6), role(9, 7))
        await replicate(master, role(7, 5), 60.0)
        (_, first, _), *later = master.waits
        assert first == 1
        # More than there are, so that they are asked.
        assert [(awaited, milliseconds) for _, awaited, milliseconds in later] == [(2, 20)] * 2

    run(test)


def test_one_replica_is_enough_if_the_other_one_hangs() -> None:
    async def test() -> None:
        await replicate(Master(role(9, 5, 7)), role(7, 5, 5), 0.02)

    run(test)


@pytest.mark.parametrize("acknowledged", [(5, 6), ()], ids=["behind", "gone"])
def test_what_no_replica_has_could_be_lost(acknowledged: tuple[int, ...]) -> None:
    async def test() -> None:
        with pytest.raises(WriteUnconfirmed, match=r"r:1 has it, but .* write it again$"):
            await replicate(Master(role(9, *acknowledged)), role(7, 5, 5), 0.02)

    run(test)


@pytest.mark.parametrize(
    "reply",
    [
        ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
        StoreUnavailable("r:1 closed the connection"),
        [b"slave", b"127.0.0.1", 1, b"connected", 9],
    ],
    ids=["unblocked", "broken", "demoted"],
)
def test_a_master_that_is_none_any_more_could_lose_it(reply: list[object] | Exception) -> None:
    async def test() -> None:
        with pytest.raises(WriteUnconfirmed):
            await replicate(Master(reply), role(7, 5), 1.0)

    run(test)


@pytest.mark.parametrize(
    "reply",
    [
        NoPermissionError("User clerk has no permissions to run the 'wait' command"),
        ResponseError("unknown command 'WAIT', with args beginning with: '1' '800'"),
    ],
    ids=["not permitted", "unknown"],
)
def test_a_user_who_may_not_wait_is_told_what_to_permit(reply: Exception) -> None:
    async def test() -> None:
        with pytest.raises(StoreError, match=r"WAIT is not permitted.*\+wait") as refused:
            await replicate(Master(reply), role(7, 5), 1.0)
        assert not isinstance(refused.value, StoreUnavailable)

    run(test)
