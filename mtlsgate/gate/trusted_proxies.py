"""
The proxies that may tell the client's address.
"""

from __future__ import annotations

import ipaddress

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@frozen
class TrustedProxies:
    """
    The proxies that a server trusts.

    :ivar networks: their addresses; empty trusts no address.
    """

    networks: tuple[Network, ...]

    def trusts(self, address: IAddress) -> bool:
        """
        :param address: the other end of a connection.
        :returns: whether this is a trusted proxy.  Every client of a unix socket is
            trusted: the mode of the socket and its directory control who can connect.
        """
        if isinstance(address, UNIXAddress):
            return True
        if not isinstance(address, IPv4Address | IPv6Address):
            return False
        try:
            found = ipaddress.ip_address(address.host)
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self.networks)
