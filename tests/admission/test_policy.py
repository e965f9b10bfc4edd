"""Who is let in, as a decision table without OpenSSL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsgate.admission import (
    AdmissionPolicy,
    Admitted,
    Path,
    Rejection,
    Rule,
    authorities_of,
    lone_pins_of,
)
from mtlsgate.certificates.certificate import Certificate, views
from mtlsgate.certificates.development_ca import key_usage
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, self_signed
from tests.kits.forgery import edited
from tests.kits.gate import rule

NOW = datetime(2026, 6, 15, 12, 0, 0, tzinfo=UTC)

#: Two roots; under the first an intermediate; leaves of all three.
#: What lets a CA be a pinned client as well.
SIGNS: Any = {
    "extra_extensions": [(key_usage("digital_signature", "key_cert_sign", "crl_sign"), True)]
}
ROOT, OTHER = Authority.create("root", now=NOW, **SIGNS), Authority.create("other", now=NOW)
LOWER = ROOT.intermediate("lower", now=NOW, **SIGNS)
A, B = LOWER.issue("a", now=NOW), LOWER.issue("b", now=NOW)
C = ROOT.issue("c", now=NOW)
SELF = self_signed("self", now=NOW)
DEVICE = self_signed("device", is_ca=True, now=NOW)
LOWER_AS_LEAF = Credential(LOWER.certificate, LOWER.private_key)
ROOT_AS_LEAF = Credential(ROOT.certificate, ROOT.private_key)

UNKNOWN, MISMATCH, CA = Reason.UNKNOWN_CA, Reason.LEAF_MISMATCH, Reason.CA_AS_LEAF


def path(credential: Credential, *above: Authority) -> Path:
    return views((credential.certificate, *(one.certificate for one in above)))


def outcome(
    rules: Sequence[Rule], of: Path, now: datetime = NOW
) -> str | tuple[Reason, int | None]:
    """:returns: the rule's name, or the reason and the depth."""
    verdict = AdmissionPolicy(tuple(rules)).judge(of, now)
    if isinstance(verdict, Admitted):
        assert verdict.path == (of if verdict.rule.authorities else of[:1])
        return verdict.rule.name
    assert verdict.detail
    assert verdict.detail.isprintable()
    return verdict.reason, verdict.depth


FULL = path(A, LOWER, ROOT)
ON_ROOT, ON_LOWER, ON_OTHER = rule("root", ROOT), rule("lower", LOWER), rule("other", OTHER)
PIN_A, PIN_B = rule("pin a", pins=A), rule("pin b", pins=B)
A_UNDER_ROOT, B_UNDER_ROOT = rule("a", ROOT, A), rule("b", ROOT, B)

