"""
A registry in a Redis: one server, a master that sentinels name, or a cluster.

`mtlsgate.registry.redis_layout` says what is stored.  Every question goes to masters only,
has a time limit, and is asked once more if a kept connection turns out to be dead.
"""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import partial
from itertools import islice
from typing import TypeVar

from attrs import evolve
from redis.exceptions import NoScriptError, ResponseError

from mtlsgate.admission.devices import Device
from mtlsgate.registry.redis_address import Kind, Login, RedisAddress, parse_redis
from mtlsgate.registry.redis_channel import Channel
from mtlsgate.registry.redis_cluster import Cluster
from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.redis_following import Following
from mtlsgate.registry.redis_layout import Layout, flat_fields, read_device
from mtlsgate.registry.redis_links import Command, Dialler, tls_context
from mtlsgate.registry.redis_nodes import Masters, Nodes, OneMaster, Question
from mtlsgate.registry.redis_scripts import LEASE, PUT, Script
from mtlsgate.registry.redis_sentinels import SentinelMaster
from mtlsgate.registry.store import Follower, StoreError, StoreOptions, StoreUnavailable, Written

#: The most devices that are asked for, or written, in one round trip.
_BATCH = 500

_Answer = TypeVar("_Answer")
_Item = TypeVar("_Item")


