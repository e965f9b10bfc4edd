"""
Which proxies may say for whom they connect.
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
    Where a server's proxies connect from.

    :ivar networks: their addresses; empty trusts no address.
    """

    networks: tuple[Network, ...]

    def trusts(self, address: IAddress) -> bool:
        """
        :param address: the other end of a connection.
        :returns: whether a proxy is there.  Every client of a unix socket is
            trusted: the socket's mode and its directory say who can connect.
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
