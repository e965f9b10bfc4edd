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
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import Admission, Negotiated
from mtlsgate.gate.judging import Held
from mtlsgate.gate.limits import Limits, identity_of, source_of
from mtlsgate.gate.registry import Registry
from mtlsgate.gate.terms import Terms
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
        self.registry = Registry(self.clock, now=lambda: datetime(2026, 6, 15, tzinfo=UTC))
        self.there: list[Entry] = []

    @rule(target=shaking, server=SERVERS, terms=TERMS, address=ADDRESSES)
    def arrive(self, server: str, terms: Terms, address: Any) -> Any:
        mine = [one for one in self.there if one.server == server]
        entry = self.registry.arrive("place", server, terms, address)
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
        if not self.registry.move(entry, server, terms, address):
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
        identity = None if peer is None else identity_of(peer.leaf)
        rejection = self.registry.refuse_admission(entry, identity)
        if rejection is not None:
            self.registry.reject(entry, rejection)
            self.over(entry)
            return multiple()
        admission = Admission(
            peer=peer, identity=identity, pin=None, negotiated=NEGOTIATED, since=0.0
        )
        self.registry.admit(entry, admission)
        return entry

    @rule(target=admitted, entry=consumes(admitted), server=SERVERS, terms=TERMS)
    def adopt(self, entry: Entry, server: str, terms: Terms) -> Entry:
        assert entry.admission is not None
        peer = entry.admission.peer
        self.registry.adopt(entry, Held(server=server, terms=terms, peer=peer, pin=None))
        return entry

    @rule(target=admitted, entry=consumes(admitted), grace=st.sampled_from([0.0, 5.0]))
    def revoke(self, entry: Entry, grace: float) -> Entry:
        self.registry.revoke(entry, grace, Cause.NO_LONGER_ADMITTED, "")
        return entry

    @rule(entry=consumes(shaking) | consumes(admitted))
    def end(self, entry: Entry) -> None:
        if entry.admission is None:
            self.registry.reject(entry, Rejection(Reason.PEER_GONE, ""))
        self.over(entry)

    def over(self, entry: Entry) -> None:
        self.there.remove(entry)
        self.registry.end(entry, Failure(ConnectionDone()), 0, 0)

    @rule(entry=consumes(shaking))
    def leave(self, entry: Entry) -> None:
        self.there.remove(entry)
        self.registry.leave(entry)

    @rule(seconds=st.sampled_from([0.1, 1.0, 10.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.registry.sweep()

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        assert list(self.registry) == sorted(self.there, key=lambda one: one.arrival.number)
        for server, tally in self.registry.tallies.items():
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
            tally.by_source or tally.by_identity for tally in self.registry.tallies.values()
        )
        assert self.registry.gone().called
        assert self.clock.getDelayedCalls() == []


TestCounting = Counting.TestCase
TestCounting.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
