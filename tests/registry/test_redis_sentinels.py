"""What sentinels say of a master, in their own words, without sentinels."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from mtlsgate.registry.redis_address import Login, Node, RedisAddress, parse_redis
from mtlsgate.registry.redis_links import Command, Dialler, Link
from mtlsgate.registry.redis_sentinels import Sentinels
from mtlsgate.registry.store import StoreUnavailable, WriteUnconfirmed
from tests.kits.following import PATIENCE, run

OLD, NEW = Node("old", 1), Node("new", 2)
S1, S2, S3 = (Node(f"s{number}", 26379) for number in (1, 2, 3))


class Sentinel(Link):
    """
    A sentinel.

    :param epoch: of its configuration.
    :param address: of the master in it.
    :param named: what it names to clients, which differs while it has another one take over.
    """

    def __init__(self, epoch: int, address: Node, named: Node | None = None) -> None:
        self.where = "sentinel"
        self._replies: Mapping[object, object] = {
            "ROLE": [b"sentinel", [b"main"]],
            "MASTER": {
                b"ip": address.host.encode(),
                b"port": str(address.port).encode(),
                b"config-epoch": str(epoch).encode(),
                b"flags": b"master" if named is None else b"master,failover_in_progress",
            },
            "GET-MASTER-ADDR-BY-NAME": [
                (named or address).host.encode(),
                str((named or address).port).encode(),
            ],
        }

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        return [
            self._replies[command[0] if len(command) == 1 else command[1]] for command in commands
        ]

    async def close(self) -> None:
        """Nothing to close."""


class Hanging(Sentinel):
    """A sentinel that says nothing."""

    def __init__(self) -> None:
        super().__init__(0, OLD)

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        await asyncio.get_running_loop().create_future()
        raise AssertionError


class Dialled:
    """A dialler of sentinels, of which some are gone."""

    def __init__(self, sentinels: Mapping[Node, Sentinel | None], timeout: float) -> None:
        self.timeout = timeout
        self._sentinels = sentinels
        self.address: RedisAddress = parse_redis(
            f"redis+sentinel://{','.join(map(str, sentinels))}/main"
        )

    async def dial(self, node: Node, _: Login) -> Link:
        if (sentinel := self._sentinels[node]) is None:
            raise StoreUnavailable(f"{node.host} refuses connections")
        return sentinel


def sentinels(told: Mapping[Node, Sentinel | None], timeout: float = 5.0) -> Sentinels:
    return Sentinels(cast(Dialler, Dialled(told, timeout)), Login(), "main")


def test_the_sentinel_that_leads_a_failover_names_the_new_master() -> None:
    """It has the old one's address and the new epoch until all replicas follow the new one."""

    async def test() -> None:
        told = {S1: Sentinel(1, OLD, NEW), S2: Sentinel(0, OLD), S3: Sentinel(0, OLD)}
        assert await sentinels({S1: told[S1]}).master() == NEW
        assert await sentinels({S1: told[S1], S2: told[S2]}).master() == NEW
        assert await sentinels({S2: told[S2], S3: told[S3]}).master() == OLD

    run(test)


def test_what_is_written_is_settled_while_all_who_answer_leave_the_master_alone() -> None:
    """One may be gone, or not know yet that this is the master."""

    async def test() -> None:
        told = {S1: Sentinel(1, NEW), S2: Sentinel(1, NEW), S3: Sentinel(0, OLD)}
        await sentinels(told).settle(str(NEW))
        await sentinels({**told, S3: None}).settle(str(NEW))

    run(test)


def test_a_sentinel_that_did_not_answer_is_not_waited_for_again() -> None:
    """An import asks thousands of times."""

    async def test() -> None:
        told = {S1: Sentinel(0, OLD), S2: None, S3: Sentinel(0, OLD)}
        asked = sentinels(told, timeout=10 * PATIENCE)
        await asked.settle(str(OLD))
        told[S2] = Hanging()
        async with asyncio.timeout(PATIENCE):
            await asked.settle(str(OLD))

    run(test)


def test_a_new_master_is_settled_while_replicas_go_over_to_it() -> None:
    """That takes minutes, if there is much to copy."""

    async def test() -> None:
        told = {S1: Sentinel(1, OLD, NEW), S2: Sentinel(1, NEW), S3: Sentinel(1, NEW)}
        await sentinels(told).settle(str(NEW))

    run(test)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        # One alone knows that it is about to put another in its place.
        (
            {S1: Sentinel(0, OLD), S2: Sentinel(0, OLD), S3: Sentinel(0, OLD, OLD)},
            "the sentinels are about to put another in its place",
        ),
        # One alone knows that it has.
        (
            {S1: Sentinel(0, OLD), S2: Sentinel(0, OLD), S3: Sentinel(1, OLD, NEW)},
            "new:2 is the master by now",
        ),
        # Those who say nothing may know.
        ({S1: Sentinel(0, OLD), S2: None, S3: None}, "most sentinels do not answer"),
        ({S1: None, S2: None, S3: None}, "most sentinels do not answer"),
    ],
    ids=["deciding", "decided", "few", "none"],
)
def test_what_sentinels_may_take_back_could_be_lost(
    told: Mapping[Node, Sentinel | None], why: str
) -> None:
    async def test() -> None:
        with pytest.raises(WriteUnconfirmed, match=f"old:1 has it, but .*{why}.*write it again"):
            await sentinels(told).settle(str(OLD))

    run(test)
