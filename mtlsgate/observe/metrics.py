"""
The metrics, in Prometheus' text format.

They tell what `mtlsgate.observe.counts` has counted, and the state of the service
at that moment.  ``docs/metrics.md`` describes each.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version

from attrs import frozen
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mtlsgate.gate.events import LiveConnection, Reload
from mtlsgate.gate.limits import Tally
from mtlsgate.observe.counts import ConfiguredNames, Counts, Durations
from mtlsgate.observe.expiry_metrics import Expiring, expiry_metrics
from mtlsgate.observe.fetch_metrics import agent_metrics, fetch_metrics
from mtlsgate.observe.metric_families import counter, gauge
from mtlsgate.observe.order_metrics import order_metrics
from mtlsgate.observe.registry_status import RegistryStatus, registry_metrics
from mtlsgate.observe.server_status import TargetStatus
from mtlsgate.observe.shadow_metrics import ShadowState, shadow_metrics
from mtlsgate.observe.status import AgentStatus, FetchStatus, OrderStatus
from mtlsgate.observe.target_metrics import target_metrics
from mtlsgate.tls.contexts import openssl_version

#: Prometheus' text format, as `Metrics.exposition` writes it.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@frozen(kw_only=True)
class ServiceState:
    """
    The service at one moment, as far as metrics tell it.

    :ivar names: of the epoch in force.
    :ivar arrivals: how many connections there have been.
    :ivar tallies: what is counted of live connections, by server.
    :ivar connections: all live connections.
    :ivar epoch: the number of the epoch in force.
    :ivar epoch_age: in seconds.
    :ivar last_reload: the latest attempt that was no dry run, or None.
    :ivar expiring: what ceases to count, and when.
    :ivar fetches: the documents that the gate fetches by itself.
    :ivar agents: the streams of SPIFFE agents.
    :ivar orders: the certificates that it orders from CAs.
    :ivar registries: the stores of devices.
    :ivar is_accepting_paused: whether descriptors are scarce.
    :ivar is_draining: whether the service ends.
    :ivar is_audit_failing: whether the audit log cannot be written.
    :ivar lost_lines: how many lines the audit log has lost.
    :ivar reactor_lag: how late the reactor was.
    :ivar targets: the targets, each with the name of its server.
    :ivar shadow: the configuration in the shadow.
    """

    names: ConfiguredNames
    arrivals: int
    tallies: Mapping[str, Tally]
    connections: Iterable[LiveConnection]
    epoch: int
    epoch_age: float
    last_reload: Reload | None
    expiring: Iterable[Expiring]
    fetches: Iterable[FetchStatus] = ()
    agents: Iterable[AgentStatus] = ()
    orders: Iterable[OrderStatus] = ()
    registries: Iterable[RegistryStatus] = ()
    is_accepting_paused: bool
    is_draining: bool
    is_audit_failing: bool
    lost_lines: int
    reactor_lag: Durations
    targets: Iterable[tuple[str, TargetStatus]]
    shadow: ShadowState = ShadowState()


class Metrics(Collector):
    """
    Tells the metrics.

    :ivar registry: Prometheus' own, of the service; an application may register metrics of its own.
    """

    def __init__(self, counts: Counts, state: Callable[[], ServiceState]) -> None:
        """
        :param counts: what was counted.
        :param state: the service's at the moment.
        """
        self._counts = counts
        self._state = state
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """:returns: all metrics, in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Metric]:
        """:returns: all metrics at this moment."""
        state = self._state()
        self._counts.count_bytes(state.connections)
        yield from self._connections(state)
        yield from self._bytes(state.names)
        yield from reload_metrics(self._counts, state.epoch, state.epoch_age, state.last_reload)
        yield from expiry_metrics(state.expiring)
        yield from fetch_metrics(state.fetches)
        yield from agent_metrics(tuple(state.agents))
        yield from order_metrics(state.orders)
        yield from registry_metrics(state.registries)
        yield from _health(state)
        yield from target_metrics(state.targets)
        yield from shadow_metrics(state.shadow)

    def _connections(self, state: ServiceState) -> Iterator[Metric]:
        names = state.names
        yield CounterMetricFamily(
            "mtlsgate_connections_total",
            "Connections that arrived, admitted or not.",
            state.arrivals,
        )
        handshakes = dict.fromkeys(((one, "admitted", "") for one in names.servers), 0)
        yield counter(
            "mtlsgate_handshakes_total",
            "Verdicts on connections, with the reasons of rejections.",
            ("server", "result", "reason"),
            handshakes | self._counts.handshakes,
        )
        yield counter(
            "mtlsgate_admissions_total",
            "Admitted connections, by the rule that admitted them.",
            ("server", "rule"),
            dict.fromkeys(names.rules, 0) | self._counts.admissions,
        )
        seconds = HistogramMetricFamily(
            "mtlsgate_handshake_seconds",
            "Time from the arrival of a connection to the verdict.",
            labels=("server", "result"),
        )
        for key, durations in self._counts.seconds.items():
            seconds.add_metric(key, durations.cumulative(), durations.total)
        yield seconds
        live, handshaking = (
            dict.fromkeys(names.servers, 0),
            dict.fromkeys(names.servers | names.shared, 0),
        )
        for server, tally in state.tallies.items():
            for found, kind in ((live, "admitted"), (handshaking, "handshakes")):
                if server in found or tally.counts[kind]:
                    found[server] = tally.counts[kind]
        yield gauge(
            "mtlsgate_live_connections", "Admitted connections at the moment.", ("server",), live
        )
        yield gauge(
            "mtlsgate_handshakes_in_progress",
            "Connections at the moment on which there is no verdict yet.",
            ("server",),
            handshaking,
        )
        yield counter(
            "mtlsgate_closes_total",
            "Ends of admitted connections, by their causes.",
            ("server", "cause"),
            self._counts.closes,
        )

    def _bytes(self, names: ConfiguredNames) -> Iterator[Metric]:
        none = dict.fromkeys(names.servers, 0)
        for name, text, counts in (
            (
                "mtlsgate_received_bytes_total",
                "Bytes from admitted clients, as applications got them.",
                self._counts.received,
            ),
            (
                "mtlsgate_sent_bytes_total",
                "Bytes to admitted clients, as applications sent them.",
                self._counts.sent,
            ),
        ):
            yield counter(name, text, ("server",), none | counts)


