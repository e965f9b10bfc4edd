"""
A kept connection that many ask through.

While one round trip is under way, questions collect, and the next takes them all: under
load a question costs a fraction of a system call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from attrs import frozen

from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.redis_links import ROLE, Command, Link, ask_role
from mtlsgate.registry.store import StoreError, StoreUnavailable

#: The most commands in one round trip, if there is more than one question.
MOST_COMMANDS = 512


#: Gets the connection, and the reply of a ``ROLE`` after the commands.
Confirm = Callable[[Link, object], Awaitable[None]]


@frozen(eq=False)
class _Question:
    commands: Sequence[Command]
    confirm: Confirm | None
    answer: asyncio.Future[list[object]]


class Channel:
    """
    Asks one server, through one connection that is made when it is needed.

    :param connect: makes an open connection.
    :param where: the server, for people.
    :param timeout: of a round trip, a new connection included, in seconds.
    :param role: what the server must be each time that it answers, see
        `redis_links.require_role`; None if it does not matter.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Link]],
        where: str,
        timeout: float,
        role: bytes | None = None,
    ) -> None:
        self._connect = connect
        self._where = where
        self._timeout = timeout
        self._role = role
        self._link: Link | None = None
        self._questions: deque[_Question] = deque()
        # Whether a round trip is under way, and what makes those after it.
        self._is_busy = False
        self._worker: asyncio.Task[None] | None = None
        self._is_closed = False
        # How often `forget` was called.
        self._forgotten = 0

    async def ask(
        self, commands: Sequence[Command], confirm: Confirm | None = None
    ) -> list[object]:
        """
        :param commands: run one after the other, but not as a transaction.  They may be
            run twice, if the connection breaks.
        :param confirm: awaited after them, with the connection on which they ran, unless all
            replies are errors.  It has a time limit of its own.
        :returns: their replies in order; an error reply is a value.
        :raises StoreError: if there is no answer in time, or what `confirm` raises.
        """
        if self._is_busy:
            question = _Question(commands, confirm, asyncio.get_running_loop().create_future())
            self._questions.append(question)
            return await question.answer
        # Nobody else waits: a task of its own would cost more than the question.
        self._is_busy = True
        try:
            return await self._round_trip(commands, confirm)
        finally:
            self._is_busy = False
            if self._questions:
                self._is_busy = True
                self._worker = asyncio.create_task(self._work())

    async def forget(self) -> None:
        """Make a new connection for what is asked from now on, and for what is not answered
        yet."""
        self._forgotten += 1
        await self._drop()

    async def close(self) -> None:
        """Close the connection.  Who still waits is told so."""
        self._is_closed = True
        await self.forget()
        if (worker := self._worker) is not None:
            await asyncio.wait((worker,))

    async def _work(self) -> None:
        try:
            while asked := self._take():
                commands = [command for question in asked for command in question.commands]
                try:
                    replies = iter(await self._round_trip(commands, asked[0].confirm))
                except StoreError as error:
                    for question in asked:
                        if not question.answer.done():
                            question.answer.set_exception(type(error)(*error.args))
                else:
                    for question in asked:
                        answer = [next(replies) for _ in question.commands]
                        if not question.answer.done():
                            question.answer.set_result(answer)
        finally:
            self._worker = None
            self._is_busy = False

    async def _round_trip(
        self, commands: Sequence[Command], confirm: Confirm | None
    ) -> list[object]:
        if confirm is not None:
            commands = [*commands, ROLE]
        try:
            async with asyncio.timeout(self._timeout):
                link, replies = await self._exchange(commands)
        except TimeoutError:
            raise StoreUnavailable(f"{self._where} did not answer in time") from None
        except Exception as error:
            raise explained(error, self._where) from error
        if confirm is not None:
            role = replies.pop()
            if not all(isinstance(reply, BaseException) for reply in replies):
                await self._confirm(confirm, link, role)
        return replies

    async def _confirm(self, confirm: Confirm, link: Link, role: object) -> None:
        try:
            await confirm(link, role)
        except BaseException:
            # There may be late replies on it.
            await self._drop()
            raise

    def _take(self) -> list[_Question]:
        """:returns: the questions for the next round trip; none if nobody waits."""
        taken: list[_Question] = []
        commands = 0
        while self._questions:
            if self._questions[0].answer.done():
                # Whoever asked has given up.
                self._questions.popleft()
                continue
            commands += len(self._questions[0].commands)
            is_alone = self._questions[0].confirm is not None
            if taken and (is_alone or commands > MOST_COMMANDS):
                break
            taken.append(self._questions.popleft())
            if is_alone:
                break
        return taken

    async def _exchange(self, commands: Sequence[Command]) -> tuple[Link, list[object]]:
        is_kept = self._link is not None
        try:
            return await self._once(commands)
        except StoreUnavailable:
            if not is_kept:
                raise
            # The server may have closed the kept connection long ago: try a new one.
            return await self._once(commands)

    async def _once(self, commands: Sequence[Command]) -> tuple[Link, list[object]]:
        link = await self._connected()
        try:
            if self._role is None:
                return link, await link.exchange(commands)
            return link, await ask_role(link, commands, self._role)
        except BaseException:
            # Late replies must not be taken for those of the next question.
            await self._drop()
            raise

    async def _connected(self) -> Link:
        while self._link is None:
            if self._is_closed:
                raise StoreUnavailable(f"{self._where}: the registry is closed")
            forgotten = self._forgotten
            link = await self._connect()
            if forgotten == self._forgotten:
                self._link = link
            else:
                # It may lead to the server that was to be forgotten.
                await link.close()
        return self._link

    async def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
