from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from mtlsgate.admission import Pin, Rejection, Rule
from mtlsgate.admission.listings import Question
from mtlsgate.certificates.certificate import view
from mtlsgate.clock import utc_now
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.connection import Connection
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.events import (
    AdmittedConnection,
    ClosedConnection,
    RejectedConnection,
    Reload,
)
from mtlsgate.gate.judging import Held
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.registries import Claim, NoRegistries
from mtlsgate.gate.terms import Terms
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.protocols.echo import Echo
from mtlsgate.reasons import Cause, Reason
from mtlsgate.testing import Authority, Client, Credential, Version
from tests.kits.forgery import resigned
from tests.kits.gate import Log, MemoryGate, admitted, rejected, rule

CA = Authority.create("Root")
ALICE, BOB, EVE = CA.issue("alice"), CA.issue("bob"), Authority.create("Other").issue("eve")


class Witness:
    """
    Remembers what it is told.

    :ivar told: all of it, in order.
    """

    def __init__(self) -> None:
        self.told: list[AdmittedConnection | RejectedConnection | ClosedConnection] = []

    def admitted(self, connection: AdmittedConnection) -> None:
        self.told.append(connection)

    def rejected(self, connection: RejectedConnection) -> None:
        self.told.append(connection)

    def closed(self, connection: ClosedConnection) -> None:
        self.told.append(connection)

    def reloaded(self, reload: Reload) -> None:
        raise AssertionError("nothing is loaded here")

    @property
    def last_end(self) -> ClosedConnection:
        last = self.told[-1]
        assert isinstance(last, ClosedConnection)
        return last


def held_as(entry: Entry) -> Held:
    """:returns: what a connection is held to already."""
    assert entry.admission is not None
    peer, pin = entry.admission.peer, entry.admission.pin
    return Held(server=entry.server, terms=entry.terms, peer=peer, pin=pin)


CLIENT_ADDRESS = IPv4Address("TCP", "192.0.2.1", 50000)


class WatchedGate:
    """A gate whose connections are watched."""

    def __init__(self, log: Log, *rules: Rule, **terms: Any) -> None:
        limits = {name: terms.pop(name) for name in list(terms) if hasattr(Limits(), name)}
        self.now = utc_now()
        self.clock, self.witness = Clock(), Witness()
        self.connections = Connections(self.clock, [HumanLog(), self.witness], lambda: self.now)
        self.gate = MemoryGate(
            rules or (rule(ca=CA),),
            log,
            clock=self.clock,
            now=lambda: self.now,
            connections=self.connections,
            terms=Terms(limits=Limits(**limits), **terms),
        )

    def refusals(self) -> list[RejectedConnection]:
        return [one for one in self.witness.told if isinstance(one, RejectedConnection)]

    def connect(
        self, who: Credential | None, version: Version | None = None, host: str = "192.0.2.1"
    ) -> Client:
        return self.gate.connect(who, version, address=IPv4Address("TCP", host, 50000))

    def enter(
        self, who: Credential, version: Version | None = None, host: str = "192.0.2.1"
    ) -> Client:
        client = self.connect(who, version, host)
        client.send(b"knock")
        assert client.receive() == b"knock"
        return client

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.clock.advance(seconds)
        self.connections.sweep()


def reason_of(log: Log) -> Reason:
    return Reason(log.events[-1]["reason"])


# What is told


def test_one_admission_and_one_end(log: Log, version: Version) -> None:
    """... with how long it was, and what the application sent and got."""
    running = WatchedGate(log)
    client = running.enter(ALICE, version)
    [entry] = running.connections
    [told] = running.witness.told
    assert isinstance(told, AdmittedConnection)
    assert (told.arrival, told.admission) == (entry.arrival, entry.admission)
    assert told.admission.peer is not None
    assert told.admission.peer.sha256 == ALICE.sha256
    assert entry.traffic == (5, 5)
    client.send(b"more")
    running.pass_time(7)
    client.close()
    ending = running.witness.last_end
    assert (ending.cause, ending.received, ending.sent) == (Cause.CLIENT, 9, 9)
    assert (ending.connection, ending.seconds, ending.at) == (told, 7.0, running.now)
    assert len(running.connections) == 0


def test_a_rejection_and_no_end(log: Log, version: Version) -> None:
    running = WatchedGate(log)
    client = running.connect(EVE, version)
    client.send(b"knock")
    [refusal] = running.witness.told
    assert isinstance(refusal, RejectedConnection)
    assert refusal.rejection.reason is Reason.UNKNOWN_CA
    assert refusal.leaf == view(EVE.certificate)
    assert not refusal.is_health_check
    assert len(running.connections) == 0


