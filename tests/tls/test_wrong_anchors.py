"""
Clients of whom OpenSSL prefers a wrong path: through an anchor that has expired,
another CA of the same name, or the wrong one of two intermediates.  They come in on
the right one, and nobody comes in on a path with an error in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest
from cryptography import x509

from mtlsgate.admission import Admitted, Rule
from mtlsgate.certificates.certificate import views
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version
from tests.kits.forgery import without
from tests.kits.gate import Log, MemoryGate, Verdict, admitted, past, rejected, rule

ROOT = Authority.create("Root")
#: An intermediate that has expired, and the same one renewed.
GONE = ROOT.intermediate("Issuing", not_before=past(30), not_after=past())
RENEWED = ROOT.intermediate("Issuing", key=GONE.private_key)
LEAF = RENEWED.issue("leaf")

STRANGER = Authority.create("Stranger").intermediate("Issuing").issue("stranger")


def judged(gate: MemoryGate, credential: Credential, version: Version, chain: Any) -> Verdict:
    """:returns: the verdict, which `explain` agrees with."""
    verdict = gate.try_in(credential, version, chain=chain)
    judge = gate.server.context.judge
    assert judge is not None
    told = judge.on_chain(views((credential.certificate, *chain)), datetime.now(UTC))
    if isinstance(told, Admitted):
        assert verdict == Verdict(told.rule.name)
    else:
        assert verdict == Verdict(None, told.reason, told.depth)
    return verdict


def certificates(*those: Authority) -> list[x509.Certificate]:
    return [one.certificate for one in those]


@pytest.mark.parametrize("bundle", [*permutations([ROOT, GONE])], ids=["root first", "root last"])
def test_an_expired_intermediate_beside_its_root(
    log: Log, version: Version, bundle: Sequence[Authority]
) -> None:
    """The client sends the renewed one, before or after the expired one or alone."""
    gate = MemoryGate([rule(ca=list(bundle))], log)
    for chain in ([RENEWED], [RENEWED, GONE], [GONE, RENEWED]):
        assert judged(gate, LEAF, version, certificates(*chain)) == admitted()
    # With the expired one alone nobody comes in.
    for chain in ([], [GONE]):
        verdict = judged(gate, LEAF, version, certificates(*chain))
        assert verdict == rejected(Reason.EXPIRED, 1)


def test_an_intermediate_that_expires_meanwhile(log: Log, version: Version) -> None:
    """It was an anchor when the gate was loaded."""
    clock = [past(10)]
    gate = MemoryGate([rule(ca=[ROOT, GONE])], log, now=lambda: clock[0])
    clock[0] = datetime.now(UTC)
    assert gate.try_in(LEAF, version, chain=certificates(RENEWED)) == admitted()
    assert gate.try_in(LEAF, version, chain=()) == rejected(Reason.EXPIRED, 1)


def bare(authority: Authority) -> Authority:
    """:returns: the CA without a key identifier."""
    own = Credential(authority.certificate, authority.private_key)
    made = without(x509.SubjectKeyIdentifier, authority, own)
    return Authority(made.certificate, authority.private_key)


SAME = [bare(Authority.create("Same")) for _ in range(12)]
OF_SAME = [
    without(x509.AuthorityKeyIdentifier, one, Authority.issue(one, f"{place}"))
    for place, one in enumerate(SAME)
]


@pytest.mark.parametrize("count", [2, 12])
def test_cas_of_one_name_without_key_identifiers(log: Log, version: Version, count: int) -> None:
    """Each client comes in by the rule of its own CA, in whatever order they stand."""
    rules = [rule(str(place), one) for place, one in enumerate(SAME[:count])]
    for order in (rules, rules[::-1]):
        gate = MemoryGate(order, log, strict=False)
        for place in (0, count - 1):
            assert judged(gate, OF_SAME[place], version, ()) == admitted(str(place))
    one = MemoryGate([rule("all", SAME[:count])], log, strict=False)
    assert judged(one, OF_SAME[count - 1], version, ()) == admitted("all")
    if count < len(SAME):
        # Of none of these.
        verdict = judged(one, OF_SAME[-1], version, ())
        assert verdict == rejected(Reason.BAD_SIGNATURE)


def test_rules_hold_on_the_other_path(log: Log, version: Version) -> None:
    """What the client's own CA demands is demanded."""
    pinned = rule("pinned", SAME[1], OF_SAME[0])
    gate = MemoryGate([rule("first", SAME[0]), pinned], log, strict=False)
    assert judged(gate, OF_SAME[1], version, ()).rule is None
    gate = MemoryGate([rule(ca=[ROOT, GONE], pins=ROOT.issue("other"))], log)
    assert judged(gate, LEAF, version, certificates(RENEWED)).rule is None


