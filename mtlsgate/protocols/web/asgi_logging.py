"""
Logs what uvicorn and ASGI applications say and do.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from twisted.logger import Logger
from twisted.python.failure import Failure

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
#: Logs a request: its scope, the status of its answer, the size of that, and the seconds.
Note = Callable[[Scope, int, int, float], object]

_log = Logger("mtlsgate.web")

#: What Starlette and uvicorn raise in an application whose client has left.
_LEFT = ("ClientDisconnect", "ClientDisconnected", "WebSocketDisconnect")
#: What uvicorn says of requests and WebSockets, which are logged anyway.
_OF_REQUESTS = ("Invalid HTTP request", "Unsupported upgrade request", '%s - "WebSocket')


def _is_not_of_a_request(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_OF_REQUESTS)


class TwistedHandler(logging.Handler):
    """Passes what is logged with Python's `logging` on to Twisted's log."""

    def __init__(self, server: str) -> None:
        """:param server: the server's name, which every event has."""
        super().__init__(logging.INFO)
        self._server = server

    def emit(self, record: logging.LogRecord) -> None:
        """Log it."""
        text = record.getMessage().strip()
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and type(error).__name__ in _LEFT:
            text = f"the client left, and the application said {type(error).__name__}"
            _log.info("{server}: {text}", server=self._server, text=text)
        elif error is not None:
            failure = Failure(error, type(error), error.__traceback__)
            _log.failure("{server}: {text}", failure=failure, server=self._server, text=text)
        elif record.levelno >= logging.ERROR:
            _log.error("{server}: {text}", server=self._server, text=text)
        elif record.levelno >= logging.WARNING:
            _log.warn("{server}: {text}", server=self._server, text=text)
        else:
            _log.info("{server}: {text}", server=self._server, text=text)


def logger_for(server: str) -> logging.Logger:
    """:returns: a logger of a server's own, which no other code can reach by its name."""
    found = logging.Logger("mtlsgate.web", logging.INFO)
    found.addHandler(TwistedHandler(server))
    found.addFilter(_is_not_of_a_request)
    return found


class LoggedApplication:
    """An application whose requests are logged."""

    def __init__(self, application: Application, note: Note, seconds: Callable[[], float]) -> None:
        """
        :param note: logs a request that was answered, or a WebSocket that is over.
        :param seconds: keeps the time.
        """
        self._application = application
        self._note = note
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, and log what came of it."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        began = self._seconds()
        status: int | None = None
        size = 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            await send(message)
            kind = message["type"]
            if kind in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif kind == "websocket.accept":
                status = 101
            elif kind == "websocket.send":
                size += len(message.get("bytes") or message.get("text") or b"")
            elif kind == "websocket.close":
                status = status or 403
            else:
                size += len(message.get("body", b""))

        try:
            await self._application(scope, receive, counted)
        except BaseException:
            # uvicorn answers for it.
            status = status or 500
            raise
        finally:
            # Without a status the client left, or was refused.
            if status is not None:
                self._note(scope, status, size, self._seconds() - began)
