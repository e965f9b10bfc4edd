"""
What the scope of an ASGI application says of the client: pure.

The TLS extension is that of the ASGI specification:
https://asgi.readthedocs.io/en/latest/specs/tls.html
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer

#: The numbers that TLS has for its versions.
_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
#: The numbers of the cipher suites that the gate negotiates, by OpenSSL's names.
_CIPHERS = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "ECDHE-ECDSA-AES128-GCM-SHA256": 0xC02B,
    "ECDHE-ECDSA-AES256-GCM-SHA384": 0xC02C,
    "ECDHE-RSA-AES128-GCM-SHA256": 0xC02F,
    "ECDHE-RSA-AES256-GCM-SHA384": 0xC030,
    "ECDHE-RSA-CHACHA20-POLY1305": 0xCCA8,
    "ECDHE-ECDSA-CHACHA20-POLY1305": 0xCCA9,
}

#: Where a scope has the verified client itself.
PEER = "mtlsgate.peer"


def extensions(peer: IVerifiedPeer | None, tls: ITlsFacts | None) -> dict[str, Any]:
    """
    :param peer: the client, or None where the server asks for no certificate.
    :param tls: what its handshake agreed on; None without TLS.
    :returns: the extensions of the scopes of one connection.
    """
    found: dict[str, Any] = {}
    if tls is not None:
        found["tls"] = tls_extension(peer, tls)
    if peer is not None:
        found["mtlsgate"] = peer.to_dict()
    return found


def tls_extension(peer: IVerifiedPeer | None, tls: ITlsFacts) -> dict[str, Any]:
    """:returns: the extension ``tls``: the client's chain is the verified path."""
    own = None if tls.certificate is None else (tls.certificate,)
    return {
        "server_cert": None if own is None else _pem(own)[0],
        "client_cert_chain": () if peer is None else _pem(peer.certificates),
        "client_cert_name": None if peer is None else peer.subject,
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(tls.tls_version),
        "cipher_suite": _CIPHERS.get(tls.cipher),
    }


@lru_cache(maxsize=256)
def _pem(path: tuple[Certificate, ...]) -> tuple[str, ...]:
    return tuple(one.pem.decode("ascii") for one in path)
