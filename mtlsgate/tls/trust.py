"""
Trust stores: the only place that tells OpenSSL which certificates to trust.
"""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509
from OpenSSL.crypto import FILETYPE_ASN1, X509, X509Store, dump_certificate, load_certificate
from OpenSSL.crypto import Error as OpenSSLError

from mtlsgate.certificates.certificate import Certificate, view
from mtlsgate.errors import CredentialError
from mtlsgate.text import quoted


def openssl_certificate(certificate: Certificate | x509.Certificate) -> X509:
    """
    :returns: the certificate as OpenSSL has it.
    :raises OpenSSL.crypto.Error: if OpenSSL cannot read it.
    """
    return load_certificate(FILETYPE_ASN1, view(certificate).der)


def refuse_unreadable(certificate: Certificate) -> None:
    """:raises CredentialError: if OpenSSL cannot read it."""
    try:
        openssl_certificate(certificate)
    except OpenSSLError:
        name = quoted(certificate.subject.rfc4514_string())
        raise CredentialError(f"OpenSSL cannot read the certificate of {name}") from None


def trust_store(anchors: Iterable[Certificate | x509.Certificate], flags: int = 0) -> X509Store:
    """:returns: a store with these trust anchors; see `fill`."""
    store = X509Store()
    fill(store, anchors, flags)
    return store


def fill(
    store: X509Store | None,
    anchors: Iterable[Certificate | x509.Certificate],
    flags: int = 0,
) -> None:
    """
    Make OpenSSL trust these certificates.

    :param store: for example the one from ``SSL.Context.get_cert_store``.
    :param flags: OpenSSL's verification flags, `X509StoreFlags`.
    """
    assert store is not None
    if flags:
        store.set_flags(flags)
    for anchor in anchors:
        store.add_cert(openssl_certificate(anchor))


def encoded(certificate: X509) -> bytes:
    """:returns: the DER of an OpenSSL certificate."""
    return dump_certificate(FILETYPE_ASN1, certificate)
