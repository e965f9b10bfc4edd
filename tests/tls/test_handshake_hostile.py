"""
Clients that do not play by the rules, on TLS 1.2 and 1.3.

Whatever they send, it ends with an admission or a logged reason, and never
with an unhandled error.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL.crypto import X509

from mtlsgate.admission import AdmissionPolicy, Path
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Version
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.judge import Judge
from mtlsgate.tls.server import GateContext
from tests.kits.forgery import certificate_message, records
from tests.kits.gate import VERSIONS, Log, MemoryGate, admitted, rejected, rule

ROOT = Authority.create("Root")
ALICE, BOB = ROOT.intermediate().issue("alice"), ROOT.issue("bob")
STRANGER = Authority.create("Root").issue("stranger")

#: How long the gates of these tests wait.
TIMEOUT = 7.5


@pytest.fixture
def gate(log: Log) -> MemoryGate:
    return MemoryGate([rule(ca=ROOT)], log, handshake_timeout=TIMEOUT)


def test_no_certificate(gate: MemoryGate, log: Log, version: Version) -> None:
    """Is said to be that, and is never called an unknown CA."""
    assert gate.try_in(None, version) == rejected(Reason.NO_CERTIFICATE, None)
    assert log.only["subject"] is log.only["fingerprint"] is None


def test_no_certificate_where_pins_are_asked_for(log: Log, version: Version) -> None:
    gate = MemoryGate([rule(pins=BOB)], log)
    assert gate.try_in(None, version) == rejected(Reason.NO_CERTIFICATE, None)


PLAIN = [
    (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", Reason.NOT_TLS),
    (b"POST /x HTTP/1.0\r\n\r\n", Reason.NOT_TLS),
    (b"CONNECT a.example:443 HTTP/1.1\r\n\r\n", Reason.NOT_TLS),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Reason.NOT_TLS),
    (b"SSH-2.0-OpenSSH_9.2\r\n", Reason.NOT_TLS),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", Reason.NOT_TLS),
    (b"\x10\x1a\x00\x04MQTT\x04\x02\x00\x3c\x00\x0eclient-1234567", Reason.NOT_TLS),
    (b"\0" * 64, Reason.NOT_TLS),
    (b"\xff" * 64, Reason.NOT_TLS),
    # SSLv2, and TLS records that hold no ClientHello.
    (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x07" * 64, None),
    (b"\x17\x03\x03\x00\x05hello", None),
    (b"\x14\x03\x03\x00\x01\x01", None),
    (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", None),
    (b"\x16\x03\x01\xff\xff" + b"\x01" * 64, None),
    (b"\x16\x03\x01\x00\x00" * 100, None),
    (b"\x15\x03\x03\x00\x02\x02\x28", Reason.PROTOCOL_ERROR),
    (b"\x15\x03\x03\x00\x02\x01\x00" * 20, None),
    (b"\x15\x03\x03\x00\x02\x01\x5a" * 20, None),
]


@pytest.mark.parametrize(("data", "reason"), PLAIN, ids=lambda one: str(one)[:20])
def test_not_tls(gate: MemoryGate, log: Log, data: bytes, reason: Reason | None) -> None:
    """Whatever is no TLS handshake is turned away at once, or at the timeout."""
    client = gate.connect(None)
    client.raw_send(data)
    gate.clock.advance(0)
    client.transport.take()
    gate.clock.advance(0)
    gate.clock.advance(TIMEOUT)
    gate.clock.advance(0)
    gate.check_turned_away(client)
    if reason is not None:
        assert gate.verdict() == rejected(reason, None)
    assert gate.verdict().rule is None


def client_hello(log: Log, version: Version) -> bytes:
    hello = MemoryGate([rule(ca=ROOT)], log).connect(ALICE, version).take_outgoing()
    assert hello
    return hello


def run_out(gate: MemoryGate, client: Client) -> None:
    """Let everything happen that still may: the client's steps, then the timeout."""
    client.pump()
    gate.clock.advance(TIMEOUT)
    client.pump()


