"""What sentinels say of a master, in their own words, without sentinels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from mtlsgate.registry.redis_address import Login, Node, RedisAddress, parse_redis
from mtlsgate.registry.redis_links import Command, Dialler, Link
from mtlsgate.registry.redis_sentinels import Sentinels
from tests.kits.following import run

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


class Dialled:
    """A dialler of sentinels."""

    timeout = 5.0

    def __init__(self, sentinels: Mapping[Node, Sentinel]) -> None:
        self._sentinels = sentinels
        self.address: RedisAddress = parse_redis(
            f"redis+sentinel://{','.join(map(str, sentinels))}/main"
        )

    async def dial(self, node: Node, _: Login) -> Link:
        return self._sentinels[node]


def sentinels(told: Mapping[Node, Sentinel]) -> Sentinels:
    return Sentinels(cast(Dialler, Dialled(told)), Login(), "main")


def test_the_sentinel_that_leads_a_failover_names_the_new_master() -> None:
    """It has the old one's address and the new epoch until all replicas follow the new one."""

    async def test() -> None:
        told = {S1: Sentinel(1, OLD, NEW), S2: Sentinel(0, OLD), S3: Sentinel(0, OLD)}
        assert await sentinels({S1: told[S1]}).master() == NEW
        assert await sentinels({S1: told[S1], S2: told[S2]}).master() == NEW
        assert await sentinels({S2: told[S2], S3: told[S3]}).master() == OLD

    run(test)
