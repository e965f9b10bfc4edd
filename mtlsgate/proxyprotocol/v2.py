"""
Version 2, in binary (section 2.2).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from mtlsgate.proxyprotocol.crc32c import crc32c
from mtlsgate.proxyprotocol.header import Command, Family, Header, Malformed, ip_pair, packed
from mtlsgate.proxyprotocol.tlv import Tlv, TlvType, encode_tlv, encode_tlvs, parse_tlvs

#: The first bytes of a header of this version.
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

#: The longest possible header.
MAX_HEADER = 16 + 2**16 - 1

_VERSION = 2
_HEAD = 16
_COMMAND_AT, _FAMILY_AT = 12, 13
_CHECKSUM = 4
_UNIX = "108s108s"

#: The length of both addresses, by family.
_ADDRESSES = {
    Family.UNSPEC: struct.Struct(""),
    Family.TCP4: struct.Struct("!4s4sHH"),
    Family.UDP4: struct.Struct("!4s4sHH"),
    Family.TCP6: struct.Struct("!16s16sHH"),
    Family.UDP6: struct.Struct("!16s16sHH"),
    Family.UNIX_STREAM: struct.Struct(_UNIX),
    Family.UNIX_DATAGRAM: struct.Struct(_UNIX),
}


def parse_v2(data: bytes | bytearray) -> tuple[Header, int] | None:
    """
    :param data: the bytes so far; they begin with `SIGNATURE`.
    :returns: the header and its length, or None while more bytes are needed.
    :raises Malformed: if it is not a header, whatever follows.
    """
    if len(data) <= _COMMAND_AT:
        return None
    command = _command(data[_COMMAND_AT])
    if len(data) <= _FAMILY_AT:
        return None
    # For a LOCAL connection the family and all that follows must be ignored.
    family = Family.UNSPEC if command is Command.LOCAL else _family(data[_FAMILY_AT])
    if len(data) < _HEAD:
        return None
    length = int.from_bytes(data[_HEAD - 2 : _HEAD], "big")
    if length < _ADDRESSES[family].size:
        raise Malformed("the PROXY header is too short for its addresses")
    end = _HEAD + length
    if len(data) < end:
        return None
    if command is Command.LOCAL:
        return Header(2, command, family), end
    header = bytes(data[:end])
    addresses = header[_HEAD : _HEAD + _ADDRESSES[family].size]
    tlvs = _checked(header, _HEAD + len(addresses))
    if family is Family.UNSPEC:
        return Header(2, command, family, tlvs=tlvs), end
    source, destination = _addresses(family, addresses)
    return Header(2, command, family, source, destination, tlvs), end


def _command(byte: int) -> Command:
    if byte >> 4 != _VERSION:
        raise Malformed("the PROXY header is of a version other than 1 and 2")
    try:
        return Command(byte & 0x0F)
    except ValueError:
        raise Malformed("the PROXY header's command is neither LOCAL nor PROXY") from None


def _family(byte: int) -> Family:
    try:
        return Family(byte)
    except ValueError:
        raise Malformed("the PROXY header is of a family that there is none of") from None


def _checked(header: bytes, at: int) -> tuple[Tlv, ...]:
    """:returns: the TLVs that begin there, after the checksum, if any, is verified."""
    found = parse_tlvs(header[at:])
    kept: list[Tlv] = []
    seen = False
    for kind, value in found:
        if kind == TlvType.CRC32C:
            if seen or len(value) != _CHECKSUM:
                raise Malformed("the PROXY header's checksum is not one of four bytes")
            seen = True
            start = at + 3
            blank = header[:start] + bytes(_CHECKSUM) + header[start + _CHECKSUM :]
            if crc32c(blank) != int.from_bytes(value, "big"):
                raise Malformed("the PROXY header's checksum is wrong")
        elif kind != TlvType.NOOP:
            kept.append((kind, value))
        at += 3 + len(value)
    return tuple(kept)


def _addresses(family: Family, block: bytes) -> tuple[IAddress, IAddress]:
    fields = _ADDRESSES[family].unpack(block)
    match family:
        case Family.TCP4 | Family.UDP4:
            return _ip(IPv4Address, socket.AF_INET, family is Family.TCP4, fields)
        case Family.TCP6 | Family.UDP6:
            return _ip(IPv6Address, socket.AF_INET6, family is Family.TCP6, fields)
    source, destination = fields
    return UNIXAddress(_unix_name(source)), UNIXAddress(_unix_name(destination))


def _ip(
    make: type[IPv4Address] | type[IPv6Address],
    family: socket.AddressFamily,
    stream: bool,
    fields: tuple[bytes, bytes, int, int],
) -> tuple[IAddress, IAddress]:
    *hosts, first, second = fields
    source, destination = (socket.inet_ntop(family, host) for host in hosts)
    kind = "TCP" if stream else "UDP"
    return make(kind, source, first), make(kind, destination, second)  # type: ignore[arg-type]


def _unix_name(field: bytes) -> bytes | None:
    """:returns: the name in a ``sun_path``; None if the socket has no name.  A path ends
    at its first NUL; an abstract name begins with one."""
    if field[:1] == b"\0":
        return field.rstrip(b"\0") or None
    return field.partition(b"\0")[0]


def encode_v2(
    source: IAddress,
    destination: IAddress,
    tlvs: Iterable[Tlv] = (),
    *,
    checksum: bool = False,
) -> bytes:
    """
    :param source: the client's address: IPv4, IPv6 or UNIX; any other becomes UNSPEC.
    :param destination: the address that the client connected to.  If only one of the
        two is IPv6, the IPv4 address is mapped to IPv6.
    :param tlvs: other facts, as (type, value).
    :param checksum: whether to add a CRC32C vector.
    :returns: the header.
    :raises ValueError: if an address is invalid, or if everything together is longer
        than the 65,535 bytes that a header can have.
    """
    family, addresses = _encoded(source, destination)
    return _encode(Command.PROXY, family, addresses + encode_tlvs(tlvs), checksum)


def encode_local() -> bytes:
    """:returns: the header of a connection on the proxy's own behalf."""
    return _encode(Command.LOCAL, Family.UNSPEC, b"", False)


