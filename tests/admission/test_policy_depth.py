"""Rules with conditions, pins with a time, and how many rules come to one verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.admission import AdmissionPolicy, Admitted, Path, Pin, Rejection, Rule
from mtlsgate.admission.conditions import Condition, Leaf, clause, read_value
from mtlsgate.admission.revocation import Revocation, parse_crls
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, self_signed
from tests.kits.revocation import crl

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SECOND, TICK = timedelta(seconds=1), timedelta(microseconds=1)

ROOT, OTHER = Authority.create("root", now=NOW), Authority.create("other", now=NOW)
MIDDLE = ROOT.intermediate("middle", now=NOW)
LOWER = MIDDLE.intermediate("lower", now=NOW)
#: Issued by its own former key: the same name above and below.
RENEWED = ROOT.intermediate("root", now=NOW)
A = LOWER.issue("a", organization="Acme", now=NOW)
B = LOWER.issue("b", organization="Acme", now=NOW)
C = ROOT.issue("c", now=NOW)
PINNED_CA = Credential(LOWER.certificate, LOWER.private_key)
LONE = self_signed("lone", now=NOW)


def path(credential: Credential, *above: Authority) -> Path:
    return (credential.certificate, *(one.certificate for one in above))


def block(**stated: str) -> Condition:
    return Condition(
        tuple(clause(name, {text: read_value(name, text)}) for name, text in stated.items())
    )


FULL = path(A, LOWER, MIDDLE, ROOT)
IS_A, IS_B, IS_C = (block(common_names=one) for one in "abc")
IS_ACME = block(organizations="Acme")


def rule(name: str, *authorities: Authority, **options: object) -> Rule:
    return Rule(name, tuple(one.certificate for one in authorities), **options)  # type: ignore[arg-type]


def outcome(
    rules: Sequence[Rule], of: Path = FULL, now: datetime = NOW, deny: Sequence[Condition] = ()
) -> str | Reason:
    """:returns: the name of the rule that admits, or the reason of the rejection."""
    verdict = AdmissionPolicy(tuple(rules), tuple(deny)).judge(of, now)
    if isinstance(verdict, Admitted):
        return verdict.rule.name
    assert verdict.detail.isprintable()
    return verdict.reason


# Pins with a time


def pinned(begin: datetime | None, end: datetime | None, name: str | None = "p") -> Pin:
    return Pin(A.certificate, name, begin, end)


EARLY, RETIRED = Reason.PIN_NOT_YET_VALID, Reason.PIN_RETIRED


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (None, None, "rule"),
        (NOW - SECOND, None, "rule"),
        (NOW, None, "rule"),
        (NOW + TICK, None, EARLY),
        (NOW + SECOND, None, EARLY),
        (None, NOW + SECOND, "rule"),
        (None, NOW, "rule"),
        (None, NOW - TICK, RETIRED),
        (None, NOW - SECOND, RETIRED),
        (NOW, NOW, "rule"),
        (NOW - SECOND, NOW + SECOND, "rule"),
        (NOW + SECOND, NOW + 2 * SECOND, EARLY),
        (NOW - 2 * SECOND, NOW - SECOND, RETIRED),
    ],
)
@pytest.mark.parametrize("shape", ["lone", "with a CA"])
def test_a_pins_time(
    begin: datetime | None, end: datetime | None, expected: str | Reason, shape: str
) -> None:
    """From ``not_before`` on, and up to and including ``retire_after``."""
    authorities = () if shape == "lone" else (ROOT,)
    assert outcome([rule("rule", *authorities, pins=(pinned(begin, end),))]) == expected


def test_a_retired_pin_stops_without_a_reload() -> None:
    """The same policy, a moment later."""
    policy = AdmissionPolicy((rule("rule", ROOT, pins=(pinned(None, NOW),)),))
    assert isinstance(policy.judge(FULL, NOW), Admitted)
    verdict = policy.judge(FULL, NOW + SECOND)
    assert verdict == Rejection(RETIRED, "the pin was retired at 2026-06-15T12:00:00+00:00", 0)


@pytest.mark.parametrize(
    ("pins", "expected"),
    [
        ([("old", None, NOW - SECOND), ("new", NOW - SECOND, None)], "new"),
        ([("new", NOW, None), ("old", None, NOW)], "new"),
        ([("old", None, NOW), ("new", NOW, None)], "old"),
        ([("old", None, NOW - SECOND), ("new", NOW + SECOND, None)], RETIRED),
        ([("new", NOW + SECOND, None), ("old", None, NOW - SECOND)], RETIRED),
        ([("one", NOW + SECOND, None), (None, None, None)], None),
    ],
)
def test_one_leaf_pinned_twice(
    pins: list[tuple[str | None, datetime | None, datetime | None]], expected: str | Reason | None
) -> None:
    """The first that counts now is the one that admits."""
    one = rule("rule", ROOT, pins=[pinned(begin, end, name) for name, begin, end in pins])
    verdict = AdmissionPolicy((one,)).judge(FULL, NOW)
    if isinstance(expected, Reason):
        assert isinstance(verdict, Rejection)
        assert verdict.reason is expected
    else:
        assert isinstance(verdict, Admitted)
        assert verdict.pin is not None
        assert verdict.pin.name == expected


def test_a_pins_time_is_none_of_other_leaves() -> None:
    """A retired pin does not keep others of its rule out, nor lets them in."""
    one = rule("rule", ROOT, pins=(pinned(None, NOW - SECOND), Pin(B.certificate)))
    assert outcome([one], path(B, LOWER, ROOT)) == "rule"
    assert outcome([one], path(C, ROOT)) is Reason.LEAF_MISMATCH


# max_depth


@pytest.mark.parametrize(
    ("of", "authorities", "needed"),
    [
        (path(C, ROOT), (ROOT,), 0),
        (path(A, LOWER), (LOWER,), 0),
        (path(A, LOWER, MIDDLE), (MIDDLE,), 1),
        (FULL, (ROOT,), 2),
        (FULL, (MIDDLE,), 1),
        (FULL, (LOWER,), 0),
        # Counted up to the nearest CA of the rule.
        (FULL, (ROOT, LOWER), 0),
        (FULL, (ROOT, MIDDLE), 1),
    ],
)
@pytest.mark.parametrize("pins", [(), (A, C)], ids=["", "pins"])
def test_max_depth(
    of: Path, authorities: tuple[Authority, ...], needed: int, pins: tuple[Credential, ...]
) -> None:
    """The intermediates between leaf and CA, and as many as allowed."""
    for limit in (None, *range(4)):
        one = rule(
            "rule", *authorities, max_depth=limit, pins=tuple(pin.certificate for pin in pins)
        )
        fits = limit is None or needed <= limit
        assert outcome([one], of) == ("rule" if fits else Reason.PATH_TOO_LONG)


def test_max_depth_and_self_issued() -> None:
    """A CA's new key, vouched for by its old one, is no intermediate (RFC 5280, 4.2.1.9)."""
    leaf = RENEWED.issue("x", now=NOW)
    assert outcome([rule("rule", ROOT, max_depth=0)], path(leaf, RENEWED, ROOT)) == "rule"


