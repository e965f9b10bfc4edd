"""
The metrics of all workers, and of the supervisor.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.defer import Deferred

from mtlsgate.observe.counts import Counts
from mtlsgate.observe.metrics import CONTENT_TYPE, reload_metrics
from mtlsgate.workers.channel import Refused
from mtlsgate.workers.crew import Crew
from mtlsgate.workers.epochs import Epochs
from mtlsgate.workers.ledger import Ledger
from mtlsgate.workers.member import Member
from mtlsgate.workers.summing import added, counters_of, families_of, sum_metrics


@frozen
class Exposition:
    """
    Tells the metrics of all workers in one.

    :ivar crew: the workers.
    :ivar epochs: the epoch in force.
    :ivar counts: what the supervisor counts: reloads.
    """

    crew: Crew
    epochs: Epochs
    counts: Counts
    _ledger: Ledger
    _reactor: Any

    def of_all(self) -> Deferred[tuple[str, bytes]]:
        """:returns: the media type of the metrics, and the metrics."""
        return self.crew.ask_all("exposition").addCallback(self._summed)

    def _summed(self, told: list[tuple[Member, Any]]) -> tuple[str, bytes]:
        families = {
            member.index: families_of(one) for member, one in told if not isinstance(one, Refused)
        }
        for index, of_worker in families.items():
            self._ledger.counters[index] = counters_of(of_worker)
        silent = {
            index: counted
            for index, counted in self._ledger.counters.items()
            if index not in families
        }
        gone = self._ledger.gone
        for counted in silent.values():
            gone = added(gone, counted)
        by_number = {str(index + 1): one for index, one in families.items()}
        summed = sum_metrics(by_number, gone, [*self._own(), *_of_this_process()])
        return CONTENT_TYPE, generate_latest(_Made(summed))

    def _own(self) -> list[Metric]:
        restarts = CounterMetricFamily(
            "mtlsgate_worker_restarts_total",
            "Workers that were started in the place of one that ended.",
            labels=("worker",),
        )
        for member in self.crew.members:
            restarts.add_metric((str(member.index + 1),), max(0, member.restarts))
        return [
            GaugeMetricFamily(
                "mtlsgate_workers",
                "Workers that take connections at the moment.",
                len(self.crew.running),
            ),
            restarts,
            GaugeMetricFamily(
                "mtlsgate_draining",
                "Whether no connection is accepted because the gate ends.",
                self.epochs.is_draining,
            ),
            *reload_metrics(
                self.counts,
                self.epochs.number,
                self._reactor.seconds() - self.epochs.since,
                self.epochs.last,
            ),
        ]


@frozen
class _Made(CollectorRegistry):
    """Metrics that are there already."""

    _families: list[Metric]

    def collect(self) -> Any:
        """:returns: the metrics."""
        return iter(self._families)


def _of_this_process() -> list[Metric]:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return list(registry.collect())
