"""
Every shape of a rule, in handshakes on TLS 1.2 and 1.3.

Each sentence under "What a rule means" in the design has its test here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import pytest
from cryptography import x509

from mtlsgate.admission import Rule
from mtlsgate.certificates.development_ca import key_usage
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version, self_signed
from tests.kits.forgery import without
from tests.kits.gate import Log, MemoryGate, Verdict, admitted, openssl_x509, past, rejected, rule

#: CAs that could well do a TLS handshake, as far as their key usage goes.
ABLE = [(key_usage("digital_signature", "key_cert_sign", "crl_sign"), True)]
ROOT = Authority.create("Root", extra_extensions=ABLE)
UPPER = ROOT.intermediate("Upper", extra_extensions=ABLE)
LOWER = UPPER.intermediate("Lower", extra_extensions=ABLE)
OTHER = Authority.create("Other")
A, B = LOWER.issue("a"), LOWER.issue("b")
DIRECT = ROOT.issue("direct")
STRANGER = OTHER.issue("stranger")
SELF = self_signed("self")

UNKNOWN_CA = Reason.UNKNOWN_CA


def as_client(authority: Authority) -> Credential:
    """A CA that presents itself."""
    parent = authority.parent
    above = () if parent is None else parent.intermediates
    return Credential(authority.certificate, authority.private_key, above)


def certificates(*several: Authority | Credential) -> list[x509.Certificate]:
    return [one.certificate for one in several]


TABLE: list[tuple[str, Sequence[Rule], Credential, Verdict]] = [
    # 1. A CA: the verified path runs through it, at depth 1 or above.
    ("root", [rule(ca=ROOT)], DIRECT, admitted()),
    ("root, through intermediates", [rule(ca=ROOT)], A, admitted()),
    ("intermediate, with no root above it", [rule(ca=LOWER)], A, admitted()),
    ("intermediate further up", [rule(ca=UPPER)], A, admitted()),
    ("intermediate, for who is not under it", [rule(ca=LOWER)], DIRECT, rejected(UNKNOWN_CA)),
    ("another CA", [rule(ca=OTHER)], DIRECT, rejected(UNKNOWN_CA)),
    ("bundle, either of it", [rule(ca=[OTHER, LOWER])], A, admitted()),
    ("bundle, either of it", [rule(ca=[OTHER, LOWER])], STRANGER, admitted()),
    ("bundle, the same path twice", [rule(ca=[LOWER, UPPER, ROOT])], A, admitted()),
    # 2. and 3. CA and leaf: both.
    ("both", [rule(ca=ROOT, pins=A)], A, admitted()),
    ("both, on an intermediate", [rule(ca=LOWER, pins=A)], A, admitted()),
    ("both, another leaf", [rule(ca=ROOT, pins=A)], B, rejected(Reason.LEAF_MISMATCH)),
    ("both, several pins", [rule(ca=ROOT, pins=[A, B])], B, admitted()),
    ("both, of another CA", [rule(ca=OTHER, pins=A)], A, rejected(UNKNOWN_CA, 2)),
    ("both, pin not of the CA", [rule(ca=OTHER, pins=SELF)], SELF, rejected(UNKNOWN_CA)),
    # 4. A leaf alone is its own anchor.
    ("pin, self-signed", [rule(pins=SELF)], SELF, admitted()),
    ("pin, of a CA that is not configured", [rule(pins=A)], A, admitted()),
    ("pin, not the other one", [rule(pins=A)], B, rejected(UNKNOWN_CA, 2)),
    ("pins, all of them", [rule(pins=[SELF, A])], A, admitted()),
    ("pin as openssl req -x509 makes it", [rule(pins=(it := openssl_x509()))], it, admitted()),
    # Of the leaf: not a CA, unless that very certificate is pinned.
    ("root as a client", [rule(ca=ROOT)], as_client(ROOT), rejected(Reason.CA_AS_LEAF)),
    ("intermediate as a client", [rule(ca=ROOT)], as_client(UPPER), rejected(Reason.CA_AS_LEAF)),
    ("configured CA as a client", [rule(ca=LOWER)], as_client(LOWER), rejected(Reason.CA_AS_LEAF)),
    (
        "CA of a pinned rule as a client",
        [rule(ca=LOWER, pins=A)],
        as_client(LOWER),
        rejected(Reason.CA_AS_LEAF),
    ),
    ("CA pinned alone", [rule(pins=as_client(LOWER))], as_client(LOWER), admitted()),
    (
        "CA pinned under its CA",
        [rule(ca=ROOT, pins=as_client(LOWER))],
        as_client(LOWER),
        admitted(),
    ),
    (
        "CA pinned, which is another rule's CA",
        [rule("ca", ca=LOWER), rule("pin", ca=ROOT, pins=as_client(LOWER))],
        as_client(LOWER),
        admitted("pin"),
    ),
    (
        "CA pinned alone, which is another rule's CA: itself",
        [rule("ca", ca=ROOT), rule("pin", pins=as_client(ROOT))],
        as_client(ROOT),
        admitted("pin"),
    ),
    (
        "CA pinned alone, which is another rule's CA: who it issued",
        [rule("pin", pins=as_client(ROOT)), rule("ca", ca=ROOT)],
        DIRECT,
        admitted("ca"),
    ),
    (
        "a pin of the CA that it is itself",
        [rule(ca=ROOT, pins=as_client(ROOT))],
        as_client(ROOT),
        rejected(Reason.CA_AS_LEAF),
    ),
]


@pytest.mark.parametrize(
    ("rules", "credential", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_who_is_admitted_by_which_rule(
    log: Log, version: Version, rules: Sequence[Rule], credential: Credential, expected: Verdict
) -> None:
    assert MemoryGate(rules, log).try_in(credential, version) == expected


def test_a_pinned_leaf_elsewhere_in_the_chain(log: Log, version: Version) -> None:
    """Who appends the pinned leaf to their own chain does not become it: neither
    a stranger nor another client of the same CA, whatever the rule's shape."""
    for one, theirs in [
        (rule(pins=A), Reason.UNKNOWN_CA),
        (rule(ca=ROOT, pins=A), Reason.UNKNOWN_CA),
        (rule(ca=LOWER, pins=A), Reason.LEAF_MISMATCH),
    ]:
        gate = MemoryGate([one], log)
        for chain in permutations(certificates(A, LOWER, UPPER)):
            verdict = gate.try_in(STRANGER, version, chain=chain)
            assert verdict.reason is Reason.UNKNOWN_CA
            verdict = gate.try_in(self_signed("a"), version, chain=chain)
            assert verdict.reason is Reason.UNKNOWN_CA
        for chain in permutations(certificates(A, LOWER, UPPER)):
            verdict = gate.try_in(B, version, chain=chain)
            assert verdict.reason in (theirs, Reason.LEAF_MISMATCH)
        assert gate.try_in(A, version) == admitted()


