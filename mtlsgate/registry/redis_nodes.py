"""
Which server to ask: the one, the master that the sentinels name, or a cluster's.

Only masters are asked, because a replica's answers may be old.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from attrs import frozen
from redis.exceptions import AskError

from mtlsgate.registry.redis_address import Node
from mtlsgate.registry.redis_channel import Channel, Confirm
from mtlsgate.registry.redis_confirming import replicate
from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.redis_links import Command, Dialler, Link
from mtlsgate.registry.store import StoreError, StoreUnavailable, WriteUnconfirmed

#: How often what is followed is proved good, in seconds.
BEAT = 0.5

_Answer = TypeVar("_Answer")


@frozen
class Question:
    """
    A command on one key.

    :ivar key: of the value.
    :ivar command: with its arguments.
    """

    key: bytes
    command: Command


#: Which master has taken the write of a key, for people.
Masters = Mapping[bytes, str]


class Nodes(Protocol):
    """The servers of a registry."""

    #: What to ask each followed master with every beat.
    beat: Sequence[Command]

    async def ask(self, questions: Sequence[Question]) -> list[object]:
        """
        :returns: the replies in order; an error reply is a value.
        :raises StoreError: if there is no answer.
        """

    async def write(self, questions: Sequence[Question]) -> tuple[list[object], Masters]:
        """
        As `ask`, and return when the replicas have it, too.

        :returns: the replies, and where each key was written.
        :raises WriteUnconfirmed: if no replica has it in time.
        :raises StoreError: as `ask`.
        """

    async def settle(self, masters: Masters) -> None:
        """
        Return if no other master takes the place of those who have what was written.

        :raises WriteUnconfirmed: if that is not certain.
        """

    async def channels(self) -> Sequence[Channel]:
        """:returns: one for each master."""

    async def masters(self) -> Sequence[Link]:
        """:returns: a new connection to each master, for following."""

    def mark(self, replies: Sequence[object], where: str) -> object:
        """
        :param replies: of one master, to `beat`.
        :returns: what is equal as long as the same masters serve the same keys.
        :raises StoreError: if the server does not serve now.
        """

    async def moved(self) -> None:
        """Return when a master that `masters` has found is none any more.  It may not
        know that itself."""

    async def forget(self) -> None:
        """Nothing that `masters` has found is followed any more.  Make new connections for
        questions: a kept one may lead to a server that is no master any more, and does not
        know."""

    async def close(self) -> None:
        """Close every connection."""


class OneMaster:
    """
    A server, or the master that sentinels name.  While one is followed, that one is asked:
    what another one answers would be remembered, and its changes told to nobody.

    :param dialler: makes connections.
    :param where: for people.
    :param find: finds the master; its result may change.  None is a Unix socket.
    :param watch: returns when there is another master than the given one.
    :param settle: returns if no other master takes the place of the one with the given
        address, and raises `WriteUnconfirmed` otherwise.
    :param pauses: before each further attempt to reach a master that is gone, in seconds.
    """

    # SWAPDB is told to nobody, so its count is watched.
    beat: Sequence[Command] = (("INFO", "commandstats"),)

    def __init__(
        self,
        dialler: Dialler,
        where: str,
        find: Callable[[], Awaitable[Node | None]],
        watch: Callable[[Node | None], Awaitable[None]],
        settle: Callable[[str], Awaitable[None]],
        pauses: Sequence[float] = (),
    ) -> None:
        self._dialler = dialler
        self._pauses = pauses
        self._find = find
        self._watch = watch
        self._settle = settle
        self._followed: Node | None = None
        self._is_following = False
        self._channel = Channel(self._connect, where, dialler.timeout, b"master")

    @classmethod
    def at(cls, dialler: Dialler, node: Node | None, where: str) -> OneMaster:
        """:returns: the one server of a fixed address."""

        async def find() -> Node | None:
            return node

        async def watch(_: Node | None) -> None:
            await asyncio.get_running_loop().create_future()

        async def settle(_: str) -> None:
            """Nobody knows of another one."""

        return cls(dialler, where, find, watch, settle)

    async def ask(self, questions: Sequence[Question]) -> list[object]:
        """:raises StoreError: if there is no answer."""
        return await self._ask(questions, None)

    async def write(self, questions: Sequence[Question]) -> tuple[list[object], Masters]:
        """:raises StoreError: if there is no answer, or no replica has it in time."""
        where = ""

        async def confirm(link: Link, role: object) -> None:
            nonlocal where
            await replicate(link, role, self._dialler.timeout)
            where = link.where

        replies = await self._ask(questions, confirm)
        return replies, {question.key: where for question in questions}

    async def settle(self, masters: Masters) -> None:
        """:raises WriteUnconfirmed: if the master was replaced, or is about to be."""
        try:
            for where in {*masters.values()}:
                await self._settle(where)
        except WriteUnconfirmed:
            # What is written again goes to the new one, though the old one may live.
            await self._channel.forget()
            raise

    async def _ask(self, questions: Sequence[Question], confirm: Confirm | None) -> list[object]:
        commands = [question.command for question in questions]
        replies = await self._channel.ask(commands, confirm)
        if any(isinstance(reply, AskError) for reply in replies):
            raise StoreError(
                "the server belongs to a cluster: its URL begins with redis+cluster://"
            )
        return replies

    async def channels(self) -> Sequence[Channel]:
        """:returns: the one."""
        return (self._channel,)

    async def masters(self) -> Sequence[Link]:
        """:raises StoreError: if there is no connection."""
        node = await self._find()
        link = await self._dialler.dial(node)
        self._followed, self._is_following = node, True
        # It may lead elsewhere.
        await self._channel.forget()
        return (link,)

    def mark(self, replies: Sequence[object], where: str) -> object:
        """:raises StoreError: if the server does not say it."""
        (statistics,) = replies
        if not isinstance(statistics, bytes):
            raise _odd(statistics, where)
        _, _, found = statistics.partition(b"cmdstat_swapdb:calls=")
        return found.partition(b",")[0]

    async def moved(self) -> None:
        """Return when the followed master is none any more."""
        await self._watch(self._followed)

    async def forget(self) -> None:
        """The next question finds the master anew."""
        self._is_following = False
        await self._channel.forget()

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def _connect(self) -> Link:
        for pause in self._pauses:
            try:
                return await self._dialler.dial(await self._present())
            except StoreUnavailable:
                await asyncio.sleep(pause)
        return await self._dialler.dial(await self._present())

    async def _present(self) -> Node | None:
        """:returns: the master that is followed, else the one that is found now."""
        return self._followed if self._is_following else await self._find()


async def first_answers(
    asked: Iterable[Coroutine[object, object, _Answer]], enough: int
) -> list[_Answer]:
    """
    Ask several at once.

    :param enough: with how many answers not to wait for more.
    :returns: the first answers; at least one.
    :raises StoreError: if none answers, why the last one does not.
    """
    tasks = [asyncio.ensure_future(one) for one in asked]
    answers: list[_Answer] = []
    error: StoreError = StoreUnavailable("there is nobody to ask")
    try:
        for next_one in asyncio.as_completed(tasks):
            try:
                answers.append(await next_one)
            except StoreError as failed:
                error = failed
            if len(answers) >= enough:
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not answers:
        raise error
    return answers


def _odd(reply: object, where: str) -> StoreError:
    if isinstance(reply, BaseException):
        return explained(reply, where)
    return StoreError(f"{where} answers what cannot be understood")