def test_max_depth_is_each_rules_own() -> None:
    narrow, wide = rule("narrow", ROOT, max_depth=0), rule("wide", ROOT, max_depth=2)
    assert outcome([narrow, wide]) == outcome([wide, narrow]) == "wide"
    verdict = AdmissionPolicy((narrow,)).judge(FULL, NOW)
    assert verdict == Rejection(Reason.PATH_TOO_LONG, "2 intermediates, where the rule allows 0", 3)


# Conditions


@pytest.mark.parametrize(
    ("options", "deny", "expected"),
    [
        ({"allow": (IS_A,)}, (), "rule"),
        ({"allow": (IS_B,)}, (), Reason.NOT_ALLOWED),
        ({"allow": (IS_B, IS_A)}, (), "rule"),
        ({"allow": (block(common_names="a", organizations="Acme"),)}, (), "rule"),
        ({"allow": (block(common_names="a", organizations="x"),)}, (), Reason.NOT_ALLOWED),
        ({"deny": (IS_A,)}, (), Reason.DENIED),
        ({"deny": (IS_B,)}, (), "rule"),
        ({"deny": (IS_B, IS_A)}, (), Reason.DENIED),
        ({"deny": (block(common_names="a", organizations="x"),)}, (), "rule"),
        ({"allow": (IS_A,), "deny": (IS_ACME,)}, (), Reason.DENIED),
        ({"allow": (IS_B,), "deny": (IS_A,)}, (), Reason.DENIED),
        ({}, (IS_A,), Reason.DENIED),
        ({}, (IS_B,), "rule"),
        ({"allow": (IS_A,)}, (IS_ACME,), Reason.DENIED),
        ({"pins": (A.certificate,)}, (IS_A,), Reason.DENIED),
        ({"pins": (A.certificate,), "deny": (IS_A,)}, (), Reason.DENIED),
        ({"pins": (A.certificate,), "allow": (IS_A,)}, (), "rule"),
        ({"pins": (A.certificate,), "allow": (IS_B,)}, (), Reason.NOT_ALLOWED),
        ({"pins": (pinned(None, NOW - SECOND),), "deny": (IS_A,)}, (), Reason.DENIED),
        ({"pins": (pinned(None, NOW - SECOND),), "allow": (IS_B,)}, (), RETIRED),
        ({"max_depth": 0, "deny": (IS_A,)}, (), Reason.DENIED),
        ({"max_depth": 0, "allow": (IS_B,)}, (), Reason.PATH_TOO_LONG),
    ],
)
@pytest.mark.parametrize("authorities", [(ROOT,), (LOWER, ROOT)], ids=["root", "two"])
def test_conditions(
    options: dict[str, object],
    deny: tuple[Condition, ...],
    expected: object,
    authorities: tuple[Authority, ...],
) -> None:
    """Denied first; then the pin's time, the depth, and what is allowed."""
    if "max_depth" in options:
        authorities = (ROOT,)
    assert outcome([rule("rule", *authorities, **options)], deny=deny) == expected


