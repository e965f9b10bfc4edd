"""
What a leaf is judged by, whatever the rules say.

It follows from the certificate's bytes alone, so that it may be remembered.
Nothing that depends on the time, on rules or on an epoch belongs here.
"""

from __future__ import annotations

from datetime import datetime

from attrs import frozen
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsgate.certificates.parsing import is_ca, sha256


@frozen(eq=False)
class Facts:
    """
    The facts of one leaf.

    :ivar digest: SHA-256 of the DER, 32 bytes.
    :ivar is_ca: whether it is a CA.
    :ivar is_for_clients: whether it `allows_client_authentication`.
    :ivar not_before: the first second of its validity.
    :ivar not_after: the last second of its validity.
    """

    digest: bytes
    is_ca: bool
    is_for_clients: bool
    not_before: datetime
    not_after: datetime


def facts_of(leaf: x509.Certificate) -> Facts:
    """
    :returns: the facts.  What the log and the application will read of the
        leaf does parse, too.
    :raises: one of `mtlsgate.certificates.parsing.UNPARSABLE`.
    """
    _ = leaf.subject, leaf.issuer
    return Facts(
        sha256(leaf),
        is_ca(leaf),
        allows_client_authentication(leaf),
        leaf.not_valid_before_utc,
        leaf.not_valid_after_utc,
    )


def allows_client_authentication(certificate: x509.Certificate) -> bool:
    """:returns: whether the extended key usage, where present, includes TLS
    client authentication (RFC 5280, 4.2.1.12)."""
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    # OpenSSL does not take anyExtendedKeyUsage for it, though RFC 5280 would.
    return ExtendedKeyUsageOID.CLIENT_AUTH in usage
