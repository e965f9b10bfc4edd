"""
What a header says, as a value.
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
    Bytes that are no header, in one line; nothing in it is the sender's own text.
    """


class Command(IntEnum):
    """On whose behalf a connection was made (section 2.2, the 13th byte)."""

    #: The proxy's own, as for a health check; the addresses are the connection's.
    LOCAL = 0
    #: Another's, whose addresses the header tells.
    PROXY = 1


class Family(IntEnum):
    """What is connected (section 2.2, the 14th byte)."""

    #: Not known; the addresses are the connection's.  ``UNKNOWN`` in version 1.
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
    :ivar version: of the protocol.
    :ivar command: on whose behalf the connection was made.
    :ivar family: what is connected; `Family.UNSPEC` with `Command.LOCAL`.
    :ivar source: who the proxy was connected from; None where the header does
        not tell, which means the connection's own peer.
    :ivar destination: what they connected to; None where ``source`` is.
    :ivar tlvs: what else it tells, as (type, value) in the order sent; no
        padding and no checksum.
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
    :returns: two addresses of one family, which a header needs; an IPv4 address
        beside an IPv6 one is written as IPv6 does (RFC 4291, 2.5.5.2).  None
        where one of them is neither.
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
    :raises ValueError: if it is none.
    """
    family = socket.AF_INET6 if isinstance(address, IPv6Address) else socket.AF_INET
    # A link-local address may carry its zone, which means nothing elsewhere.
    host = address.host.partition("%")[0]
    try:
        return socket.inet_pton(family, host)
    except OSError:
        raise ValueError(f"not an address of its family: {host!r}") from None
