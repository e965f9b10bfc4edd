"""
The reactor of this process.

The first configuration chooses it, if nobody else has: an asyncio event loop where
something needs one, uvloop's where a protocol does and it is installed.  It stays the same
for as long as the process runs.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.clock import MonotonicReactor
from mtlsgate.load.event_loop import EventLoopWish

_log = Logger("mtlsgate.asyncio")

_REACTOR = "twisted.internet.reactor"


class ReactorChoice:
    """
    Chooses the reactor, and installs it.

    :ivar _reactor: the reactor, as the gate uses it; None before it is chosen.
    :ivar _loop: what it runs on, an `EventLoop` or another kind of reactor; None before
        the first configuration.
    """

    def __init__(self) -> None:
        self._reactor: MonotonicReactor | None = None
        self._loop: str | None = None

    def __call__(self, wish: EventLoopWish) -> Callable[[], MonotonicReactor]:
        """
        Install the reactor for a configuration, unless there is one.

        :returns: what returns the reactor.
        :raises ValueError: if another one is installed already.
        """
        if self._loop is None:
            # Later ones come in another thread, where asyncio knows of no loop.
            if _REACTOR not in sys.modules:
                _install(wish)
            self._loop = _installed_loop()
        problem = _problem(wish, self._loop)
        if problem is not None:
            raise ValueError(problem)
        return self.get

    def get(self) -> MonotonicReactor:
        """:returns: the reactor; Twisted's default one if nothing was chosen."""
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = MonotonicReactor(reactor)
        return self._reactor


def _install(wish: EventLoopWish) -> None:
    """Install the reactor that is wanted."""
    if wish.name == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()
    elif wish.needs_asyncio:
        from twisted.internet import asyncioreactor

        wants_uvloop = wish.name == "uvloop" or (wish.name is None and find_spec("uvloop"))
        loop = _uvloop() if wants_uvloop else asyncio.new_event_loop()
        loop.set_exception_handler(report)
        asyncio.set_event_loop(loop)
        asyncioreactor.install(loop)
    else:
        from twisted.internet import reactor as reactor


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody else handles, such as the exception of a task."""
    error = context.get("exception")
    text = context["message"]
    if error is None:
        _log.error("{text}", text=text)
    else:
        failure = Failure(error, type(error), error.__traceback__)
        _log.failure("{text}", failure=failure, text=text)


def _uvloop() -> asyncio.AbstractEventLoop:
    from mtlsgate.run.uvloop_loop import UvLoop

    return UvLoop()


def _installed_loop() -> str:
    """:returns: what the installed reactor runs on, or the name of another kind of reactor."""
    kind = type(sys.modules[_REACTOR])
    if kind.__module__ == "twisted.internet.epollreactor":
        return "epoll"
    if kind.__module__ != "twisted.internet.asyncioreactor":
        return kind.__name__
    loop = asyncio.get_event_loop()
    is_uvloop = any(one.__module__.startswith("uvloop") for one in type(loop).__mro__)
    return "uvloop" if is_uvloop else "asyncio"


def _problem(wish: EventLoopWish, installed: str) -> str | None:
    """:returns: why the installed reactor is not what is wanted, or None."""
    if wish.name in (None, installed) and (
        not wish.needs_asyncio or installed in ("asyncio", "uvloop")
    ):
        return None
    wanted = wish.name or "asyncio"
    return (
        f"{wish.why} needs {wanted}, but this process runs on {installed}: restart the gate, "
        "without --reactor"
    )
