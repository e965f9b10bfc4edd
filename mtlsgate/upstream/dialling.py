"""
Connecting sockets, without waiting.

`SocketEndpoint` connects to an address.  `DiallingReactor` lets Twisted's own
endpoints, for host names and for endpoint strings, do the same: what they connect
is a `PlainTransport`, too.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.abstract import FileDescriptor, isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectError, TimeoutError, UserError, getConnectError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorFDSet,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from mtlsgate.tls.plain import PlainTransport

#: An address as the socket module has it: host and port, or a path.
SocketAddress = tuple[str, int] | str

_UNDERWAY = (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN)


class NoProtocol(ConnectError):
    """The factory built no protocol for the connection."""


class _Outcome(Protocol):
    """Who is told what came of an attempt; one of these, once."""

    def connected(self, sock: socket.socket) -> None: ...
    def failed(self, failure: Failure) -> None: ...


class Attempt(FileDescriptor):
    """
    One attempt to connect a socket.

    :ivar _socket: until there is an outcome.
    :ivar _timer: ends the attempt, if it waits.
    """

    _socket: socket.socket | None = None
    _timer: IDelayedCall | None = None

    def __init__(
        self,
        reactor: Any,
        address: SocketAddress,
        outcome: _Outcome,
        timeout: float | None = None,
        bind: tuple[str, int] | None = None,
    ) -> None:
        """
        :param address: an IP address with a port, or a unix socket's path.
        :param outcome: told what came of it, possibly at once.
        :param timeout: seconds, or None for as long as the system tries.
        :param bind: where to connect from.
        """
        super().__init__(reactor)
        self._outcome = outcome
        self._address = address
        try:
            self._socket = sock = _new_socket(address)
            if bind is not None:
                sock.bind(bind)
        except OSError as error:
            self._fail(error.errno or errno.EINVAL)
            return
        # On one machine it is connected when the first call returns, and the
        # second one says so.
        code = sock.connect_ex(address)
        if code == errno.EINPROGRESS:
            code = sock.connect_ex(address)
        if code in (0, errno.EISCONN):
            self._succeed()
        elif code in _UNDERWAY:
            self.startWriting()
            if timeout is not None:
                self._timer = reactor.callLater(timeout, self._late)
        else:
            self._fail(code)

    def fileno(self) -> int:
        """:returns: the socket's descriptor; -1 when there is an outcome."""
        return -1 if self._socket is None else self._socket.fileno()

    def doWrite(self) -> None:
        """The system knows what came of it."""
        if self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._fail(code)
            else:
                self._succeed()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor says that it failed, or ends."""
        if self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._fail(code or errno.ECONNABORTED)

    def cancel(self) -> None:
        """Stop trying; nobody is told."""
        if self._socket is not None:
            self._take().close()

    def _late(self) -> None:
        self._timer = None
        if self._socket is not None:
            self._take().close()
            self._outcome.failed(Failure(TimeoutError()))

    def _succeed(self) -> None:
        self._outcome.connected(self._take())

    def _fail(self, code: int) -> None:
        if self._socket is not None:
            self._take().close()
        self._outcome.failed(Failure(getConnectError((code, os.strerror(code)))))

    def _take(self) -> socket.socket:
        self.stopWriting()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        sock, self._socket = self._socket, None
        assert sock is not None
        return sock


def _new_socket(address: SocketAddress) -> socket.socket:
    family = socket.AF_UNIX
    if not isinstance(address, str):
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(False)
    if family != socket.AF_UNIX:
        # Nagle's algorithm would wait for what the other end has yet to send.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return sock


def _named(address: object) -> IAddress:
    """:returns: a socket's address as Twisted has it."""
    if isinstance(address, tuple):
        if ":" in address[0]:
            return IPv6Address("TCP", *address)
        return IPv4Address("TCP", *address)
    return UNIXAddress(address or None)  # type: ignore[arg-type]


def _connect(
    sock: socket.socket,
    reactor: Any,
    address: SocketAddress,
    factory: IProtocolFactory,
    on_lost: Callable[[Failure], object],
) -> IProtocol:
    """
    :param on_lost: called when the connection is over.
    :returns: the factory's protocol, connected.
    :raises NoProtocol: if there is none.
    """
    peer = _named(address)
    transport = PlainTransport(sock, reactor, peer, _named(sock.getsockname()))
    try:
        protocol = factory.buildProtocol(peer)
        if protocol is None:
            raise NoProtocol()
    except BaseException:
        transport.abortConnection()
        raise
    transport.begin(protocol, on_lost)
    return protocol


