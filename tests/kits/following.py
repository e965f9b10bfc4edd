"""
What a store tells of its changes, and lines to its server that can be cut.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Protocol

from attrs import define, field

from mtlsgate.registry.store import Store, StoreError

#: In seconds; far above what anything here takes.
PATIENCE = 30.0

#: What a follower is told: a word, or the keys that changed.
Event = str | frozenset[str]


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; it fails if it never is."""
    pause = threading.Event()
    for _ in range(round(PATIENCE / 0.02)):
        if is_so():
            return
        pause.wait(0.02)
    raise AssertionError("it never came to be")


@define(eq=False)
class Told:
    """
    What a follower is told, in order: "following", the sets of keys, "any" and "alive".

    :ivar events: all of it.
    """

    events: list[Event] = field(factory=list)
    _news: asyncio.Event = field(factory=asyncio.Event)

    def following(self) -> None:
        """Remember it."""
        self._add("following")

    def changed(self, keys: Collection[str] | None) -> None:
        """Remember it."""
        self._add("any" if keys is None else frozenset(keys))

    def alive(self) -> None:
        """Remember it."""
        self._add("alive")

    def _add(self, event: Event) -> None:
        self.events.append(event)
        self._news.set()

    async def until(self, is_wanted: Callable[[Event], bool]) -> list[Event]:
        """Wait for something that is told from now on; return what is told by then, and
        forget it."""
        async with asyncio.timeout(PATIENCE):
            while not any(map(is_wanted, self.events)):
                self._news.clear()
                await self._news.wait()
        events = [*self.events]
        self.events.clear()
        return events

    async def told_of(self, key: str) -> list[Event]:
        """Wait until a key is told of, by name; return all that is told by then."""
        return await self.until(lambda event: isinstance(event, frozenset) and key in event)

    async def told(self, event: str) -> None:
        """Wait for an event."""
        await self.until(lambda seen: seen == event)


@define(eq=False)
class Followed:
    """
    A follow that runs.

    :ivar told: what it tells.
    :ivar task: it ends when the channel is lost.
    """

    told: Told
    task: asyncio.Task[None]

    async def lost(self) -> StoreError:
        """:returns: why the channel is lost, once it is."""
        async with asyncio.timeout(PATIENCE):
            try:
                await self.task
            except StoreError as error:
                return error
        raise AssertionError("it ended, but never does")


@asynccontextmanager
async def followed(store: Store) -> AsyncIterator[Followed]:
    """Follow a store until the block ends; it follows when the block begins."""
    told = Told()
    task = asyncio.ensure_future(store.follow(told))
    try:
        waiting = asyncio.ensure_future(told.told("following"))
        await asyncio.wait((task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            waiting.cancel()
            task.result()
        await waiting
        yield Followed(told, task)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, StoreError):
            await task


class _Listening(Protocol):
    @property
    def socket(self) -> Path: ...


@define(eq=False)
class Line:
    """
    A proxy between a gate and a server.

    :ivar server: the server.
    :ivar port: where it listens.
    """

    server: _Listening
    port: int = 0
    _goes: asyncio.Event = field(factory=asyncio.Event)
    _writers: list[asyncio.StreamWriter] = field(factory=list)

    def cut(self) -> None:
        """Forward nothing any more, and close nothing: nobody is told."""
        self._goes.clear()

    def mend(self) -> None:
        """Forward again, also what came meanwhile."""
        self._goes.set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Connect to the server, and forward both ways."""
        from_server, to_server = await asyncio.open_unix_connection(self.server.socket)
        self._writers += (writer, to_server)
        await asyncio.gather(self._forward(reader, to_server), self._forward(from_server, writer))

    async def close(self) -> None:
        """Close everything."""
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self._goes.wait()
                writer.write(data)
        writer.close()


@asynccontextmanager
async def line_to(server: _Listening) -> AsyncIterator[Line]:
    """Run a proxy before a server's socket until the block ends."""
    line = Line(server)
    line.mend()
    listening = await asyncio.start_server(line.connected, "127.0.0.1", 0)
    async with listening:
        line.port = listening.sockets[0].getsockname()[1]
        yield line
        await line.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a test in a loop of its own."""

    async def run_it() -> None:
        await test()

    asyncio.run(run_it())
