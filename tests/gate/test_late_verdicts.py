"""
Verdicts that hang on certificates which OpenSSL did not use, and are therefore
given when the handshake is done: who comes to that, what it costs, and that
nobody gets in meanwhile.
"""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Credential, Version, self_signed
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.judge import Judge, Pending
from mtlsgate.tls.paths import MAX_ATTEMPTS, Search
from mtlsgate.tls.server import GateContext
from tests.kits.forgery import edited, present_also
from tests.kits.gate import Log, MemoryGate, admitted, condition, rejected, rule
from tests.kits.paths import LEAF, LOWER, ROOT, UPPER, Calls, certificates, count_searches, renewed

MISMATCH = rejected(Reason.LEAF_MISMATCH)

#: Has OpenSSL stop at the leaf's issuer, where the leaf is not the one.
LOW = rule("low", LOWER, LOWER.issue("other"))
PENDING = [LOW, rule("root", ROOT)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """How often OpenSSL is asked for a path outside its handshakes."""
    return count_searches(monkeypatch)


@pytest.fixture
def concluded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The verdicts there were when handshakes were done."""
    verdicts: list[object] = []
    whole = GateContext.conclude

    def watch(self: GateContext, connection: EngineConnection) -> Any:
        verdicts.append(connection.handshake.verdict)
        return whole(self, connection)

    monkeypatch.setattr(GateContext, "conclude", watch)
    return verdicts


def test_admission_may_be_late(log: Log, version: Version, concluded: list[object]) -> None:
    """The handshake is done, and then the client is let in."""
    assert MemoryGate(PENDING, log).try_in(LEAF, version) == admitted("root")
    assert [type(one) for one in concluded] == [Pending]
    peer = MemoryGate(PENDING, log)
    client = peer.connect(LEAF, version)
    client.send(b"x")
    [protocol] = peer.recorder.protocols
    assert protocol.peer is not None
    assert protocol.peer.path == (LEAF.certificate, *certificates(LOWER, UPPER, ROOT))


def test_rejection_may_be_late(log: Log, version: Version, concluded: list[object]) -> None:
    """The application is never reached, whatever came with the last flight; one event
    tells why, and the connection ends at once; in TLS 1.2 with an alert."""
    gate = MemoryGate(PENDING, log)
    client = gate.connect(LEAF, version, chain=certificates(LOWER))
    client.step()
    client.step()
    client.write(b"early")
    client.send(b"knock")
    assert [type(one) for one in concluded] == [Pending]
    assert gate.verdict() == MISMATCH
    assert log.only["fingerprint"] == LEAF.sha256
    gate.check_turned_away(client)
    assert client.aborted == (version == "1.3")
    assert client.alert == (None if version == "1.3" else "tls alert bad certificate")
    assert not gate.clock.getDelayedCalls()


#: Rules that no other path could make hold for the leaf, and why.
HOPELESS = {
    "pinned CA": [rule("root", ROOT, ROOT.issue("x"))],
    "pinned CAs": [LOW, rule("root", ROOT, ROOT.issue("x"))],
    "denied": [LOW, rule("root", ROOT)],
    "not allowed": [LOW, rule("root", ROOT)],
    "same CA": [LOW, rule("again", LOWER)],
}


@pytest.mark.parametrize("kind", HOPELESS)
def test_who_cannot_be_admitted_is_rejected_at_once(
    log: Log, version: Version, concluded: list[object], calls: Calls, kind: str
) -> None:
    """In the handshake, with an alert, where no certificate could change the verdict."""
    *others, last = HOPELESS[kind]
    nobody = condition(common_names=["nobody"])
    if kind in ("not allowed", "same CA"):
        last = evolve(last, allow=(nobody,))
    deny = [condition(common_names=["leaf"])] if kind == "denied" else []
    gate = MemoryGate([*others, last], log, deny=deny)
    client = gate.connect(LEAF, version)
    assert gate.judge(client).reason in (
        Reason.LEAF_MISMATCH,
        Reason.DENIED,
        Reason.NOT_ALLOWED,
    )
    assert client.alert is not None
    assert not client.aborted
    assert concluded == []
    assert calls == []


def test_configured_cas_do_without(log: Log, version: Version, concluded: list[object]) -> None:
    """Where they lead there by themselves, the verdict is given in the handshake."""
    gate = MemoryGate([LOW, rule("root", [ROOT, UPPER])], log)
    assert gate.try_in(LEAF, version, chain=()) == admitted("root")
    assert not any(isinstance(one, Pending) for one in concluded)


@pytest.mark.parametrize("number", [60, 200])
@pytest.mark.parametrize("kind", ["unrelated", "namesakes", "copies"])
def test_unrelated_certificates_in_the_chain_change_no_verdict(
    log: Log, version: Version, calls: Calls, number: int, kind: str
) -> None:
    """A client that sends all sorts of certificates along gets the same verdict in
    whatever order they stand, and the gate's work is bounded."""
    make = {
        "unrelated": lambda each: Authority.create(f"{each}"),
        "namesakes": lambda each: Authority.create("Upper"),
        "copies": lambda each: renewed(UPPER),
    }[kind]
    junk = certificates(*map(make, range(number)))
    gate = MemoryGate(PENDING, log)
    verdicts = set()
    for seed in range(3):
        chain = [*junk, *LEAF.intermediates]
        Random(seed).shuffle(chain)
        verdicts.add(gate.try_in(LEAF, version, chain=chain))
    [verdict] = verdicts
    if kind == "unrelated" or number == 60:
        assert verdict == admitted("root")
    assert len(calls) <= 3 * 2


def test_bounded_work(log: Log, version: Version, calls: Calls) -> None:
    """However many rules a client could come in by, few of their CAs are tried: at most
    16 while it shakes hands, and 16 with what it sent."""
    upper = renewed(UPPER)
    roots = [renewed(upper) for _ in range(3 * MAX_ATTEMPTS)]
    rules = [LOW, *(rule(f"{n}", one) for n, one in enumerate(roots))]
    gate = MemoryGate([evolve(one, max_depth=0) for one in rules], log)
    assert gate.try_in(LEAF, version).rule is None
    assert 0 < len(calls) <= 2 * MAX_ATTEMPTS


def malformed() -> dict[str, bytes]:
    """Certificates that OpenSSL parses, and cryptography not or only in part."""
    marker = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
    made = ROOT.intermediate("Upper", key=UPPER.private_key, extra_extensions=[marker])
    one = Credential(made.certificate, made.private_key)
    edits = {
        "version": ("a003020102", "a003020105"),
        "extension": ("0603551d25040c300a", "0603551d25040c310a"),
        "subject": ("0c05" + b"Upper".hex(), "1305" + b"Up\xff\xfer".hex()),
    }
    return {
        kind: edited(ROOT, one, bytes.fromhex(old), bytes.fromhex(new))
        for kind, (old, new) in edits.items()
    }


@pytest.mark.parametrize("kind", ["version", "extension", "subject"])
@pytest.mark.parametrize("alone", [False, True])
def test_malformed_certificates(log: Log, version: Version, kind: str, alone: bool) -> None:
    """One that does not parse helps nobody, and harms nobody."""
    gate = MemoryGate(PENDING, log)
    chain = certificates(LOWER) if alone else certificates(LOWER, UPPER)
    client = gate.connect(LEAF, version, chain=chain)
    present_also(client.connection, malformed()[kind])
    assert gate.judge(client) == (MISMATCH if alone else admitted("root"))


class Bug(Exception):
    """What ours could be."""


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Judge, "on_presented"),
        (GateContext, "_conclude"),
        (EngineConnection, "presented_chain"),
        (EngineConnection, "get_peer_cert_chain"),
    ],
)
def test_a_bug_rejects(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch, kind: type, name: str
) -> None:
    """Whatever fails in concluding a handshake is a rejection, with one logged traceback."""

    def fail(*_: object, **__: object) -> None:
        raise Bug

    monkeypatch.setattr(kind, name, fail)
    assert MemoryGate(PENDING, log).try_in(LEAF, version) == rejected(Reason.INTERNAL_ERROR, None)
    log.expect_failure(Bug)


