"""
A client's WebSocket to an ASGI application: uvicorn's own protocol, which says who the
client is.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import Logger
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from mtlsgate.protocols.web.asgi_logging import Application


class AsgiWebSocket(WebSocketsSansIOProtocol):
    """A WebSocket of a client's."""

    def __init__(
        self,
        application: Application,
        logger: Logger,
        add_facts: Callable[[Any], object],
        **options: Any,
    ) -> None:
        """
        :param logger: for what uvicorn says.
        :param add_facts: says in a scope who the client is.
        :param options: what uvicorn's own class takes.
        """
        super().__init__(**options)
        self.app = cast(Any, application)
        self.logger = logger
        self._add_facts = add_facts

    def handle_connect(self, event: Request) -> None:
        """The client wants a WebSocket: ask the application, and say who it is."""
        super().handle_connect(event)
        if not self.close_sent:
            # The application runs in the loop's next turn.
            self._add_facts(self.scope)
