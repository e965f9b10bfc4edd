"""
What Twisted's own endpoints connect with: those for host names and endpoint strings.

They look names up and try several addresses; what they connect is a `PlainTransport`.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import UserError
from twisted.internet.interfaces import IAddress, IConnector, IReactorFDSet
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from mtlsgate.upstream.dialling import (
    NoProtocol,
    SocketAddress,
    SocketAttempt,
    address_of,
    connect_socket,
)
from mtlsgate.upstream.name_lookup import SharedLookups


def dialling(reactor: Any) -> Any:
    """
    :param reactor: if it watches no descriptors, as in memory, it is returned as it is.
    :returns: a reactor with which Twisted's endpoints make `PlainTransport` objects.
    """
    return DiallingReactor(reactor) if IReactorFDSet.providedBy(reactor) else reactor


class DiallingReactor:
    """
    Wraps a reactor.  It changes two things: connections that it makes are
    `PlainTransport` objects, and it looks each name up once at a time.

    :ivar nameResolver: looks up names.
    """

    def __init__(self, reactor: Any) -> None:
        """:param reactor: the wrapped reactor."""
        self._reactor = reactor
        self.nameResolver = SharedLookups(reactor)
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Connector:
        """:returns: a connector (`IReactorTCP`)."""
        connector = Connector(self._reactor, (host, port), factory, timeout, bindAddress)
        connector.connect()
        return connector

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: int = 0
    ) -> Connector:
        """:returns: a connector (`IReactorUNIX`)."""
        connector = Connector(self._reactor, address, factory, timeout)
        connector.connect()
        return connector


@implementer(IConnector)
class Connector:
    """
    The connector for Twisted's endpoints.

    :ivar _attempt: the current attempt, or None.
    :ivar _looking: the current name lookup, or None.
    :ivar _transport: the connection, or None.
    :ivar _is_trying: whether there is no result yet.
    """

    _attempt: SocketAttempt | None = None
    _looking: Deferred[Any] | None = None
    _transport: Any = None
    _is_trying = False

    def __init__(
        self,
        reactor: Any,
        address: SocketAddress,
        factory: Any,
        timeout: float,
        bind: tuple[str, int] | None = None,
    ) -> None:
        """:param factory: a client factory."""
        self._reactor = reactor
        self._address = address
        self._factory = factory
        self._timeout = timeout
        self._bind = bind

    def connect(self) -> None:
        """Start connecting."""
        self._is_trying = True
        self._factory.doStart()
        self._factory.startedConnecting(self)
        address = self._address
        if isinstance(address, str) or isIPAddress(address[0]) or isIPv6Address(address[0]):
            self._try(address)
            return
        port = address[1]
        self._looking = self._reactor.resolve(address[0])
        self._looking.addCallback(lambda found: self._try((found, port)))
        self._looking.addErrback(self.failed)

    def _try(self, address: SocketAddress) -> None:
        self._looking = None
        if self._is_trying:
            self._address = address
            attempt = SocketAttempt(self._reactor, address, self, self._timeout, self._bind)
            if self._is_trying:
                self._attempt = attempt

    def stopConnecting(self) -> None:
        """Stop trying."""
        if not self._is_trying:
            raise UserError("it is not connecting")
        if self._attempt is not None:
            self._attempt.cancel()
        self.failed(Failure(UserError()))

    def disconnect(self) -> None:
        """Stop trying, or end the connection."""
        if self._is_trying:
            self.stopConnecting()
        elif self._transport is not None:
            self._transport.loseConnection()

    def getDestination(self) -> IAddress:
        """:returns: the target's address."""
        return address_of(self._address)

    def connected(self, sock: socket.socket) -> None:
        """An attempt succeeded."""
        self._attempt, self._is_trying = None, False
        try:
            protocol = connect_socket(sock, self._reactor, self._address, self._factory, self._lost)
        except NoProtocol as error:
            self._give_up(Failure(error))
        else:
            self._transport = getattr(protocol, "transport", None)

    def _lost(self, reason: Failure) -> None:
        self._transport = None
        self._factory.clientConnectionLost(self, reason)
        self._factory.doStop()

    def failed(self, failure: Failure) -> None:
        """An attempt failed."""
        if self._is_trying:
            self._attempt, self._is_trying = None, False
            self._give_up(failure)

    def _give_up(self, failure: Failure) -> None:
        self._factory.clientConnectionFailed(self, failure)
        self._factory.doStop()
