"""
The type-length-value vectors of version 2 (sections 2.2 to 2.2.8).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, IntFlag

from attrs import frozen

from mtlsgate.proxyprotocol.header import Malformed

#: (type, value).
Tlv = tuple[int, bytes]

_HEAD = 3
_MAX_VALUE = 2**16 - 1
_SSL_HEAD = 5


class TlvType(IntEnum):
    """The registered types."""

    #: The application protocol that was negotiated (RFC 7301; 2.2.1).
    ALPN = 0x01
    #: The name that the client asked for, in UTF-8; with TLS its SNI (2.2.2).
    AUTHORITY = 0x02
    #: A checksum of the whole header (2.2.3).
    CRC32C = 0x03
    #: Padding (2.2.4).
    NOOP = 0x04
    #: The proxy's identifier for the connection, at most 128 bytes (2.2.5).
    UNIQUE_ID = 0x05
    #: The client's TLS: `Ssl` (2.2.6).
    SSL = 0x20
    #: Inside `SSL`: the version, such as ``TLSv1.3``.
    SSL_VERSION = 0x21
    #: Inside `SSL`: the common name of the client's certificate, in UTF-8.
    SSL_CN = 0x22
    #: Inside `SSL`: OpenSSL's name of the cipher.
    SSL_CIPHER = 0x23
    #: Inside `SSL`: the signature algorithm of the proxy's own certificate.
    SSL_SIG_ALG = 0x24
    #: Inside `SSL`: the kind of key in the proxy's own certificate.
    SSL_KEY_ALG = 0x25
    #: The network namespace's name (2.2.7).
    NETNS = 0x30
    #: The first type that is free for applications (2.2.8).
    MIN_CUSTOM = 0xE0
    #: The last one.
    MAX_CUSTOM = 0xEF


class SslClient(IntFlag):
    """The ``client`` bits of the SSL vector (section 2.2.6)."""

    #: The client speaks TLS.
    SSL = 0x01
    #: It presented a certificate on this connection.
    CERT_CONN = 0x02
    #: It presented one in this TLS session, here or before it was resumed.
    CERT_SESS = 0x04


@frozen
class Ssl:
    """
    The client's TLS.

    :ivar client: what the client used.
    :ivar verified: whether the client's certificate was presented and verified.
    :ivar tlvs: the vectors in it.
    """

    client: SslClient
    verified: bool
    tlvs: tuple[Tlv, ...] = ()


def encode_tlv(kind: int, value: bytes) -> bytes:
    """
    :param kind: 0 to 255.
    :param value: up to 65,535 bytes.
    :raises ValueError: if either is out of range.
    """
    if not 0 <= kind <= 0xFF:
        raise ValueError(f"not a type: {kind}")
    if len(value) > _MAX_VALUE:
        raise ValueError(f"the value of type {kind:#04x} is too long: {len(value)} bytes")
    return bytes((kind,)) + len(value).to_bytes(2, "big") + value


def encode_tlvs(tlvs: Iterable[Tlv]) -> bytes:
    """:returns: the encoded vectors, one after the other."""
    return b"".join(encode_tlv(kind, value) for kind, value in tlvs)


def parse_tlvs(data: bytes) -> tuple[Tlv, ...]:
    """
    :raises Malformed: if the last vector does not end with the data.
    """
    found: list[Tlv] = []
    at = 0
    while at < len(data):
        start = at + _HEAD
        end = start + int.from_bytes(data[at + 1 : start], "big")
        if start > len(data) or end > len(data):
            raise Malformed("a TLV is cut short")
        found.append((data[at], data[start:end]))
        at = end
    return tuple(found)


def alpn_tlv(protocol: bytes) -> Tlv:
    """:param protocol: the negotiated protocol, such as ``b"h2"``."""
    return TlvType.ALPN, protocol


def authority_tlv(name: str) -> Tlv:
    """:param name: the server name that the client asked for."""
    return TlvType.AUTHORITY, name.encode()


def ssl_tlv(
    *,
    version: str,
    cipher: str,
    common_name: str | None = None,
    presented: bool,
    verified: bool,
    resumed: bool = False,
) -> Tlv:
    """
    :param version: the TLS version, such as ``TLSv1.3``.
    :param cipher: OpenSSL's name of the cipher.
    :param common_name: the common name in the client's certificate, if it has one.
    :param presented: whether the client presented a certificate.
    :param verified: whether the certificate was verified.
    :param resumed: whether the client presented it in an earlier connection, and
        this one resumes that session.
    """
    client = SslClient.SSL
    if presented:
        client |= SslClient.CERT_SESS
        if not resumed:
            client |= SslClient.CERT_CONN
    parts: list[Tlv] = [(TlvType.SSL_VERSION, version.encode())]
    if common_name is not None:
        parts.append((TlvType.SSL_CN, common_name.encode()))
    parts.append((TlvType.SSL_CIPHER, cipher.encode()))
    verify = 0 if presented and verified else 1
    return TlvType.SSL, bytes((client,)) + verify.to_bytes(4, "big") + encode_tlvs(parts)


def parse_ssl(value: bytes) -> Ssl:
    """
    :param value: the value of a vector of type `TlvType.SSL`.
    :raises Malformed: if it is cut short.
    """
    if len(value) < _SSL_HEAD:
        raise Malformed("the SSL TLV is cut short")
    return Ssl(
        SslClient(value[0]),
        not any(value[1:_SSL_HEAD]),
        parse_tlvs(value[_SSL_HEAD:]),
    )
