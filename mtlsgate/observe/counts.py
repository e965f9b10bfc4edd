"""
What the service counts of connections and reloads.

Counting is adding to plain dictionaries.  Their keys are names out of the
configuration and members of closed enums, and nothing that a client sends, so
that no client can make more of them.  `mtlsgate.observe.metrics` tells them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, MutableMapping
from typing import Any

from attrs import define, field, frozen

from mtlsgate.gate.events import (
    AdmittedConnection,
    ClosedConnection,
    LiveConnection,
    RejectedConnection,
    Reload,
)

#: Upper ends of the buckets for durations, in seconds.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_BOUNDS = (*map(str, BUCKETS), "+Inf")


@frozen
class ConfiguredNames:
    """
    The names of one epoch, which are all that labels may be.

    :ivar servers: of its servers.
    :ivar shared: addresses that several servers share; connections count as theirs
        until the server is known.
    :ivar rules: of servers and their rules; a rule is "" where no certificate is
        asked for.
    """

    servers: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    rules: frozenset[tuple[str, str]] = frozenset()

    def __or__(self, other: ConfiguredNames) -> ConfiguredNames:
        return ConfiguredNames(
            self.servers | other.servers, self.shared | other.shared, self.rules | other.rules
        )


@define
class Durations:
    """
    How long things took.

    :ivar counts: how many fell into each bucket, and not into one before it.
    :ivar total: all of them together, in seconds.
    """

    counts: list[int] = field(factory=lambda: [0] * len(_BOUNDS))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """:returns: for each bucket how many fell into it or one before it."""
        so_far, found = 0, []
        for bound, count in zip(_BOUNDS, self.counts, strict=True):
            so_far += count
            found.append((bound, float(so_far)))
        return found


class Counts:
    """
    The observer that counts.

    It belongs to the reactor's thread, like the whole gate.

    :ivar handshakes: by server, result and reason.
    :ivar admissions: by server and rule.
    :ivar seconds: of handshakes, by server and result.
    :ivar closes: by server and cause.
    :ivar received: bytes, by server.
    :ivar sent: bytes, by server.
    :ivar reloads: by result.
    :ivar _counted: for each connection how many of its bytes are in these.
    :ivar _before: the names of the epoch before, whose last counts stay until
        the next one.
    """

    def __init__(self, names: ConfiguredNames = ConfiguredNames()) -> None:
        """:param names: those of the epoch in force."""
        self.handshakes = Counter[tuple[str, str, str]]()
        self.admissions = Counter[tuple[str, str]]()
        self.seconds: dict[tuple[str, str], Durations] = {}
        self.closes = Counter[tuple[str, str]]()
        self.received = Counter[str]()
        self.sent = Counter[str]()
        self.reloads = Counter[str](ok=0, failed=0)
        self._counted: dict[int, tuple[int, int]] = {}
        self._before = names

    def admitted(self, connection: AdmittedConnection) -> None:
        """Count an admission."""
        server = connection.server
        self.handshakes[server, "admitted", ""] += 1
        self.admissions[server, connection.rule or ""] += 1
        self._took(server, "admitted", connection.admission.since - connection.arrival.began)

    def rejected(self, connection: RejectedConnection) -> None:
        """Count a rejection."""
        server, reason = connection.server, connection.rejection.reason
        self.handshakes[server, "rejected", reason.value] += 1
        # A connection that a limit closed as it came had no handshake.
        if connection.number is not None:
            self._took(server, "rejected", connection.seconds)

    def _took(self, server: str, result: str, seconds: float) -> None:
        durations = self.seconds.get((server, result))
        if durations is None:
            durations = self.seconds[server, result] = Durations()
        durations.add(seconds)

    def closed(self, connection: ClosedConnection) -> None:
        """Count the end of a connection, and its bytes that are not counted yet."""
        server, number = connection.connection.server, connection.connection.arrival.number
        self.closes[server, connection.cause.value] += 1
        received, sent = self._counted.pop(number, (0, 0))
        self.received[server] += connection.received - received
        self.sent[server] += connection.sent - sent

    def reloaded(self, reload: Reload) -> None:
        """Count a reload."""
        if not reload.is_trial:
            self.reloads["failed" if reload.problems else "ok"] += 1

    def count_bytes(self, connections: Iterable[LiveConnection]) -> None:
        """
        Count the bytes that live connections have moved so far: they may last for
        months.

        :param connections: all there are.
        """
        for one in connections:
            if one.admission is None:
                continue
            number, (received, sent) = one.arrival.number, one.traffic
            before = self._counted.get(number, (0, 0))
            if (received, sent) != before:
                self.received[one.server] += received - before[0]
                self.sent[one.server] += sent - before[1]
                self._counted[number] = received, sent

    def keep(self, names: ConfiguredNames) -> None:
        """
        Forget the servers and rules of long ago.

        :param names: those of the epoch that takes over; those of the one before
            stay until the next.
        """
        both = names | self._before
        servers = both.servers | both.shared
        by_server: tuple[MutableMapping[Any, Any], ...]
        by_server = (self.handshakes, self.seconds, self.closes)
        for counts in by_server:
            _keep(counts, [key for key in counts if key[0] in servers])
        for total in (self.received, self.sent):
            _keep(total, servers)
        _keep(self.admissions, both.rules)
        self._before = names


def _keep(counts: MutableMapping[Any, Any], wanted: Iterable[object]) -> None:
    for key in counts.keys() - set(wanted):
        del counts[key]
