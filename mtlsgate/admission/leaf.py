"""
The checks that every leaf must pass, whatever the rules say.
"""

from __future__ import annotations

from datetime import datetime

from mtlsgate.admission.verdicts import Rejection
from mtlsgate.certificates.certificate import CLIENT_AUTH, DIGITAL_SIGNATURE, Certificate
from mtlsgate.reasons import Reason


def unfit(leaf: Certificate, now: datetime) -> Rejection | None:
    """
    Check a leaf's validity (RFC 5280, 4.1.2.5, whole seconds, both ends
    included), its key usage (RFC 8446, 4.4.2.2; RFC 5246, 7.4.6) and its
    extended key usage (RFC 5280, 4.2.1.12).

    :param now: the time to judge by, aware.
    :returns: why no rule can admit the leaf, pinned or not; None if it is fit.
    :raises Malformed: if one of these fields cannot be read.
    """
    now = now.replace(microsecond=0)
    if now > leaf.not_after:
        return Rejection(Reason.EXPIRED, f"expired at {leaf.not_after.isoformat()}", 0)
    if now < leaf.not_before:
        return Rejection(Reason.NOT_YET_VALID, f"valid from {leaf.not_before.isoformat()}", 0)
    if not may_sign(leaf):
        return Rejection(Reason.WRONG_PURPOSE, "its key usage does not include digitalSignature", 0)
    if not is_for_clients(leaf):
        return Rejection(
            Reason.WRONG_PURPOSE, "its extended key usage does not include clientAuth", 0
        )
    return None


def may_sign(leaf: Certificate) -> bool:
    """:returns: whether the key usage, if present, includes digitalSignature.  A
    TLS client signs to prove that it has the key."""
    return leaf.key_usage is None or bool(leaf.key_usage & DIGITAL_SIGNATURE)


def is_for_clients(certificate: Certificate) -> bool:
    """:returns: whether the extended key usage, if present, includes TLS client
    authentication."""
    # Like OpenSSL, and unlike RFC 5280, do not accept anyExtendedKeyUsage.
    return certificate.purposes is None or CLIENT_AUTH in certificate.purposes
