"""
Signatures: checking them, and finding a certificate's other possible fingerprint.

The holder of a certificate cannot change what the issuer signed.  But if an ECDSA
signature (r, s) is valid, (r, n - s) is valid too; n is the order of the issuer's
curve.  So such a certificate has two fingerprints.  OpenSSL accepts no other change:
it requires the shortest DER in an ECDSA signature without unused bits, a number below
the modulus for RSA and below the order for EdDSA, and the same algorithm inside and
outside the signed part.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)

from mtlsgate.certificates import der
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.certificates.der import Element, MalformedDer

_HASHES: Mapping[bytes, Callable[[], hashes.HashAlgorithm]] = {
    der.oid("1.3.14.3.2.26"): hashes.SHA1,
    der.oid("2.16.840.1.101.3.4.2.4"): hashes.SHA224,
    der.oid("2.16.840.1.101.3.4.2.1"): hashes.SHA256,
    der.oid("2.16.840.1.101.3.4.2.2"): hashes.SHA384,
    der.oid("2.16.840.1.101.3.4.2.3"): hashes.SHA512,
}
_PKCS1: Mapping[bytes, Callable[[], hashes.HashAlgorithm]] = {
    der.oid("1.2.840.113549.1.1.4"): hashes.MD5,
    der.oid("1.2.840.113549.1.1.5"): hashes.SHA1,
    der.oid("1.2.840.113549.1.1.14"): hashes.SHA224,
    der.oid("1.2.840.113549.1.1.11"): hashes.SHA256,
    der.oid("1.2.840.113549.1.1.12"): hashes.SHA384,
    der.oid("1.2.840.113549.1.1.13"): hashes.SHA512,
}
_ECDSA: Mapping[bytes, Callable[[], hashes.HashAlgorithm]] = {
    der.oid("1.2.840.10045.4.1"): hashes.SHA1,
    der.oid("1.2.840.10045.4.3.1"): hashes.SHA224,
    der.oid("1.2.840.10045.4.3.2"): hashes.SHA256,
    der.oid("1.2.840.10045.4.3.3"): hashes.SHA384,
    der.oid("1.2.840.10045.4.3.4"): hashes.SHA512,
}
_PSS = der.oid("1.2.840.113549.1.1.10")
_PSS_DEFAULT = hashes.SHA1
_EDWARDS = (der.oid("1.3.101.112"), der.oid("1.3.101.113"))

_CURVES: tuple[type[ec.EllipticCurve], ...] = (
    ec.SECP256R1,
    ec.SECP384R1,
    ec.SECP521R1,
    ec.SECP224R1,
    ec.SECP256K1,
    ec.BrainpoolP256R1,
    ec.BrainpoolP384R1,
    ec.BrainpoolP512R1,
)
_ORDERS = tuple(curve().group_order for curve in _CURVES)


def is_signed_by(key: object, algorithm: Element, signature: bytes, content: bytes) -> bool:
    """
    :param key: a public key of `cryptography`.
    :param algorithm: the AlgorithmIdentifier of the signature.
    :param content: what was signed.
    :returns: whether the key made the signature; False if the kind of signature is
        not known.
    """
    try:
        _verify(key, algorithm, signature, content)
    except (InvalidSignature, *UNPARSABLE):
        return False
    return True


def issued(issuer: Certificate, certificate: Certificate) -> bool:
    """:returns: whether the issuer's key signed the certificate."""
    try:
        _verify_issued(issuer, certificate)
    except (InvalidSignature, *UNPARSABLE):
        return False
    return True


def is_surely_not_by(issuer: Certificate, certificate: Certificate) -> bool:
    """:returns: whether the issuer's key certainly did not sign the certificate; False
    if the kind of signature is not known."""
    try:
        _verify_issued(issuer, certificate)
    except InvalidSignature:
        return True
    except UNPARSABLE:
        return False
    return False


def _verify_issued(issuer: Certificate, certificate: Certificate) -> None:
    _verify(
        issuer.public_key(),
        certificate.signature_algorithm,
        certificate.signature,
        certificate.tbs,
    )


