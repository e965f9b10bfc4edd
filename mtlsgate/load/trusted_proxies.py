"""
Reads ``trusted_proxies``: the proxies that may tell the client's address.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from mtlsgate.config import model
from mtlsgate.errors import Report
from mtlsgate.gate.trusted_proxies import Network, TrustedProxies
from mtlsgate.text import quoted, safe_line

#: IPv4 addresses as an IPv6 socket shows them (RFC 4291, 2.5.5.2).
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


def trusted_proxies(server: model.Server, report: Report) -> TrustedProxies | None:
    """
    :returns: a server's trusted proxies; None if it reads no PROXY header.  Problems
        are reported.
    """
    if server.proxy_protocol is None:
        return None
    networks: list[Network] = []
    for written in server.trusted_proxies or ():
        try:
            networks.append(read_network(written.value))
        except ValueError as error:
            text = f"trusted_proxies: {quoted(written.value)} {error}"
            report.error(written.at, server.heading, text)
            continue
        if _everywhere(networks):
            report.error(
                written.at,
                server.heading,
                f"trusted_proxies: {quoted(written.value)} makes it everybody, so any client "
                "could claim any address: name the proxies",
            )
            networks.pop()
    return TrustedProxies(tuple(networks))


def read_network(text: str) -> Network:
    """
    :param text: an address, or a network such as ``10.0.0.0/8``.
    :raises ValueError: if it is neither; the error text follows the value.
    """
    address, slash, length = text.partition("/")
    try:
        if slash and not (length.isascii() and length.isdigit()):
            raise ValueError("the length of its prefix is no number")
        ipaddress.ip_address(address)
        network = ipaddress.ip_network(text, strict=False)
    except ValueError as error:
        raise ValueError(f"is no IP address or network: {safe_line(error)}") from None
    if "%" in address:
        raise ValueError("has a zone: leave it out")
    if ipaddress.ip_address(address) != network.network_address:
        raise ValueError(f"has bits beyond its prefix: write {quoted(str(network))}")
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), network.prefixlen - _MAPPED.prefixlen))
    return network


def _everywhere(networks: Iterable[Network]) -> bool:
    """:returns: whether the networks together are all of IPv4 or all of IPv6."""
    found = tuple(networks)
    four = [one for one in found if isinstance(one, ipaddress.IPv4Network)]
    six = [one for one in found if isinstance(one, ipaddress.IPv6Network)]
    return any(one.prefixlen == 0 for one in ipaddress.collapse_addresses(four)) or any(
        one.prefixlen == 0 for one in ipaddress.collapse_addresses(six)
    )
