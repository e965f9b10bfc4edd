"""
What is asked of every leaf, whatever the rules say.
"""

from __future__ import annotations

from datetime import datetime

from mtlsgate.admission.verdicts import Rejection
from mtlsgate.certificates.certificate import CLIENT_AUTH, DIGITAL_SIGNATURE, Certificate
from mtlsgate.reasons import Reason


def unfit(leaf: Certificate, now: datetime) -> Rejection | None:
    """
    :param now: the time to judge by, aware.
    :returns: why no rule can admit the leaf, pinned or not, or None: its
        validity (RFC 5280, 4.1.2.5, whole seconds, both ends included), what
        its key is for (RFC 8446, 4.4.2.2; RFC 5246, 7.4.6), and what the
        certificate is for (RFC 5280, 4.2.1.12).
    :raises Malformed: if one of these cannot be read.
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
    """:returns: whether the key usage, where present, includes digitalSignature,
    by which a TLS client proves that it has the key."""
    return leaf.key_usage is None or bool(leaf.key_usage & DIGITAL_SIGNATURE)


def is_for_clients(certificate: Certificate) -> bool:
    """:returns: whether the extended key usage, where present, includes TLS
    client authentication."""
    # OpenSSL does not take anyExtendedKeyUsage for it, though RFC 5280 would.
    return certificate.purposes is None or CLIENT_AUTH in certificate.purposes
