"""
What an asyncio transport tells of its connection, in the words of the standard library:
the parts of `ssl.SSLObject` and of `socket.socket` that protocols ask for.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime
from ipaddress import IPv6Address
from typing import Any

from attrs import frozen
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.address import IPv6Address as TcpIPv6Address
from twisted.internet.interfaces import IAddress

from mtlsgate.certificates.alternative_names import DNS, EMAIL, IP, URI
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.der import dotted
from mtlsgate.certificates.names import Name
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer

#: What OpenSSL calls the attributes of a name.
_LONG_NAMES = {
    "2.5.4.3": "commonName",
    "2.5.4.4": "surname",
    "2.5.4.5": "serialNumber",
    "2.5.4.6": "countryName",
    "2.5.4.7": "localityName",
    "2.5.4.8": "stateOrProvinceName",
    "2.5.4.9": "streetAddress",
    "2.5.4.10": "organizationName",
    "2.5.4.11": "organizationalUnitName",
    "2.5.4.12": "title",
    "2.5.4.13": "description",
    "2.5.4.15": "businessCategory",
    "2.5.4.17": "postalCode",
    "2.5.4.42": "givenName",
    "2.5.4.43": "initials",
    "2.5.4.44": "generationQualifier",
    "2.5.4.46": "dnQualifier",
    "2.5.4.65": "pseudonym",
    "2.5.4.97": "organizationIdentifier",
    "0.9.2342.19200300.100.1.1": "userId",
    "0.9.2342.19200300.100.1.25": "domainComponent",
    "1.2.840.113549.1.9.1": "emailAddress",
    "1.3.6.1.4.1.311.60.2.1.1": "jurisdictionLocalityName",
    "1.3.6.1.4.1.311.60.2.1.2": "jurisdictionStateOrProvinceName",
    "1.3.6.1.4.1.311.60.2.1.3": "jurisdictionCountryName",
}
#: What Python calls the kinds of alternative names.
_KINDS = {DNS: "DNS", EMAIL: "email", URI: "URI", IP: "IP Address"}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

SocketName = tuple[str, int] | tuple[str, int, int, int] | str


def socket_name(address: IAddress) -> SocketName:
    """:returns: an address as `socket.socket.getpeername` has it."""
    if isinstance(address, IPv4Address):
        return address.host, address.port
    if isinstance(address, TcpIPv6Address):
        return address.host, address.port, int(address.flowInfo), int(address.scopeID)
    if isinstance(address, UNIXAddress) and address.name is not None:
        return address.name.decode(errors="surrogateescape")
    return ""


@frozen(eq=False)
class GateSocket:
    """
    The part of a socket that protocols look at or set.

    Its addresses are what the gate goes by: behind a proxy, what the PROXY header says.
    """

    _transport: Any

    @property
    def family(self) -> socket.AddressFamily:
        """The address family of the kernel's socket."""
        with self._own() as own:
            return socket.AddressFamily(own.family)

    @property
    def type(self) -> socket.SocketKind:
        """Always a stream."""
        return socket.SOCK_STREAM

    @property
    def proto(self) -> int:
        """The number of the transport protocol."""
        with self._own() as own:
            return own.proto

    def fileno(self) -> int:
        """:returns: the descriptor; -1 after the end of the connection."""
        number: int = self._transport.fileno()
        return number

    def getpeername(self) -> SocketName:
        """:returns: the client's address."""
        return socket_name(self._transport.getPeer())

    def getsockname(self) -> SocketName:
        """:returns: this end's address."""
        return socket_name(self._transport.getHost())

    def getsockopt(self, *arguments: Any) -> int | bytes:
        """As `socket.socket.getsockopt`."""
        with self._own() as own:
            return own.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        """As `socket.socket.setsockopt`."""
        with self._own() as own:
            own.setsockopt(*arguments)

    def _own(self) -> socket.socket:
        """:returns: another socket object for the kernel's socket, to be closed."""
        return socket.socket(fileno=os.dup(self.fileno()))


