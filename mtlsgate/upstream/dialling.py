"""
Connecting sockets without blocking.

`SocketEndpoint` connects to an address.  `DiallingReactor` does the same for Twisted's
own endpoints, for host names and endpoint strings: their connections are
`PlainTransport` objects too.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.error import ConnectError, TimeoutError, getConnectError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorFDSet,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.tls.plain import PlainTransport

#: An address in the socket module's form: host and port, or a path.
SocketAddress = tuple[str, int] | str

_UNDERWAY = (errno.EINPROGRESS, errno.EALREADY, errno.EAGAIN)


class NoProtocol(ConnectError):
    """The factory built no protocol for the connection."""


class AttemptOwner(Protocol):
    """Is told the result of an attempt: one of these methods is called, once."""

    def connected(self, sock: socket.socket) -> None: ...
    def failed(self, failure: Failure) -> None: ...


class SocketAttempt(FileDescriptor):
    """
    One attempt to connect a socket.

    :ivar _socket: the socket; None after the attempt.
    :ivar _timer: ends the attempt when time is up.
    """

    _socket: socket.socket | None = None
    _timer: IDelayedCall | None = None

    def __init__(
        self,
        reactor: Any,
        address: SocketAddress,
        outcome: AttemptOwner,
        timeout: float | None = None,
        bind: tuple[str, int] | None = None,
    ) -> None:
        """
        :param address: an IP address with a port, or a unix socket's path.
        :param outcome: is told the result, possibly at once.
        :param timeout: in seconds; None means as long as the system tries.
        :param bind: the local address to connect from.
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
        # On the same machine the first call often connects; the second one tells.
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
        """:returns: the socket's descriptor; -1 after the attempt."""
        return -1 if self._socket is None else self._socket.fileno()

    def doWrite(self) -> None:
        """The attempt has succeeded or failed."""
        if self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                self._fail(code)
            else:
                self._succeed()

    def connectionLost(self, reason: Failure) -> None:
        """The reactor reports a failure, or stops."""
        if self._socket is not None:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._fail(code or errno.ECONNABORTED)

    def cancel(self) -> None:
        """Stop trying, without telling anybody."""
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
        # Nagle's algorithm would delay data until the other end answers.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    return sock


def address_of(address: object) -> IAddress:
    """:returns: a socket's address as a Twisted address."""
    if isinstance(address, tuple):
        if ":" in address[0]:
            return IPv6Address("TCP", *address)
        return IPv4Address("TCP", *address)
    return UNIXAddress(address or None)  # type: ignore[arg-type]


def connect_socket(
    sock: socket.socket,
    reactor: Any,
    address: SocketAddress,
    factory: IProtocolFactory,
    on_lost: Callable[[Failure], object],
) -> IProtocol:
    """
    :param on_lost: called when the connection is over.
    :returns: the factory's connected protocol.
    :raises NoProtocol: if the factory builds none.
    """
    peer = address_of(address)
    transport = PlainTransport(sock, reactor, peer, address_of(sock.getsockname()))
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
    :param reactor: if it watches no descriptors, as in memory, its own endpoints are
        used.
    :param timeout: seconds for one attempt.
    :returns: an endpoint for the address.
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
    :ivar timeout: seconds for one attempt.
    """

    reactor: Any
    address: SocketAddress
    timeout: float | None = None

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """:returns: the factory's connected protocol."""
        return _Connecting(self, factory).outcome


class _Connecting:
    """One call of `SocketEndpoint.connect`."""

    _attempt: SocketAttempt | None = None

    def __init__(self, endpoint: SocketEndpoint, factory: IProtocolFactory) -> None:
        self._endpoint = endpoint
        self._factory = factory
        self.outcome: Deferred[IProtocol] = Deferred(self._cancel)
        factory.doStart()
        attempt = SocketAttempt(endpoint.reactor, endpoint.address, self, endpoint.timeout)
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
            protocol = connect_socket(sock, endpoint.reactor, endpoint.address, factory, self._lost)
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
