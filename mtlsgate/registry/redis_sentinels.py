"""
The master that sentinels name.

https://redis.io/docs/latest/develop/reference/sentinel-clients/: all are asked at once, and
among the first that make a majority the newest configuration counts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial

from attrs import frozen

from mtlsgate.registry.redis_address import Login, Node
from mtlsgate.registry.redis_channel import Channel
from mtlsgate.registry.redis_confirming import unconfirmed
from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.redis_links import Command, Dialler
from mtlsgate.registry.redis_nodes import BEAT, OneMaster, first_answers
from mtlsgate.registry.store import StoreError, StoreUnavailable

#: In seconds, and less than the time limit together: when one master takes another's place,
#: some sentinels still name the one that is gone.
_UNTIL_ALL_KNOW = (0.05, 0.1, 0.2, 0.3)


@frozen
class Naming:
    """
    What one sentinel says.

    :ivar epoch: greater for what is newer.
    :ivar master: where the master is.
    :ivar is_deciding: whether it is about to put another one in its place.
    """

    epoch: int
    master: Node
    is_deciding: bool


def read_naming(fields: object, address: object) -> Naming:
    """
    :param fields: what ``SENTINEL MASTER`` answers.
    :param address: what ``SENTINEL GET-MASTER-ADDR-BY-NAME`` answers.  While replicas go over
        to a new master it is that one, though the fields have the new epoch and the old address.
    :raises StoreError: if that cannot be understood.
    """
    match fields, address:
        case (
            {b"config-epoch": bytes(epoch), b"ip": old_host, b"port": old_port, b"flags": flags},
            [bytes(host), bytes(port)],
        ):
            is_deciding = (old_host, old_port) == (host, port) and (
                b"failover_in_progress" in flags.split(b",")
            )
            with suppress(ValueError):
                return Naming(int(epoch), Node(host.decode(), int(port)), is_deciding)
    raise StoreError("a sentinel answers what cannot be understood")


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
        # Those that answered when all were asked the last time.
        self._answering = self._channels

    async def master(self) -> Node:
        """
        :returns: where the master is.
        :raises StoreError: if no sentinel says.
        """
        answers = await first_answers(map(self._asked, self._channels), self._majority)
        return _newest(answers).master

    async def settle(self, where: str) -> None:
        """
        Return if a master stays one, as far as the sentinels know.  All are asked: one alone
        knows that it is about to put another one in its place.

        :param where: the master's address.
        :raises WriteUnconfirmed: if another one may take its place.
        :raises StoreError: if the sentinels do not know it.
        """
        answers = await self._all_answers()
        if len(answers) < self._majority:
            raise unconfirmed(where, "most sentinels do not answer")
        if str(master := _newest(answers).master) != where:
            raise unconfirmed(where, f"{master} is the master by now")
        if any(answer.is_deciding for answer in answers):
            raise unconfirmed(where, "the sentinels are about to put another in its place")

    @property
    def _majority(self) -> int:
        return len(self._channels) // 2 + 1

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

    async def _all_answers(self) -> list[Naming]:
        """
        :returns: what all sentinels say.  One that did not answer the last time is waited for
            only if there is no majority without it: an import asks thousands of times.
        :raises StoreError: if one answers that it cannot say.
        """
        tasks = {one: asyncio.ensure_future(self._asked(one)) for one in self._channels}
        try:
            await asyncio.wait([tasks[one] for one in self._answering])
            answers = _answers(tasks)
            if len(answers) < self._majority:
                await asyncio.wait(tasks.values())
                answers = _answers(tasks)
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        self._answering = [*answers] or self._channels
        return [*answers.values()]

    async def _asked(self, channel: Channel) -> Naming:
        address: Command = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        replies = await channel.ask([("SENTINEL", "MASTER", self._service), address])
        for reply in replies:
            if isinstance(reply, BaseException):
                if "No such master" in str(reply):
                    raise StoreError(f"the sentinels know no service {self._service!r}")
                raise explained(reply, "a sentinel")
        return read_naming(*replies)


def _answers(tasks: Mapping[Channel, asyncio.Future[Naming]]) -> dict[Channel, Naming]:
    """
    :returns: of those that have answered so far.
    :raises StoreError: as `Sentinels.settle`.
    """
    answers: dict[Channel, Naming] = {}
    for channel, task in tasks.items():
        with suppress(StoreUnavailable):
            if task.done():
                answers[channel] = task.result()
    return answers


def _newest(answers: Iterable[Naming]) -> Naming:
    return max(answers, key=lambda answer: answer.epoch)


class SentinelMaster(OneMaster):
    """The master that sentinels name."""

    def __init__(self, dialler: Dialler, login: Login, service: str, where: str) -> None:
        self._sentinels = Sentinels(dialler, login, service)
        known = self._sentinels
        super().__init__(
            dialler, where, known.master, known.replaced, known.settle, _UNTIL_ALL_KNOW
        )

    async def close(self) -> None:
        """Close every connection."""
        await super().close()
        await self._sentinels.close()
