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

    #: The application protocol that was negotiated, as RFC 7301 has it (2.2.1).
    ALPN = 0x01
    #: The name that the client asked for, in UTF-8; with TLS its SNI (2.2.2).
    AUTHORITY = 0x02
    #: A checksum of the whole header (2.2.3).
    CRC32C = 0x03
    #: Padding (2.2.4).
    NOOP = 0x04
    #: What the proxy calls the connection, at most 128 bytes (2.2.5).
    UNIQUE_ID = 0x05
    #: The client's TLS: `Ssl` (2.2.6).
    SSL = 0x20
    #: In it: the version, as ``TLSv1.3``.
    SSL_VERSION = 0x21
    #: In it: the common name of the client's certificate, in UTF-8.
    SSL_CN = 0x22
    #: In it: the cipher, as OpenSSL calls it.
    SSL_CIPHER = 0x23
    #: In it: how the proxy's own certificate is signed.
    SSL_SIG_ALG = 0x24
    #: In it: the kind of key in the proxy's own certificate.
    SSL_KEY_ALG = 0x25
    #: The network namespace's name (2.2.7).
    NETNS = 0x30
    #: The first type that applications may use as they like (2.2.8).
    MIN_CUSTOM = 0xE0
    #: And the last.
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
    :ivar client: which of it there is.
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
    """:returns: all of them, one after the other."""
    return b"".join(encode_tlv(kind, value) for kind, value in tlvs)


def parse_tlvs(data: bytes) -> tuple[Tlv, ...]:
    """
    :raises Malformed: if the last one ends elsewhere than the data.
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
    """:param protocol: as it was negotiated: ``b"h2"``."""
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
    :param version: of TLS: ``TLSv1.3``.
    :param cipher: as OpenSSL calls it.
    :param common_name: of the client's certificate, if it has one.
    :param presented: whether the client presented a certificate.
    :param verified: whether that was found good.
    :param resumed: whether it presented it in an earlier connection, whose
        session this one resumes.
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
    :param value: of a vector of type `TlvType.SSL`.
    :raises Malformed: if it is cut short.
    """
    if len(value) < _SSL_HEAD:
        raise Malformed("the SSL TLV is cut short")
    return Ssl(
        SslClient(value[0]),
        not any(value[1:_SSL_HEAD]),
        parse_tlvs(value[_SSL_HEAD:]),
    )