class RedisStore:
    """
    A registry in a Redis.

    :param nodes: the servers.
    :param layout: the names of the keys.
    :param where: the address, for people.
    :param timeout: of each answer, in seconds.
    """

    def __init__(self, nodes: Nodes, layout: Layout, where: str, timeout: float) -> None:
        self._nodes = nodes
        self._layout = layout
        self._where = where
        self._timeout = timeout

    async def find(self, keys: Collection[str]) -> Mapping[str, Device]:
        """:raises StoreError: if there is no answer in time."""
        found: dict[str, Device] = {}
        for some in _batches(keys):
            hashes = [self._layout.device(key) for key in some]
            replies = await self._ask([Question(name, ("HGETALL", name)) for name in hashes])
            found.update(self._read(some, replies))
        return found

    async def follow(self, follower: Follower) -> None:
        """:raises StoreError: why the push channel is lost."""
        await Following(self._nodes, self._layout, self._timeout, follower).run()

    async def put(self, devices: Iterable[Device]) -> Written:
        """:raises StoreError: if it fails; what is written already stays."""
        counts = [0, 0, 0]
        masters: dict[bytes, str] = {}
        for some in _batches(devices):
            write = partial(self._write, masters)
            for reply in await self._run(PUT, map(self._putting, some), write):
                counts[reply] += 1
        await self._settle(masters)
        return Written(added=counts[1], changed=counts[2])

    async def remove(self, keys: Collection[str]) -> int:
        """:returns: how many of them were there."""
        removed = 0
        masters: dict[bytes, str] = {}
        for some in _batches(keys):
            names = [self._layout.device(key) for key in some]
            replies = await self._write(masters, [Question(name, ("DEL", name)) for name in names])
            removed += sum(self._number(reply) for reply in replies)
        await self._settle(masters)
        return removed

    async def devices(self) -> AsyncIterator[Device]:
        """
        :returns: all devices.  One that is written meanwhile may be among them or not, and
            while a server resizes its table one may be there twice, as SCAN has it.
        """
        for channel in await self._limited(self._nodes.channels()):
            async for names in self._scan(channel):
                keys = {key: name for name in names if (key := self._layout.key(name)) is not None}
                asked: list[Command] = [("HGETALL", name) for name in keys.values()]
                replies = await self._limited(channel.ask(asked)) if asked else ()
                for device in self._read([*keys], replies).values():
                    yield device

    async def count(self) -> int:
        """:returns: how many devices there are.  The server walks through all its keys."""
        count = 0
        for channel in await self._limited(self._nodes.channels()):
            async for names in self._scan(channel):
                count += len(names)
        return count

    async def lease(self, key: str, holder: str, places: int, seconds: float) -> bool:
        """:returns: whether there was a place."""
        name = self._layout.lease(key)
        lease = LEASE.run(name, holder, places, round(seconds * 1000))
        # A place that is lost in a failover is taken again when it is renewed.
        (reply,) = await self._run(LEASE, [Question(name, lease)], self._ask)
        return reply == 1

    async def release(self, key: str, holder: str) -> None:
        """Give a place back."""
        name = self._layout.lease(key)
        (reply,) = await self._ask([Question(name, ("ZREM", name, holder))])
        self._number(reply)

    async def close(self) -> None:
        """Close every connection."""
        await self._nodes.close()

    def _putting(self, device: Device) -> Question:
        if device.problem:
            raise StoreError(f"{device.key}: {device.problem}")
        name = self._layout.device(device.key)
        return Question(name, PUT.run(name, *flat_fields(device)))

    def _read(self, keys: Sequence[str], replies: Sequence[object]) -> dict[str, Device]:
        found: dict[str, Device] = {}
        for key, reply in zip(keys, replies, strict=True):
            if isinstance(reply, ResponseError):
                # Somebody has put something else there, which concerns this device alone.
                if not str(reply).startswith("WRONGTYPE"):
                    raise explained(reply, self._where)
                reply = None
            if (device := read_device(key, reply)) is not None:
                found[key] = device
        return found

    async def _scan(self, channel: Channel) -> AsyncIterator[list[bytes]]:
        """:returns: the names of all devices' hashes on one server, by parts."""
        cursor: bytes = b"0"
        while True:
            scan: Command = ("SCAN", cursor, "MATCH", self._layout.pattern, "COUNT", _BATCH)
            (reply,) = await self._limited(channel.ask([scan]))
            if not isinstance(reply, list):
                raise self._odd(reply)
            cursor, names = reply
            yield names
            if cursor == b"0":
                return

    async def _run(
        self,
        script: Script,
        questions: Iterable[Question],
        ask: Callable[[Sequence[Question]], Awaitable[list[object]]],
    ) -> list[int]:
        """:returns: what the script returns for each question."""
        asked = [*questions]
        replies = await ask(asked)
        unknown = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if unknown:
            taught = [evolve(asked[i], command=script.teach(asked[i].command)) for i in unknown]
            for i, reply in zip(unknown, await ask(taught), strict=True):
                replies[i] = reply
        return [self._number(reply) for reply in replies]

    async def _ask(self, questions: Sequence[Question]) -> list[object]:
        return await self._limited(self._nodes.ask(questions))

    async def _write(
        self, masters: dict[bytes, str], questions: Sequence[Question]
    ) -> list[object]:
        """:param masters: gets where it was written."""
        # The master's, and that which waits for the replicas.
        replies, found = await self._limited(self._nodes.write(questions), answers=3)
        masters.update(found)
        return replies

    async def _settle(self, masters: Masters) -> None:
        if masters:
            await self._limited(self._nodes.settle(masters))

    async def _limited(
        self, asked: Coroutine[object, object, _Answer], answers: int = 1
    ) -> _Answer:
        try:
            async with asyncio.timeout(self._timeout * answers):
                return await asked
        except TimeoutError:
            raise StoreUnavailable(f"{self._where} did not answer in time") from None

    def _number(self, reply: object) -> int:
        if isinstance(reply, int):
            return reply
        raise self._odd(reply)

    def _odd(self, reply: object) -> StoreError:
        if isinstance(reply, BaseException):
            return explained(reply, self._where)
        return StoreError(f"{self._where} answers what cannot be understood")


def open_store(options: StoreOptions) -> RedisStore:
    """
    :returns: the store, not connected yet.
    :raises StoreError: if the URL, the prefix or a file is wrong.
    """
    address = _with_password(parse_redis(options.url), options.password)
    dialler = Dialler(address, options.timeout, tls_context(address, options))
    layout = Layout(options.prefix)
    return RedisStore(_nodes(dialler, address), layout, str(address), options.timeout)


def _with_password(address: RedisAddress, password: str | None) -> RedisAddress:
    if password is None:
        return address
    if address.login.password is not None:
        raise StoreError("the password is stated twice, in the URL too")
    return evolve(address, login=Login(address.login.username, password))


def _nodes(dialler: Dialler, address: RedisAddress) -> Nodes:
    match address.kind:
        case Kind.CLUSTER:
            return Cluster(dialler)
        case Kind.SENTINEL:
            return SentinelMaster(dialler, address.sentinel_login, address.service, str(address))
        case _:
            return OneMaster.at(dialler, address.nodes[0] if address.nodes else None, str(address))


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch
