"""
The metrics of the certificates that the gate orders from CAs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

from mtlsgate.observe.metric_families import gauge
from mtlsgate.observe.status import OrderStatus


def order_metrics(orders: Iterable[OrderStatus]) -> Iterator[Metric]:
    """:returns: their metrics.  Each certificate is known by the first of its names, and
    the worst of those counts that begin with the same."""
    failures, due, until = dict[str, float](), dict[str, float](), dict[str, float]()
    for one in orders:
        name = one.names[0]
        failures[name] = max(one.failures, failures.get(name, 0))
        due[name] = min(one.due.timestamp(), due.get(name, one.due.timestamp()))
        if one.until is not None:
            until[name] = min(one.until.timestamp(), until.get(name, one.until.timestamp()))
    for metric, text, values in (
        (
            "mtlsgate_acme_failures",
            "Attempts to order a certificate that have failed since the latest success.",
            failures,
        ),
        (
            "mtlsgate_acme_due_timestamp_seconds",
            "When a certificate is ordered next, in seconds since 1970.",
            due,
        ),
        (
            "mtlsgate_acme_until_timestamp_seconds",
            "When the certificate in use expires, in seconds since 1970; missing if there is none.",
            until,
        ),
    ):
        yield gauge(metric, text, ("name",), values)
