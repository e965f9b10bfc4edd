"""
What is judged, and what a rejection is.
"""

from __future__ import annotations

from attrs import frozen
from cryptography import x509

from mtlsgate.reasons import Reason

#: A path as verified: the leaf first, its issuers after it.
Path = tuple[x509.Certificate, ...]


@frozen
class Rejection:
    """
    A verdict: not let in.

    :ivar reason: from the closed vocabulary.
    :ivar detail: the particulars, in one line.
    :ivar depth: of the certificate that gave cause, 0 being the leaf; None
        where no certificate did.
    """

    reason: Reason
    detail: str
    depth: int | None = None