def test_the_same_key_issued_again(log: Log, version: Version) -> None:
    """A pin is one certificate: not its key under the same names by the same CA,
    nor self-signed."""
    again = LOWER.issue("a", key=A.private_key, serial=A.certificate.serial_number)
    renewed = self_signed("self", key=SELF.private_key)
    assert MemoryGate([rule(ca=ROOT, pins=A)], log).try_in(again, version) == rejected(
        Reason.LEAF_MISMATCH
    )
    assert MemoryGate([rule(pins=A)], log).try_in(again, version).reason is Reason.UNKNOWN_CA
    assert MemoryGate([rule(pins=SELF)], log).try_in(renewed, version).reason is Reason.UNKNOWN_CA


@pytest.mark.parametrize("strict", [True, False])
def test_issued_by_a_pin(log: Log, version: Version, strict: bool) -> None:
    """What a pin issued is not admitted, be the pin CA:FALSE or CA:TRUE."""
    plain, ca, under = self_signed("plain"), openssl_x509("ca"), ROOT.issue("under", is_ca=True)
    for pin, reasons in [
        (plain, {Reason.INVALID_CA}),
        # What openssl req -x509 makes has no key usage, which strict checking minds in a CA.
        (ca, {Reason.UNKNOWN_CA} if not strict else {Reason.PROFILE_VIOLATION}),
        (under, {Reason.UNKNOWN_CA}),
        (A, {Reason.INVALID_CA}),
    ]:
        child = Authority(pin.certificate, pin.private_key).issue("child")
        for sent in ([], certificates(pin)):
            alone = MemoryGate([rule(pins=pin)], log, strict=strict)
            assert alone.try_in(child, version, chain=sent).reason in reasons
            both = MemoryGate([rule(ca=ROOT, pins=pin)], log, strict=strict)
            assert both.try_in(child, version, chain=sent).reason is not None
            assert alone.try_in(pin, version) == admitted()