TABLE: list[tuple[str, list[Rule], Path, str | tuple[Reason, int]]] = [
    ("a CA admits what is under it", [ON_ROOT], FULL, "root"),
    ("an intermediate is a legal CA", [ON_LOWER], path(A, LOWER), "lower"),
    ("also with the root above it", [ON_LOWER], FULL, "lower"),
    ("another CA admits nothing", [ON_OTHER], FULL, (UNKNOWN, 2)),
    ("what is not under the intermediate", [ON_LOWER], path(C, ROOT), (UNKNOWN, 1)),
    ("each CA of a bundle counts", [rule("two", [OTHER, LOWER])], FULL, "two"),
    ("each CA of a bundle counts", [rule("two", [LOWER, OTHER])], FULL, "two"),
    ("a pin alone is its own anchor", [PIN_A], path(A), "pin a"),
    ("a pin alone, whoever issued it", [PIN_A], FULL, "pin a"),
    ("a pin is no other leaf of its CA", [PIN_A], path(B), (UNKNOWN, 0)),
    ("self-signed and pinned", [rule("self", pins=SELF)], path(SELF), "self"),
    ("several pins", [rule("two", pins=[A, B])], path(B), "two"),
    ("CA and leaf: both hold", [A_UNDER_ROOT], FULL, "a"),
    ("CA and leaf: another leaf", [A_UNDER_ROOT], path(B, LOWER, ROOT), (MISMATCH, 0)),
    ("CA and leaf: another CA", [A_UNDER_ROOT], path(A, OTHER), (UNKNOWN, 1)),
    ("CA and leaf: the leaf without the CA", [A_UNDER_ROOT], path(A), (UNKNOWN, 0)),
    ("CA and leaf, several of each", [rule("4", [OTHER, ROOT], [B, A])], FULL, "4"),
    ("rules on one CA add up", [A_UNDER_ROOT, B_UNDER_ROOT], FULL, "a"),
    ("rules on one CA add up", [B_UNDER_ROOT, A_UNDER_ROOT], FULL, "a"),
    ("a pin does not narrow another rule", [B_UNDER_ROOT, ON_ROOT], FULL, "root"),
    ("pins do not cross rules", [rule("x", OTHER, A), rule("y", ROOT, B)], FULL, (MISMATCH, 0)),
    ("pins do not cross rules", [PIN_B, rule("y", ROOT, B)], FULL, (MISMATCH, 0)),
    ("the first rule in the file has it", [ON_ROOT, A_UNDER_ROOT, PIN_A], FULL, "root"),
    ("the first rule in the file has it", [A_UNDER_ROOT, PIN_A, ON_ROOT], FULL, "a"),
    ("the first rule in the file has it", [PIN_A, ON_ROOT, A_UNDER_ROOT], FULL, "pin a"),
    ("the first rule in the file has it", [ON_LOWER, ON_ROOT], FULL, "lower"),
    ("the first rule in the file has it", [ON_ROOT, ON_LOWER], FULL, "root"),
    ("equal rules: the first", [rule("1", ROOT), rule("2", ROOT)], FULL, "1"),
    ("a CA itself is no client of it", [ON_ROOT], path(ROOT_AS_LEAF), (CA, 0)),
    ("nor an intermediate", [ON_ROOT], path(LOWER_AS_LEAF, ROOT), (CA, 0)),
    ("nor when it is itself a rule's CA", [ON_LOWER, ON_ROOT], path(LOWER_AS_LEAF, ROOT), (CA, 0)),
    ("unless pinned alone", [rule("p", pins=LOWER_AS_LEAF)], path(LOWER_AS_LEAF), "p"),
    ("unless pinned", [rule("p", ROOT, LOWER_AS_LEAF)], path(LOWER_AS_LEAF, ROOT), "p"),
    ("a CA is not above itself", [rule("p", ROOT, ROOT_AS_LEAF)], path(ROOT_AS_LEAF), (CA, 0)),
    ("a CA that another rule pins", [rule("p", pins=ROOT_AS_LEAF), ON_ROOT], path(C, ROOT), "root"),
    ("openssl req -x509", [rule("d", pins=DEVICE)], path(DEVICE), "d"),
    (
        "a CA:TRUE pin admits nothing that it issued",
        [rule("p", pins=LOWER_AS_LEAF)],
        path(A, LOWER),
        (UNKNOWN, 1),
    ),
    ("a pin counts at depth 0 only", [PIN_A], path(B) + path(A), (UNKNOWN, 1)),
    ("a pin counts at depth 0 only", [A_UNDER_ROOT], path(B, ROOT) + path(A), (MISMATCH, 0)),
]


@pytest.mark.parametrize(
    ("rules", "of", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_who_is_admitted_by_ca_and_pin(rules: list[Rule], of: Path, expected: object) -> None:
    assert outcome(rules, of) == expected


def test_nobody_where_there_are_no_rules() -> None:
    assert outcome([], FULL) == (UNKNOWN, 2)


def test_a_rule_demands_something() -> None:
    """A rule that would admit anyone cannot be made part of a policy."""
    with pytest.raises(ValueError, match="neither a CA nor a leaf"):
        AdmissionPolicy((ON_ROOT, Rule("nothing")))


def test_the_same_key_issued_again() -> None:
    """A pin is the certificate, not its key or its names."""
    again = LOWER.issue("a", key=A.private_key, serial=A.certificate.serial_number, now=NOW)
    assert again.certificate != A.certificate
    assert outcome([PIN_A], path(again)) == (UNKNOWN, 0)
    assert outcome([A_UNDER_ROOT], path(again, LOWER, ROOT)) == (MISMATCH, 0)


def test_a_ca_of_the_same_name() -> None:
    """A CA is the certificate, not its name."""
    assert outcome([ON_ROOT], path(C, Authority.create("root", now=NOW))) == (UNKNOWN, 1)


SECOND = timedelta(seconds=1)
BEGIN, END = NOW - timedelta(hours=1), NOW + timedelta(days=1)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (BEGIN - SECOND, (Reason.NOT_YET_VALID, 0)),
        (BEGIN - timedelta(microseconds=1), (Reason.NOT_YET_VALID, 0)),
        (BEGIN, "rule"),
        (NOW, "rule"),
        (END, "rule"),
        (END + timedelta(microseconds=999_999), "rule"),
        (END + SECOND, (Reason.EXPIRED, 0)),
    ],
)
@pytest.mark.parametrize("shape", ["ca", "pin", "both"])
def test_validity_includes_its_first_and_last_second(
    now: datetime, expected: object, shape: str
) -> None:
    """Validity includes its first and its last second (RFC 5280, 4.1.2.5), for
    pins as for everyone."""
    leaf = ROOT.issue("edge", not_before=BEGIN, not_after=END)
    rules = {"ca": rule(ca=ROOT), "pin": rule(pins=leaf), "both": rule(ca=ROOT, pins=leaf)}
    assert outcome([rules[shape]], path(leaf, ROOT), now) == expected


