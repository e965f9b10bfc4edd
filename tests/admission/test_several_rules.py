"""What several rules decide together: the reason of a rejection, the CAs that another
path could lead to, and what an added rule or condition can change."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import combinations_with_replacement

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from mtlsgate.admission import AdmissionPolicy, Path, Rule
from mtlsgate.admission.conditions import Condition, Leaf
from mtlsgate.reasons import Reason
from tests.kits.rules import (
    CONDITIONS,
    FILES,
    FULL,
    IS_A,
    IS_B,
    LOWER,
    NOW,
    OTHER,
    PATHS,
    PINNED_CA,
    ROOT,
    RULES,
    SECOND,
    SERIAL,
    A,
    B,
    is_admitted,
    lists,
    outcome,
    path,
    pinned,
    rule,
)

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


@pytest.mark.parametrize(
    ("low", "high"), list(combinations_with_replacement(range(len(LADDER)), 2))
)
def test_the_reason_of_several(low: int, high: int) -> None:
    """It is that of the rule that the client came furthest with, in any order."""
    one, (other, expected) = LADDER[low][0], LADDER[high]
    assert outcome([one, other]) == outcome([other, one]) == expected


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
def test_cas_of_rules_that_only_the_path_keeps_from_matching(
    rules: list[Rule], of: Path, expected: list[str]
) -> None:
    """Only of rules that nothing but the path keeps from holding, in file order."""
    assert hopes(rules, of) == expected


def test_no_hope_for_the_unfit_and_the_denied() -> None:
    assert hopes([ELSEWHERE], deny=[IS_A]) == []
    assert not any(AdmissionPolicy((ELSEWHERE,)).hopes(FULL, NOW + timedelta(days=4000)))
    wrong = ROOT.issue("server", usages=["server_auth"], now=NOW)
    assert hopes([ELSEWHERE], path(wrong, ROOT)) == []


@given(rules=FILES, more=RULES, of=PATHS, deny=CONDITIONS, data=st.data())
def test_a_rule_more_rejects_nobody(
    rules: list[Rule], more: Rule, of: Path, deny: list[Condition], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(rules)))
    if is_admitted(rules, of, deny):
        assert is_admitted([*rules[:at], more, *rules[at:]], of, deny)


@given(rules=FILES.filter(bool), of=PATHS, deny=CONDITIONS, more=CONDITIONS, data=st.data())
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
def test_the_order_of_rules_does_not_matter(
    rules: list[Rule], of: Path, deny: list[Condition], data: st.DataObject
) -> None:
    """... to who is admitted, nor to the reason of who is not."""
    shuffled = data.draw(st.permutations(rules))
    one, other = outcome(rules, of, deny=deny), outcome(shuffled, of, deny=deny)
    assert one == other or not (isinstance(one, Reason) or isinstance(other, Reason))


@given(rules=FILES, of=PATHS, deny=CONDITIONS)
def test_rules_are_judged_each_for_itself(
    rules: list[Rule], of: Path, deny: list[Condition]
) -> None:
    """Who is let in by several is let in by one, and the first such is named."""
    alone = [one.name for one in rules if is_admitted([one], of, deny)]
    found = outcome(rules, of, deny=deny)
    assert (None if isinstance(found, Reason) else found) == (alone[0] if alone else None)


@given(rules=FILES, of=PATHS, deny=CONDITIONS)
def test_hope_is_reasonable(rules: list[Rule], of: Path, deny: list[Condition]) -> None:
    """No CA twice, and none for who is denied."""
    found = tuple(AdmissionPolicy(tuple(rules), tuple(deny)).hopes(of, NOW))
    assert len(set(found)) == len(found)
    if any(condition.denies(Leaf(of[0])) for condition in deny):
        assert found == ()
