"""
A PROXY header as a value.
"""

from __future__ import annotations

import socket
from enum import IntEnum
from typing import Literal

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress


class Malformed(ValueError):
    """
    Bytes that are not a header.  The text is one line without the sender's own text.
    """


class Command(IntEnum):
    """On whose behalf a connection was made (section 2.2, the 13th byte)."""

    #: The proxy's own, such as a health check; the header's addresses do not count.
    LOCAL = 0
    #: A client's, whose addresses are in the header.
    PROXY = 1


class Family(IntEnum):
    """The kind of addresses (section 2.2, the 14th byte)."""

    #: Not known: use the connection's own addresses.  ``UNKNOWN`` in version 1.
    UNSPEC = 0x00
    TCP4 = 0x11
    UDP4 = 0x12
    TCP6 = 0x21
    UDP6 = 0x22
    UNIX_STREAM = 0x31
    UNIX_DATAGRAM = 0x32


@frozen
class Header:
    """
    A PROXY header.

    :ivar version: the protocol's version.
    :ivar command: on whose behalf the connection was made.
    :ivar family: the kind of addresses; `Family.UNSPEC` with `Command.LOCAL`.
    :ivar source: the client's address; None means the connection's own peer.
    :ivar destination: the address that the client connected to; None if ``source``
        is None.
    :ivar tlvs: other facts as (type, value) in the order sent, without padding and
        checksum.
    """

    version: Literal[1, 2]
    command: Command
    family: Family
    source: IAddress | None = None
    destination: IAddress | None = None
    tlvs: tuple[tuple[int, bytes], ...] = ()


Pair = tuple[IPv4Address, IPv4Address] | tuple[IPv6Address, IPv6Address]


def ip_pair(source: IAddress, destination: IAddress) -> Pair | None:
    """
    :returns: two addresses of the same family, as a header needs.  If one is IPv6
        and the other IPv4, the latter is mapped to IPv6 (RFC 4291, 2.5.5.2).  None
        if one of them is not an IP address.
    """
    match source, destination:
        case IPv4Address(), IPv4Address():
            return source, destination
        case ((IPv4Address() | IPv6Address()), (IPv4Address() | IPv6Address())):
            return _as_ipv6(source), _as_ipv6(destination)
    return None


def _as_ipv6(address: IPv4Address | IPv6Address) -> IPv6Address:
    if isinstance(address, IPv6Address):
        return address
    return IPv6Address(address.type, f"::ffff:{address.host}", address.port)


def packed(address: IPv4Address | IPv6Address) -> bytes:
    """
    :returns: the address in network byte order.
    :raises ValueError: if it is not an address of its family.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    # Drop the zone of a link-local address: it means nothing on other machines.
    host = address.host.partition("%")[0]
    try:
        return socket.inet_pton(family, host)
    except OSError:
        raise ValueError(f"not an address of its family: {host!r}") from None