def test_validity_in_another_time_zone() -> None:
    leaf = ROOT.issue("edge", not_before=BEGIN, not_after=END)
    far_east = timezone(timedelta(hours=14))
    assert outcome([ON_ROOT], path(leaf, ROOT), END.astimezone(far_east)) == "root"


@pytest.mark.parametrize(
    ("usages", "fits"),
    [
        ((), True),
        (("client_auth",), True),
        (("any_extended_key_usage",), False),
        (("any_extended_key_usage", "client_auth"), True),
        (("server_auth", "client_auth"), True),
        (("server_auth",), False),
        (("code_signing", "email_protection"), False),
    ],
)
@pytest.mark.parametrize("is_ca", [False, True])
def test_extended_key_usage(usages: tuple[str, ...], fits: bool, is_ca: bool) -> None:
    """Where present it must allow client authentication, for pins too."""
    leaf = ROOT.issue("leaf", usages=usages, is_ca=is_ca, now=NOW)
    wrong = (Reason.WRONG_PURPOSE, 0)
    for one in (rule(pins=leaf), rule(ca=ROOT, pins=leaf)):
        assert outcome([one], path(leaf, ROOT)) == ("rule" if fits else wrong)
    unpinned = (CA, 0) if is_ca else "rule"
    assert outcome([rule(ca=ROOT)], path(leaf, ROOT)) == (unpinned if fits else wrong)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # An extension that holds no such thing as it says.
        (bytes.fromhex("0603551d25040c300a"), bytes.fromhex("0603551d25040c310a")),
        # Basic constraints that are none.
        (bytes.fromhex("0603551d130101ff04023000"), bytes.fromhex("0603551d130101ff04023100")),
        # A version that does not exist.
        (bytes.fromhex("a003020102"), bytes.fromhex("a003020104")),
    ],
    ids=["purpose", "constraints", "version"],
)
@pytest.mark.parametrize("shape", ["ca", "pin", "both"])
def test_a_leaf_that_cannot_be_read_is_rejected(old: bytes, new: bytes, shape: str) -> None:
    """What every verdict needs and cannot be read is a rejection, and raises nothing;
    even of a pin."""
    leaf = Certificate(edited(ROOT, ROOT.issue("leafleaf", now=NOW), old, new))
    authorities = (ROOT.certificate,)
    rules = {
        "ca": Rule("rule", authorities),
        "pin": Rule("rule", pins=(leaf,)),
        "both": Rule("rule", authorities, (leaf,)),
    }
    of = (leaf, *views(authorities))
    assert outcome([rules[shape]], of) == (Reason.MALFORMED_CERTIFICATE, 0)


@pytest.mark.parametrize("value", [b"\x16\x08leaf\xff\xffaf", b"\x03\x08\x00eafleaf"])
def test_what_nobody_asks_for_is_not_read(value: bytes) -> None:
    """Such as a common name that is no text."""
    leaf = edited(ROOT, ROOT.issue("leafleaf", now=NOW), b"\x0c\x08leafleaf", value)
    of = (Certificate(leaf), *views([ROOT.certificate]))
    for one in (rule(ca=ROOT), Rule("rule", pins=of[:1]), Rule("rule", of[1:], of[:1])):
        assert outcome([one], of) == "rule"


class Counting(dict[Any, int]):
    """Counts look-ups; has no other way to be read."""

    looked_up = 0

    def __contains__(self, key: object) -> bool:
        self.looked_up += 1
        return super().__contains__(key)

    def __getitem__(self, key: Any) -> int:
        self.looked_up += 1
        return super().__getitem__(key)

    def __iter__(self) -> Any:
        raise AssertionError("a verdict walks through all rules")

    keys = values = items = __iter__


@cache
def leaves(count: int) -> tuple[Credential, ...]:
    return tuple(ROOT.issue(str(number), key=A.private_key, now=NOW) for number in range(count))


@pytest.mark.parametrize("of", [FULL, path(B, LOWER, ROOT), path(C, OTHER), path(DEVICE)])
def test_a_verdict_costs_as_much_with_300_rules_as_with_one(of: Path) -> None:
    """A verdict costs as many look-ups with 300 rules and pins as with one."""
    crowd = leaves(300)
    costs = set()
    for rules in (
        [A_UNDER_ROOT],
        [rule(str(place), ROOT, one) for place, one in enumerate(crowd)] + [A_UNDER_ROOT],
        [rule("many", ROOT, [*crowd, A])],
        [rule("lone", pins=crowd), A_UNDER_ROOT],
    ):
        policy = AdmissionPolicy(tuple(rules))
        tables = []
        for name in ("_by_pin", "_by_authority"):
            tables.append(Counting(getattr(policy._index, name)))
            setattr(policy._index, name, tables[-1])
        policy.judge(of, NOW)
        looked_up = sum(one.looked_up for one in tables)
        costs.add(looked_up)
        assert looked_up <= 2 * len(of)
    # One more where it is found.
    assert max(costs) - min(costs) <= 1


