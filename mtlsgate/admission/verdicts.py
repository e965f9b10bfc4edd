"""
The values that go into a decision and come out of it: a path and a rejection.
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
    :ivar detail: what exactly is wrong, in one line.
    :ivar depth: the depth of the certificate at fault; 0 is the leaf.  None if
        no certificate is at fault.
    """

    reason: Reason
    detail: str
    depth: int | None = None
