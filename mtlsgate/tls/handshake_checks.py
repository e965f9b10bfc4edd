"""
The checks that a TLS handshake adds to OpenSSL's path verification: certificate
purposes, and the strength of keys and signatures.

A path that is verified outside a handshake must pass these checks too, so that
both give the same answer.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from mtlsgate.admission import Path, Rejection
from mtlsgate.admission.leaf import is_for_clients, may_sign
from mtlsgate.certificates import der
from mtlsgate.certificates.certificate import NETSCAPE_CERT_TYPE, UNPARSABLE, Certificate
from mtlsgate.certificates.strength import key_weakness, signature_weakness
from mtlsgate.reasons import Reason
from mtlsgate.tls.openssl_errors import verification_rejection

#: X509_V_ERR_…
_INVALID_PURPOSE, _LEAF_KEY_TOO_SMALL, _CA_KEY_TOO_SMALL, _DIGEST_TOO_WEAK = 26, 66, 67, 68

_TLS_KEYS = (
    rsa.RSAPublicKey,
    ec.EllipticCurvePublicKey,
    ed25519.Ed25519PublicKey,
    ed448.Ed448PublicKey,
)
#: Curves whose keys can sign handshakes, with the TLS versions that support them.
_CURVES = {
    "secp256r1": ("1.2", "1.3"),
    "secp384r1": ("1.2", "1.3"),
    "secp521r1": ("1.2", "1.3"),
    "brainpoolP256r1": ("1.3",),  # RFC 8734
    "brainpoolP384r1": ("1.3",),
    "brainpoolP512r1": ("1.3",),
}


def handshake_objection(path: Path) -> Rejection | None:
    """
    :param path: as OpenSSL verified it, without a handshake.
    :returns: why a handshake would have rejected it (OpenSSL's
        check_purpose_ssl_client and check_auth_level), or None.
    """
    for depth, certificate in enumerate(path):
        try:
            if not _is_for_clients(certificate, is_leaf=depth == 0):
                return verification_rejection(_INVALID_PURPOSE, depth)
        except UNPARSABLE:
            return Rejection(
                Reason.MALFORMED_CERTIFICATE, "one of its extensions does not parse", depth
            )
    for depth, certificate in enumerate(path[1:], 1):
        if _is_weak(certificate):
            return verification_rejection(_CA_KEY_TOO_SMALL, depth)
    for depth, certificate in enumerate(path[:-1]):
        if signature_weakness(certificate) is not None:
            return verification_rejection(_DIGEST_TOO_WEAK, depth)
    return unusable_key(path[0])


def unusable_key(leaf: Certificate) -> Rejection | None:
    """:returns: why no client can complete a handshake with the leaf's key, or None."""
    try:
        key = leaf.public_key()
        if key_weakness(leaf) is not None:
            return verification_rejection(_LEAF_KEY_TOO_SMALL, 0)
    except UNPARSABLE:
        return Rejection(Reason.MALFORMED_CERTIFICATE, "its public key does not parse", 0)
    if not isinstance(key, _TLS_KEYS):
        return Rejection(
            Reason.MALFORMED_CERTIFICATE, "its public key is of a kind that TLS cannot use", 0
        )
    if not tls_versions(leaf):
        assert isinstance(key, ec.EllipticCurvePublicKey)
        return Rejection(
            Reason.PROTOCOL_ERROR, f"TLS cannot use its key, which is on {key.curve.name}", 0
        )
    return None


def tls_versions(leaf: Certificate) -> tuple[str, ...]:
    """:returns: the versions of TLS in which a client can use the leaf's key."""
    key = leaf.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name, ())
    return ("1.2", "1.3")


def _is_weak(certificate: Certificate) -> bool:
    try:
        return key_weakness(certificate) is not None
    except UNPARSABLE:
        # cryptography does not know this key; OpenSSL has already checked it.
        return False


def _is_for_clients(certificate: Certificate, is_leaf: bool) -> bool:
    """OpenSSL checks every certificate in the path, including the anchor."""
    if not is_for_clients(certificate):
        return False
    if not is_leaf:
        return True
    if not may_sign(certificate):
        return False
    netscape = certificate.extension(NETSCAPE_CERT_TYPE)
    if netscape is None:
        return True
    # Its first bit is "SSL client".
    usage = der.bits(der.only(netscape.value, der.BIT_STRING, "its type"), "its type")
    return usage[:1] >= b"\x80"
