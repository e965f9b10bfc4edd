"""
RFC 5280 profile rules that OpenSSL's strict mode does not check.

Ordinary CAs follow them.  They apply to what the client sent, not to what the
operator configured: the anchor is exempt, and so is a pin without a CA.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from mtlsgate.admission.verdicts import Path, Rejection
from mtlsgate.certificates.certificate import (
    MAX_REMEMBERED,
    NAME_CONSTRAINTS,
    POLICY_CONSTRAINTS,
    SUBJECT_ALTERNATIVE_NAME,
    UNPARSABLE,
    Certificate,
)
from mtlsgate.reasons import Reason
from mtlsgate.text import first_line

#: In bits.  RFC 5280, 4.1.2.2, allows 20 octets including the sign bit.  Many CAs
#: use 20 random octets and need a 21st for the sign, which is accepted.
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
            detail = first_line(error)
            return Rejection(Reason.MALFORMED_CERTIFICATE, detail, depth)
        if found is not None:
            return Rejection(Reason.PROFILE_VIOLATION, found, depth)
    return None


def _violations(certificate: Certificate, depth: int) -> Iterator[str]:
    serial = certificate.serial_number
    if serial <= 0:
        yield "its serial number is not positive (RFC 5280, 4.1.2.2)"
    if serial.bit_length() > _MAX_SERIAL:
        yield "its serial number is longer than 20 octets (RFC 5280, 4.1.2.2)"
    if depth == 0:
        yield from _leaf_violations(certificate)
        return
    constraints = certificate.extension(POLICY_CONSTRAINTS)
    if constraints is not None and not constraints.critical:
        yield "its policy constraints are not critical (RFC 5280, 4.2.1.11)"


def _leaf_violations(leaf: Certificate) -> Iterator[str]:
    if leaf.extension(NAME_CONSTRAINTS) is not None:
        yield "it constrains names, which is for CAs (RFC 5280, 4.2.1.10)"
    names = leaf.extension(SUBJECT_ALTERNATIVE_NAME)
    if names is not None and not names.critical and leaf.subject.is_empty:
        yield (
            "its subject is empty, but its subject alternative name is not critical "
            "(RFC 5280, 4.1.2.6)"
        )