def endpoint_of(reactor: Any, address: SocketAddress, timeout: float) -> IStreamClientEndpoint:
    """
    :param reactor: one that watches no descriptors, as in memory, connects by itself.
    :param timeout: seconds for an attempt.
    :returns: what connects to an address.
    """
    if IReactorFDSet.providedBy(reactor):
        return SocketEndpoint(reactor, address, timeout)
    if isinstance(address, str):
        return UNIXClientEndpoint(reactor, address, timeout)
    kind = TCP6ClientEndpoint if ":" in address[0] else TCP4ClientEndpoint
    return kind(reactor, *address, timeout)


@implementer(IStreamClientEndpoint)
@frozen
class SocketEndpoint:
    """
    Connects to one address.

    :ivar reactor: watches the sockets.
    :ivar address: an IP address with a port, or a unix socket's path.
    :ivar timeout: seconds for an attempt.
    """

    reactor: Any
    address: SocketAddress
    timeout: float | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """:returns: the factory's protocol, connected."""
        return _Connecting(self, factory).outcome


class _Connecting:
    """One call of `SocketEndpoint.connect`."""

    _attempt: Attempt | None = None

    def __init__(self, endpoint: SocketEndpoint, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self.outcome: Deferred[IProtocol] = Deferred(self._cancel)
        factory.doStart()
        attempt = Attempt(endpoint.reactor, endpoint.address, self, endpoint.timeout)
        if not self.outcome.called:
            self._attempt = attempt

    def _cancel(self, _: object) -> None:
        if self._attempt is not None:
            self._attempt.cancel()
            self._factory.doStop()

    def connected(self, sock: socket.socket) -> None:
        self._attempt = None
        endpoint, factory = self._endpoint, self._factory
        try:
            protocol = _connect(sock, endpoint.reactor, endpoint.address, factory, self._lost)
        except Exception:  # noqa: BLE001 -- whatever it is, whoever dials hears of it
            factory.doStop()
            self.outcome.errback()
        else:
            self.outcome.callback(protocol)

    def failed(self, failure: Failure) -> None:
        self._attempt = None
        self._factory.doStop()
        self.outcome.errback(failure)

    def _lost(self, _: Failure) -> None:
        self._factory.doStop()


def dialling(reactor: Any) -> Any:
    """
    :param reactor: one that watches no descriptors, as in memory, connects by itself.
    :returns: a reactor with which Twisted's endpoints make `PlainTransport`s.
    """
    return DiallingReactor(reactor) if IReactorFDSet.providedBy(reactor) else reactor


class DiallingReactor:
    """
    A reactor that does everything as the one below it, but that what it connects
    are `PlainTransport`s.
    """

    def __init__(self, reactor: Any) -> None:
        """:param reactor: the one below."""
        self._reactor = reactor
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
        """:returns: what connects (`IReactorTCP`)."""
        connector = Connector(self._reactor, (host, port), factory, timeout, bindAddress)
        connector.connect()
        return connector

    def connectUNIX(
        self, address: str, factory: Any, timeout: float = 30, checkPID: int = 0
    ) -> Connector:
        """:returns: what connects (`IReactorUNIX`)."""
        connector = Connector(self._reactor, address, factory, timeout)
        connector.connect()
        return connector


@implementer(IConnector)
class Connector:
    """
    What Twisted's endpoints get for connecting.

    :ivar _attempt: while it tries.
    :ivar _looking: while it looks a name up.
    :ivar _transport: when it is connected.
    :ivar _is_trying: whether there is no outcome yet.
    """

    _attempt: Attempt | None = None
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
        """:param factory: an `IProtocolFactory` that clients have."""
        self._reactor = reactor
        self._address = address
        self._factory = factory
        self._timeout = timeout
        self._bind = bind

    def connect(self) -> None:
        """Try."""
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
            attempt = Attempt(self._reactor, address, self, self._timeout, self._bind)
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
        """:returns: where to."""
        return _named(self._address)

    def connected(self, sock: socket.socket) -> None:
        """An attempt succeeded."""
        self._attempt, self._is_trying = None, False
        try:
            protocol = _connect(sock, self._reactor, self._address, self._factory, self._lost)
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
