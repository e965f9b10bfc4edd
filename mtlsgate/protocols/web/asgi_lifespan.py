"""
The lifespan of an ASGI application: what it does before its first request, and after its
last.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

from __future__ import annotations

import asyncio
import logging

from twisted.logger import Logger
from uvicorn import Config
from uvicorn.lifespan.on import LifespanOn

from mtlsgate.errors import GateError
from mtlsgate.protocols.aio.prepared import Run
from mtlsgate.text import printable

_log = Logger("mtlsgate.web")


class LifespanFailed(GateError):
    """An application did not start, in one line."""


class _LastMessage(logging.Handler):
    """Keeps the last line of what an application says of its failure."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line."""
        lines = record.getMessage().strip().splitlines()
        self.text = lines[-1].strip() if lines else ""


def _is_of_the_application(record: logging.LogRecord) -> bool:
    """:returns: False for what uvicorn says of itself: that it ends, which it does not."""
    return not record.getMessage().endswith("Exiting.")


class ApplicationLifespan(LifespanOn):
    """
    uvicorn's, with a logger of the server's own.

    :ivar task: in which the application runs; None before that.
    """

    task: asyncio.Task[object] | None = None

    def __init__(self, config: Config, logger: logging.Logger) -> None:
        super().__init__(config)
        self.logger = logger

    async def main(self) -> None:
        """Run the application."""
        self.task = asyncio.current_task()
        await super().main()


class Lifespan(Run):
    """
    One run of an application.

    :ivar state: what the application put into its state, for its requests.
    """

    def __init__(self, config: Config, logger: logging.Logger, server: str, timeout: float) -> None:
        """
        :param logger: what the application says.
        :param server: the server's name, for messages.
        :param timeout: seconds that the start and the end may each take.
        """
        super().__init__()
        self._last = _LastMessage()
        own = logging.Logger(logger.name, logging.INFO)
        own.addFilter(_is_of_the_application)
        for handler in (*logger.handlers, self._last):
            own.addHandler(handler)
        self._lifespan = ApplicationLifespan(config, own)
        self._server = server
        self._timeout = timeout
        self.state = self._lifespan.state

    async def begin(self) -> None:
        """
        Start the application.

        :raises LifespanFailed: if it fails, or takes too long.
        """
        try:
            async with asyncio.timeout(self._timeout):
                await self._lifespan.startup()
        except TimeoutError:
            if self._lifespan.task is not None:
                self._lifespan.task.cancel()
            text = f"the application did not start within {self._timeout:g} s"
            raise LifespanFailed(f"{self._server}: {text}") from None
        if self._lifespan.should_exit:
            why = f": {printable(self._last.text)}" if self._last.text else ""
            raise LifespanFailed(f"{self._server}: the application failed to start{why}")

    async def end(self) -> None:
        """End the application."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._lifespan.shutdown()
        except TimeoutError:
            text = f"the application did not end within {self._timeout:g} s"
            _log.error("{server}: {text}", server=self._server, text=text)
