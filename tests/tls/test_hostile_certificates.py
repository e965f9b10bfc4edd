"""
Certificates of every hostile shape, signed by a CA that the gate knows.

Each is answered with an admission or a reason and never with an exception,
under every kind of rule, and costs the gate no more than a bounded number of
verifications.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from math import lcm, prod
from typing import Any

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mtlsgate.admission.second_opinion import disagreement
from mtlsgate.reasons import Reason
from mtlsgate.testing import Client, Credential, Version
from mtlsgate.tls import judge, paths
from tests.kits.forgery import certificate_message, present, present_also, raw, records
from tests.kits.gate import Log, MemoryGate, condition, rule
from tests.kits.hostile import (
    HOLDER,
    KEY,
    MODES,
    NARROW,
    ROOT,
    SHAPES,
    names,
    nested,
    rules,
    shaped,
)

#: Of what cryptography lets pass, it warns.
pytestmark = [
    pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Attribute's length must be"),
]

#: Nobody comes in with these, and with those not where certificates must keep to
#: the profile.
NEVER = {
    "unknown critical",
    "ends before it begins",
    "duplicate extensions",
    "other name",
    "month 13",
    "fractions",
    "empty purposes",
    "5000 purposes",
    "CA of negative length",
    "CA of huge length",
    "proxy",
    "version 99",
    "name constraints",
}
NEVER_STRICTLY = {
    "negative serial",
    "zero serial",
    "huge serial",
    "empty subject",
    "empty SAN",
    "empty key identifier",
    "long key usage",
}
#: Nor with these below name constraints, which could not hold for them.
BAD_NAMES = {
    "NUL in SAN",
    "NUL in subject",
    "empty DNS name",
    "UTF-8 in DNS name",
    "control characters",
    "one long SAN",
}


_MOMENT = datetime.now(UTC)


def _moment() -> datetime:
    """No second passes: one that does makes the gate look again."""
    return _MOMENT


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often OpenSSL was asked for a path beside the handshake, and the second
    validator for its opinion."""
    count = Counter[str]()

    def counted(what: str, whole: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            count[what] += 1
            return whole(*args)

        return call

    verified = counted("paths", paths.verified_path)
    monkeypatch.setattr(paths, "verified_path", verified)
    monkeypatch.setattr(judge, "verified_path", verified)
    monkeypatch.setattr(judge, "disagreement", counted("opinions", disagreement))
    return count


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


def outcome(gate: MemoryGate, client: Client) -> Reason | None:
    """:returns: why the client is rejected, which is never the gate's own fault."""
    client.send(b"knock")
    verdict = gate.verdict(len(gate.log.events) - 1)
    assert gate.log.failures == []
    assert verdict.reason is not Reason.INTERNAL_ERROR
    if verdict.reason is None:
        assert client.established
    else:
        gate.check_turned_away(client, len(gate.recorder.protocols))
    return verdict.reason


def substituted(gate: MemoryGate, certificate: bytes) -> Client:
    """:returns: a TLS 1.2 client that sends any octets for its certificate."""
    client = gate.connect(HOLDER, "1.2")
    client.step()
    client.step()
    first, *rest = records(client.take_outgoing())
    entry = len(certificate).to_bytes(3, "big") + certificate
    body = len(entry).to_bytes(3, "big") + entry
    message = b"\x0b" + len(body).to_bytes(3, "big") + body
    handshake = first[5:].replace(certificate_message(HOLDER), message)
    assert message in handshake
    for at in range(0, len(handshake), 2**14):
        piece = handshake[at : at + 2**14]
        client.raw_send(first[:3] + len(piece).to_bytes(2, "big") + piece)
    client.raw_send(b"".join(rest))
    return client


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_on_the_wire(log: Log, shape: str, mode: str) -> None:
    """Octet for octet, also what no client library would send; it is in the clear in
    TLS 1.2 alone.  What is sound fails the proof of its key, as it was exchanged on
    its way."""
    for issuer in ("Root", "Narrow"):
        for kind in rules():
            gate = MemoryGate(rules()[kind], log, now=_moment, **MODES[mode])
            reason = outcome(gate, substituted(gate, shaped(shape, issuer)))
            assert reason is not None
            if (shape, kind, mode, issuer) == ("sound", "CA", "strict", "Root"):
                assert reason is Reason.BAD_SIGNATURE


#: What OpenSSL would not present, or not with that key.
@cache
def presentable(shape: str) -> bool:
    client = MemoryGate(rules()["CA"], Log()).connect(HOLDER)
    try:
        present(client.connection, shaped(shape))
    except AssertionError:
        return False
    return "spki" not in SHAPES[shape]


@pytest.mark.slow
def test_every_shape_by_a_client(
    log: Log, version: Version, mode: str, asked: Counter[str]
) -> None:
    """As OpenSSL sends it, with proof of its key, under every kind of rule; and the gate
    asks OpenSSL and the second validator no more than twice beside the handshake."""
    admitted = set()
    shapes = [shape for shape in SHAPES if presentable(shape)]
    assert len(shapes) > 50
    for shape in shapes:
        for issuer, kind in (("Narrow", "CA"), *(("Root", each) for each in rules())):
            asked.clear()
            gate = MemoryGate(rules()[kind], log, now=_moment, **MODES[mode])
            client = gate.connect(HOLDER, version)
            present(client.connection, shaped(shape, issuer))
            if outcome(gate, client) is None:
                admitted.add((shape, issuer))
                assert kind != "pinned"
            assert asked["paths"] <= 2
            assert asked["opinions"] <= 2
    assert ("sound", "Root") in admitted
    never = NEVER | NEVER_STRICTLY if mode != "compatible" else NEVER
    assert not [(shape, issuer) for shape, issuer in admitted if shape in never]
    assert not [shape for shape, issuer in admitted if shape in BAD_NAMES and issuer == "Narrow"]


SOUND = raw(ROOT, KEY)
NOT_DER = {
    "nothing": b"",
    "zeros": bytes(100),
    "indefinite length": b"\x30\x80" + SOUND[4:] + b"\0\0",
    "indefinite length inside": SOUND[:4] + b"\x30\x80" + SOUND[8:] + b"\0\0",
    "overlong length": b"\x30\x84\0\0" + SOUND[2:],
    "huge length": b"\x30\x84\x7f\xff\xff\xff" + SOUND[4:],
    "trailing octets": SOUND + b"\0",
    "cut short": SOUND[:-1],
    "constructed string": SOUND.replace(b"\x0c\x01x", b"\x2c\x01x"),
    "twice": SOUND * 2,
    "PEM": b"-----BEGIN CERTIFICATE-----",
    "deep": nested(30_000),
}


@pytest.mark.parametrize("kind", NOT_DER)
def test_what_is_no_der(log: Log, kind: str, mode: str) -> None:
    """BER, and what is no certificate at all."""
    for one in rules().values():
        gate = MemoryGate(one, log, **MODES[mode])
        assert outcome(gate, substituted(gate, NOT_DER[kind])) is not None


@pytest.mark.parametrize(
    ("pattern", "written", "expected"),
    [
        ("holder.example", b"holder.example", True),
        ("holder.example", b"holder.example\0.evil.example", False),
        ("holder.example", b"holder.example\0", False),
        ("holder.example", b" holder.example", False),
        ("holder.example", b"HOLDER.example.", True),
        ("*.holder.example", b"x.holder.example", True),
        ("*.holder.example", b".holder.example", False),
        ("*.holder.example", b"x.y.holder.example", False),
        ("*.holder.example", b"holder.example", False),
        ("*.holder.example", b"x.holder.example\0.evil.example", False),
    ],
)
def test_names_are_not_cut_short(
    log: Log, version: Version, pattern: str, written: bytes, expected: bool
) -> None:
    """What OpenSSL or a C program would take for the end of a name is none."""
    allowed = evolve(rule("rule", ROOT), allow=(condition(dns_names=[pattern]),))
    gate = MemoryGate([allowed], log)
    client = gate.connect(HOLDER, version)
    present(client.connection, raw(ROOT, KEY, extensions=[names(written)]))
    assert outcome(gate, client) is (None if expected else Reason.NOT_ALLOWED)


@cache
def ladder(rungs: int) -> Credential:
    """:returns: a leaf below so many intermediates, of one key."""
    key = ec.generate_private_key(ec.SECP256R1())
    authority = ROOT
    for number in range(rungs):
        authority = authority.intermediate(f"{number}", key=key)
    return authority.issue("deep")


@pytest.mark.parametrize("kind", ["CA", "pinned", "CRL"])
@pytest.mark.parametrize("rungs", [20, 100, 120])
def test_long_chains(
    log: Log, version: Version, asked: Counter[str], rungs: int, kind: str, mode: str
) -> None:
    """As many intermediates as OpenSSL follows, each of them sound, and more."""
    gate = MemoryGate(rules()[kind], log, now=_moment, **MODES[mode])
    reason = outcome(gate, gate.connect(ladder(rungs), version))
    assert (reason is None) == (kind == "CA" and rungs <= 100)
    assert asked["paths"] <= 2
    assert asked["opinions"] <= 2


@pytest.mark.slow
def test_hostile_intermediates(log: Log, version: Version, mode: str) -> None:
    """The shapes, presented beside a sound leaf: nobody needs them."""
    for shape in SHAPES:
        for kind in ("CA", "pinned"):
            gate = MemoryGate(rules()[kind], log, now=_moment, **MODES[mode])
            client = gate.connect(HOLDER, version)
            try:
                present_also(client.connection, shaped(shape))
            except AssertionError:
                break
            assert outcome(gate, client) is None


def many_primes(bits: int) -> rsa.RSAPrivateKey:
    """:returns: an RSA key that is quick to make, however long, and no good."""
    primes = [rsa.generate_private_key(65537, 1024).private_numbers() for _ in range(bits // 1024)]
    p, q = prod(one.p for one in primes), prod(one.q for one in primes)
    order = lcm(*(factor - 1 for one in primes for factor in (one.p, one.q)))
    d = pow(65537, -1, order)
    numbers = rsa.RSAPrivateNumbers(
        p, q, d, d % lcm(*(one.p - 1 for one in primes)), d % lcm(*(one.q - 1 for one in primes)),
        pow(q, -1, p), rsa.RSAPublicNumbers(65537, p * q),
    )  # fmt: skip
    return numbers.private_key(unsafe_skip_rsa_key_validation=True)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [8192, 16384])
def test_long_rsa_keys(log: Log, version: Version, asked: Counter[str], bits: int) -> None:
    """The longest that OpenSSL takes, with proof: it is one verification."""
    leaf = ROOT.issue("long", key=many_primes(bits))
    for kind in ("CA", "allow", "CRL"):
        gate = MemoryGate(rules()[kind], log)
        assert (outcome(gate, gate.connect(leaf, version)) is None) == (kind != "allow")
    assert asked == Counter()


def test_one_does_not_slow_the_others(log: Log, version: Version, asked: Counter[str]) -> None:
    """While hostile clients hang in the middle of their handshakes, a client's own costs
    what it always does: nothing that one brings along is kept for the next."""
    gate = MemoryGate([rule("low", ROOT, HOLDER), rule("root", NARROW)], log)
    hanging = []
    for shape in ("64 KB of SANs", "4096 policies", "1000 attributes", "deep nesting"):
        client = gate.connect(HOLDER, version)
        present(client.connection, shaped(shape))
        client.step()
        client.step()
        client.raw_send(client.take_outgoing()[:-1])
        hanging.append(client)
    asked.clear()
    assert outcome(gate, gate.connect(HOLDER, version)) is None
    assert asked == Counter()
    for client in hanging:
        client.reset()
    assert {event.get("reason") for event in log.events} == {None, Reason.PEER_GONE}