ERRORS: dict[str, tuple[Rule, Credential, list[x509.Certificate], Reason]] = {
    "a stranger with an intermediate": (
        rule(ca=ROOT),
        STRANGER,
        list(STRANGER.intermediates),
        Reason.UNKNOWN_CA,
    ),
    "a stranger of a CA with the same name": (
        rule(ca=ROOT),
        Authority.create("Root").intermediate("Issuing").issue("x"),
        [],
        Reason.UNKNOWN_CA,
    ),
    "an expired leaf": (
        rule(ca=ROOT),
        RENEWED.issue("old", not_before=past(2), not_after=past()),
        certificates(RENEWED),
        Reason.EXPIRED,
    ),
    "an expired intermediate": (
        rule(ca=ROOT),
        GONE.issue("x"),
        certificates(GONE),
        Reason.EXPIRED,
    ),
    "an intermediate that was changed": (
        rule(ca=ROOT),
        LEAF,
        [
            x509.load_der_x509_certificate(
                Credential(RENEWED.certificate, RENEWED.private_key).der[:-1]
                + bytes([Credential(RENEWED.certificate, RENEWED.private_key).der[-1] ^ 1])
            )
        ],
        Reason.BAD_SIGNATURE,
    ),
}


@pytest.mark.parametrize("kind", ERRORS)
def test_an_error_admits_nobody(log: Log, version: Version, kind: str) -> None:
    """If there is no other path, OpenSSL's error stands."""
    one, credential, chain, reason = ERRORS[kind]
    assert judged(MemoryGate([one], log), credential, version, chain).reason is reason


def test_a_session_resumes_on_the_right_anchor(log: Log, version: Version) -> None:
    """Who came in on another path resumes, as long as that path holds; who was
    rejected has no session that resumes."""
    now = [datetime.now(UTC)]
    gate = MemoryGate([rule(ca=[ROOT, GONE])], log, now=lambda: now[0], session_lifetime=3600.0)
    client = gate.connect(LEAF, version, chain=certificates(RENEWED))
    assert gate.judge(client) == admitted()
    again = gate.connect(LEAF, version, session=client.session)
    assert gate.judge(again) == admitted()
    assert again.resumed
    now[0] += timedelta(minutes=61)
    late = gate.connect(LEAF, version, session=client.session)
    assert gate.judge(late).reason is Reason.NOT_RESUMABLE
    stranger = gate.connect(STRANGER, version)
    assert gate.judge(stranger) == rejected(Reason.UNKNOWN_CA, 1)
    if stranger.session is not None:
        again = gate.connect(STRANGER, version, session=stranger.session)
        assert gate.judge(again).rule is None


def test_a_pin_is_its_own_anchor(log: Log, version: Version) -> None:
    """Whatever OpenSSL finds wrong with a CA of another rule above it."""
    leaf = GONE.issue("pinned")
    pin, others = rule("pin", pins=leaf), rule("ca", [ROOT, GONE], ROOT.issue("x"))
    for rules in ([pin, others], [others, pin]):
        gate = MemoryGate(rules, log)
        for chain in ([], certificates(GONE), certificates(RENEWED)):
            assert judged(gate, leaf, version, chain) == admitted("pin")
        assert judged(gate, LEAF, version, certificates(RENEWED)).rule is None
    constrained = Authority.create(
        "Narrow", name_constraints=x509.NameConstraints([x509.DNSName("in.example")], None)
    )
    outside = constrained.issue("out", dns_names=["out.example"])
    gate = MemoryGate([rule("ca", constrained), rule("pin", pins=outside)], log)
    assert judged(gate, outside, version, ()) == admitted("pin")
