"""
The metrics of the configuration in the shadow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import field, frozen
from prometheus_client.core import GaugeMetricFamily, Metric

from mtlsgate.observe.metric_families import counter


@frozen(kw_only=True)
class ShadowState:
    """
    The shadow at one moment.

    :ivar is_judging: whether a configuration in the shadow judges clients.
    :ivar is_broken: whether the settings name one that could not be loaded.
    :ivar counts: its verdicts, by server, outcome, rule and reason.
    """

    is_judging: bool = False
    is_broken: bool = False
    counts: Mapping[tuple[str, str, str, str], int] = field(factory=dict)


def shadow_metrics(state: ShadowState) -> Iterator[Metric]:
    """:returns: the metrics of the shadow."""
    yield GaugeMetricFamily(
        "mtlsgate_shadow_judging",
        "Whether a configuration in the shadow judges clients, too.",
        state.is_judging,
    )
    yield GaugeMetricFamily(
        "mtlsgate_shadow_broken",
        "Whether the settings name a configuration for the shadow that cannot be loaded.",
        state.is_broken,
    )
    yield counter(
        "mtlsgate_shadow_verdicts_total",
        "Verdicts of the configuration in the shadow, by how they differ from those in force.",
        ("server", "outcome", "rule", "reason"),
        state.counts,
    )