def ended_well(gate: MemoryGate, log: Log, client: Client) -> bool:
    """:returns: whether it was admitted; otherwise there is a reason."""
    [event] = log.events
    [admission] = [event.get("rule") is not None]
    if not admission:
        assert Reason(event["reason"]) is not Reason.INTERNAL_ERROR
        assert event["detail"]
        assert gate.recorder.protocols == []
        assert client.disconnected
    log.events.clear()
    gate.recorder.protocols.clear()
    return admission


@pytest.mark.slow
def test_flipped_client_hello(gate: MemoryGate, log: Log, version: Version) -> None:
    """Every byte of a ClientHello, changed: admitted, or rejected with a reason."""
    for at in range(len(client_hello(log, version))):
        client = gate.connect(ALICE, version)
        hello = bytearray(client.take_outgoing())
        hello[at] ^= 0xFF
        client.raw_send(bytes(hello))
        run_out(gate, client)
        # Both ends sign all of it but the record's version, which is "to be ignored
        # for all purposes" (RFC 8446, 5.1).
        assert not ended_well(gate, log, client) or at in (1, 2)


@pytest.mark.slow
def test_truncated_client_hello(gate: MemoryGate, log: Log, version: Version) -> None:
    """Cut off after any number of bytes, then silence, or the end."""
    hello = client_hello(log, version)
    for length in range(0, len(hello), 1 if len(hello) < 600 else 7):
        client = gate.connect(None, version)
        client.raw_send(hello[:length])
        gate.clock.advance(TIMEOUT)
        gate.clock.advance(0)
        assert log.only["reason"] == Reason.HANDSHAKE_TIMEOUT
        assert not ended_well(gate, log, client)
        client = gate.connect(None, version)
        client.raw_send(hello[:length])
        client.transport.finish()
        assert log.only["reason"] == Reason.PEER_GONE
        assert not ended_well(gate, log, client)


def test_client_hello_byte_by_byte(gate: MemoryGate, version: Version) -> None:
    """How the network cuts it makes no difference."""
    assert gate.try_in(ALICE, version, piece_size=1) == admitted()
    assert gate.try_in(STRANGER, version, piece_size=1).reason is not None


def last_flights(gate: MemoryGate, version: Version) -> Iterator[tuple[Client, bytearray]]:
    """Endless clients, each with the flight that holds its certificate."""
    while True:
        client = gate.connect(BOB, version)
        client.step()
        client.step()
        yield client, bytearray(client.take_outgoing())


@pytest.mark.slow
def test_flipped_certificate(gate: MemoryGate, log: Log, version: Version) -> None:
    """Every byte of the flight with the certificate, the key exchange and the
    proof, changed.  In TLS 1.2 most of it travels in the clear."""
    for at, (client, flight) in enumerate(last_flights(gate, version)):
        if at >= len(flight):
            log.events.clear()
            break
        flight[at] ^= 0x01
        client.raw_send(bytes(flight))
        run_out(gate, client)
        assert not ended_well(gate, log, client)
        if at > 1200:
            break
    log.events.clear()


def test_flight_cut_off(gate: MemoryGate, log: Log, version: Version) -> None:
    """A client that proves nothing after its certificate was judged is not admitted."""
    for at, (client, flight) in enumerate(last_flights(gate, version)):
        length = 5 * at
        if length >= len(flight):
            break
        client.raw_send(bytes(flight[:length]))
        client.transport.finish()
        assert log.only["reason"] == Reason.PEER_GONE
        assert not ended_well(gate, log, client)
    log.events.clear()


