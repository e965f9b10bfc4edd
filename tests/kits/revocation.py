"""Revocation lists, as a CA signs them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519, padding
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.testing import Authority, Credential

Extensions = Sequence[tuple[x509.ExtensionType, bool]]


def crl(
    authority: Authority,
    serials: Iterable[int | Authority | Credential] = (),
    *,
    now: datetime,
    this_update: datetime | None = None,
    next_update: datetime | None = None,
    number: int | None = 1,
    reason: x509.ReasonFlags | None = None,
    revoked_at: datetime | None = None,
    extensions: Extensions = (),
    entry_extensions: Extensions = (),
    rsa_padding: padding.PSS | None = None,
) -> x509.CertificateRevocationList:
    """
    :param serials: what it lists: certificates, or their serial numbers.
    :param now: the present, aware.
    :param this_update: by default an hour before ``now``.
    :param next_update: by default a week after ``this_update``.
    :param number: the CRL number, or None for a list without one.
    :param reason: of all entries; by default they have none.
    :param revoked_at: of all entries; by default ``this_update``.
    :param entry_extensions: ``(extension, critical)`` each, of all entries.
    :param rsa_padding: by default that of PKCS#1 v1.5.
    :param extensions: ``(extension, critical)`` each; one whose type the list
        has anyway replaces it.
    :returns: a list by this CA.
    """
    begin = this_update or now - timedelta(hours=1)
    name = authority.certificate.subject
    builder = x509.CertificateRevocationListBuilder(
        name, begin, next_update or begin + timedelta(days=7)
    )
    known = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    every: list[tuple[x509.ExtensionType, bool]] = [
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known.value), False)
    ]
    if number is not None:
        every.append((x509.CRLNumber(number), False))
    for extension, critical in {one.oid: (one, it) for one, it in (*every, *extensions)}.values():
        builder = builder.add_extension(extension, critical)
    if reason is not None:
        entry_extensions = [(x509.CRLReason(reason), False), *entry_extensions]
    for each in serials:
        serial = each if isinstance(each, int) else each.certificate.serial_number
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(serial)
            .revocation_date(revoked_at or begin)
        )
        for extension, critical in entry_extensions:
            entry = entry.add_extension(extension, critical)
        builder = builder.add_revoked_certificate(entry.build())
    key = authority.private_key
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else SHA256()
    return builder.sign(key, digest, rsa_padding=rsa_padding)


def der(one: x509.CertificateRevocationList) -> bytes:
    return one.public_bytes(Encoding.DER)


def pem(one: x509.CertificateRevocationList) -> bytes:
    return one.public_bytes(Encoding.PEM)
