"""
An asyncio protocol's factory that has to be made first: by a coroutine, or by an
asynchronous context manager that is left after the last connection.
"""

from __future__ import annotations

import asyncio
import inspect
from asyncio import AbstractEventLoop, BaseProtocol, Future, Task
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from twisted.logger import Logger

from mtlsgate.errors import GateError
from mtlsgate.protocols.aio.prepared import START_TIMEOUT, PreparedServer, Run
from mtlsgate.protocols.importing import describe

_log = Logger("mtlsgate.asyncio")

#: Makes the protocol of a connection.
ProtocolFactory = Callable[[], BaseProtocol]


def is_to_be_made(found: object) -> bool:
    """:returns: whether it is a coroutine function, or a function that makes an asynchronous
    context manager, as `contextlib.asynccontextmanager` does."""
    return inspect.iscoroutinefunction(found) or (
        callable(found) and inspect.isasyncgenfunction(inspect.unwrap(found))
    )


class FactoryRun(Run):
    """
    From the making of a protocol factory to its end, in one task.

    :ivar _made: the protocol factory, when it is made.
    :ivar _is_over: set when it is not needed any more.
    """

    def __init__(self, make: Callable[[], Any], name: str, server: str) -> None:
        """
        :param make: makes the protocol factory.
        :param name: what the configuration calls it.
        :param server: the server's name, for messages.
        """
        super().__init__()
        self._make = make
        self._name = name
        self._server = server
        self._task: Task[None] | None = None
        self._made: Future[ProtocolFactory] | None = None
        self._is_over = asyncio.Event()

    @property
    def factory(self) -> ProtocolFactory:
        """The protocol factory."""
        assert self._made is not None
        return self._made.result()

    async def begin(self) -> None:
        """
        Make the protocol factory.

        :raises GateError: if that fails, or takes too long.
        """
        loop = asyncio.get_running_loop()
        self._made = loop.create_future()
        self._task = loop.create_task(self._live(self._made))
        done, _ = await asyncio.wait([self._made], timeout=START_TIMEOUT)
        if not done:
            self._task.cancel()
            text = f"{self._name} made nothing within {START_TIMEOUT:g} s"
            raise GateError(f"{self._server}: {text}")
        error = self._made.exception()
        if error is not None:
            raise GateError(f"{self._server}: {self._name} failed: {describe(error)}") from error

    async def _live(self, made: Future[ProtocolFactory]) -> None:
        try:
            making = self._make()
            if not hasattr(making, "__aenter__"):
                made.set_result(self._checked(await cast(Awaitable[object], making)))
                return
            async with cast(AbstractAsyncContextManager[object], making) as found:
                made.set_result(self._checked(found))
                await self._is_over.wait()
        except Exception as error:  # noqa: BLE001 -- it is not ours
            if not made.done():
                made.set_exception(error)
            else:
                _log.failure("{server}: {name} failed", server=self._server, name=self._name)

    def _checked(self, found: object) -> ProtocolFactory:
        if not callable(found):
            kind = type(found).__name__
            raise TypeError(f"it made a {kind}, not what makes asyncio protocols")
        return found

    async def end(self) -> None:
        """Leave the context manager."""
        self._is_over.set()
        if self._task is not None:
            _, pending = await asyncio.wait([self._task], timeout=START_TIMEOUT)
            if pending:
                self._task.cancel()
                text = f"{self._name} did not end within {START_TIMEOUT:g} s"
                _log.error("{server}: {text}", server=self._server, text=text)


class FactoryServer(PreparedServer):
    """The factory of connections whose protocols come from a factory that is made first."""

    def __init__(
        self, make: Callable[[], Any], origin: str, clock: Any, name: str, alpn: tuple[str, ...]
    ) -> None:
        """
        :param make: makes the protocol factory.
        :param origin: what the configuration calls it.
        """
        super().__init__(self._protocol, clock, name, alpn, self._retire_factory)
        self._make = make
        self._origin = origin
        self._names = alpn

    @property
    def told(self) -> object:
        """What it is made by."""
        return self._make, self._names

    def new_run(self) -> Run:
        """:returns: what makes the protocol factory."""
        return FactoryRun(self._make, self._origin, self.name)

    @property
    def _factory(self) -> Any:
        run = self.run
        assert isinstance(run, FactoryRun)
        return run.factory

    def _protocol(self, loop: AbstractEventLoop) -> BaseProtocol:
        found: BaseProtocol = self._factory()
        return found

    def _retire_factory(self) -> None:
        retire = getattr(self._factory, "retire", None) if self.run is not None else None
        if retire is not None:
            retire()