def test_wrong_key(log: Log) -> None:
    """A proof that is not of the leaf's key, on TLS 1.2, where it can be changed
    on its way: the last byte of each of the handshake's messages in turn."""
    for one in (rule(ca=ROOT), rule(pins=BOB), rule(ca=ROOT, pins=BOB)):
        gate = MemoryGate([one], log)
        client = gate.connect(BOB, "1.2")
        client.step()
        client.step()
        # Certificate, ClientKeyExchange, CertificateVerify, ChangeCipherSpec, Finished.
        flight = list(records(client.take_outgoing()))
        proof = next(at for at, record in enumerate(flight) if record[5] == 15)
        changed = bytearray(flight[proof])
        changed[-1] ^= 1
        flight[proof] = bytes(changed)
        client.raw_send(b"".join(flight))
        client.pump()
        assert gate.verdict() == rejected(Reason.BAD_SIGNATURE, None)
        gate.check_turned_away(client)
        log.events.clear()


def test_somebody_elses_certificate(log: Log) -> None:
    """A client puts the pinned certificate in place of its own, on TLS 1.2: the
    verdict on the certificate is favourable, and the handshake ends all the same."""
    carol = ROOT.issue("carol", key=ec.generate_private_key(ec.SECP256R1()))
    for one in (rule(ca=ROOT), rule(pins=BOB), rule(ca=ROOT, pins=BOB)):
        gate = MemoryGate([one], log)
        client = gate.connect(carol, "1.2")
        client.step()
        client.step()
        flight = client.take_outgoing()
        mine, theirs = certificate_message(carol), certificate_message(BOB)
        assert mine in flight
        first, *rest = records(flight)
        body = first[5:].replace(mine, theirs)
        client.raw_send(first[:3] + len(body).to_bytes(2, "big") + body + b"".join(rest))
        client.pump()
        assert gate.verdict() == rejected(Reason.BAD_SIGNATURE, None)
        assert log.only["fingerprint"] == BOB.sha256
        gate.check_turned_away(client)
        log.events.clear()


@pytest.mark.parametrize("steps", range(6))
def test_a_stalled_client_is_dropped_at_the_timeout(
    gate: MemoryGate, log: Log, version: Version, steps: int
) -> None:
    """A client that stops talking is dropped at the timeout, and not before."""
    client = gate.connect(ALICE, version)
    moved = [client.step() for _ in range(steps)]
    if log.events:
        assert all(moved[:3])
        return
    gate.clock.advance(TIMEOUT - 0.01)
    assert log.events == []
    assert not client.disconnected
    gate.clock.advance(0.01)
    gate.clock.advance(0)
    assert gate.verdict() == rejected(Reason.HANDSHAKE_TIMEOUT, None)
    gate.check_turned_away(client)
    assert client.aborted
    assert not gate.clock.getDelayedCalls()


def test_a_byte_now_and_then_buys_no_time(gate: MemoryGate, log: Log, version: Version) -> None:
    """A byte now and then buys no time."""
    client = gate.connect(ALICE, version)
    hello = client.take_outgoing()
    for number in range(15):
        assert not log.events
        client.raw_send(hello[number : number + 1])
        gate.clock.advance(TIMEOUT / 15)
    gate.clock.advance(0)
    assert gate.verdict() == rejected(Reason.HANDSHAKE_TIMEOUT, None)
    # What comes after that is not even looked at.
    client.raw_send(hello[15:])
    gate.check_turned_away(client)
    assert len(log.events) == 1


def test_complete_after_the_timeout(gate: MemoryGate, log: Log, version: Version) -> None:
    """The last flight, delivered between the timeout and the end of the connection,
    admits nobody."""
    client = gate.connect(ALICE, version)
    client.step()
    client.step()
    flight = client.take_outgoing()
    gate.clock.callLater(TIMEOUT, client.raw_send, flight)
    gate.clock.advance(TIMEOUT)
    gate.clock.advance(0)
    assert gate.verdict() == rejected(Reason.HANDSHAKE_TIMEOUT, None)
    gate.check_turned_away(client)


def test_no_timeout_once_in(gate: MemoryGate, log: Log, version: Version) -> None:
    """The limit is on the handshake alone."""
    client = gate.connect(ALICE, version)
    assert gate.judge(client) == admitted()
    gate.clock.advance(10 * TIMEOUT)
    client.send(b"still here")
    assert client.receive() == b"still here"
    assert not gate.clock.getDelayedCalls()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["reset", "fin", "close_notify"])