def test_a_ca_that_may_only_sign(log: Log, version: Version) -> None:
    """The usual CA, whose key usage does not allow for TLS, is refused for that already,
    pinned or not."""
    usual = Authority.create("Usual")
    client = Credential(usual.certificate, usual.private_key)
    for one in (rule(ca=usual), rule(pins=client), rule(ca=usual, pins=client)):
        assert MemoryGate([one], log).try_in(client, version) == rejected(Reason.WRONG_PURPOSE)


def test_a_ca_of_the_same_name(log: Log, version: Version) -> None:
    """Another CA of the same name: its clients are told apart by its key."""
    twin = Authority.create("Root")
    by_twin = twin.issue("direct")
    # With a key identifier OpenSSL does not even try; without one the signature fails.
    for one in (rule(ca=ROOT), rule(ca=ROOT, pins=DIRECT), rule(ca=ROOT, pins=by_twin)):
        gate = MemoryGate([one], log)
        for chain in ([], certificates(twin), certificates(ROOT), certificates(twin, ROOT)):
            verdict = gate.try_in(by_twin, version, chain=chain)
            assert verdict.reason in (Reason.UNKNOWN_CA, Reason.BAD_SIGNATURE)
        lax = MemoryGate([one], log, strict=False)
        bare = without(x509.AuthorityKeyIdentifier, twin, by_twin)
        assert lax.try_in(bare, version) == rejected(Reason.BAD_SIGNATURE)


CHAINS: list[tuple[str, list[x509.Certificate], Verdict]] = [
    ("in order", certificates(LOWER, UPPER), admitted()),
    ("with the root", certificates(LOWER, UPPER, ROOT), admitted()),
    ("in the wrong order", certificates(UPPER, LOWER), admitted()),
    ("root first", certificates(ROOT, UPPER, LOWER), admitted()),
    ("each twice", certificates(LOWER, LOWER, UPPER, UPPER), admitted()),
    ("the leaf again", certificates(A, LOWER, UPPER), admitted()),
    ("with junk after it", certificates(LOWER, UPPER, STRANGER, OTHER), admitted()),
    ("with junk before it", certificates(OTHER, SELF, B, LOWER, UPPER), admitted()),
    (
        "with a namesake",
        [Authority.create("Lower").certificate, *certificates(LOWER, UPPER)],
        admitted(),
    ),
    ("none", [], rejected(UNKNOWN_CA)),
    ("the lower one missing", certificates(UPPER), rejected(UNKNOWN_CA)),
    ("the upper one missing", certificates(LOWER), rejected(UNKNOWN_CA, 1)),
    ("only junk", certificates(STRANGER, OTHER), rejected(UNKNOWN_CA)),
    ("only the root", certificates(ROOT), rejected(UNKNOWN_CA)),
]


