"""
What RFC 5280 demands of certificates and OpenSSL's strictness does not look at.

A few rules of the certificate profile that every usual CA keeps to, held
against what the client sent and not against what the operator configured: the
anchor is exempt, and so is a pin that is its own anchor.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from mtlsgate.admission.verdicts import Path, Rejection
from mtlsgate.certificates.parsing import MAX_REMEMBERED, UNPARSABLE
from mtlsgate.reasons import Reason

#: The DER of the object identifier 2.5.29.36 (RFC 5280, 4.2.1.11).
_POLICY_CONSTRAINTS = bytes.fromhex("0603551d24")

#: In bits.  RFC 5280, 4.1.2.2, allows 20 octets with the sign among them; many
#: CAs take 20 random ones and need a 21st for it.
_MAX_SERIAL = 160


@lru_cache(MAX_REMEMBERED)
def profile_violation(path: Path) -> Rejection | None:
    """
    :param path: as OpenSSL verified it, leaf first, its anchor last.
    :returns: the first violation from the leaf up, or None.
    """
    for depth, certificate in enumerate(path[:-1]):
        try:
            found = next(_violations(certificate, depth), None)
        except UNPARSABLE as error:
            detail = str(error).partition("\n")[0] or type(error).__name__
            return Rejection(Reason.MALFORMED_CERTIFICATE, detail, depth)
        if found is not None:
            return Rejection(Reason.PROFILE_VIOLATION, found, depth)
    return None


def _violations(certificate: x509.Certificate, depth: int) -> Iterator[str]:
    serial = certificate.serial_number
    if serial <= 0:
        yield "its serial number is not positive (RFC 5280, 4.1.2.2)"
    if serial.bit_length() > _MAX_SERIAL:
        yield "its serial number is longer than 20 octets (RFC 5280, 4.1.2.2)"
    if depth == 0:
        yield from _leaf_violations(certificate)
    elif _POLICY_CONSTRAINTS in certificate.tbs_certificate_bytes and any(
        each.oid == ExtensionOID.POLICY_CONSTRAINTS and not each.critical
        for each in certificate.extensions
    ):
        yield "its policy constraints are not critical (RFC 5280, 4.2.1.11)"


def _leaf_violations(leaf: x509.Certificate) -> Iterator[str]:
    for extension in leaf.extensions:
        if extension.oid == ExtensionOID.NAME_CONSTRAINTS:
            yield "it constrains names, which is for CAs (RFC 5280, 4.2.1.10)"
        elif (
            extension.oid == ExtensionOID.SUBJECT_ALTERNATIVE_NAME
            and not extension.critical
            and not leaf.subject.rdns
        ):
            yield (
                "its subject is empty, but its subject alternative name is not critical "
                "(RFC 5280, 4.1.2.6)"
            )