def test_a_bug_in_the_second_look(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is what fails only with the client's own certificates."""
    whole = Search.reachable

    def fail(self: Search, leaf: Any, presented: Any) -> Any:
        if len(presented) > 1:
            raise Bug
        return whole(self, leaf, presented)

    monkeypatch.setattr(Search, "reachable", fail)
    assert MemoryGate(PENDING, log).try_in(LEAF, version) == rejected(Reason.INTERNAL_ERROR, None)
    log.expect_failure(Bug)


@pytest.mark.parametrize("answer", [None, 1, "yes", (), object()])
def test_no_verdict_admits_nobody(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch, answer: object
) -> None:
    """A judge that concludes with anything but a verdict lets nobody in."""
    monkeypatch.setattr(Judge, "on_presented", lambda *_: answer)
    verdict = MemoryGate(PENDING, log).try_in(LEAF, version)
    assert verdict == rejected(Reason.INTERNAL_ERROR, None)


def test_not_judged(log: Log, version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake in which no callback ran, where nothing resumes, lets nobody in."""
    monkeypatch.setattr(GateContext, "_step", lambda *_: None)
    for who in (LEAF, ROOT.issue("x"), self_signed("y")):
        verdict = MemoryGate([rule(ca=ROOT)], log).try_in(who, version)
        assert verdict == rejected(Reason.INTERNAL_ERROR, verdict.depth)
        log.expect_failure(TypeError)


def test_reset_before_a_late_verdict(log: Log, version: Version) -> None:
    """A client that leaves with its last flight is gone, and not admitted."""
    gate = MemoryGate(PENDING, log)
    client: Client = gate.connect(LEAF, version)
    client.step()
    client.step()
    flight = client.take_outgoing()
    client.raw_send(flight[:-1])
    client.reset()
    assert gate.verdict() == rejected(Reason.PEER_GONE, None)
    gate.check_turned_away(client)