def _verify(key: object, algorithm: Element, signature: bytes, content: bytes) -> None:
    """
    :raises InvalidSignature: if the key did not make the signature.
    :raises: one of `UNPARSABLE`, if the kind of signature is not known.
    """
    kind, digest = _kind(algorithm), digest_of(algorithm)
    if isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey) and kind in _EDWARDS:
        key.verify(signature, content)
        return
    if digest is None:
        raise UnsupportedAlgorithm("the signature is of a kind that is not known")
    # Hash with hashlib, which lets other threads run meanwhile: there may be much data.
    hashed = hashlib.new(digest.name, content).digest()
    if isinstance(key, rsa.RSAPublicKey) and kind == _PSS:
        scheme = padding.PSS(padding.MGF1(_pss_mask(algorithm)), _pss_salt(algorithm))
        key.verify(signature, hashed, scheme, Prehashed(digest))
    elif isinstance(key, rsa.RSAPublicKey) and kind in _PKCS1:
        key.verify(signature, hashed, padding.PKCS1v15(), Prehashed(digest))
    elif isinstance(key, ec.EllipticCurvePublicKey) and kind in _ECDSA:
        key.verify(signature, hashed, ec.ECDSA(Prehashed(digest)))
    else:
        raise InvalidSignature("the signature is of another kind than the key")


def is_known(algorithm: Element) -> bool:
    """:returns: whether this module can check signatures of this AlgorithmIdentifier."""
    return digest_of(algorithm) is not None or _kind(algorithm) in _EDWARDS


def digest_of(algorithm: Element) -> hashes.HashAlgorithm | None:
    """
    :param algorithm: the AlgorithmIdentifier of a signature.
    :returns: its hash algorithm; None if it has none or an unknown one.
    :raises Malformed: if it is not an AlgorithmIdentifier.
    """
    kind = _kind(algorithm)
    if kind == _PSS:
        found = _pss_part(algorithm, 0xA0)
        return _PSS_DEFAULT() if found is None else _hash(found)
    known = _PKCS1.get(kind) or _ECDSA.get(kind)
    return None if known is None else known()


def fingerprints(certificate: Certificate) -> tuple[bytes, ...]:
    """
    :returns: the SHA-256 digests of all variants of a certificate that its holder
        can make: its own first; for ECDSA also with the other signature, for each
        curve that the issuer may have.
    """
    return (certificate.sha256, *(Certificate(one).sha256 for one in _twins(certificate)))


def _twins(certificate: Certificate) -> Iterator[bytes]:
    try:
        if _kind(certificate.signature_algorithm) not in _ECDSA:
            return
        r, s = decode_dss_signature(certificate.signature)
    except ValueError:
        return
    before = certificate.tbs + certificate.signature_algorithm.encoded
    for order in _ORDERS:
        if 0 < s < order:
            other = encode_dss_signature(r, order - s)
            yield der.tlv(der.SEQUENCE, before + der.tlv(der.BIT_STRING, b"\0" + other))


# AlgorithmIdentifiers.


def _kind(algorithm: Element) -> bytes:
    for part in algorithm.children():
        return part.expect(der.OBJECT_IDENTIFIER, "a signature algorithm").value
    raise MalformedDer("a signature algorithm is empty")


def _hash(algorithm: Element) -> hashes.HashAlgorithm | None:
    known = _HASHES.get(_kind(algorithm))
    return None if known is None else known()


def _pss_part(algorithm: Element, tag: int) -> Element | None:
    """:returns: one of the RSASSA-PSS-params (RFC 4055, 3.1); None means the default."""
    _, *parameters = algorithm.children()
    for part in parameters[0].children() if parameters else ():
        if part.tag == tag:
            return next(part.children(), None)
    return None


def _pss_mask(algorithm: Element) -> hashes.HashAlgorithm:
    mask = _pss_part(algorithm, 0xA1)
    inner = None if mask is None else tuple(mask.children())
    found = _hash(inner[1]) if inner is not None and len(inner) == 2 else None
    return found or _PSS_DEFAULT()


def _pss_salt(algorithm: Element) -> int:
    salt = _pss_part(algorithm, 0xA2)
    return 20 if salt is None else der.integer(salt, "the length of a salt")