def _encode(command: Command, family: Family, block: bytes, checksum: bool) -> bytes:
    if checksum:
        block += encode_tlv(TlvType.CRC32C, bytes(_CHECKSUM))
    if len(block) > MAX_HEADER - _HEAD:
        raise ValueError(f"too long for a PROXY header: {len(block)} bytes")
    first = bytes((_VERSION << 4 | command, family))
    header = SIGNATURE + first + len(block).to_bytes(2, "big") + block
    if checksum:
        header = header[:-_CHECKSUM] + crc32c(header).to_bytes(_CHECKSUM, "big")
    return header


def _encoded(source: IAddress, destination: IAddress) -> tuple[Family, bytes]:
    """:returns: the family of two addresses, and both."""
    if isinstance(source, UNIXAddress) and isinstance(destination, UNIXAddress):
        family = Family.UNIX_STREAM
        names = [one.name or b"" for one in (source, destination)]
        if any(len(name) > 108 for name in names):
            raise ValueError("a UNIX address is longer than 108 bytes")
        return family, _ADDRESSES[family].pack(*names)
    pair = ip_pair(source, destination)
    if pair is None:
        return Family.UNSPEC, b""
    datagrams = pair[0].type == "UDP"
    if isinstance(pair[0], IPv6Address):
        family = Family.UDP6 if datagrams else Family.TCP6
    else:
        family = Family.UDP4 if datagrams else Family.TCP4
    for one in pair:
        if not 0 <= one.port <= 65535:
            raise ValueError(f"not a port: {one.port}")
    hosts = (packed(one) for one in pair)
    return family, _ADDRESSES[family].pack(*hosts, *(one.port for one in pair))
