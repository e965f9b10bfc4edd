"""
Servers whose application runs for as long as they take connections: it starts before the
first, and ends after the last.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.gate.coroutines import later
from mtlsgate.interfaces import IPreparable
from mtlsgate.protocols.aio.factory import AsyncioServer

_log = Logger("mtlsgate.asyncio")

#: Seconds that an application may take to start, and to end, by default.
START_TIMEOUT = 60.0


class Run:
    """
    One run of an application.  Several epochs can share it, and it ends with the last.

    :ivar _users: how many epochs use it.
    """

    def __init__(self) -> None:
        self._users = 0

    @abstractmethod
    async def begin(self) -> None:
        """
        Start the application.

        :raises Exception: any, if it fails.
        """

    @abstractmethod
    async def end(self) -> None:
        """End it."""

    def use(self) -> None:
        """An epoch uses it from now on."""
        self._users += 1

    async def leave(self) -> None:
        """An epoch uses it no longer: end the application if it was the last."""
        self._users -= 1
        if not self._users:
            await self.end()


@implementer(IPreparable)
class PreparedServer(AsyncioServer):
    """
    The factory of connections to such an application.

    :ivar _run: the application's run, from `prepare` on.
    :ivar _ending: keeps the process until the application has ended.
    """

    _run: Run | None = None
    _ending: Ending | None = None

    @abstractmethod
    def new_run(self) -> Run:
        """:returns: a run of the application that has not begun."""

    @property
    @abstractmethod
    def told(self) -> object:
        """What application it is, and what the configuration says of it, for comparison."""

    @property
    def run(self) -> Run | None:
        """The application's run; None before it is prepared, and after its end."""
        return self._run

    async def prepare(self, before: object) -> None:
        """
        Start the application; one that was started as this configuration says goes on.

        :raises Exception: any, if it fails.
        """
        run: Run | None = None
        if isinstance(before, PreparedServer) and before.told == self.told:
            run = before.run
        if run is None:
            run = self.new_run()
            await run.begin()
        run.use()
        self._run = run

    async def discard(self) -> None:
        """It takes no connections, or no more: end the application."""
        run, self._run = self._run, None
        if run is not None:
            await run.leave()

    def startFactory(self) -> None:
        """Take connections.  The process does not end before the application does."""
        super().startFactory()
        if self._run is not None and IReactorCore.providedBy(self.clock):
            self._ending = Ending(self.clock)

    def stopFactory(self) -> None:
        """The last connection has ended: end the application."""
        super().stopFactory()
        ending, self._ending = self._ending, None
        if self._run is not None:
            ended = later(self.discard())
            assert ended is not None
            ended.addErrback(self._failed_to_end)
            if ending is not None:
                ended.addCallback(ending.is_over)

    def _failed_to_end(self, failure: Failure) -> None:
        _log.failure("{server}: the application failed to end", failure=failure, server=self.name)


class Ending:
    """
    Keeps the process until an application has ended.

    :ivar _ended: fires then.
    :ivar _is_awaited: whether the process waits for it already.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._ended: Deferred[None] = Deferred()
        self._is_awaited = False
        self._trigger = reactor.addSystemEventTrigger("before", "shutdown", self._wait)

    def _wait(self) -> Deferred[None]:
        self._is_awaited = True
        return self._ended

    def is_over(self, _: object) -> None:
        """The application has ended."""
        if not self._is_awaited:
            self._reactor.removeSystemEventTrigger(self._trigger)
        self._ended.callback(None)
