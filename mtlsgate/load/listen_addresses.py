"""
Where a server listens: reading ``hosts`` and binding sockets.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Iterable

from attrs import frozen
from twisted.internet.interfaces import (
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)

_HOST_AND_PORT = re.compile(r"(?:(?P<host>\*|\[[^\]]*\]|[^\[\]:/\0]*):)?(?P<port>[0-9]+)\Z")
#: What begins a Twisted server endpoint description; plugins know of more.
_ENDPOINTS = frozenset({"fd", "haproxy", "stdio", "systemd", "tcp", "tcp6", "unix"})
_NO_HOST = (
    'not an address: write "*:8443", "127.0.0.1:8443", "[::1]:8443", "name:8443", '
    '"8443" or a Twisted endpoint such as "unix:/run/gate.sock"'
)
#: How many connections may wait to be accepted; the kernel's own limit applies as well.
_BACKLOG = 1024


class HostError(ValueError):
    """An entry of ``hosts`` that cannot be listened on, in one line."""


@frozen(order=True)
class SocketAddress:
    """
    One TCP address.

    :ivar host: an IP address; ``0.0.0.0`` and ``::`` are every address.
    :ivar port: 0 lets the system choose one.
    """

    host: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.host).is_loopback

    def overlaps(self, other: SocketAddress) -> bool:
        """:returns: whether the two cannot be listened on at once."""
        return (
            self.port == other.port != 0
            and self.family == other.family
            and (
                self.host == other.host
                or ipaddress.ip_address(self.host).is_unspecified
                or ipaddress.ip_address(other.host).is_unspecified
            )
        )

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def bind(self) -> socket.socket:
        """
        :returns: a listening socket.
        :raises HostError: if the address is taken or not this machine's.
        """
        bound = socket.socket(self.family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if self.family == socket.AF_INET6:
                # IPv4 has a socket of its own, so clients keep their IPv4 addresses.
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((self.host, self.port))
            bound.listen(_BACKLOG)
        except OSError as error:
            bound.close()
            raise HostError(f"cannot listen on {self}: {_in_words(error)}") from error
        return bound


def _in_words(error: OSError) -> str:
    words = {
        errno.EADDRINUSE: "another process listens there (ss -ltnp shows which)",
        errno.EADDRNOTAVAIL: "it is not an address of this machine",
        errno.EACCES: "permission denied: ports below 1024 need root or CAP_NET_BIND_SERVICE",
    }
    return words.get(error.errno or 0, error.strerror or str(error))


@frozen
class Host:
    """
    One entry of ``hosts``.

    :ivar text: as written.
    :ivar addresses: the TCP addresses it means; empty for an endpoint.
    :ivar endpoint: a Twisted server endpoint description, or None.
    """

    text: str
    addresses: tuple[SocketAddress, ...] = ()
    endpoint: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it: loopback or a unix socket."""
        if self.endpoint is not None:
            return self.endpoint.startswith("unix:")
        return all(address.is_loopback for address in self.addresses)


def parse_host(text: str, *, offline: bool = False) -> Host:
    """
    :param text: ``*:8443``, ``127.0.0.1:8443``, ``[::1]:8443``,
        ``localhost:8443``, ``8443``, or a Twisted server endpoint description.
    :param offline: do not look names up, nor which addresses there are; the
        result is nothing to listen on.
    :raises HostError: if it is none of these, or a name does not resolve.
    """
    prefix = text.partition(":")[0]
    if prefix == "ssl":
        raise HostError("an ssl: endpoint does TLS of its own; the gate does that: use tcp:")
    if prefix in _ENDPOINTS or (":" in text and not _HOST_AND_PORT.match(text)):
        return _endpoint(text, prefix)
    found = _HOST_AND_PORT.match(text)
    if found is None:
        raise HostError(_NO_HOST)
    digits = found["port"].lstrip("0") or "0"
    if len(digits) > 5 or int(digits) > 65535:
        raise HostError("the port is out of range: 0 to 65535")
    port = int(digits)
    host = found["host"]
    if host == "":
        raise HostError(f'no host before the port; write "*:{port}" for every address')
    if offline:
        return Host(text)
    if host in (None, "*"):
        return Host(text, _present([SocketAddress("0.0.0.0", port), SocketAddress("::", port)]))  # noqa: S104
    return Host(text, _resolve(host, port))


def _endpoint(text: str, prefix: str) -> Host:
    if prefix in ("tcp", "unix"):
        # Others may need a reactor, or be of use in the service manager alone.
        endpoint_of(text, None)
    elif prefix not in _ENDPOINTS:
        from twisted.plugin import getPlugins

        known = getPlugins(IStreamServerEndpointStringParser)
        if prefix not in {one.prefix for one in known}:
            raise HostError(_NO_HOST)
    return Host(text, endpoint=text)


def _resolve(host: str, port: int) -> tuple[SocketAddress, ...]:
    name = host.strip("[]")
    flags = socket.AI_NUMERICHOST if host[0] == "[" else 0
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=flags)
    except (socket.gaierror, UnicodeError) as error:
        said = error.strerror if isinstance(error, OSError) else "not a host name"
        raise HostError(f"{host} does not resolve: {said}") from None
    addresses = dict.fromkeys(SocketAddress(str(one[4][0]), port) for one in found)
    return _present(addresses) if len(addresses) > 1 else tuple(addresses)


def _present(addresses: Iterable[SocketAddress]) -> tuple[SocketAddress, ...]:
    """
    :returns: those that this machine has, or all where it has none: a name or
        ``*`` means what is there, and IPv6 may be switched off.
    """
    candidates = tuple(addresses)
    return tuple(filter(_is_present, candidates)) or candidates


def _is_present(address: SocketAddress) -> bool:
    try:
        with socket.socket(address.family, socket.SOCK_STREAM) as trial:
            trial.bind((address.host, 0))
    except OSError as error:
        return error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    return True


def endpoint_of(description: str, reactor: object) -> IStreamServerEndpoint:
    """
    :raises HostError: if the description does not parse.
    """
    # Slow to import, and few configurations need it.
    from twisted.internet.endpoints import serverFromString

    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, description)
    except (ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise HostError(f"not a Twisted server endpoint: {type(error).__name__}: {error}") from None
    return endpoint


def adopt(bound: socket.socket, reactor: object) -> IStreamServerEndpoint:
    """:returns: an endpoint that listens on the socket, which it then owns."""
    from twisted.internet.endpoints import AdoptedStreamServerEndpoint

    return AdoptedStreamServerEndpoint(reactor, bound.detach(), bound.family)
