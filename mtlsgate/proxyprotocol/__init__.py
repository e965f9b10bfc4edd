"""
The PROXY protocol: how a proxy tells whom it connects for.

HAProxy's ``proxy-protocol.txt``, versions 1 and 2, both to read and to write;
the sections that are cited here are that document's.  Pure: values, and
functions from bytes to values and back.
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