def reload_metrics(counts: Counts, epoch: int, age: float, last: Reload | None) -> Iterator[Metric]:
    """
    :param epoch: the number of the epoch in force.
    :param age: of that epoch, in seconds.
    :param last: the latest attempt that was no dry run, or None.
    :returns: the metrics of epochs and reloads.
    """
    yield GaugeMetricFamily(
        "mtlsgate_epoch", "Number of the configuration in force, 1 at start.", epoch
    )
    yield GaugeMetricFamily(
        "mtlsgate_epoch_age_seconds",
        "Time since the configuration in force took over.",
        age,
    )
    yield counter(
        "mtlsgate_reloads_total",
        "Attempts to reload the configuration, by result: ok or failed.",
        ("result",),
        counts.reloads,
    )
    yield GaugeMetricFamily(
        "mtlsgate_last_reload_successful",
        "Whether the latest attempt to reload the configuration succeeded; 1 before any.",
        last is None or not last.problems,
    )
    at = GaugeMetricFamily(
        "mtlsgate_last_reload_timestamp_seconds",
        "When that was, in seconds since 1970; missing before any.",
    )
    if last is not None:
        at.add_metric((), last.at.timestamp())
    yield at


def _health(state: ServiceState) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "mtlsgate_accepting_paused",
        "Whether no connection is accepted because file descriptors are scarce.",
        state.is_accepting_paused,
    )
    yield GaugeMetricFamily(
        "mtlsgate_draining",
        "Whether no connection is accepted because the gate ends.",
        state.is_draining,
    )
    yield GaugeMetricFamily(
        "mtlsgate_audit_failing",
        "Whether the audit log cannot be written, or not be opened again.",
        state.is_audit_failing,
    )
    yield CounterMetricFamily(
        "mtlsgate_audit_lost_lines_total",
        "Lines that could not be written to the audit log.",
        state.lost_lines,
    )
    lag = HistogramMetricFamily(
        "mtlsgate_reactor_lag_seconds",
        "How late the reactor's heartbeats were, of which there are ten each second.",
    )
    lag.add_metric((), state.reactor_lag.cumulative(), state.reactor_lag.total)
    yield lag
    yield gauge(
        "mtlsgate_build_info",
        "Versions, as labels of a constant 1.",
        ("version", "python", "twisted", "openssl"),
        {_versions(): 1},
    )


def _versions() -> tuple[str, ...]:
    return version("mtlsgate"), platform.python_version(), version("twisted"), openssl_version()