def test_lone_pins_have_conditions() -> None:
    for options, expected in (
        ({"allow": (IS_A,)}, "rule"),
        ({"allow": (IS_B,)}, Reason.NOT_ALLOWED),
        ({"deny": (IS_A,)}, Reason.DENIED),
    ):
        one = rule("rule", pins=(A.certificate,), **options)
        assert outcome([one], path(A)) == expected


def test_a_rules_deny_is_its_own() -> None:
    denying, open_ = rule("denying", ROOT, deny=(IS_A,)), rule("open", ROOT)
    assert outcome([denying, open_]) == outcome([open_, denying]) == "open"


def test_what_is_always_so_comes_before_deny() -> None:
    """A client that is both expired and denied is told of as expired."""
    late = NOW + timedelta(days=4000)
    assert outcome([rule("rule", ROOT)], now=late, deny=[IS_A]) is Reason.EXPIRED


def test_a_stranger_is_told_nothing_of_deny_blocks() -> None:
    """A rule's deny is heard only where its CA and pin hold."""
    one = rule("rule", OTHER, deny=(IS_A,))
    assert outcome([one]) is Reason.UNKNOWN_CA
    assert outcome([rule("rule", ROOT, pins=(B.certificate,), deny=(IS_A,))]) is (
        Reason.LEAF_MISMATCH
    )


# Revocation among the rest


def lists(*revoked: int, of: Authority = LOWER) -> Revocation:
    made = crl(of, revoked, now=NOW)
    return Revocation(parse_crls(made.public_bytes(Encoding.DER)))


SERIAL = A.certificate.serial_number


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"revocation": lists()}, "rule"),
        ({"revocation": lists(SERIAL)}, Reason.REVOKED),
        ({"revocation": lists(SERIAL), "allow": (IS_A,)}, Reason.REVOKED),
        ({"revocation": lists(SERIAL), "allow": (IS_B,)}, Reason.NOT_ALLOWED),
        ({"revocation": lists(SERIAL), "deny": (IS_A,)}, Reason.DENIED),
        ({"revocation": lists(SERIAL), "pins": (A.certificate,)}, Reason.REVOKED),
        ({"revocation": lists(SERIAL), "pins": (pinned(None, NOW - SECOND),)}, RETIRED),
        ({"revocation": lists(SERIAL), "pins": (B.certificate,)}, Reason.LEAF_MISMATCH),
        ({"revocation": lists(of=OTHER)}, Reason.CRL_MISSING),
    ],
)
def test_revocation_comes_last(options: dict[str, object], expected: object) -> None:
    assert outcome([rule("rule", LOWER, **options)], path(A, LOWER)) == expected


def test_one_rules_lists_are_none_of_another() -> None:
    strict, plain = rule("strict", LOWER, revocation=lists(SERIAL)), rule("plain", LOWER)
    of = path(A, LOWER)
    assert outcome([strict, plain], of) == outcome([plain, strict], of) == "plain"


