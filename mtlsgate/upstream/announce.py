"""
The PROXY header that tells a target who the client is.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.proxyprotocol import (
    Tlv,
    alpn_tlv,
    authority_tlv,
    encode_local,
    encode_v1,
    encode_v2,
    ssl_tlv,
)

Version = Literal["v1", "v2"]

#: The type of the TLV with the client's certificate in DER.  The PROXY protocol leaves
#: this type to applications (2.2.8).
CERTIFICATE_TLV = 0xE0


@frozen
class Announcement:
    """
    How a target is told.

    :ivar version: the version of the PROXY protocol.
    :ivar certificate: whether to include the client's certificate.
    """

    version: Version
    certificate: bool = False

    def header(self, peer: IVerifiedPeer | None, source: IAddress, destination: IAddress) -> bytes:
        """
        :param peer: the client; None if no certificate is asked for.
        :param source: the client's address.
        :param destination: the gate's address that the client connected to.
        :raises ValueError: if it does not fit into a header.
        """
        if self.version == "v1":
            return encode_v1(source, destination)
        tlvs = () if peer is None else self._tlvs(peer)
        return encode_v2(source, destination, tlvs)

    def _tlvs(self, peer: IVerifiedPeer) -> list[Tlv]:
        tlvs: list[Tlv] = []
        if peer.alpn is not None:
            tlvs.append(alpn_tlv(peer.alpn.encode("ascii", "backslashreplace")))
        if peer.server_name is not None:
            tlvs.append(authority_tlv(peer.server_name))
        tlvs.append(
            ssl_tlv(
                version=peer.tls_version,
                cipher=peer.cipher,
                common_name=peer.common_name,
                presented=True,
                verified=True,
                resumed=peer.resumed,
            )
        )
        if self.certificate:
            tlvs.append((CERTIFICATE_TLV, peer.certificates[0].der))
        return tlvs


def own_header(version: Version) -> bytes:
    """:returns: the header of a connection without a client, as a check makes it (2.1)."""
    # Version 1 has no other way to say it.
    return b"PROXY UNKNOWN\r\n" if version == "v1" else encode_local()
