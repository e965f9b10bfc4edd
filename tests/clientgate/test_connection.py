"""
A program's connection through a client gate: what goes through, and what becomes of it
if there is no target, the wrong one, or one that refuses.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.task import Clock

from mtlsgate.gate.events import AdmittedConnection, ClosedConnection, RejectedConnection
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Cause, Reason
from mtlsgate.testing import Authority, Credential, Version, self_signed
from tests.kits.clientgate import APP, CA, TARGET, Chain, Program, tls_client
from tests.kits.gate import Log
from tests.kits.other_process import quicker
from tests.kits.upstream import MemoryServer, ScriptedEndpoint


def chain(
    version: Version | None = None, credential: Credential = TARGET, **options: bool
) -> Chain:
    """:returns: a client gate with a target in memory."""
    clock = Clock()
    return Chain(MemoryServer(credential, clock, version, **options), clock)


def rejected(chain: Chain, program: Program, reason: Reason) -> RejectedConnection:
    """:returns: the only thing that was told of a program whose connection was reset."""
    program.read()
    assert program.is_over
    assert program.received == b""
    assert len(chain.connections) == 0
    [event] = chain.told.events
    assert isinstance(event, RejectedConnection)
    assert event.rejection.reason is reason, event.rejection
    assert event.server == "redis"
    return event


def test_a_program_talks_to_a_verified_target(version: Version, log: Log) -> None:
    """Bytes pass both ways, the target sees the client certificate and is asked for by its
    name, and the end of each stream passes on its own."""
    gates = chain(version, ask=True, stays=True)
    program = gates.connect()
    program.send(b"PING\r\n")
    assert gates.server.received == b"PING\r\n"
    assert gates.server.client == APP.certificate
    assert gates.server.asked_for == "gate.example"
    gates.server.send(b"+PONG\r\n")
    assert program.read() == b"+PONG\r\n"
    program.finish()
    gates.server.send(b"the rest")
    assert program.read() == b"+PONG\r\nthe rest"
    assert not program.is_over
    gates.server.end()
    program.read()
    assert program.is_over
    admitted, closed = gates.told.events
    assert isinstance(admitted, AdmittedConnection)
    destination = admitted.admission.destination
    assert destination is not None
    assert destination.target == "gate.example:8443"
    assert destination.leaf.x509 == TARGET.certificate
    assert admitted.admission.peer is None
    assert admitted.admission.negotiated.tls_version == f"TLSv{version}"
    assert isinstance(closed, ClosedConnection)
    assert (closed.received, closed.sent) == (6, 15)
    assert len(gates.connections) == 0
    assert log.failures == []


def test_megabytes_arrive_whole(version: Version) -> None:
    """In pieces of any size."""
    gates = chain(version)
    program = gates.connect()
    sent = b"x" * 2**22
    for place in range(0, len(sent), 2**16):
        program.send(sent[place : place + 2**16])
    assert len(gates.server.received) == len(sent)


def test_nothing_leaves_before_the_target_is_verified(version: Version) -> None:
    """What a program sends at once reaches no target that is not verified."""
    gates = chain(version, self_signed("gate", dns_names=["gate.example"]), ask=True)
    program = gates.connect()
    assert gates.server.received == b""
    assert gates.server.client is None
    event = rejected(gates, program, Reason.UNKNOWN_CA)
    assert "gate.example:8443: its certificate" in event.rejection.detail


@pytest.mark.parametrize(
    ("impostor", "reason", "detail"),
    [
        ({"dns_names": ["other.example"]}, Reason.WRONG_SERVER_NAME, "is for other.example"),
        ({}, Reason.WRONG_SERVER_NAME, "neither DNS name nor IP address"),
        (
            {
                "dns_names": ["gate.example"],
                "not_before": datetime(2020, 1, 1, tzinfo=UTC),
                "not_after": datetime(2020, 1, 2, tzinfo=UTC),
            },
            Reason.EXPIRED,
            "its certificate: expired",
        ),
        (
            {"dns_names": ["gate.example"], "not_before": datetime.now(UTC) + timedelta(days=1)},
            Reason.NOT_YET_VALID,
            "its certificate: not yet valid",
        ),
        (
            {"dns_names": ["gate.example"], "usages": ["client_auth"]},
            Reason.WRONG_PURPOSE,
            "not meant for TLS servers",
        ),
    ],
    ids=["another name", "no name", "expired", "not yet valid", "a client's"],
)
def test_the_wrong_target_is_named(
    impostor: dict[str, object], reason: Reason, detail: str, version: Version
) -> None:
    """A target that fails verification gets nothing; the reason says which check failed."""
    options = {"usages": ["server_auth"], **impostor}
    gates = chain(version, CA.issue("gate", **options))  # type: ignore[arg-type]
    event = rejected(gates, gates.connect(), reason)
    assert detail in event.rejection.detail
    assert gates.server.received == b""


def test_a_target_that_rejects_the_certificate(version: Version, log: Log) -> None:
    """In TLS 1.2 there is no connection; in TLS 1.3 the target says so after the handshake.
    Either way the program sees a reset, and the log has the alert."""
    gates = chain(version, refuse=True)
    program = gates.connect()
    if version == "1.2":
        event = rejected(gates, program, Reason.REFUSED_BY_TARGET)
        assert "it rejected the client certificate" in event.rejection.detail
        return
    program.read()
    assert program.is_over
    admitted, closed = gates.told.events
    assert isinstance(admitted, AdmittedConnection)
    assert isinstance(closed, ClosedConnection)
    assert closed.cause is Cause.REFUSED_BY_TARGET
    assert closed.by_gate
    assert "gate.example:8443: it rejected the client certificate, with the alert" in closed.detail


def test_a_target_that_wants_a_certificate(version: Version) -> None:
    """A client gate without a certificate is told to set one, where the alert says as much."""
    clock = Clock()
    gates = Chain(
        MemoryServer(TARGET, clock, version, demand=True), clock, tls=tls_client(credential=None)
    )
    program = gates.connect()
    program.read()
    assert program.is_over
    last = gates.told.events[-1]
    if version == "1.2":
        assert isinstance(last, RejectedConnection)
        assert last.rejection.reason is Reason.REFUSED_BY_TARGET
    else:
        assert isinstance(last, ClosedConnection)
        assert last.cause is Cause.REFUSED_BY_TARGET
        assert "set client_certificate" in last.detail


def test_a_target_that_leaves_at_once_may_have_refused(version: Version) -> None:
    """A verified target that is gone before it sent a byte is named as one that refused."""
    gates = chain(version)
    program = gates.connect()
    gates.server.finish()
    program.read()
    assert program.is_over
    _, closed = gates.told.events
    assert isinstance(closed, ClosedConnection)
    assert closed.cause is Cause.REFUSED_BY_TARGET
    assert "before it sent a byte" in closed.detail


@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        (ConnectionRefusedError(), "connection refused"),
        (DNSLookupError(), "the host name does not resolve"),
    ],
    ids=["refused", "no name"],
)
def test_an_unreachable_target(failure: Exception, detail: str) -> None:
    """The program's connection is reset, and the reason says why."""
    clock, line = Clock(), ScriptedEndpoint()
    line.outcome = failure
    gates = Chain(line, clock)
    event = rejected(gates, gates.connect(), Reason.TARGET_UNREACHABLE)
    assert event.rejection.detail == f"gate.example:8443: {detail}"


