"""
The keys and signatures that OpenSSL's security level 2 (112 bits) refuses.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.signatures import digest_of


def key_weakness(certificate: Certificate) -> str | None:
    """
    :returns: why the key is refused, or None.
    :raises: one of `UNPARSABLE`, if the kind of key is not known.
    """
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey | dsa.DSAPublicKey) and key.key_size < 2048:
        return f"has a key of {key.key_size} bits: OpenSSL refuses less than 2048"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.curve.key_size < 224:
        return f"has a key on {key.curve.name}: OpenSSL refuses curves of less than 224 bits"
    return None


def signature_weakness(certificate: Certificate) -> str | None:
    """:returns: why the signature is refused, or None.  The signature of a self-issued
    certificate is not checked."""
    digest = digest_of(certificate.signature_algorithm)
    if (
        digest is None
        or digest.digest_size >= 28
        or certificate.issuer.key == certificate.subject.key
    ):
        return None
    return f"is signed with {digest.name}: OpenSSL refuses digests so weak"
