"""
What is wrong, or soon will be, with the certificates with which targets are spoken to.

An expired client certificate is nothing but an alert from the target otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from mtlsgate.admission.leaf import is_for_clients
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.load import lint
from mtlsgate.load.expiry import Kind
from mtlsgate.spiffe.subscription import Stream
from mtlsgate.upstream.tls import TlsClient


def problems_of(tls: TlsClient, now: datetime) -> Iterator[tuple[Kind, str]]:
    """Yield what a warning is about, and its text; not of what SPIFFE agents deliver."""
    own = tls.credential if tls.own_source is None else None
    for place, one in enumerate(() if own is None else own.chain):
        role = "intermediate certificate" if place else "client certificate"
        for text in lint.certificate(one, now):
            yield Kind.CLIENT_CERTIFICATE, f"the {role} {text}"
        if not place and not _is_for_clients(one):
            yield (
                Kind.CLIENT_CERTIFICATE,
                "the client certificate's extended key usage does not include clientAuth: targets "
                "reject it",
            )
    is_delivered = any(stream is Stream.BUNDLES for _, stream in tls.wanted)
    for kind, found, role in (
        (Kind.TARGET_CA, () if is_delivered else tls.anchors, "target's CA"),
        (Kind.TARGET_PIN, tls.pins, "target's pin"),
    ):
        for one in found or ():
            for text in lint.certificate(one, now):
                yield kind, f"the {role} {text}"


def _is_for_clients(certificate: Certificate) -> bool:
    try:
        return is_for_clients(certificate)
    except UNPARSABLE:
        # The target decides.
        return True