def test_a_target_that_does_not_answer() -> None:
    """After connect_timeout the program's connection is reset."""
    clock, line = Clock(), ScriptedEndpoint()
    line.hangs = True
    gates = Chain(line, clock)
    program = gates.connect()
    assert gates.told.events == []
    clock.advance(5)
    rejected(gates, program, Reason.TARGET_TIMEOUT)
    assert line.cancelled == 1


def test_a_connection_that_is_closed_while_it_is_dialled() -> None:
    """The dialling stops, and the operator's wish is the reason."""
    clock, line = Clock(), ScriptedEndpoint()
    line.hangs = True
    gates = Chain(line, clock)
    program = gates.connect()
    [entry] = gates.connections
    gates.connections.close(entry, Cause.CLOSED_BY_OPERATOR)
    rejected(gates, program, Reason.CLOSED_BY_GATE)
    assert line.cancelled == 1


@pytest.mark.parametrize("uid", [0, 1000])
def test_only_allowed_users_get_a_connection(uid: int, version: Version) -> None:
    """A program of another user reaches no target; the log names the user and the process."""
    clock = Clock()
    gates = Chain(MemoryServer(TARGET, clock, version), clock, uids=frozenset({1000}))
    program = gates.connect(uid)
    if uid == 1000:
        program.send(b"hello")
        assert gates.server.received == b"hello"
        [event] = gates.told.events
        assert isinstance(event, AdmittedConnection)
        assert event.admission.destination is not None
        assert event.admission.destination.uid == 1000
        return
    rejection = rejected(gates, program, Reason.UID_NOT_ALLOWED).rejection
    assert rejection.detail == "uid 0 (process 4242) is not in allow_uids"
    assert gates.server.transport is None


