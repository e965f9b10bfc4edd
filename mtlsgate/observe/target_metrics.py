"""
The metrics of targets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from mtlsgate.observe.server_status import TargetStatus

_LABELS = ("server", "target")


def target_metrics(targets: Iterable[tuple[str, TargetStatus]]) -> Iterator[Metric]:
    """
    :param targets: each with the name of its server.
    :returns: their metrics.
    """
    up = GaugeMetricFamily(
        "mtlsgate_target_up",
        "Whether a target is up: 0 after an attempt or a check that failed.",
        labels=_LABELS,
    )
    in_use = GaugeMetricFamily(
        "mtlsgate_target_connections",
        "Connections to a target, or requests that it has not answered.",
        labels=_LABELS,
    )
    dials = SummaryMetricFamily(
        "mtlsgate_target_dial_seconds",
        "Time to connect to a target, TLS included.",
        labels=_LABELS,
    )
    failures = CounterMetricFamily(
        "mtlsgate_target_failures_total",
        "Attempts to connect to a target that failed, and checks.",
        labels=_LABELS,
    )
    for server, one in targets:
        key = (server, one.address)
        up.add_metric(key, one.up)
        in_use.add_metric(key, one.in_use)
        dials.add_metric(key, one.dials, one.seconds_dialling)
        failures.add_metric(key, one.failures)
    yield from (up, in_use, dials, failures)
