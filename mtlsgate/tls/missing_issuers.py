"""
Why OpenSSL found no issuer that it trusts, if the configuration tells: the CA has expired, so
that it is no longer an anchor, or its bundle has not come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from mtlsgate.admission import Rejection, Rule
from mtlsgate.admission.rules import missing_bundles
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.reasons import Reason

#: X509_V_ERR_…: no issuer was found, or none that is trusted.
_NO_ISSUER = frozenset((2, 18, 19, 20, 21))


def no_issuer(
    error: int,
    depth: int,
    certificate: Certificate,
    rules: Sequence[Rule],
    authorities: Iterable[Certificate],
    now: datetime,
) -> Rejection | None:
    """
    :param error: the error that OpenSSL found, as X509_V_ERR_….
    :param depth: the depth of the certificate at fault.
    :param certificate: the certificate at fault.
    :param authorities: the CAs of the rules.
    :param now: the time to judge by, aware.
    :returns: why the certificate has no trusted issuer; None if the error is another one, or the
        configuration does not tell.
    """
    if error not in _NO_ISSUER:
        return None
    return _expired_issuer(depth, certificate, authorities, now) or next(
        iter(missing_bundles(rules)), None
    )


def _expired_issuer(
    depth: int, certificate: Certificate, authorities: Iterable[Certificate], now: datetime
) -> Rejection | None:
    second = now.replace(microsecond=0)
    for authority in authorities:
        try:
            is_itself = authority == certificate
            if second > authority.not_after and (
                is_itself or _may_be_issuer(authority, certificate)
            ):
                return Rejection(
                    Reason.EXPIRED,
                    f"the configured CA expired at {authority.not_after.isoformat()}",
                    depth if is_itself else depth + 1,
                )
        except UNPARSABLE:
            return None
    return None


def _may_be_issuer(authority: Certificate, certificate: Certificate) -> bool:
    """:returns: whether names and key identifiers fit an issuer and its certificate."""
    if authority.subject.key != certificate.issuer.key:
        return False
    own, named = authority.subject_key_identifier, certificate.authority_key_identifier
    return own is None or named is None or own == named
