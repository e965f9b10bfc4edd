"""
The metrics of what ceases to count: certificates, pins, revocation lists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from attrs import frozen
from prometheus_client.core import Metric

from mtlsgate.observe.metric_families import gauge


@frozen(kw_only=True)
class Expiring:
    """
    When something that a configuration names ceases to count.

    :ivar kind: a member of `mtlsgate.load.expiry.Kind`, as a str.
    :ivar server: the server that has it.
    :ivar rule: its rule, or None if it is the server's own.
    :ivar at: when.
    """

    kind: str
    server: str
    rule: str | None
    at: datetime


#: For each kind the metric's name, its labels, and what it tells.
_EXPIRING = {
    "server_certificate": (
        "mtlsgate_server_certificate_expiry_timestamp_seconds",
        ("server",),
        "When the first certificate of a server's own chains expires, in seconds since 1970.",
    ),
    "ca": (
        "mtlsgate_ca_expiry_timestamp_seconds",
        ("server", "rule"),
        "When the first CA of a rule expires, in seconds since 1970.",
    ),
    "pin": (
        "mtlsgate_pin_expiry_timestamp_seconds",
        ("server", "rule"),
        "When the first pin of a rule expires or is retired, in seconds since 1970.",
    ),
    "pin_not_before": (
        "mtlsgate_pin_not_before_timestamp_seconds",
        ("server", "rule"),
        "When the next pin of a rule begins to count, in seconds since 1970.",
    ),
    "crl": (
        "mtlsgate_crl_expiry_timestamp_seconds",
        ("server", "rule"),
        "When the first revocation list of a rule is due to be replaced, in seconds since 1970.",
    ),
    "client_certificate": (
        "mtlsgate_client_certificate_expiry_timestamp_seconds",
        ("server",),
        "When the first certificate of a client gate's chain expires, in seconds since 1970.",
    ),
    "target_ca": (
        "mtlsgate_target_ca_expiry_timestamp_seconds",
        ("server",),
        "When the first CA of a client gate's targets expires, in seconds since 1970.",
    ),
    "target_pin": (
        "mtlsgate_target_pin_expiry_timestamp_seconds",
        ("server",),
        "When the first pin of a client gate's targets expires, in seconds since 1970.",
    ),
}


def expiry_metrics(expiring: Iterable[Expiring]) -> Iterator[Metric]:
    """:returns: their metrics; of several with the same labels, the first counts."""
    found: dict[str, dict[tuple[str, ...], float]] = {kind: {} for kind in _EXPIRING}
    for one in expiring:
        key = (one.server,) if one.rule is None else (one.server, one.rule)
        at = one.at.timestamp()
        found[one.kind][key] = min(at, found[one.kind].get(key, at))
    for kind, (name, labels, text) in _EXPIRING.items():
        yield gauge(name, text, labels, found[kind])