def test_a_health_check_is_known_as_one(log: Log) -> None:
    """It comes and goes without a byte."""
    running = WatchedGate(log)
    running.connect(None).reset()
    [refusal] = running.witness.told
    assert isinstance(refusal, RejectedConnection)
    assert refusal.rejection.reason is Reason.PEER_GONE
    assert refusal.is_health_check


def test_quiet_says_nothing_of_health_checks(log: Log) -> None:
    """... in the log; other observers are told, and of others so is the log."""
    running = WatchedGate(log)
    human, _ = running.connections.observers
    assert isinstance(human, HumanLog)
    human.set_quiet(True)
    running.connect(None).reset()
    assert log.events == []
    assert len(running.witness.told) == 1
    client = running.connect(None)
    client.step()
    client.reset()
    assert reason_of(log) is Reason.PEER_GONE


def test_who_is_kept_out_by_a_limit_is_no_health_check(log: Log) -> None:
    """... though no byte of it was read by the server that it moved to; nor is one
    that says nothing until the time is up."""
    running = WatchedGate(log, handshakes_per_second_per_ip=1.0)
    entry = running.connections.arrive("place", "place", Terms(), CLIENT_ADDRESS)
    assert entry is not None
    terms = Terms(limits=Limits(max_connections_per_ip=0))
    assert not running.connections.move(entry, "door", terms)
    late = running.connect(None)
    running.clock.advance(11)
    late.pump()
    assert [(one.rejection.reason, one.is_health_check) for one in running.refusals()] == [
        (Reason.TOO_MANY_FROM_ADDRESS, False),
        (Reason.HANDSHAKE_TIMEOUT, False),
    ]


@pytest.mark.parametrize("waits", [True, False])
def test_who_the_gate_ends_is_not_said_to_have_gone(
    log: Log, version: Version, waits: bool
) -> None:
    """A handshake that the operator closes, or that is in the way of the gate's end."""
    running = WatchedGate(log)
    authorizer = Authorizer("ask", lambda peer: Deferred(), 5.0) if waits else None
    gate = evolve(running.gate, authorizer=authorizer)
    client = gate.connect(ALICE, version)
    client.send(b"knock") if waits else client.step()
    [entry] = running.connections
    running.connections.close(entry, Cause.CLOSED_BY_OPERATOR, "asked for by somebody")
    client.pump()
    [refusal] = running.refusals()
    assert refusal.rejection.reason is Reason.CLOSED_BY_GATE
    assert refusal.rejection.detail == "closed_by_operator: asked for by somebody"
    assert not refusal.is_health_check


@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (lambda client, app: client.close(), Cause.CLIENT),
        (lambda client, app: client.reset(), Cause.CONNECTION_LOST),
        (lambda client, app: app.transport.loseConnection(), Cause.APPLICATION),
        (lambda client, app: app.transport.abortConnection(), Cause.APPLICATION),
    ],
)
def test_observers_hear_why_a_connection_ended(
    log: Log, version: Version, end: Callable[[Client, Any], None], cause: Cause
) -> None:
    """What clients and applications end is told to observers, and not to the log."""
    running = WatchedGate(log)
    client = running.enter(ALICE, version)
    events = len(log.events)
    [app] = running.gate.recorder.protocols
    end(client, app)
    client.pump()
    assert running.witness.last_end.cause is cause
    assert len(log.events) == events


# Limits


def test_max_handshakes(log: Log, version: Version) -> None:
    """Who is admitted makes room for another."""
    running = WatchedGate(log, max_handshakes=2)
    one, two = running.connect(ALICE, version), running.connect(ALICE, version)
    assert running.connect(BOB, version).refused
    assert reason_of(log) is Reason.TOO_MANY_HANDSHAKES
    one.send(b"x")
    assert not running.connect(BOB, version).refused
    two.reset()
    assert not running.connect(BOB, version).refused


def test_max_connections(log: Log, version: Version) -> None:
    """Counted before the handshake, and again after it."""
    running = WatchedGate(log, max_connections=1)
    early = running.connect(BOB, version)
    first = running.enter(ALICE, version)
    assert running.connect(BOB, version).refused
    assert reason_of(log) is Reason.TOO_MANY_CONNECTIONS
    assert running.gate.judge(early) == rejected(Reason.TOO_MANY_CONNECTIONS, None)
    first.close()
    running.enter(BOB, version)


def test_max_connections_per_ip(log: Log, version: Version) -> None:
    running = WatchedGate(log, max_connections_per_ip=1)
    first = running.enter(ALICE, version, "192.0.2.1")
    assert running.connect(BOB, version, "192.0.2.1").refused
    assert reason_of(log) is Reason.TOO_MANY_FROM_ADDRESS
    running.enter(BOB, version, "192.0.2.2")
    first.close()
    running.enter(BOB, version, "192.0.2.1")