# Several rules that all reject


ENDED = rule("ended", ROOT, pins=(pinned(None, NOW - SECOND),))
BEGINNING = rule("beginning", ROOT, pins=(pinned(NOW + SECOND, None),))
SHALLOW = rule("shallow", ROOT, max_depth=0)
FOR_B = rule("for b", ROOT, allow=(IS_B,))
NOT_A = rule("not a", ROOT, deny=(IS_A,))
REVOKING = rule("revoking", LOWER, revocation=lists(SERIAL))
UNLISTED = rule("unlisted", LOWER, revocation=lists(of=OTHER))
PIN_B = rule("pin b", ROOT, pins=(B.certificate,))
ELSEWHERE = rule("elsewhere", OTHER)

#: From the one a client came least far with to the one it came furthest with.
LADDER: list[tuple[Rule, Reason]] = [
    (ELSEWHERE, Reason.UNKNOWN_CA),
    (PIN_B, Reason.LEAF_MISMATCH),
    (NOT_A, Reason.DENIED),
    (BEGINNING, Reason.PIN_NOT_YET_VALID),
    (ENDED, Reason.PIN_RETIRED),
    (SHALLOW, Reason.PATH_TOO_LONG),
    (FOR_B, Reason.NOT_ALLOWED),
    (UNLISTED, Reason.CRL_MISSING),
    (REVOKING, Reason.REVOKED),
]


@pytest.mark.parametrize("low", range(len(LADDER)))
@pytest.mark.parametrize("high", range(len(LADDER)))
def test_the_reason_of_several(low: int, high: int) -> None:
    """It is that of the rule that the client came furthest with, in any order."""
    one, other = LADDER[low][0], LADDER[high][0]
    expected = LADDER[max(low, high)][1]
    assert outcome([one, other]) == outcome([other, one]) == expected


# hopes


def hopes(rules: Sequence[Rule], of: Path = FULL, deny: Sequence[Condition] = ()) -> list[str]:
    policy = AdmissionPolicy(tuple(rules), tuple(deny))
    found = policy.hopes(of, NOW)
    return [one.subject.rfc4514_string().removeprefix("CN=") for one in found]


@pytest.mark.parametrize(
    ("rules", "of", "expected"),
    [
        ([ELSEWHERE], FULL, ["other"]),
        ([ELSEWHERE, rule("lower", LOWER)], FULL, ["other"]),
        ([rule("two", OTHER, ROOT)], path(A, LOWER), ["other", "root"]),
        ([rule("1", ROOT), rule("2", OTHER), rule("3", ROOT)], path(A, LOWER), ["root", "other"]),
        ([rule("a", ROOT, pins=(A.certificate,))], path(A, LOWER), ["root"]),
        ([rule("b", ROOT, pins=(B.certificate,))], path(A, LOWER), []),
        ([rule("ended", ROOT, pins=(pinned(None, NOW - SECOND),))], path(A, LOWER), []),
        ([rule("deny", ROOT, deny=(IS_A,))], path(A, LOWER), []),
        ([rule("allow b", ROOT, allow=(IS_B,))], path(A, LOWER), []),
        ([rule("allow a", ROOT, allow=(IS_A,))], path(A, LOWER), ["root"]),
        # What lies between is in the way, and may be another.
        ([rule("shallow", ROOT, max_depth=0)], FULL, ["root"]),
        ([rule("shallow", ROOT, OTHER, max_depth=0)], FULL, ["root", "other"]),
        ([rule("listed", ROOT, revocation=lists())], FULL, ["root"]),
        ([rule("revoked", ROOT, revocation=lists(SERIAL))], FULL, []),
        ([rule("ca", ROOT)], path(PINNED_CA), []),
        ([rule("ca", ROOT, pins=(PINNED_CA.certificate,))], path(PINNED_CA), ["root"]),
    ],
)
def test_hopes(rules: list[Rule], of: Path, expected: list[str]) -> None:
    """Only of rules that nothing but the path keeps from holding, in file order."""
    assert hopes(rules, of) == expected


def test_no_hope_for_the_unfit_and_the_denied() -> None:
    assert hopes([ELSEWHERE], deny=[IS_A]) == []
    assert AdmissionPolicy((ELSEWHERE,)).hopes(FULL, NOW + timedelta(days=4000)) == ()
    wrong = ROOT.issue("server", usages=["server_auth"], now=NOW)
    assert hopes([ELSEWHERE], path(wrong, ROOT)) == []