@frozen(eq=False)
class SslObject:
    """
    The part of an `ssl.SSLObject` that protocols ask for.

    :ivar server_side: always true.
    """

    _transport: Any
    server_side: bool = True

    @property
    def _peer(self) -> IVerifiedPeer | None:
        return IVerifiedPeer(self._transport, None)

    @property
    def _tls(self) -> ITlsFacts | None:
        return ITlsFacts(self._transport, None)

    def getpeercert(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """
        :param binary_form: whether to return the certificate's DER.
        :returns: the client's certificate as `ssl.SSLObject.getpeercert` has it; None
            if the server asks for none.
        """
        peer = self._peer
        if peer is None:
            return None
        leaf: Certificate = peer.certificates[0]
        return leaf.der if binary_form else peer_certificate(leaf)

    def cipher(self) -> tuple[str, str, int] | None:
        """:returns: the cipher suite, the version that defines it, and the bits of its
        key; None after the end of the connection."""
        connection = self._transport.getHandle()
        if connection is None:
            return None
        name, version = connection.get_cipher_name(), connection.get_cipher_version()
        return name, version, connection.get_cipher_bits()

    def version(self) -> str | None:
        """:returns: ``TLSv1.2`` or ``TLSv1.3``."""
        return None if self._tls is None else self._tls.tls_version

    def selected_alpn_protocol(self) -> str | None:
        """:returns: the application protocol that ALPN chose, or None."""
        if self._peer is not None:
            alpn: str | None = self._peer.alpn
            return alpn
        chosen: bytes | None = self._transport.negotiatedProtocol
        return None if chosen is None else chosen.decode("ascii", "replace")

    @property
    def server_hostname(self) -> str | None:
        """The name that the client asked for (SNI), or None."""
        return None if self._tls is None else self._tls.server_name

    @property
    def session_reused(self) -> bool:
        """Whether the client resumed a session."""
        return self._peer is not None and bool(self._peer.resumed)

    def compression(self) -> None:
        """:returns: None: the gate never compresses."""


#: What `asyncio.BaseTransport.get_extra_info` knows of a connection, by name.
EXTRA_INFO: Mapping[str, Callable[[Any], Any]] = {
    "peername": lambda connection: socket_name(connection.getPeer()),
    "sockname": lambda connection: socket_name(connection.getHost()),
    "socket": GateSocket,
    "ssl_object": SslObject,
    "sslcontext": SslObject,
    "peercert": lambda connection: SslObject(connection).getpeercert(),
    "cipher": lambda connection: SslObject(connection).cipher(),
    "compression": lambda connection: None,
    "verified_peer": lambda connection: IVerifiedPeer(connection, None),
}


def peer_certificate(leaf: Certificate) -> dict[str, Any]:
    """:returns: a certificate as `ssl.SSLObject.getpeercert` has it, without the addresses
    of OCSP responders, issuers and revocation lists."""
    found = {
        "subject": _name(leaf.subject),
        "issuer": _name(leaf.issuer),
        "version": leaf.version,
        "serialNumber": _serial(leaf.serial_number),
        "notBefore": _time(leaf.not_before),
        "notAfter": _time(leaf.not_after),
    }
    names = tuple(
        (_KINDS[one.tag], _address(one.value) if one.tag == IP else one.value.decode())
        for one in leaf.readable_names.names
        if one.tag in _KINDS and (one.tag == IP or one.value.isascii())
    )
    return found | {"subjectAltName": names} if names else found


def _name(name: Name) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(
        tuple(
            (_LONG_NAMES.get(dotted(one.kind), dotted(one.kind)), one.text)
            for one in part
            if one.text is not None
        )
        for part in name.parts
    )


def _serial(number: int) -> str:
    digits = f"{abs(number):X}"
    return ("-" if number < 0 else "") + digits.zfill(len(digits) + len(digits) % 2)


def _time(when: datetime) -> str:
    return f"{_MONTHS[when.month - 1]} {when.day:2} {when:%H:%M:%S} {when.year} GMT"


def _address(value: bytes) -> str:
    """:returns: an address as OpenSSL prints it."""
    if len(value) == 4:
        return ".".join(map(str, value))
    if len(value) != 16:
        return "<invalid>"
    groups = IPv6Address(value).exploded.split(":")
    return ":".join(f"{int(group, 16):X}" for group in groups)