@pytest.mark.parametrize(
    ("chain", "expected"), [row[1:] for row in CHAINS], ids=[row[0] for row in CHAINS]
)
def test_intermediates_may_come_in_any_order(
    log: Log, version: Version, chain: list[x509.Certificate], expected: Verdict
) -> None:
    """What a client sends along may be in any order and with anything between,
    as long as a path can be made of it."""
    for one in (rule(ca=ROOT), rule(ca=ROOT, pins=A)):
        assert MemoryGate([one], log).try_in(A, version, chain=chain) == expected


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rules_on_one_ca(log: Log, version: Version, order: tuple[int, int]) -> None:
    """They add up in any order, also through intermediates; who none of them
    names stays out."""
    both = [rule("a", ROOT, A), rule("b", ROOT, B)]
    gate = MemoryGate([both[at] for at in order], log)
    assert gate.try_in(A, version) == admitted("a")
    assert gate.try_in(B, version) == admitted("b")
    assert gate.try_in(DIRECT, version) == rejected(Reason.LEAF_MISMATCH)
    assert gate.try_in(LOWER.issue("c"), version) == rejected(Reason.LEAF_MISMATCH)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_wider_rule_beside_a_pin(log: Log, version: Version, order: tuple[int, int]) -> None:
    """A pin in one rule narrows no other rule; the first that holds is named."""
    both = [rule("pin", ROOT, A), rule("any", ROOT)]
    gate = MemoryGate([both[at] for at in order], log)
    assert gate.try_in(B, version) == admitted("any")
    assert gate.try_in(A, version) == admitted(("pin", "any")[order[0]])


@pytest.mark.parametrize("rules", list(permutations(["lower", "upper", "root"])))
def test_rules_on_the_cas_of_one_path(log: Log, version: Version, rules: tuple[str, ...]) -> None:
    """OpenSSL stops at the lowest of them; the rules on those above hold all the same."""
    of = {
        "lower": rule("lower", LOWER, A),
        "upper": rule("upper", UPPER, B),
        "root": rule("root", ROOT, [A, (c := LOWER.issue("c"))]),
    }
    gate = MemoryGate([of[name] for name in rules], log)
    assert gate.try_in(B, version) == admitted("upper")
    assert gate.try_in(c, version) == admitted("root")
    assert gate.try_in(A, version).rule in ("lower", "root")
    assert gate.try_in(LOWER.issue("d"), version) == rejected(Reason.LEAF_MISMATCH)
    assert gate.try_in(STRANGER, version) == rejected(UNKNOWN_CA)


def test_pins_do_not_cross_rules(log: Log, version: Version) -> None:
    """The CA of one rule and the pin of another make no rule."""
    gate = MemoryGate([rule("x", ROOT, A), rule("y", OTHER, STRANGER), rule("z", OTHER, B)], log)
    assert gate.try_in(A, version) == admitted("x")
    assert gate.try_in(STRANGER, version) == admitted("y")
    assert gate.try_in(B, version) == rejected(Reason.LEAF_MISMATCH)
    assert gate.try_in(OTHER.issue("w"), version) == rejected(Reason.LEAF_MISMATCH)


def test_a_fleet(log: Log, version: Version) -> None:
    """A pin is found among many, with and without a CA."""
    fleet = [ROOT.issue(str(number), key=A.private_key) for number in range(100)]
    for one in (rule(pins=fleet), rule(ca=ROOT, pins=fleet)):
        gate = MemoryGate([one], log)
        assert gate.try_in(fleet[73], version) == admitted()
        assert gate.try_in(DIRECT, version).reason is not None


def test_above_a_pin(log: Log, version: Version) -> None:
    """A pin without a CA is its own anchor: what its client sends along is not part of
    the peer's path, for nobody vouches for it."""
    alike = Authority.create("Lower", key=LOWER.private_key)
    gate = MemoryGate([rule(pins=A)], log)
    for chain in ([], certificates(LOWER, UPPER), certificates(alike), certificates(OTHER)):
        client = gate.connect(A, version, chain=chain)
        assert gate.judge(client) == admitted()
        peer = gate.recorder.protocols[-1].peer
        assert peer is not None
        assert peer.path == (A.certificate,)


def test_an_unfit_issuer_of_a_pin(log: Log, version: Version) -> None:
    """OpenSSL looks at what a pin's client sends along, too, such as an expired
    intermediate.  A pin is its own anchor all the same."""
    old = ROOT.intermediate("Old", not_after=past())
    pin = old.issue("pin")
    gate = MemoryGate([rule(pins=pin)], log)
    for chain in ([], certificates(old)):
        assert gate.try_in(pin, version, chain=chain) == admitted()
        peer = gate.recorder.protocols[-1].peer
        assert peer is not None
        assert peer.path == (pin.certificate,)
    assert gate.try_in(old.issue("other"), version).rule is None
