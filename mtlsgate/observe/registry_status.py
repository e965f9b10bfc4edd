"""
The state of a registry, as a value; and its metrics.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import accumulate

from attrs import evolve, frozen
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from mtlsgate.observe.status_value import StatusValue

#: The upper bounds of the latencies that are counted, in seconds.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

#: From good to bad.
_STATES = ("following", "away", "stale")


@frozen(kw_only=True)
class RegistryStatus(StatusValue):
    """
    A registry.

    :ivar name: its label.
    :ivar place: where it is, without secrets.
    :ivar state: ``following``: it answers, and tells of changes; ``away``; or ``stale``, if
        it has been away for more than ``max_staleness``.
    :ivar since: since when it is so.
    :ivar staleness: for how many seconds it has not been known to be good.
    :ivar problem: why it is away, or why a question failed last; or None.
    :ivar remembered: how many answers are remembered.
    :ivar hits: how many questions were answered from memory.
    :ivar misses: how many were not.
    :ivar questions: round trips to it.
    :ivar failures: how many of them failed.
    :ivar seconds: how long the others took, together.
    :ivar latencies: how many of them took at most each of `BOUNDS`, and how many longer.
    :ivar changes: changes that it told of.
    :ivar losses: how often its push channel was lost.
    """

    name: str
    place: str
    state: str
    since: datetime
    staleness: float
    problem: str | None
    remembered: int
    hits: int
    misses: int
    questions: int
    failures: int
    seconds: float
    latencies: tuple[int, ...]
    changes: int
    losses: int


def sum_registries(found: Iterable[Sequence[RegistryStatus]]) -> tuple[RegistryStatus, ...]:
    """
    :param found: the registries of each worker.
    :returns: the same in one: as bad as the worst, with the sums of what is counted.
    """
    by_name: dict[str, list[RegistryStatus]] = {}
    for registries in found:
        for one in registries:
            by_name.setdefault(one.name, []).append(one)
    return tuple(map(_sum, by_name.values()))


def _sum(found: Sequence[RegistryStatus]) -> RegistryStatus:
    worst = max(found, key=lambda one: (_STATES.index(one.state), one.staleness))
    return evolve(
        worst,
        remembered=sum(one.remembered for one in found),
        hits=sum(one.hits for one in found),
        misses=sum(one.misses for one in found),
        questions=sum(one.questions for one in found),
        failures=sum(one.failures for one in found),
        seconds=sum(one.seconds for one in found),
        latencies=tuple(map(sum, zip(*(one.latencies for one in found), strict=True))),
        changes=sum(one.changes for one in found),
        losses=sum(one.losses for one in found),
    )


def registry_metrics(registries: Iterable[RegistryStatus]) -> Iterator[Metric]:
    """:returns: the metrics of registries."""
    away = GaugeMetricFamily(
        "mtlsgate_registry_away",
        "Whether a registry cannot be followed at the moment.",
        labels=("registry",),
    )
    staleness = GaugeMetricFamily(
        "mtlsgate_registry_staleness_seconds",
        "For how long a registry has not been known to be good.",
        labels=("registry",),
    )
    remembered = GaugeMetricFamily(
        "mtlsgate_registry_remembered",
        "Answers of a registry that are remembered.",
        labels=("registry",),
    )
    answers = CounterMetricFamily(
        "mtlsgate_registry_answers_total",
        "Questions about clients, by where the answer came from.",
        labels=("registry", "source"),
    )
    seconds = HistogramMetricFamily(
        "mtlsgate_registry_question_seconds",
        "Time for a round trip to a registry.",
        labels=("registry",),
    )
    failures = CounterMetricFamily(
        "mtlsgate_registry_failures_total",
        "Round trips to a registry that failed.",
        labels=("registry",),
    )
    changes = CounterMetricFamily(
        "mtlsgate_registry_changes_total",
        "Changes that a registry told of.",
        labels=("registry",),
    )
    losses = CounterMetricFamily(
        "mtlsgate_registry_losses_total",
        "How often the push channel of a registry was lost.",
        labels=("registry",),
    )
    for one in registries:
        key = (one.name,)
        away.add_metric(key, one.state != "following")
        staleness.add_metric(key, one.staleness)
        remembered.add_metric(key, one.remembered)
        answers.add_metric((one.name, "memory"), one.hits)
        answers.add_metric((one.name, "store"), one.misses)
        bounds = (*map(str, BOUNDS), "+Inf")
        buckets = list(zip(bounds, map(float, accumulate(one.latencies)), strict=True))
        seconds.add_metric(key, buckets, one.seconds)
        failures.add_metric(key, one.failures)
        changes.add_metric(key, one.changes)
        losses.add_metric(key, one.losses)
    yield from (away, staleness, remembered, answers, seconds, failures, changes, losses)
