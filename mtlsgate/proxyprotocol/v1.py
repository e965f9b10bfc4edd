"""
Version 1, a line of text (section 2.1).
"""

from __future__ import annotations

import re
import socket

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

from mtlsgate.proxyprotocol.header import Command, Family, Header, Malformed, ip_pair, packed

#: The first bytes of a header of this version.
SIGNATURE = b"PROXY "

#: The longest possible line, including its CRLF.
MAX_LINE = 107

#: The end of the line, or a wrong line end.
_STOP = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)
_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_FIELDS = 5


def parse_v1(data: bytes | bytearray) -> tuple[Header, int] | None:
    """
    :param data: the bytes so far; they begin with `SIGNATURE`.
    :returns: the header and its length, or None while more bytes are needed.
    :raises Malformed: if it is not a header, whatever follows.
    """
    beginning = bytes(data[:MAX_LINE])
    found = _STOP.search(beginning)
    if found is None:
        if len(beginning) == MAX_LINE:
            raise Malformed(f"the PROXY line has no end within {MAX_LINE} bytes")
        return None
    if found[0] != b"\r\n":
        raise Malformed("the PROXY line holds a CR or LF that is not its end")
    return _line(beginning[len(SIGNATURE) : found.start()]), found.end()


def _line(text: bytes) -> Header:
    family, *fields = text.split(b" ")
    if family == b"UNKNOWN":
        # The rest of the line must be ignored.
        return Header(1, Command.PROXY, Family.UNSPEC)
    if family not in (b"TCP4", b"TCP6"):
        raise Malformed("the PROXY line names a protocol other than TCP4, TCP6 and UNKNOWN")
    if len(fields) != _FIELDS - 1:
        raise Malformed("the PROXY line is not two addresses and two ports, a space between each")
    source, destination, *ports = fields
    first, second = map(_port, ports)
    if family == b"TCP4":
        return Header(
            1,
            Command.PROXY,
            Family.TCP4,
            IPv4Address("TCP", _ipv4(source), first),
            IPv4Address("TCP", _ipv4(destination), second),
        )
    return Header(
        1,
        Command.PROXY,
        Family.TCP6,
        IPv6Address("TCP", _ipv6(source), first),
        IPv6Address("TCP", _ipv6(destination), second),
    )


def _port(text: bytes) -> int:
    if _PORT.fullmatch(text) is None or int(text) > 65535:
        raise Malformed("the PROXY line holds a port that is no number from 0 to 65535")
    return int(text)


def _ipv4(text: bytes) -> str:
    host = _address(socket.AF_INET, text)
    # Some platforms read a leading zero as decimal, others as octal.
    if host != text.decode("ascii"):
        raise Malformed("the PROXY line holds an address that is not written as IPv4 is")
    return host


def _ipv6(text: bytes) -> str:
    return _address(socket.AF_INET6, text)


def _address(family: socket.AddressFamily, text: bytes) -> str:
    """:returns: the address in the system's spelling."""
    try:
        return socket.inet_ntop(family, socket.inet_pton(family, text.decode("ascii")))
    except (OSError, ValueError):
        name = "IPv4" if family == socket.AF_INET else "IPv6"
        raise Malformed(f"the PROXY line holds an address that is not {name}") from None


def encode_v1(source: IAddress, destination: IAddress) -> bytes:
    """
    :param source: the client's address: IPv4 or IPv6, by TCP; any other becomes
        ``UNKNOWN``.
    :param destination: the address that the client connected to.  If only one of the
        two is IPv6, the IPv4 address is mapped to IPv6.
    :returns: the line, including its CRLF.
    :raises ValueError: if a host or port is invalid.
    """
    pair = ip_pair(source, destination)
    if pair is None or pair[0].type != "TCP":
        return b"PROXY UNKNOWN\r\n"
    family = socket.AF_INET6 if isinstance(pair[0], IPv6Address) else socket.AF_INET
    hosts = " ".join(socket.inet_ntop(family, packed(one)) for one in pair)
    for one in pair:
        if not 0 <= one.port <= 65535:
            raise ValueError(f"not a port: {one.port}")
    name = "TCP6" if family == socket.AF_INET6 else "TCP4"
    return f"PROXY {name} {hosts} {pair[0].port} {pair[1].port}\r\n".encode("ascii")