def test_max_connections_per_identity(log: Log, version: Version) -> None:
    """The identity is the certificate; another one of the same name is another."""
    running = WatchedGate(log, max_connections_per_identity=1)
    first = running.enter(ALICE, version)
    running.enter(BOB, version)
    running.enter(CA.issue("alice"), version)
    assert running.gate.judge(running.connect(ALICE, version)) == rejected(
        Reason.TOO_MANY_OF_IDENTITY
    )
    first.close()
    running.enter(ALICE, version)


def test_an_identity_is_what_the_ca_signed(log: Log, version: Version) -> None:
    """The holder of a certificate can give it another fingerprint, but counts once."""
    running = WatchedGate(log, max_connections_per_identity=1)
    other = resigned(ALICE)
    assert other.sha256 != ALICE.sha256
    first = running.enter(ALICE, version)
    assert running.gate.judge(running.connect(other, version)) == rejected(
        Reason.TOO_MANY_OF_IDENTITY
    )
    first.close()
    running.enter(other, version)


def test_handshake_rate(log: Log, version: Version) -> None:
    running = WatchedGate(log, handshakes_per_second_per_ip=2)
    running.enter(ALICE, version)
    running.enter(ALICE, version)
    assert running.connect(ALICE, version).refused
    assert reason_of(log) is Reason.HANDSHAKE_RATE
    running.pass_time(0.5)
    running.enter(ALICE, version)


def test_handshake_bytes(log: Log, version: Version) -> None:
    """A long flight is cut where the limit is; the same bytes are free afterwards."""
    chain = [Authority.create("x" * 60).certificate for _ in range(20)]
    running = WatchedGate(log, handshake_bytes=4096)
    client = running.gate.connect(ALICE, version, chain=chain)
    assert running.gate.judge(client) == rejected(Reason.HANDSHAKE_TOO_LARGE, None)
    client = running.enter(ALICE, version)
    client.send(b"y" * 100_000)
    assert len(client.receive()) == 100_000


def test_a_flood_leaves_no_trace(log: Log, version: Version) -> None:
    running = WatchedGate(log, max_handshakes=10_000, max_connections_per_ip=10_000)
    clients = [running.connect(None, version, f"10.0.0.{number}") for number in range(200)]
    for client in clients:
        client.reset()
    [tally] = running.connections.tallies.values()
    assert (len(running.connections), dict(tally.by_source)) == (0, {})
    assert set(tally.counts.values()) == {0}


# Ends


def test_idle_connections_end(log: Log, version: Version) -> None:
    """... within a quarter of the limit after it, with a line in the log."""
    running = WatchedGate(log, idle_timeout=60.0)
    idle, busy = running.enter(ALICE, version), running.enter(BOB, version)
    for _ in range(75):
        running.pass_time(1)
        busy.send(b"x")
    idle.pump()
    assert idle.disconnected
    assert not busy.disconnected
    assert running.witness.last_end.cause is Cause.IDLE_TIMEOUT
    for _ in range(76):
        running.pass_time(1)
    busy.pump()
    assert busy.disconnected


def test_traffic_in_either_direction_is_no_idleness(log: Log, version: Version) -> None:
    running = WatchedGate(log, idle_timeout=60.0)
    client = running.enter(ALICE, version)
    [app] = running.gate.recorder.protocols
    for _ in range(10):
        running.pass_time(30)
        client.pump()
        assert app.transport is not None
        app.transport.write(b"x")
        client.pump()
    assert not client.disconnected


@pytest.mark.parametrize("close_on_expiry", [True, False])
def test_a_connection_ends_with_its_certificate(
    log: Log, version: Version, close_on_expiry: bool
) -> None:
    """In the second after the last in which it is valid; unless that is not wanted."""
    running = WatchedGate(log, close_on_expiry=close_on_expiry)
    end = running.now.replace(microsecond=0) + timedelta(seconds=100)
    client = running.enter(CA.issue("brief", not_after=end), version)
    running.now = end + timedelta(seconds=0.9)
    running.connections.sweep()
    assert not client.disconnected
    running.now = end + timedelta(seconds=1)
    running.connections.sweep()
    client.pump()
    assert client.disconnected is close_on_expiry
    if close_on_expiry:
        assert running.witness.last_end.cause is Cause.CERTIFICATE_EXPIRED


def test_a_connection_ends_with_its_pin(log: Log, version: Version) -> None:
    """Where the pin ends before the certificate."""
    retired = utc_now() + timedelta(seconds=100)
    pinned = Rule("rule", (CA.certificate,), (Pin(ALICE.certificate, "a", None, retired),))
    running = WatchedGate(log, pinned)
    client = running.enter(ALICE, version)
    running.pass_time(99)
    assert not client.disconnected
    running.pass_time(2)
    client.pump()
    assert client.disconnected
    assert running.witness.last_end.cause is Cause.PIN_RETIRED