def test_gone_at_every_step(gate: MemoryGate, log: Log, version: Version, end: str) -> None:
    """A client that leaves in the middle of its handshake, however it does."""
    ways: dict[str, Callable[[Client], object]] = {
        "reset": Client.reset,
        "fin": lambda client: client.transport.finish(),
        "close_notify": lambda client: client.raw_send(bytes.fromhex("15030300020100")),
    }
    for steps in range(3):
        client = gate.connect(ALICE, version)
        for _ in range(steps):
            assert client.step()
        ways[end](client)
        if end == "close_notify":
            run_out(gate, client)
            assert log.only["reason"] in (
                Reason.PEER_GONE,
                Reason.PROTOCOL_ERROR,
                Reason.HANDSHAKE_TIMEOUT,
            )
        else:
            assert gate.verdict() == rejected(Reason.PEER_GONE, None)
        assert not ended_well(gate, log, client)
    gc.collect()


@pytest.mark.parametrize("first", ["admitted", "rejected"])
def test_nothing_resumes_unless_allowed(log: Log, version: Version, first: str) -> None:
    """A session of an earlier connection, by ticket or by id, admitted or not, leads
    to a full handshake and a new verdict, at the same gate and at a new one."""
    rules = [rule(ca=ROOT, pins=ALICE)]
    gate, reloaded = MemoryGate(rules, log), MemoryGate([rule(ca=ROOT)], log)
    who = ALICE if first == "admitted" else BOB
    earlier = gate.connect(who, version)
    verdict = gate.judge(earlier)
    assert (verdict.rule is not None) == (first == "admitted")
    session = earlier.session
    if session is None:
        assert first == "rejected"
        return
    for another in (gate, gate, reloaded):
        client = another.connect(who, version, session=session)
        expected = admitted() if another is reloaded else verdict
        assert another.judge(client) == expected
        if expected.rule is not None:
            assert not client.resumed
            peer = another.recorder.protocols[-1].peer
            assert peer is not None
            assert peer.sha256 == who.sha256


def test_resumption_with_another_certificate(log: Log, version: Version) -> None:
    """A session lends nobody its owner's identity."""
    gate = MemoryGate([rule(ca=ROOT, pins=ALICE)], log)
    earlier = gate.connect(ALICE, version)
    assert gate.judge(earlier) == admitted()
    for who, reason in [
        (BOB, Reason.LEAF_MISMATCH),
        (STRANGER, None),
        (None, Reason.NO_CERTIFICATE),
    ]:
        verdict = gate.try_in(who, version, session=earlier.session)
        assert verdict.rule is None
        assert reason in (None, verdict.reason)


def test_there_is_no_renegotiation(gate: MemoryGate, log: Log) -> None:
    """A TLS 1.2 client does not get to shake hands twice."""
    client = gate.connect(ALICE, "1.2")
    assert gate.judge(client) == admitted()
    assert client.connection.renegotiate()
    client.handshake()
    client._ask(client.connection.do_handshake)
    client.pump()
    assert client.connection.total_renegotiations() <= 1
    assert len(log.events) == 1
    [protocol] = gate.recorder.protocols
    assert protocol.received == b"knock"


def test_refused_by_the_client(gate: MemoryGate, log: Log, version: Version) -> None:
    """A client that does not trust the gate says so."""
    verdict = gate.try_in(ALICE, version, trust=[ROOT.certificate])
    assert verdict == rejected(Reason.PEER_ALERT, None)
    assert "unknown ca" in log.only["detail"]