AUTHORITIES = st.lists(st.sampled_from([ROOT, LOWER, OTHER]), max_size=3, unique_by=id)
PINS = st.lists(
    st.sampled_from([A, B, C, DEVICE, LOWER_AS_LEAF, ROOT_AS_LEAF]), max_size=3, unique_by=id
)
RULES = st.builds(rule, st.uuids().map(str), AUTHORITIES, PINS).filter(
    lambda one: bool(one.authorities or one.pins)
)
PATHS = st.sampled_from(
    [
        FULL,
        path(A),
        path(A, LOWER),
        path(B, LOWER, ROOT),
        path(C, ROOT),
        path(C, OTHER),
        path(DEVICE),
        path(LOWER_AS_LEAF),
        path(LOWER_AS_LEAF, ROOT),
        path(ROOT_AS_LEAF),
    ]
)


def holds(one: Rule, of: Path) -> bool:
    """What design.md says of a rule, word for word."""
    leaf, above = of[0], of[1:]
    through_ca = any(authority in above for authority in one.authorities)
    pinned = leaf in [pin.certificate for pin in one.pins]
    is_ca = leaf.is_ca
    return (
        (through_ca or not one.authorities) and (pinned or not one.pins) and (pinned or not is_ca)
    )


@given(rules=st.lists(RULES, max_size=5), of=PATHS)
def test_as_the_design_says(rules: list[Rule], of: Path) -> None:
    """A client is admitted if and only if a rule holds, by the first that does."""
    expected = next((one.name for one in rules if holds(one, of)), None)
    found = outcome(rules, of)
    assert (found if isinstance(found, str) else None) == expected


@given(rules=st.lists(RULES, max_size=4), more=RULES, of=PATHS, data=st.data())
def test_rules_only_add(rules: list[Rule], more: Rule, of: Path, data: st.DataObject) -> None:
    """One more rule, anywhere, rejects nobody who was admitted without it."""
    at = data.draw(st.integers(0, len(rules)))
    if isinstance(outcome(rules, of), str):
        assert isinstance(outcome([*rules[:at], more, *rules[at:]], of), str)


@given(rules=st.lists(RULES, max_size=5), of=PATHS, data=st.data())
def test_the_order_of_rules_changes_only_the_name(
    rules: list[Rule], of: Path, data: st.DataObject
) -> None:
    """The order of rules says which is named, and never who is admitted, or why not."""
    shuffled = data.draw(st.permutations(rules))
    one, other = outcome(rules, of), outcome(shuffled, of)
    assert one == other or (isinstance(one, str) and isinstance(other, str))


def test_the_anchors_are_all_cas_and_lone_pins() -> None:
    """The CAs of all rules, and the pins without one, each once and in order."""
    rules = [A_UNDER_ROOT, PIN_B, rule("x", [LOWER, ROOT], B), rule("y", pins=[B, C])]
    assert authorities_of(rules) == views([ROOT.certificate, LOWER.certificate])
    assert lone_pins_of(rules) == views([B.certificate, C.certificate])


def test_policies_are_values() -> None:
    """Policies are values, and their index does not show."""
    assert AdmissionPolicy((ON_ROOT,)) == AdmissionPolicy((ON_ROOT,))
    assert AdmissionPolicy((ON_ROOT,)) != AdmissionPolicy((ON_LOWER,))
    assert "_by_pin" not in repr(AdmissionPolicy((ON_ROOT,)))
    assert Rejection(UNKNOWN, "x", 1) == Rejection(UNKNOWN, "x", 1)


def test_what_is_remembered_of_a_leaf_is_no_verdict() -> None:
    """The same client is judged by the time of now, and by the rules of now."""
    last = A.certificate.not_valid_after_utc
    first = A.certificate.not_valid_before_utc
    second = timedelta(seconds=1)
    for _ in range(2):
        assert outcome([ON_ROOT], FULL) == "root"
        assert outcome([ON_ROOT], FULL, last) == "root"
        assert outcome([ON_ROOT], FULL, last + second) == (Reason.EXPIRED, 0)
        assert outcome([ON_ROOT], FULL, first - second) == (Reason.NOT_YET_VALID, 0)
        assert outcome([ON_OTHER], FULL) == (UNKNOWN, 2)
        assert outcome([B_UNDER_ROOT], FULL) == (MISMATCH, 0)
        assert outcome([A_UNDER_ROOT], FULL) == "a"
