"""
Bytes that go to a target before all else, as a PROXY header does.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    ITransport,
)
from zope.interface import implementer


@implementer(IStreamClientEndpoint)
@frozen
class PrefacedEndpoint:
    """Dials, and sends the preface before the protocol is connected."""

    _endpoint: IStreamClientEndpoint
    _preface: bytes

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """:returns: the factory's protocol, connected."""
        return self._endpoint.connect(_PrefacedFactory(factory, self._preface))


@implementer(IProtocolFactory)
@frozen
class _PrefacedFactory:
    _factory: IProtocolFactory
    _preface: bytes

    def doStart(self) -> None:
        self._factory.doStart()

    def doStop(self) -> None:
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        protocol = self._factory.buildProtocol(addr)
        if protocol is None:
            return None
        connect = protocol.makeConnection

        def send_and_connect(transport: ITransport) -> None:
            del protocol.makeConnection
            transport.write(self._preface)
            connect(transport)

        # On this one object, so that nothing stands between it and its transport.
        protocol.makeConnection = send_and_connect  # type: ignore[method-assign]
        return protocol