class Bug(Exception):
    """What ours could be."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (AdmissionPolicy, "judge"),
        (Judge, "on_path"),
        (GateContext, "_step"),
    ],
)
def test_a_bug_rejects(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch, kind: type, name: str
) -> None:
    """Whatever fails in the verify callback is a rejection, with one logged traceback."""

    def fail(*_: object) -> None:
        raise Bug

    monkeypatch.setattr(kind, name, fail)
    # The second rule is what another path is looked for.
    gate = MemoryGate([rule(ca=ROOT, pins=BOB), rule("other", ca=Authority.create())], log)
    verdict = gate.try_in(ROOT.issue("other"), version)
    assert verdict.reason is Reason.INTERNAL_ERROR
    log.expect_failure(Bug)


@pytest.mark.parametrize("answer", [None, 1, "yes", (), object()])
def test_no_verdict_admits_nobody(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    """A judge that answers anything but a verdict lets nobody in."""

    def judge(self: AdmissionPolicy, path: Path, now: object, objection: object) -> object:
        return answer

    monkeypatch.setattr(AdmissionPolicy, "judge", judge)
    gate = MemoryGate([rule(ca=ROOT)], log)
    verdict = gate.try_in(ALICE, version)
    assert verdict.reason is Reason.INTERNAL_ERROR
    # A traceback says what is wrong with the judge.
    assert log.failures
    log.failures.clear()


def test_a_rejection_stands(log: Log, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if OpenSSL went on after one."""
    whole = GateContext.verify

    def go_on(
        self: GateContext,
        connection: EngineConnection,
        certificate: X509,
        error: int,
        depth: int,
        ok: int,
    ) -> bool:
        whole(self, connection, certificate, error, depth, ok)
        return True

    monkeypatch.setattr(GateContext, "verify", go_on)
    gate = MemoryGate([rule(ca=ROOT, pins=BOB)], log)
    for client, reason in ((STRANGER, Reason.UNKNOWN_CA), (ALICE, Reason.LEAF_MISMATCH)):
        assert gate.try_in(client, version).reason is reason
    assert gate.try_in(BOB, version) == admitted()
    # One that the policy would admit, and OpenSSL does not.
    weak = ROOT.issue("weak", key=rsa.generate_private_key(65537, 1024))
    gate = MemoryGate([rule(ca=ROOT)], log)
    assert gate.try_in(weak, version).reason is Reason.WEAK_KEY


def test_the_callback_answers_with_a_bool(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truthy answer of another kind would admit."""
    answers: list[object] = []
    whole = GateContext.verify

    def watch(self: GateContext, connection: EngineConnection, *rest: object) -> object:
        answers.append(whole(self, connection, *rest))  # type: ignore[arg-type]
        return answers[-1]

    monkeypatch.setattr(GateContext, "verify", watch)
    gate = MemoryGate([rule(ca=ROOT, pins=ALICE)], log)
    for client in (ALICE, BOB, STRANGER):
        for version in VERSIONS:
            gate.try_in(client, version)
    assert {type(one) for one in answers} == {bool}


def test_a_long_chain(gate: MemoryGate, version: Version) -> None:
    """More than OpenSSL takes for a certificate message."""
    verdict = gate.try_in(ALICE, version, chain=[STRANGER.certificate] * 300)
    assert verdict == rejected(Reason.PROTOCOL_ERROR, None)


def test_many_intermediates_of_one_name(gate: MemoryGate, version: Version) -> None:
    """A chain made to have many paths takes no longer for it."""
    twins = [Authority.create("Test Intermediate CA").certificate for _ in range(60)]
    assert gate.try_in(ALICE, version, chain=[*twins, *ALICE.intermediates]) == admitted()


def test_data_with_the_last_flight(log: Log) -> None:
    """In TLS 1.3 a client may write before it is judged: that reaches only the
    application of one that is admitted."""
    for pin, received in ((ALICE, b"early"), (BOB, b"")):
        gate = MemoryGate([rule(ca=ROOT, pins=pin)], log)
        client = gate.connect(ALICE, "1.3")
        client.step()
        client.step()
        client.write(b"early")
        client.pump()
        assert b"".join(one.received for one in gate.recorder.protocols) == received


def test_rejection_is_an_alert(gate: MemoryGate, version: Version) -> None:
    """A rejected client is told in TLS that it was, and then the connection ends."""
    client = gate.connect(STRANGER, version)
    assert gate.judge(client).reason is Reason.UNKNOWN_CA
    assert client.alert is not None
    assert not client.aborted
