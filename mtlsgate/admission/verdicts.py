"""
What is judged, and what a rejection is.
"""

from __future__ import annotations

from attrs import frozen

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.reasons import Reason

#: A path as verified: the leaf first, its issuers after it.
Path = tuple[Certificate, ...]


@frozen
class Rejection:
    """
    A verdict: rejected.

    :ivar reason: from the closed vocabulary.
    :ivar detail: the particulars, in one line.
    :ivar depth: of the certificate that is the cause, 0 being the leaf; None
        if no certificate is.
    """

    reason: Reason
    detail: str
    depth: int | None = None
