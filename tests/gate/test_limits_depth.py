"""
What is counted of connections, compared with the connections there are.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.gate.connection import Terms, Visit
from mtlsgate.gate.limits import Limits, source_of
from mtlsgate.gate.registry import Connections
from mtlsgate.peer import VerifiedPeer
from mtlsgate.reasons import Cause, Reason
from mtlsgate.testing import Authority

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
        self.there: list[Visit] = []

    @rule(target=shaking, server=SERVERS, terms=TERMS, address=ADDRESSES)
    def arrive(self, server: str, terms: Terms, address: Any) -> Any:
        mine = [one for one in self.there if one.server == server]
        visit = self.connections.arrive("place", server, terms, address)
        if visit is None:
            return multiple()
        self.within(mine, terms.limits, visit.source)
        self.there.append(visit)
        return visit

    @rule(
        target=shaking,
        visit=consumes(shaking),
        server=SERVERS,
        terms=TERMS,
        address=st.none() | ADDRESSES,
    )
    def move(self, visit: Visit, server: str, terms: Terms, address: Any) -> Any:
        mine = [one for one in self.there if one.server == server and one is not visit]
        if not self.connections.move(visit, server, terms, address):
            self.there.remove(visit)
            return multiple()
        self.within(mine, terms.limits, visit.source)
        return visit

    def within(self, others: list[Visit], limits: Limits, source: str | None) -> None:
        """What stays was within the limits, whatever else is there."""
        for most, count in (
            (limits.max_handshakes, sum(one.admitted_at is None for one in others)),
            (limits.max_connections, sum(one.admitted_at is not None for one in others)),
            (limits.max_connections_per_ip, sum(one.source == source for one in others)),
        ):
            if most is limits.max_connections_per_ip and source is None:
                continue
            assert most is None or count < most

    @rule(target=admitted, visit=consumes(shaking), peer=PEERS)
    def admit(self, visit: Visit, peer: Any) -> Any:
        refusal = self.connections.refuse_admission(visit, peer)
        if refusal is not None:
            self.connections.reject(visit, refusal)
            self.over(visit)
            return multiple()
        self.connections.admit(visit, peer)
        return visit

    @rule(target=admitted, visit=consumes(admitted), server=SERVERS, terms=TERMS)
    def adopt(self, visit: Visit, server: str, terms: Terms) -> Visit:
        self.connections.adopt(visit, server, terms, None)
        return visit

    @rule(target=admitted, visit=consumes(admitted), grace=st.sampled_from([0.0, 5.0]))
    def revoke(self, visit: Visit, grace: float) -> Visit:
        self.connections.revoke(visit, grace, Cause.NO_LONGER_ADMITTED, "")
        return visit

    @rule(visit=consumes(shaking) | consumes(admitted))
    def end(self, visit: Visit) -> None:
        if visit.admitted_at is None:
            self.connections.reject(visit, Rejection(Reason.PEER_GONE, ""))
        self.over(visit)

    def over(self, visit: Visit) -> None:
        self.there.remove(visit)
        self.connections.end(visit, Failure(ConnectionDone()), 0, 0)

    @rule(visit=consumes(shaking))
    def leave(self, visit: Visit) -> None:
        self.there.remove(visit)
        self.connections.leave(visit)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.connections.sweep()

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        assert list(self.connections) == sorted(self.there, key=lambda one: one.number)
        for server, tally in self.connections.tallies.items():
            mine = [one for one in self.there if one.server == server]
            inside = [one for one in mine if one.admitted_at is not None]
            assert tally.counts["admitted"] == len(inside)
            assert tally.counts["handshakes"] == len(mine) - len(inside)
            sources = Counter(source_of(one.address) for one in mine)
            del sources[None]
            assert dict(tally.by_source) == dict(sources)
            identities = Counter(one.peer.sha256 for one in inside if one.peer)
            assert {key.hex(): count for key, count in tally.by_identity.items()} == identities

    def teardown(self) -> None:
        for visit in list(self.there):
            self.over(visit)
        assert not any(
            tally.by_source or tally.by_identity for tally in self.connections.tallies.values()
        )
        assert self.connections.gone().called
        assert self.clock.getDelayedCalls() == []


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
