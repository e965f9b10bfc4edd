from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import Admission, Negotiated
from mtlsgate.gate.judging import Held
from mtlsgate.gate.limits import (
    MAX_REMEMBERED,
    UNLIMITED,
    Buckets,
    Limits,
    Tally,
    source_of,
)
from mtlsgate.gate.terms import Terms
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority


@pytest.mark.parametrize(
    ("address", "source"),
    [
        (IPv4Address("TCP", "192.0.2.1", 5), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8:1:2:3::4", 5), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "2001:db8:1:2:ffff::", 9), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 5), "192.0.2.1"),
        (IPv6Address("TCP", "fe80::1%eth0", 5), "fe80::/64"),
        (IPv6Address("TCP", "no:address", 5), "no:address"),
        (UNIXAddress(b"/run/x"), None),
    ],
    ids=str,
)
def test_what_limits_for_an_address_go_by(address: IAddress, source: str | None) -> None:
    """An IPv4 address, or the network that one site has of IPv6."""
    assert source_of(address) == source


def test_a_bucket_holds_one_second() -> None:
    """... and fills up with time; another source has its own."""
    buckets = Buckets()
    assert [buckets.take("a", 3, 100.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b", 3, 100.0)
    assert not buckets.take("a", 3, 100.2)
    assert buckets.take("a", 3, 100.5)
    assert [buckets.take("a", 3, 200.0) for _ in range(4)] == [True, True, True, False]


def test_less_than_one_a_second() -> None:
    """A bucket holds one token at least, or nobody would ever come in."""
    buckets = Buckets()
    assert buckets.take("a", 0.1, 0.0)
    assert not buckets.take("a", 0.1, 5.0)
    assert buckets.take("a", 0.1, 10.5)


def test_buckets_are_bounded() -> None:
    """The one that was silent for longest is forgotten."""
    buckets = Buckets()
    for number in range(MAX_REMEMBERED + 100):
        buckets.take(str(number), 1, 0.0)
    assert len(buckets._levels) == MAX_REMEMBERED
    assert "99" not in buckets._levels
    assert "100" in buckets._levels


def tally(handshakes: int = 0, admitted: int = 0, source: str | None = "a") -> Tally:
    found = Tally()
    for _ in range(handshakes + admitted):
        found.arrived(source)
    for _ in range(admitted):
        found.admitted(b"leaf")
    return found


@pytest.mark.parametrize(
    ("limits", "handshakes", "admitted", "reason"),
    [
        ({}, 1000, 1000, None),
        ({"max_handshakes": 3}, 2, 9, None),
        ({"max_handshakes": 3}, 3, 0, Reason.TOO_MANY_HANDSHAKES),
        ({"max_connections": 3}, 9, 2, None),
        ({"max_connections": 3}, 0, 3, Reason.TOO_MANY_CONNECTIONS),
        ({"max_connections_per_ip": 3}, 1, 1, None),
        ({"max_connections_per_ip": 3}, 1, 2, Reason.TOO_MANY_FROM_ADDRESS),
        ({"max_connections_per_identity": 1}, 0, 5, None),
        ({"handshakes_per_second_per_ip": 1.0}, 9, 9, None),
    ],
)
def test_a_limit_is_the_largest_number_of_connections(
    limits: dict[str, Any], handshakes: int, admitted: int, reason: Reason | None
) -> None:
    """A limit is the largest number there may be."""
    found = tally(handshakes, admitted).refuse_arrival(Limits(**limits), "a", 0.0)
    assert (found and found.reason) == reason


@pytest.mark.parametrize(
    ("limits", "admitted", "reason"),
    [
        ({"max_connections": 3}, 2, None),
        ({"max_connections": 3}, 3, Reason.TOO_MANY_CONNECTIONS),
        ({"max_connections_per_identity": 3}, 2, None),
        ({"max_connections_per_identity": 3}, 3, Reason.TOO_MANY_OF_IDENTITY),
    ],
)
def test_a_limit_is_the_largest_number_of_admissions(
    limits: dict[str, Any], admitted: int, reason: Reason | None
) -> None:
    found = tally(1, admitted).refuse_admission(Limits(**limits), b"leaf")
    assert (found and found.reason) == reason
    assert tally(1, admitted).refuse_admission(Limits(**limits), b"other") is None or (
        reason is not Reason.TOO_MANY_OF_IDENTITY
    )


def test_the_rate() -> None:
    """... is of those that arrive, whatever becomes of them."""
    found, limits = Tally(), Limits(handshakes_per_second_per_ip=2)
    verdicts = [found.refuse_arrival(limits, "a", 0.0) for _ in range(3)]
    assert [one and one.reason for one in verdicts] == [None, None, Reason.HANDSHAKE_RATE]
    assert found.refuse_arrival(limits, "b", 0.0) is None


def test_a_unix_socket_has_no_address() -> None:
    """Limits for each address do not count there."""
    limits = Limits(max_connections_per_ip=1, handshakes_per_second_per_ip=1)
    found = tally(5, 5, source=None)
    assert all(found.refuse_arrival(limits, None, 0.0) is None for _ in range(5))


def test_what_is_over_leaves_no_trace() -> None:
    """Memory comes back after a flood."""
    found = Tally()
    for number in range(1000):
        found.arrived(str(number))
        found.admitted(bytes([number % 256]))
    for number in range(1000):
        found.ended(str(number), bytes([number % 256]), admitted=True)
    assert not found.by_source
    assert not found.by_identity
    assert set(found.counts.values()) == {0}


def test_no_limit_by_default() -> None:
    assert Limits() == UNLIMITED
    assert tally(10_000, 10_000).refuse_arrival(UNLIMITED, "a", 0.0) is None


# What is counted of connections, compared with the connections there are


CA = Authority.create("Root")
ADDRESSES = st.sampled_from(
    [
        IPv4Address("TCP", "192.0.2.1", 1),
        IPv6Address("TCP", "::ffff:192.0.2.1", 2),
        IPv6Address("TCP", "2001:db8::1", 3),
        IPv6Address("TCP", "2001:db8::2", 4),
        IPv6Address("TCP", "2001:db8:0:1::1", 5),
        IPv6Address("TCP", "fe80::1%eth0", 6),
        UNIXAddress(None),
    ]
)
PEERS = st.sampled_from(
    [
        None,
        *(
            VerifiedPeer(
                path=(leaf.certificate, CA.certificate),
                rule="rule",
                address=IPv4Address("TCP", "192.0.2.1", 1),
                server_name=None,
                tls_version="TLSv1.3",
                cipher="",
                group=None,
                alpn=None,
                resumed=False,
            )
            for leaf in (CA.issue("a"), CA.issue("b"))
        ),
    ]
)
NEGOTIATED = Negotiated(server_name=None, tls_version="TLSv1.3", cipher="")
SERVERS = st.sampled_from(["one", "two", "192.0.2.9:443"])
FEW = st.none() | st.integers(0, 3)
TERMS = st.builds(
    Terms,
    limits=st.builds(
        Limits,
        max_connections=FEW,
        max_connections_per_ip=FEW,
        max_connections_per_identity=FEW,
        max_handshakes=FEW,
        handshakes_per_second_per_ip=st.none() | st.just(2.0),
    ),
    idle_timeout=st.none() | st.just(3.0),
    revoke_grace=st.just(0.0),
)


class Counting(RuleBasedStateMachine):
    """Connections of a few servers come, move, are admitted, adopted and end."""

    shaking: Any = Bundle("shaking")
    admitted: Any = Bundle("admitted")

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.connections = Connections(self.clock, now=lambda: datetime(2026, 6, 15, tzinfo=UTC))
        self.there: list[Entry] = []

    @rule(target=shaking, server=SERVERS, terms=TERMS, address=ADDRESSES)
    def arrive(self, server: str, terms: Terms, address: Any) -> Any:
        mine = [one for one in self.there if one.server == server]
        entry = self.connections.arrive("place", server, terms, address)
        if entry is None:
            return multiple()
        self.within(mine, terms.limits, entry.source)
        self.there.append(entry)
        return entry

    @rule(
        target=shaking,
        entry=consumes(shaking),
        server=SERVERS,
        terms=TERMS,
        address=st.none() | ADDRESSES,
    )
    def move(self, entry: Entry, server: str, terms: Terms, address: Any) -> Any:
        mine = [one for one in self.there if one.server == server and one is not entry]
        if not self.connections.move(entry, server, terms, address):
            self.there.remove(entry)
            return multiple()
        self.within(mine, terms.limits, entry.source)
        return entry

    def within(self, others: list[Entry], limits: Limits, source: str | None) -> None:
        """What stays was within the limits, whatever else is there."""
        for most, count in (
            (limits.max_handshakes, sum(one.admission is None for one in others)),
            (limits.max_connections, sum(one.admission is not None for one in others)),
            (limits.max_connections_per_ip, sum(one.source == source for one in others)),
        ):
            if most is limits.max_connections_per_ip and source is None:
                continue
            assert most is None or count < most

    @rule(target=admitted, entry=consumes(shaking), peer=PEERS)
    def admit(self, entry: Entry, peer: Any) -> Any:
        identity = None if peer is None else peer.identity
        rejection = self.connections.refuse_admission(entry, identity)
        if rejection is not None:
            self.connections.reject(entry, rejection)
            self.over(entry)
            return multiple()
        admission = Admission(
            peer=peer, identity=identity, pin=None, negotiated=NEGOTIATED, since=0.0
        )
        self.connections.admit(entry, admission)
        return entry

    @rule(target=admitted, entry=consumes(admitted), server=SERVERS, terms=TERMS)
    def adopt(self, entry: Entry, server: str, terms: Terms) -> Entry:
        assert entry.admission is not None
        peer = entry.admission.peer
        self.connections.adopt(entry, Held(server=server, terms=terms, peer=peer, pin=None))
        return entry

    @rule(target=admitted, entry=consumes(admitted), grace=st.sampled_from([0.0, 5.0]))
    def revoke(self, entry: Entry, grace: float) -> Entry:
        self.connections.revoke(entry, grace, Rejection(Reason.DENIED, "why"))
        return entry

    @rule(entry=consumes(shaking) | consumes(admitted))
    def end(self, entry: Entry) -> None:
        if entry.admission is None:
            self.connections.reject(entry, Rejection(Reason.PEER_GONE, ""))
        self.over(entry)

    def over(self, entry: Entry) -> None:
        self.there.remove(entry)
        self.connections.end(entry, Failure(ConnectionDone()), 0, 0)

    @rule(entry=consumes(shaking))
    def leave(self, entry: Entry) -> None:
        self.there.remove(entry)
        self.connections.leave(entry)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.connections.sweep()

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        assert list(self.connections) == sorted(self.there, key=lambda one: one.arrival.number)
        for server, tally in self.connections.tallies.items():
            mine = [one for one in self.there if one.server == server]
            inside = [one for one in mine if one.admission is not None]
            assert tally.counts["admitted"] == len(inside)
            assert tally.counts["handshakes"] == len(mine) - len(inside)
            sources = Counter(source_of(one.arrival.address) for one in mine)
            del sources[None]
            assert dict(tally.by_source) == dict(sources)
            identities = Counter(one.identity for one in inside if one.identity is not None)
            assert tally.by_identity == identities

    def teardown(self) -> None:
        for entry in list(self.there):
            self.over(entry)
        assert not any(
            tally.by_source or tally.by_identity for tally in self.connections.tallies.values()
        )
        assert self.connections.gone().called
        assert self.clock.getDelayedCalls() == []


TestCounting = Counting.TestCase
TestCounting.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    # With low limits few connections stay for the other steps to work on.
    suppress_health_check=[HealthCheck.filter_too_much],
)
