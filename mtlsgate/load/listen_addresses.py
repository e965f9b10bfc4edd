"""
Parses ``hosts``: the addresses that a server listens on.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Iterable

from attrs import evolve, frozen

from mtlsgate.load.addresses import (
    UNIX_MODE,
    Address,
    HostError,
    SocketAddress,
    SystemdAddress,
)
from mtlsgate.load.endpoint_strings import parse_endpoint

_HOST_AND_PORT = re.compile(r"(?:(?P<host>\*|\[[^\]]*\]|[^\[\]:/\0]*):)?(?P<port>[0-9]+)\Z")
_NO_HOST = (
    'not an address: write "*:8443", "127.0.0.1:8443", "[::1]:8443", "name:8443", '
    '"8443" or "unix:/run/gate.sock"'
)


@frozen
class Host:
    """
    One entry of ``hosts``.

    :ivar text: as written.
    :ivar addresses: the addresses that it means; empty if names are not looked up.
    """

    text: str
    addresses: tuple[Address, ...] = ()

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: loopback or a unix socket."""
        return all(address.is_local for address in self.addresses)


def parse_host(
    text: str, *, offline: bool = False, unix_mode: int = UNIX_MODE, takeover: bool = False
) -> Host:
    """
    :param text: ``*:8443``, ``127.0.0.1:8443``, ``[::1]:8443``, ``localhost:8443``,
        ``8443``, or an endpoint string: ``tcp:``, ``tcp6:``, ``unix:``, ``systemd:``.
    :param offline: whether to look up neither names nor this machine's addresses; the
        result cannot be listened on.
    :param unix_mode: the mode of a unix socket, unless the text has one.
    :param takeover: whether two gates may listen there.
    :raises HostError: if it is none of these, or a name does not resolve.
    """
    host = _parsed(text, offline, unix_mode)
    if not takeover:
        return host
    return evolve(host, addresses=tuple(map(_for_takeover, host.addresses)))


def _for_takeover(address: Address) -> Address:
    # A socket that the service manager passes is shared already.
    return address if isinstance(address, SystemdAddress) else evolve(address, takeover=True)


def _parsed(text: str, offline: bool, unix_mode: int) -> Host:
    endpoint = parse_endpoint(text, unix_mode)
    if endpoint is not None:
        return Host(text, (endpoint,))
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
    :returns: the addresses that this machine has; all of them if it has none.  IPv6 may
        be switched off, and then a name or ``*`` means only IPv4.
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