def test_what_ends_a_connection_is_told_once(log: Log) -> None:
    running = WatchedGate(log)
    client = running.enter(ALICE)
    [entry] = running.connections
    running.connections.close(entry, Cause.CLOSED_BY_OPERATOR, "because")
    running.connections.close(entry, Cause.DRAINED)
    client.pump()
    ending = running.witness.last_end
    assert (ending.cause, ending.detail) == (Cause.CLOSED_BY_OPERATOR, "because")
    assert [type(one) for one in running.witness.told].count(ClosedConnection) == 1
    running.connections.close(entry, Cause.DRAINED)


def test_a_client_no_longer_admitted_gets_its_grace(log: Log) -> None:
    """Who is no longer admitted has so long; who is adopted meanwhile stays."""
    running = WatchedGate(log)
    going, staying = running.enter(ALICE), running.enter(BOB)
    one, two = running.connections
    for entry in (one, two):
        running.connections.revoke(entry, 30.0, Rejection(Reason.DENIED, "why"))
    running.pass_time(29)
    assert not going.disconnected
    running.connections.adopt(two, held_as(two))
    running.pass_time(2)
    going.pump()
    staying.pump()
    assert (going.disconnected, staying.disconnected) == (True, False)
    ending = running.witness.last_end
    assert (ending.detail, ending.reason) == ("denied: why", Reason.DENIED)


def test_a_client_depends_on_answers_before_its_place_is_moved(log: Log) -> None:
    """Meanwhile a store may tell of a change."""
    running = WatchedGate(log)
    running.enter(ALICE)
    [entry] = running.connections
    dependent: list[list[int]] = []

    class Telling(NoRegistries):
        def move(self, claim: Claim | None, number: int) -> None:
            dependent.append(list(running.connections.dependents.of("devices", ["a key"])))

    running.connections.registries = Telling()
    answers = {Question("devices", ("a key",)): ()}
    held = evolve(held_as(entry), server="another", answers=answers)
    running.connections.adopt(entry, held)
    assert dependent == [[entry.arrival.number]]


def test_other_terms_count_from_then_on(log: Log) -> None:
    """What was noted under the terms before is void."""
    running = WatchedGate(log, idle_timeout=60.0)
    client = running.enter(ALICE)
    [entry] = running.connections
    for limit in (600.0, 700.0):
        terms = evolve(entry.terms, idle_timeout=limit)
        running.connections.adopt(entry, evolve(held_as(entry), server="another", terms=terms))
    assert entry.server == "another"
    assert running.connections.tallies["another"].counts["admitted"] == 1
    assert running.connections.tallies["door"].counts["admitted"] == 0
    running.pass_time(699)
    assert not client.disconnected
    running.pass_time(250)
    client.pump()
    assert client.disconnected


def test_gone_fires_when_the_last_connection_is_over(log: Log) -> None:
    """Fires when the last connection is over, or at once."""
    running = WatchedGate(log)
    assert running.connections.gone().called
    client, other = running.enter(ALICE), running.connect(None)
    gone = running.connections.gone()
    client.close()
    assert not gone.called
    other.reset()
    assert gone.called


def test_admitted_is_what_door_says(log: Log, version: Version) -> None:
    """With limits that nobody reaches nothing is different."""
    running = WatchedGate(log, max_connections=100, max_handshakes=100, max_connections_per_ip=100)
    assert running.gate.try_in(ALICE, version) == admitted()
    assert running.gate.try_in(EVE, version).reason is Reason.UNKNOWN_CA


def test_what_is_over_is_gone_at_once(log: Log, version: Version) -> None:
    """A connection that is over leaves nothing for the garbage collector to find."""
    clock = Clock()
    connections = Connections(clock, [HumanLog()])
    gate = MemoryGate(
        (rule(ca=CA),),
        log,
        Factory.forProtocol(Echo),
        clock=clock,
        connections=connections,
        terms=Terms(idle_timeout=60),
    )
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    assert client.receive() == b"knock"
    [entry] = connections
    transport, admission = entry.connection, entry.admission
    assert isinstance(transport, Connection)
    assert admission is not None
    parts = (entry, admission.peer, transport, transport._application, transport.getHandle())
    remains = [weakref.ref(one) for one in parts]
    del entry, transport, admission, parts
    gc.collect()
    gc.disable()
    try:
        client.close()
        del client
        assert [one() for one in remains] == [None] * len(remains)
    finally:
        gc.enable()
