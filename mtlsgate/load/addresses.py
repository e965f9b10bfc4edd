"""
The addresses that a server can listen on, as values.
"""

from __future__ import annotations

import ipaddress
import socket

from attrs import field, frozen

from mtlsgate.errors import GateError

#: How many connections may wait to be accepted; the kernel's own limit applies as well.
BACKLOG = 1024


#: The mode of a unix socket: whoever connects must show a certificate.
UNIX_MODE = 0o666


class HostError(GateError, ValueError):
    """An entry in ``hosts`` is not usable; the text says why, in one line."""


@frozen(order=True)
class SocketAddress:
    """
    One TCP address.

    :ivar host: an IP address; ``0.0.0.0`` and ``::`` mean every address.
    :ivar port: 0 lets the system choose one.
    :ivar backlog: how many connections may wait to be accepted.
    :ivar takeover: whether another gate may listen there as well.
    """

    host: str
    port: int
    backlog: int = field(default=BACKLOG, eq=False, order=False)
    takeover: bool = field(default=False, eq=False, order=False)

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every address of its family."""
        return ipaddress.ip_address(self.host).is_unspecified

    def overlaps(self, other: SocketAddress) -> bool:
        """:returns: whether it is impossible to listen on both at once."""
        return (
            self.port == other.port != 0
            and self.family == other.family
            and (self.host == other.host or self.is_wildcard or other.is_wildcard)
        )

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class UnixAddress:
    """
    A unix socket.

    :ivar path: as written; a relative path starts where the gate was started.
    :ivar mode: the mode of the file, which says who may connect.
    :ivar backlog: how many connections may wait to be accepted.
    :ivar takeover: whether to take the path over from another gate that listens there.
    """

    path: str
    mode: int = UNIX_MODE
    backlog: int = BACKLOG
    takeover: bool = False

    is_local = True

    def __str__(self) -> str:
        return f"unix:{self.path}"


@frozen
class SystemdAddress:
    """
    A listening socket that the service manager passes.

    :ivar domain: ``INET``, ``INET6`` or ``UNIX``, as written; empty if it is not.
    :ivar index: the number of the socket, counted from 0; or None.
    :ivar name: the socket's ``FileDescriptorName``; or None.
    """

    domain: str = ""
    index: int | None = None
    name: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it, as far as is written."""
        return self.domain == "UNIX"

    def __str__(self) -> str:
        if not self.domain:
            return f"systemd:{self.name}"
        which = f"name={self.name}" if self.index is None else f"index={self.index}"
        return f"systemd:domain={self.domain}:{which}"


Address = SocketAddress | UnixAddress | SystemdAddress
