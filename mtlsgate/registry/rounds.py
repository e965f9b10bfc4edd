"""
Questions that wait for each other go together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Generic, TypeVar

from mtlsgate.registry.store import StoreError

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


class Rounds(Generic[_Item, _Answer]):
    """
    Asks one question at a time.  What is asked for while its answer is on its way goes into
    the next one: never into one that is sent, whose answer may be older than the asking.

    :param ask: asks for some items; it is never cancelled.
    """

    def __init__(self, ask: Callable[[Collection[_Item]], Awaitable[_Answer]]) -> None:
        self._ask = ask
        self._next: _Round[_Item, _Answer] | None = None
        self._asking: asyncio.Future[None] | None = None

    async def ask(self, items: Collection[_Item]) -> _Answer:
        """
        :returns: the answer for these items, and maybe more.
        :raises StoreError: why there is none.
        """
        if self._next is None:
            self._next = _Round()
        this = self._next
        this.items.update(items)
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._go_on())
        # One for each caller, who may be cancelled.
        answer: asyncio.Future[_Answer | StoreError] = asyncio.get_running_loop().create_future()
        this.waiting.append(answer)
        found = await answer
        if isinstance(found, StoreError):
            # Each caller has an error of its own: they collect tracebacks.
            raise type(found)(str(found))
        return found

    async def close(self) -> None:
        """Wait until nothing is asked any more."""
        if self._asking is not None:
            await asyncio.wait({self._asking})

    async def _go_on(self) -> None:
        try:
            while (this := self._next) is not None:
                self._next = None
                try:
                    this.tell(await self._ask(this.items))
                except StoreError as error:
                    this.tell(error)
                except Exception as error:  # noqa: BLE001 -- whoever asked gets it
                    this.fail(error)
        finally:
            self._asking = None


class _Round(Generic[_Item, _Answer]):
    """
    One question to come.

    :ivar items: what is asked for.
    :ivar waiting: who gets what it brings, or why it brings nothing.
    """

    def __init__(self) -> None:
        self.items: set[_Item] = set()
        self.waiting: list[asyncio.Future[_Answer | StoreError]] = []

    def tell(self, found: _Answer | StoreError) -> None:
        for one in self.waiting:
            if not one.done():
                one.set_result(found)

    def fail(self, error: Exception) -> None:
        for one in self.waiting:
            if not one.done():
                one.set_exception(error)
