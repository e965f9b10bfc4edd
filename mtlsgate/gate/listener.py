"""
A listening socket, which passes connections to the epoch in force.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

_log = Logger("mtlsgate.listening")

#: The most connections that are accepted in one turn of the reactor: by a process that
#: has the socket for itself, and by one that shares it.  The latter leaves others theirs.
MANY, FEW = 64, 1

#: The most connections that are accepted when a listener closes.
_MOST_WAITING = 4096

#: How many seconds a listener waits after a failure.
_REST = 1.0

#: Errors that mean the system cannot take another connection now.
_FULL = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Errors of one connection that failed before it was accepted (accept(2)).
_GONE = frozenset(
    {
        errno.ECONNABORTED,
        errno.EPERM,
        errno.EINTR,
        errno.ENETDOWN,
        errno.EPROTO,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EOPNOTSUPP,
        errno.ENOPROTOOPT,
    }
)


class BoundSocket(Protocol):
    """A bound socket."""

    @property
    def sock(self) -> socket.socket:
        """The non-blocking socket."""

    def close(self) -> None:
        """Stop listening, and clean up."""


class Acceptor(Protocol):
    """Takes a listener's connections while one epoch is in force."""

    def accept(
        self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: Any
    ) -> object | None:
        """
        Take an accepted socket.

        :param peer: the other end's address.
        :param host: this end's address.
        """

    def stop(self) -> None:
        """No more connections come."""


class Pressure(Protocol):
    """Is told when connections come, and when there is no room for more."""

    def accepted(self) -> None:
        """A connection was accepted."""

    def exhausted(self) -> None:
        """No descriptor or no memory was left for a connection."""


@implementer(IReadDescriptor, IListeningPort)
class Listener:
    """
    A listening socket.  It lives as long as its address is in the configuration;
    each epoch sets its own acceptor.

    :ivar key: the address as written in the configuration.
    :ivar bound: the socket.
    :ivar acceptor: takes the connections now.
    """

    def __init__(
        self,
        key: str,
        bound: BoundSocket,
        acceptor: Acceptor,
        reactor: Any,
        pressure: Pressure | None = None,
        most: int = MANY,
    ) -> None:
        """
        :param bound: the socket; it belongs to the listener from now on.
        :param reactor: watches the socket.
        :param pressure: may pause and resume the listener.
        :param most: connections that it accepts in one turn of the reactor.
        """
        self._most = most
        self.key = key
        self.acceptor = acceptor
        self.bound = bound
        self._reactor = reactor
        self._pressure = pressure
        self._is_reading = self._is_closed = False
        self._rest: IDelayedCall | None = None
        self._address_of = _FAMILIES[bound.sock.family]
        self._host = self._address_of(bound.sock.getsockname())
        #: The local address, if it is the same for every connection.
        self._fixed_host = None if _is_wildcard(self._host) else self._host

    def turn_to(self, acceptor: Acceptor) -> Acceptor:
        """
        :param acceptor: gets the connections from now on.
        :returns: the previous one.
        """
        before, self.acceptor = self.acceptor, acceptor
        return before

    # IListeningPort

    def startListening(self) -> None:
        """Accept connections."""
        self.resume()

    def stopListening(self) -> Deferred[None]:
        """Stop accepting, and release the address."""
        if not self._is_closed:
            self.pause()
            self._is_closed = True
            self.bound.close()
        return succeed(None)

    def accept_waiting(self) -> None:
        """Accept what waits now.  The kernel would reset it when the socket is closed,
        although its clients are connected, as far as they know."""
        for _ in range(_MOST_WAITING):
            if not self._is_reading or not self._accept():
                return

    def getHost(self) -> IAddress:
        """:returns: the address it listens on."""
        return self._host

    def pause(self) -> None:
        """Stop accepting for a while; connections wait in the kernel."""
        if self._is_reading:
            self._is_reading = False
            self._reactor.removeReader(self)
        if self._rest is not None and self._rest.active():
            self._rest.cancel()

    def resume(self) -> None:
        """Accept connections."""
        if not self._is_reading and not self._is_closed:
            self._is_reading = True
            self._reactor.addReader(self)

    # IReadDescriptor

    def fileno(self) -> int:
        """:returns: the socket's descriptor; -1 if it is closed."""
        return self.bound.sock.fileno()

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return self.key

    def doRead(self) -> None:
        """Accept waiting connections, but not too many: others need their turn."""
        for _ in range(self._most):
            if not self._is_reading or not self._accept():
                return

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops."""
        self._is_reading = False
        self.stopListening()

    def _accept(self) -> bool:
        """:returns: whether to try to accept another one."""
        try:
            sock, name = self.bound.sock.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            return self._failed(error)
        try:
            host = self._fixed_host or self._address_of(sock.getsockname())
        except OSError:
            # The connection is already lost.
            sock.close()
            return True
        self.accept(sock, self._address_of(name), host, self._reactor)
        return True

    def accept(self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: Any) -> Any:
        """Pass an accepted socket to the acceptor."""
        found = None
        try:
            found = self.acceptor.accept(sock, peer, host, reactor)
        except Exception:  # noqa: BLE001 -- it costs this connection alone
            _log.failure("{listener}: a connection failed as it came", listener=self.key)
            sock.close()
        if self._pressure is not None:
            self._pressure.accepted()
        return found

    def _failed(self, error: OSError) -> bool:
        if error.errno in _GONE:
            return True
        if error.errno in _FULL and self._pressure is not None:
            self._pressure.exhausted()
        if self._is_reading:
            _log.error(
                "{listener}: no connection can be accepted now: {problem}",
                listener=self.key,
                problem=error.strerror or str(error),
            )
            # Otherwise the reactor would retry in a busy loop.
            self.pause()
            self._rest = self._reactor.callLater(_REST, self.resume)
        return False


def _ipv4(name: tuple[str, int]) -> IAddress:
    return IPv4Address("TCP", *name)


def _ipv6(name: tuple[str, int, int, int]) -> IAddress:
    # A socket that takes both, as systemd makes it, tells of IPv4 like this (RFC 4291,
    # section 2.5.5.2).
    host, port = name[:2]
    if host.startswith("::ffff:") and "." in host:
        return IPv4Address("TCP", host.removeprefix("::ffff:"), port)
    return IPv6Address("TCP", *name)


def _unix(name: str | bytes) -> IAddress:
    return UNIXAddress(name or None)


_FAMILIES: dict[int, Callable[[Any], IAddress]] = {
    socket.AF_INET: _ipv4,
    socket.AF_INET6: _ipv6,
    socket.AF_UNIX: _unix,
}


def _is_wildcard(address: IAddress) -> bool:
    return getattr(address, "host", None) in ("0.0.0.0", "::")  # noqa: S104
