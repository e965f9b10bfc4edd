"""
What the gate counts, for Prometheus.

Counting is adding to plain dictionaries; what `prometheus_client` is for is to
write them down.  Labels are names out of the configuration and members of
closed enums, and nothing that a client sends, so that nobody can make more of
them.  ``docs/metrics.md`` describes each.
"""

from __future__ import annotations

import platform
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from attrs import define, field
from OpenSSL import SSL
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from mtlsgate.gate.connection import Ending, Refusal, Reload, Visit
from mtlsgate.load.expiry import Kind
from mtlsgate.run.listening import places_of

if TYPE_CHECKING:
    from mtlsgate.load.epoch import Epoch
    from mtlsgate.run.service import GateService


#: Prometheus' text format, as `Metrics.exposition` writes it.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Upper ends of the buckets for handshakes, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_BOUNDS = (*map(str, BUCKETS), "+Inf")


@define
class _Durations:
    """
    :ivar counts: how many fell into each bucket, and not into one before it.
    :ivar total: all of them together, in seconds.
    """

    counts: list[int] = field(factory=lambda: [0] * len(_BOUNDS))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """:returns: for each bucket how many fell into it or one before it."""
        so_far, found = 0, []
        for bound, count in zip(_BOUNDS, self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found


class Metrics(Collector):
    """
    The observer that counts.  `exposition` is what to serve, as `CONTENT_TYPE`.

    Belongs to the thread of the reactor, like all of the gate.

    :ivar registry: the gate's own, in which an application may register what
        it counts itself.
    :ivar _gate: whose state is told beside what is counted.
    :ivar _handshakes: by server, result and reason.
    :ivar _admissions: by server and rule.
    :ivar _seconds: of handshakes, by server and result.
    :ivar _closes: by server and cause.
    :ivar _received: bytes, by server.
    :ivar _sent: bytes, by server.
    :ivar _counted: for each connection how many of its bytes are in these.
    :ivar _reloads: by result.
    :ivar _before: the names of the epoch before, whose last counts stay until
        the next one.
    """

    def __init__(self, gate: GateService) -> None:
        self._gate = gate
        self._handshakes = Counter[tuple[str, str, str]]()
        self._admissions = Counter[tuple[str, str]]()
        self._seconds: dict[tuple[str, str], _Durations] = {}
        self._closes = Counter[tuple[str, str]]()
        self._received = Counter[str]()
        self._sent = Counter[str]()
        self._counted: dict[int, tuple[int, int]] = {}
        self._reloads = Counter[str](ok=0, failed=0)
        self._before = _Names(gate.epoch)
        self.registry = CollectorRegistry()
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def exposition(self) -> bytes:
        """:returns: all metrics, in Prometheus' text format."""
        return generate_latest(self.registry)

    # What is counted.

    def admitted(self, visit: Visit) -> None:
        """Count an admission."""
        assert visit.admitted_at is not None
        server = visit.server
        self._handshakes[server, "admitted", ""] += 1
        self._admissions[server, "" if visit.peer is None else visit.peer.rule] += 1
        self._took(server, "admitted", visit.admitted_at - visit.began)

    def rejected(self, refusal: Refusal) -> None:
        """Count a rejection."""
        self._handshakes[refusal.server, "rejected", refusal.rejection.reason.value] += 1
        # Who was closed as it came shook no hands.
        if refusal.visit is not None:
            self._took(refusal.server, "rejected", refusal.seconds)

    def _took(self, server: str, result: str, seconds: float) -> None:
        durations = self._seconds.get((server, result))
        if durations is None:
            durations = self._seconds[server, result] = _Durations()
        durations.add(seconds)

    def ended(self, ending: Ending) -> None:
        """Count the end of a connection, and what bytes of it are not counted yet."""
        visit = ending.visit
        self._closes[visit.server, ending.cause.value] += 1
        received, sent = self._counted.pop(visit.number, (0, 0))
        self._received[visit.server] += ending.received - received
        self._sent[visit.server] += ending.sent - sent

    def reloaded(self, reload: Reload) -> None:
        """Count a reload, and forget the servers and rules of long ago."""
        if reload.is_trial:
            return
        if reload.problems:
            self._reloads["failed"] += 1
            return
        self._reloads["ok"] += 1
        names = _Names(self._gate.epoch)
        servers, rules = names.servers | self._before.servers, names.rules | self._before.rules
        by_server: tuple[MutableMapping[Any, Any], ...]
        by_server = (self._handshakes, self._seconds, self._closes)
        for counts in by_server:
            _keep(counts, [key for key in counts if key[0] in servers])
        for total in (self._received, self._sent):
            _keep(total, servers)
        _keep(self._admissions, rules)
        self._before = names

    # What is told.

    def collect(self) -> Iterator[Metric]:
        """:returns: all metrics at this moment."""
        names = _Names(self._gate.epoch)
        yield from self._connections(names)
        yield from self._bytes(names)
        yield from self._reloading()
        yield from _expiries(self._gate.epoch, self._gate.connections.now())
        yield from self._health()

    def _connections(self, names: _Names) -> Iterator[Metric]:
        yield CounterMetricFamily(
            "mtlsgate_connections_total",
            "Connections that came, whatever became of them.",
            self._gate.connections.arrivals,
        )
        handshakes = dict.fromkeys(((one, "admitted", "") for one in names.configured), 0)
        yield _counter(
            "mtlsgate_handshakes_total",
            "Verdicts on connections, with the reasons of rejections.",
            ("server", "result", "reason"),
            handshakes | self._handshakes,
        )
        yield _counter(
            "mtlsgate_admissions_total",
            "Admitted connections, by the rule that admitted them.",
            ("server", "rule"),
            dict.fromkeys(names.rules, 0) | self._admissions,
        )
        seconds = HistogramMetricFamily(
            "mtlsgate_handshake_seconds",
            "Time from the arrival of a connection to the verdict.",
            labels=("server", "result"),
        )
        for key, durations in self._seconds.items():
            seconds.add_metric(key, durations.cumulative(), durations.total)
        yield seconds
        live, handshaking = dict.fromkeys(names.configured, 0), dict.fromkeys(names.servers, 0)
        for server, tally in self._gate.connections.tallies.items():
            for found, kind in ((live, "admitted"), (handshaking, "handshakes")):
                if server in found or tally.counts[kind]:
                    found[server] = tally.counts[kind]
        yield _gauge(
            "mtlsgate_live_connections", "Admitted connections at the moment.", ("server",), live
        )
        yield _gauge(
            "mtlsgate_handshakes_in_progress",
            "Connections at the moment on which there is no verdict yet.",
            ("server",),
            handshaking,
        )
        yield _counter(
            "mtlsgate_closes_total",
            "Ends of admitted connections, by their causes.",
            ("server", "cause"),
            self._closes,
        )

    def _bytes(self, names: _Names) -> Iterator[Metric]:
        # Connections may last for months: what they have moved so far counts.
        for visit in self._gate.connections:
            if visit.admitted_at is None:
                continue
            before, (received, sent) = self._counted.get(visit.number, (0, 0)), visit.traffic
            if (received, sent) != before:
                self._received[visit.server] += received - before[0]
                self._sent[visit.server] += sent - before[1]
                self._counted[visit.number] = received, sent
        none = dict.fromkeys(names.configured, 0)
        for name, text, counts in (
            (
                "mtlsgate_received_bytes_total",
                "Bytes from admitted clients, as applications got them.",
                self._received,
            ),
            (
                "mtlsgate_sent_bytes_total",
                "Bytes to admitted clients, as applications sent them.",
                self._sent,
            ),
        ):
            yield _counter(name, text, ("server",), none | counts)

    def _reloading(self) -> Iterator[Metric]:
        gate, last = self._gate, self._gate.last_reload
        yield GaugeMetricFamily(
            "mtlsgate_epoch", "Number of the configuration in force, 1 at start.", gate.number
        )
        yield GaugeMetricFamily(
            "mtlsgate_epoch_age_seconds",
            "Time since the configuration in force took over.",
            gate.connections.clock.seconds() - gate.since,
        )
        yield _counter(
            "mtlsgate_reloads_total",
            "Attempts to load the configuration anew, by result: ok or failed.",
            ("result",),
            self._reloads,
        )
        yield GaugeMetricFamily(
            "mtlsgate_last_reload_successful",
            "Whether the latest attempt to load the configuration anew succeeded; 1 before any.",
            last is None or not last.problems,
        )
        at = GaugeMetricFamily(
            "mtlsgate_last_reload_timestamp_seconds",
            "When that was, in seconds since 1970; missing before any.",
        )
        if last is not None:
            at.add_metric((), last.at.timestamp())
        yield at

    def _health(self) -> Iterator[Metric]:
        gate = self._gate
        yield GaugeMetricFamily(
            "mtlsgate_accepting_paused",
            "Whether no connection is accepted because file descriptors are scarce.",
            gate.is_accepting_paused,
        )
        yield GaugeMetricFamily(
            "mtlsgate_draining",
            "Whether no connection is accepted because the gate ends.",
            gate.is_draining,
        )
        yield GaugeMetricFamily(
            "mtlsgate_audit_failing",
            "Whether the audit log cannot be written, or not be opened again.",
            gate.audit.is_failing,
        )
        yield CounterMetricFamily(
            "mtlsgate_audit_lost_lines_total",
            "Lines that could not be written to the audit log.",
            gate.audit.lost,
        )
        yield _gauge(
            "mtlsgate_build_info",
            "Versions, as labels of a constant 1.",
            ("version", "python", "twisted", "openssl"),
            {_versions(): 1},
        )


class _Names:
    """
    Those of an epoch, which are all that labels may be.

    :ivar configured: of its servers.
    :ivar servers: these, and the addresses that several of them share, which
        connections go by until their server is known.
    :ivar rules: of servers and their rules, which are "" where anyone is let in.
    """

    def __init__(self, epoch: Epoch) -> None:
        self.configured = frozenset(server.gate.name for server in epoch.servers)
        self.servers = self.configured | {
            str(place.address) for place in places_of(epoch) if place.is_shared
        }
        policies = [(server.gate.name, server.gate.context.admission) for server in epoch.servers]
        self.rules = frozenset(
            (name, rule)
            for name, policy in policies
            for rule in ([one.name for one in policy.rules] if policy else [""])
        )


#: For each kind the metric's name, its labels, and what it tells.
_EXPIRING = {
    Kind.SERVER_CERTIFICATE: (
        "mtlsgate_server_certificate_expiry_timestamp_seconds",
        ("server",),
        "When the first certificate of a server's own chains expires, in seconds since 1970.",
    ),
    Kind.CA: (
        "mtlsgate_ca_expiry_timestamp_seconds",
        ("server", "rule"),
        "When the first CA of a rule expires, in seconds since 1970.",
    ),
    Kind.PIN: (
        "mtlsgate_pin_expiry_timestamp_seconds",
        ("server", "rule"),
        "When the first pin of a rule expires or is retired, in seconds since 1970.",
    ),
    Kind.CRL: (
        "mtlsgate_crl_expiry_timestamp_seconds",
        ("server", "rule"),
        "When the first revocation list of a rule is due to be replaced, in seconds since 1970.",
    ),
}


def _expiries(epoch: Epoch, now: datetime) -> Iterator[Metric]:
    for kind, (name, labels, text) in _EXPIRING.items():
        found: dict[tuple[str, ...], float] = {}
        for one in epoch.expiries:
            at = one.next(now)
            if one.kind is kind and at is not None:
                key = (one.server,) if one.rule is None else (one.server, one.rule)
                found[key] = min(at.timestamp(), found.get(key, at.timestamp()))
        yield _gauge(name, text, labels, found)


def _counter(
    name: str,
    text: str,
    labels: tuple[str, ...],
    counts: Mapping[Any, float],
) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), counts)


def _gauge(
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: Mapping[Any, float],
) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily,
    values: Mapping[Any, float],
) -> Metric:
    for key, value in values.items():
        family.add_metric((key,) if isinstance(key, str) else key, value)
    return family


def _keep(counts: MutableMapping[Any, Any], wanted: Iterable[object]) -> None:
    for key in counts.keys() - set(wanted):
        del counts[key]


def _versions() -> tuple[str, ...]:
    openssl = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode("ascii").split(" ")[1]
    return version("mtlsgate"), platform.python_version(), version("twisted"), openssl
