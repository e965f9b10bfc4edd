"""
The PROXY protocol, by which a proxy tells the address of its client.

It reads and writes versions 1 and 2 of HAProxy's ``proxy-protocol.txt``; sections
cited here refer to that document.  This package is pure: values, and functions from
bytes to values and back.
"""

from mtlsgate.proxyprotocol.header import Command, Family, Header, Malformed
from mtlsgate.proxyprotocol.reader import HeaderReader, NoHeader, begins_header
from mtlsgate.proxyprotocol.tlv import (
    Ssl,
    SslClient,
    Tlv,
    TlvType,
    alpn_tlv,
    authority_tlv,
    parse_ssl,
    parse_tlvs,
    ssl_tlv,
)
from mtlsgate.proxyprotocol.v1 import encode_v1
from mtlsgate.proxyprotocol.v2 import encode_local, encode_v2

__all__ = [
    "Command",
    "Family",
    "Header",
    "HeaderReader",
    "Malformed",
    "NoHeader",
    "Ssl",
    "SslClient",
    "Tlv",
    "TlvType",
    "alpn_tlv",
    "authority_tlv",
    "begins_header",
    "encode_local",
    "encode_v1",
    "encode_v2",
    "parse_ssl",
    "parse_tlvs",
    "ssl_tlv",
]
