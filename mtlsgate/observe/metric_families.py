"""
Prometheus' families of metrics, filled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric


def counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[Any, float]) -> Metric:
    """
    :param counts: by the values of the labels; a str for a single one.
    :returns: a counter for each.
    """
    return _filled(CounterMetricFamily(name, text, labels=labels), counts)


def gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    """
    :param values: by the values of the labels; a str for a single one.
    :returns: a gauge for each.
    """
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily,
    values: Mapping[Any, float],
) -> Metric:
    for key, value in values.items():
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family