def test_a_user_that_is_not_known_is_not_allowed() -> None:
    """Where the system does not say who connects, allow_uids lets nobody in."""
    clock = Clock()
    gates = Chain(MemoryServer(TARGET, clock), clock, uids=frozenset({0}))
    rejected(gates, gates.connect(), Reason.UID_NOT_ALLOWED)


def test_limits_hold() -> None:
    """A connection beyond max_connections is reset at once, and dials nothing."""
    clock = Clock()
    terms = Terms(limits=Limits(max_connections=1))
    gates = Chain(MemoryServer(TARGET, clock), clock, terms=terms)
    first = gates.connect()
    second = gates.connect()
    assert second.connection is None
    second.read()
    assert second.is_over
    first.send(b"still there")
    assert gates.server.received == b"still there"
    assert isinstance(gates.told.events[1], RejectedConnection)
    assert gates.told.events[1].rejection.reason is Reason.TOO_MANY_CONNECTIONS


def test_a_limit_that_another_process_reaches_first(version: Version, log: Log) -> None:
    """Between the last look at the limits and the admission another worker may admit its
    program: then this one's is reset, and its target gets no byte."""
    clock = Clock()
    terms = Terms(limits=Limits(max_connections=1))
    gates = Chain(MemoryServer(TARGET, clock, version), clock, terms=terms, new_tally=quicker)
    program = gates.connect()
    rejected(gates, program, Reason.TOO_MANY_CONNECTIONS)
    assert gates.server.received == b""
    assert log.failures == []


def test_an_idle_connection_ends() -> None:
    """After idle_timeout without a byte in either direction, and not before."""
    clock = Clock()
    gates = Chain(MemoryServer(TARGET, clock), clock, terms=Terms(idle_timeout=8.0))
    program = gates.connect()
    for _ in range(4):
        clock.advance(6)
        program.send(b"x")
        gates.connections.sweep()
    for _ in range(8):
        clock.advance(2)
        gates.connections.sweep()
    program.read()
    assert program.is_over
    _, closed = gates.told.events
    assert isinstance(closed, ClosedConnection)
    assert closed.cause is Cause.IDLE_TIMEOUT


def test_one_that_cannot_be_recorded_gets_no_target(version: Version, log: Log) -> None:
    """If the audit log fails, the connection is not used: the target gets no byte."""
    gates = chain(version)

    class Broken:
        def admitted(self, connection: AdmittedConnection) -> None:
            raise OSError("disk full")

        rejected = closed = reloaded = lambda *_: None

    gates.connections.observers = (Broken(), *gates.connections.observers)
    program = gates.connect()
    program.read()
    assert program.is_over
    assert gates.server.received == b""
    assert OSError in log.failures
    log.failures.clear()


def test_the_most_telling_attempt_gives_the_reason() -> None:
    """Of several targets, one that was reached and is wrong says more than one that is down."""
    other = Authority.create("Other").issue("gate", dns_names=["gate.example"])
    gates = chain(None, other)
    rejected(gates, gates.connect(), Reason.UNKNOWN_CA)


def test_a_connection_that_fails_as_it_comes_leaves_nothing(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception costs this connection alone, and it is not counted for ever."""
    gates = chain()

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(gates.gate.backends, "dial", fail)
    rejected(gates, gates.connect(), Reason.INTERNAL_ERROR)
    assert RuntimeError in log.failures
    log.failures.clear()


@pytest.mark.parametrize("first", ["program", "target"])
def test_who_ends_a_connection_is_its_cause(first: str, version: Version) -> None:
    """Who ends its stream first: the program, or the target."""
    gates = chain(version, stays=True)
    program = gates.connect()
    gates.server.send(b"hello")
    if first == "program":
        program.finish()
        gates.server.end()
    else:
        gates.server.end()
        program.finish()
    program.read()
    assert program.is_over
    _, closed = gates.told.events
    assert isinstance(closed, ClosedConnection)
    assert closed.cause is (Cause.CLIENT if first == "program" else Cause.APPLICATION)
    assert not closed.by_gate


def test_a_target_that_is_cut_off_resets_the_program(version: Version) -> None:
    """A part is not mistaken for the whole."""
    gates = chain(version)
    program = gates.connect()
    gates.server.send(b"half an answ")
    gates.server.finish()
    assert program.read() == b"half an answ"
    assert not program.is_over
    gates.clock.advance(1)
    program.read()
    assert program.is_over
    _, closed = gates.told.events
    assert isinstance(closed, ClosedConnection)
    assert closed.cause is Cause.CONNECTION_LOST
