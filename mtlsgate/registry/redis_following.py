"""
Following the changes in a Redis.

The server pushes the names of changed keys: ``CLIENT TRACKING ON BCAST PREFIX``, of Redis's
client-side caching (https://redis.io/docs/latest/develop/reference/client-side-caching/).
It covers every way in which a key can change, FLUSHALL, expiry and eviction included, and
needs no setting of the server.  Keyspace notifications would need one, which anybody can
switch off unnoticed, and say nothing of FLUSHALL.

SWAPDB is pushed to nobody, nor is a new master: each beat asks for what tells them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

from mtlsgate.registry.redis_layout import Layout
from mtlsgate.registry.redis_links import ROLE, Changed, Command, Link, require_role
from mtlsgate.registry.redis_nodes import BEAT, Nodes
from mtlsgate.registry.store import Follower, StoreUnavailable

#: How long to wait until the nodes of a changing cluster agree, in seconds.
_SETTLING = 0.1

#: What an answer may be late if this process itself was held up, in seconds.
_GRACE = 0.05


class Following:
    """
    Follows all masters.

    :param nodes: to follow.
    :param layout: says which keys belong to devices.
    :param timeout: of each answer, in seconds.
    :param follower: is told.
    """

    def __init__(self, nodes: Nodes, layout: Layout, timeout: float, follower: Follower) -> None:
        self._nodes = nodes
        self._layout = layout
        self._timeout = timeout
        self._follower = follower
        #: The masters that have not answered since the follower was last told `alive`.
        self._silent: set[Link] = set()
        self._links: Sequence[Link] = ()

    async def run(self) -> None:
        """
        Follow, also other masters when they change; never returns.

        :raises StoreError: if a master is lost.
        """
        while True:
            try:
                try:
                    async with asyncio.timeout(self._timeout):
                        mark = await self._begin()
                except TimeoutError:
                    raise StoreUnavailable("the registry cannot be followed in time") from None
                # Also after a change of masters: what came meanwhile was told to nobody.
                self._follower.following()
                await _first(
                    [self._nodes.moved(), *(self._watch(link, mark) for link in self._links)]
                )
            finally:
                await self._end()
                await self._nodes.forget()

    async def _begin(self) -> object:
        """:returns: the mark of all masters, once each tells of changes."""
        while True:
            self._links = await self._nodes.masters()
            marks = await asyncio.gather(*map(self._track, self._links))
            if all(mark == marks[0] for mark in marks):
                self._silent = set(self._links)
                return marks[0]
            await self._end()
            await asyncio.sleep(_SETTLING)

    async def _end(self) -> None:
        links, self._links = self._links, ()
        await asyncio.gather(*(link.close() for link in links))

    async def _track(self, link: Link) -> object:
        track: Command = ("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", self._layout.devices)
        await link.send([track])
        await self._answers(link, 1)
        return await self._beat(link)

    async def _watch(self, link: Link, mark: object) -> None:
        """Return when the mark is another."""
        clock = asyncio.get_running_loop().time
        while True:
            self._silent.discard(link)
            if not self._silent:
                self._follower.alive()
                self._silent.update(self._links)
            due = clock() + BEAT
            while (seconds := due - clock()) > 0:
                self._tell(await link.receive(seconds))
            if await self._beat(link) != mark:
                return

    async def _beat(self, link: Link) -> object:
        commands = [ROLE, *self._nodes.beat]
        await link.send(commands)
        role, *replies = await self._answers(link, len(commands))
        require_role(role, b"master", link.where)
        return self._nodes.mark(replies, link.where)

    async def _answers(self, link: Link, count: int) -> list[object]:
        """:returns: the replies; what is pushed meanwhile is told."""
        clock = asyncio.get_running_loop().time
        until = clock() + self._timeout
        replies: list[object] = []
        while len(replies) < count:
            message = await link.receive(max(until - clock(), _GRACE))
            if message is None:
                raise StoreUnavailable(f"{link.where} did not answer in time")
            if not self._tell(message):
                replies.append(message)
            elif clock() > until + self._timeout:
                raise StoreUnavailable(f"{link.where} pushes, but does not answer")
        return replies

    def _tell(self, message: object) -> bool:
        """:returns: whether it was pushed."""
        if not isinstance(message, Changed):
            return False
        if message.names is None:
            self._follower.changed(None)
        elif keys := [key for name in message.names if (key := self._layout.key(name)) is not None]:
            self._follower.changed(keys)
        return True


async def _first(coroutines: Sequence[Coroutine[object, object, None]]) -> None:
    """
    Wait until one of them returns, and end the others.

    :raises Exception: what the first one raised.
    """
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
