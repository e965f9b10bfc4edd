"""
Gives each connection of a server an asyncio protocol.
"""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop, BaseProtocol
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from zope.interface import implementer

from mtlsgate.interfaces import IRetirable
from mtlsgate.protocols.aio.streams import Handle, HandlerProtocol, HandlerTask
from mtlsgate.protocols.aio.transport import GateTransport

_log = Logger("mtlsgate.asyncio")

#: Makes the protocol of a connection.
MakeProtocol = Callable[[AbstractEventLoop], BaseProtocol]


@implementer(IProtocolNegotiationFactory, IRetirable)
class AsyncioServer(ServerFactory):
    """
    The factory of connections.

    :ivar name: the server's, for logs.
    :ivar clock: the reactor.
    :ivar transports: those of the connections that there are, the oldest first.
    """

    noisy = False

    def __init__(
        self,
        make_protocol: MakeProtocol,
        clock: IReactorTime,
        name: str,
        alpn: Sequence[str] = (),
        retire: Callable[[], object] | None = None,
        piece_size: int | None = None,
    ) -> None:
        """
        :param make_protocol: gets the loop.
        :param clock: keeps the time.
        :param alpn: the application protocols that clients may negotiate.
        :param retire: is called when no more connections come.
        :param piece_size: the most bytes that a protocol gets at once.
        """
        self.name = name
        self.transports: dict[GateTransport, None] = {}
        self._make_protocol = make_protocol
        self.clock = clock
        self._alpn = [one.encode("ascii") for one in alpn]
        self._retire = retire
        self._piece_size = piece_size

    def acceptableProtocols(self) -> list[bytes]:
        """:returns: the application protocols that clients may negotiate."""
        return self._alpn

    def buildProtocol(self, addr: IAddress | None) -> GateTransport:
        """
        :returns: the transport of a connection, with its protocol.
        :raises RuntimeError: if no asyncio loop runs.
        """
        loop = asyncio.get_running_loop()
        protocol = self._make_protocol(loop)
        transport = GateTransport(
            protocol, loop, self.clock, self.name, self._over, self._piece_size
        )
        self.transports[transport] = None
        return transport

    def _over(self, transport: GateTransport) -> None:
        self.transports.pop(transport, None)

    def retire(self) -> None:
        """No more connections come: tell the application, and each protocol that wants to
        know."""
        if self._retire is not None:
            self._retire()
        for transport in tuple(self.transports):
            retire = getattr(transport.get_protocol(), "retire", None)
            if retire is not None:
                try:
                    retire()
                except Exception:  # noqa: BLE001 -- a protocol's own; there are others
                    _log.failure("{server}: retire() failed", server=self.name)


def handled_by(handle: Handle, server: str) -> MakeProtocol:
    """
    :param handle: a coroutine function that gets the client and streams.
    :param server: the server's name, for logs.
    :returns: makes a protocol that runs it.
    """

    def make(loop: AbstractEventLoop) -> HandlerProtocol:
        return HandlerProtocol(HandlerTask(handle, loop, server), loop)

    return make
