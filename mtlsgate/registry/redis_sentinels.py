"""
The master that sentinels name.

https://redis.io/docs/latest/develop/reference/sentinel-clients/: all are asked at once, and
among the first that make a majority the newest configuration counts.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from mtlsgate.registry.redis_address import Login, Node
from mtlsgate.registry.redis_channel import Channel
from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.redis_links import Command, Dialler
from mtlsgate.registry.redis_nodes import BEAT, OneMaster, first_answers
from mtlsgate.registry.store import StoreError, StoreUnavailable

#: In seconds, and less than the time limit together: when one master takes another's place,
#: some sentinels still name the one that is gone.
_UNTIL_ALL_KNOW = (0.05, 0.1, 0.2, 0.3)


class Sentinels:
    """
    The sentinels of a master.

    :param dialler: makes connections.
    :param login: for the sentinels.
    :param service: the master's name.
    """

    def __init__(self, dialler: Dialler, login: Login, service: str) -> None:
        self._service = service
        self._channels = [
            # So that there is time left for the master, if some do not answer.
            Channel(
                partial(dialler.dial, node, login),
                str(node),
                dialler.timeout / 2,
                b"sentinel",
            )
            for node in dialler.address.nodes
        ]

    async def master(self) -> Node:
        """
        :returns: where the master is.
        :raises StoreError: if no sentinel says.
        """
        majority = len(self._channels) // 2 + 1
        answers = await first_answers(map(self._asked, self._channels), majority)
        return max(answers, key=lambda answer: answer[0])[1]

    async def replaced(self, followed: Node | None) -> None:
        """Return when the sentinels name another master.  Sentinels that do not answer
        change nothing: whether the master is good is asked itself."""
        while True:
            await asyncio.sleep(BEAT)
            try:
                if await self.master() != followed:
                    return
            except StoreUnavailable:
                continue

    async def close(self) -> None:
        """Close every connection."""
        for channel in self._channels:
            await channel.close()

    async def _asked(self, channel: Channel) -> tuple[int, Node]:
        # While a sentinel puts another master in the place of one, MASTER has the new epoch
        # and still the old address, perhaps for minutes.
        address: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        replies = await channel.ask([("SENTINEL", "MASTER", self._service), address])
        for reply in replies:
            if isinstance(reply, BaseException):
                if "No such master" in str(reply):
                    raise StoreError(f"the sentinels know no service {self._service!r}")
                raise explained(reply, "a sentinel")
        match replies:
            case [{b"config-epoch": bytes(epoch)}, [bytes(host), bytes(port)]]:
                with suppress(ValueError):
                    return int(epoch), Node(host.decode(), int(port))
        raise StoreError("a sentinel answers what cannot be understood")


class SentinelMaster(OneMaster):
    """The master that sentinels name."""

    def __init__(self, dialler: Dialler, login: Login, service: str, where: str) -> None:
        self._sentinels = Sentinels(dialler, login, service)
        super().__init__(
            dialler, where, self._sentinels.master, self._sentinels.replaced, _UNTIL_ALL_KNOW
        )

    async def close(self) -> None:
        """Close every connection."""
        await super().close()
        await self._sentinels.close()