# Properties

CONDITIONS = st.lists(st.sampled_from([IS_A, IS_B, IS_C, IS_ACME]), max_size=2, unique_by=id)
TIMES = st.sampled_from([None, NOW - SECOND, NOW, NOW + SECOND])
PINS = st.lists(
    st.builds(
        Pin,
        st.sampled_from([one.certificate for one in (A, B, C, LONE, PINNED_CA)]),
        st.none(),
        TIMES,
        TIMES,
    ),
    max_size=2,
)
RULES = st.builds(
    Rule,
    st.uuids().map(str),
    st.lists(
        st.sampled_from([one.certificate for one in (ROOT, MIDDLE, LOWER, OTHER)]), max_size=2
    ).map(tuple),
    PINS.map(tuple),
    CONDITIONS.map(tuple),
    CONDITIONS.map(tuple),
    st.sampled_from([None, None, 0, 1, 2]),
    st.sampled_from([None, None, lists(), lists(SERIAL), lists(of=OTHER)]),
).filter(lambda one: bool(one.authorities or one.pins))
PATHS = st.sampled_from(
    [
        FULL,
        path(A),
        path(A, LOWER),
        path(B, LOWER, MIDDLE),
        path(C, ROOT),
        path(LONE),
        path(PINNED_CA),
        path(PINNED_CA, MIDDLE, ROOT),
    ]
)
FILES = st.lists(RULES, max_size=5, unique_by=lambda one: one.name)


def is_admitted(rules: Sequence[Rule], of: Path, deny: Sequence[Condition] = ()) -> bool:
    return isinstance(AdmissionPolicy(tuple(rules), tuple(deny)).judge(of, NOW), Admitted)


@given(rules=FILES, more=RULES, of=PATHS, deny=CONDITIONS, data=st.data())
@settings(deadline=None)
def test_a_rule_more_rejects_nobody(
    rules: list[Rule], more: Rule, of: Path, deny: list[Condition], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(rules)))
    if is_admitted(rules, of, deny):
        assert is_admitted([*rules[:at], more, *rules[at:]], of, deny)


@given(rules=FILES.filter(bool), of=PATHS, deny=CONDITIONS, more=CONDITIONS, data=st.data())
@settings(deadline=None)
def test_a_deny_more_admits_nobody(
    rules: list[Rule],
    of: Path,
    deny: list[Condition],
    more: list[Condition],
    data: st.DataObject,
) -> None:
    """... in a rule or in the server."""
    at = data.draw(st.integers(0, len(rules) - 1))
    stricter = list(rules)
    stricter[at] = evolve(rules[at], deny=(*rules[at].deny, *more))
    if not is_admitted(rules, of, deny):
        assert not is_admitted(rules, of, [*deny, *more])
        assert not is_admitted(stricter, of, deny)


@given(rules=FILES, of=PATHS, deny=CONDITIONS, data=st.data())
@settings(deadline=None)
def test_the_order_of_rules_does_not_matter(
    rules: list[Rule], of: Path, deny: list[Condition], data: st.DataObject
) -> None:
    """... to who is admitted, nor to the reason of who is not."""
    shuffled = data.draw(st.permutations(rules))
    one, other = outcome(rules, of, deny=deny), outcome(shuffled, of, deny=deny)
    assert one == other or not (isinstance(one, Reason) or isinstance(other, Reason))


@given(rules=FILES, of=PATHS, deny=CONDITIONS)
@settings(deadline=None)
def test_rules_are_judged_each_for_itself(
    rules: list[Rule], of: Path, deny: list[Condition]
) -> None:
    """Who is let in by several is let in by one, and the first such is named."""
    alone = [one.name for one in rules if is_admitted([one], of, deny)]
    found = outcome(rules, of, deny=deny)
    assert (None if isinstance(found, Reason) else found) == (alone[0] if alone else None)


@given(rules=FILES, of=PATHS, deny=CONDITIONS)
@settings(deadline=None)
def test_hope_is_reasonable(rules: list[Rule], of: Path, deny: list[Condition]) -> None:
    """No CA twice, and none for who is denied."""
    found = AdmissionPolicy(tuple(rules), tuple(deny)).hopes(of, NOW)
    assert len(set(found)) == len(found)
    if any(condition.denies(Leaf(of[0])) for condition in deny):
        assert found == ()
