"""
Reads keystores: PKCS#12 files with a certificate, its key, and the CAs above it (RFC 7292).

Errors never contain any of the bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from mtlsgate.certificates import pem
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.certificates.parsing import PrivateKey, ServerCredential, pair, parse_certificates
from mtlsgate.certificates.recognise import is_pkcs12, what_is_it
from mtlsgate.certificates.signatures import issued
from mtlsgate.errors import CredentialError
from mtlsgate.text import quoted


def parse_keystore(
    data: bytes, passphrase: str | None = None, attribute: str = "pkcs12_passphrase"
) -> ServerCredential:
    """
    :param data: a PKCS#12 file, or base64 of one.
    :param passphrase: the passphrase, if it has one.
    :param attribute: the name of the attribute that takes the passphrase, for messages.
    :returns: the certificate with its key, and the intermediates among the certificates
        beside it, in order.  CA certificates at the end of the chain are left out: clients
        have them.
    :raises CredentialError: if it is no such file, if the passphrase is wrong or missing, or
        if it has not exactly one key with its certificate.
    """
    if not data.strip():
        raise CredentialError("is empty")
    try:
        der = data if data[:1] == b"\x30" else pem.whole_base64(data)
    except CredentialError:
        der = data
    if not is_pkcs12(der):
        raise CredentialError(what_is_it(data) or "is not PKCS#12 (.p12, .pfx), or is damaged")
    secret = None if passphrase is None else passphrase.encode(errors="surrogateescape")
    try:
        with warnings.catch_warnings():
            # Of what is odd in it.  Nobody asked about that.
            warnings.simplefilter("ignore")
            found = pkcs12.load_pkcs12(der, secret)
    except UnsupportedAlgorithm:
        raise CredentialError(
            "is encrypted or signed in a way that OpenSSL does not know: export it again, with "
            "keytool or openssl pkcs12 -export"
        ) from None
    except ValueError as error:
        # Only this library's own words tell a wrong passphrase from a damaged file.
        if "password" not in str(error).lower():
            raise CredentialError("is damaged: it does not parse to its end") from None
        if secret is None:
            raise CredentialError(f"is encrypted: set {attribute}") from None
        raise CredentialError(f"cannot be decrypted: {attribute} is wrong") from None
    if found.key is None or found.cert is None:
        raise CredentialError(
            "has no private key with its certificate: it may be a trust store; export one with the "
            "key"
        )
    if not isinstance(found.key, PrivateKey):
        raise CredentialError("has a key of a kind that TLS cannot use; use RSA, EC or Ed25519")
    ders = [
        one.certificate.public_bytes(Encoding.DER) for one in (found.cert, *found.additional_certs)
    ]
    leaf, *others = (one for each in ders for one in parse_certificates(each))
    _refuse_several(leaf, others)
    return pair((leaf, *_above(leaf, others)), found.key)


def _refuse_several(leaf: Certificate, others: Iterable[Certificate]) -> None:
    """:raises CredentialError: if there is another certificate that is no CA's."""
    for one in others:
        if not one.is_ca and one != leaf:
            raise CredentialError(
                f"has several certificates that are no CA's, {_name(leaf)} and {_name(one)}: "
                "export each into a file of its own"
            )


def _name(certificate: Certificate) -> str:
    try:
        return quoted(certificate.subject.rfc4514_string())
    except UNPARSABLE:
        return "one without a readable name"


def _above(leaf: Certificate, others: list[Certificate]) -> list[Certificate]:
    """:returns: the intermediates, each the issuer of the one before."""
    found, left, last = list[Certificate](), [one for one in others if one != leaf], leaf
    while True:
        above = next((one for one in left if _may_issue(one, last)), None)
        if above is None or _may_issue(above, above):
            return found
        found.append(above)
        left.remove(above)
        last = above


def _may_issue(issuer: Certificate, certificate: Certificate) -> bool:
    return issuer.subject.key == certificate.issuer.key and issued(issuer, certificate)
