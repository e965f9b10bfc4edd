"""What rules that name a registry decide, by what it says and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import product

import pytest
from attrs import evolve

from mtlsgate.admission import AdmissionPolicy, Admitted, Rejection, Rule
from mtlsgate.admission.conditions import Condition, leaf_of
from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.admission.key_kinds import KeyKind, RegistryName
from mtlsgate.admission.listings import (
    REMOVED,
    Answer,
    Question,
    Unavailable,
    listed,
    question_of,
    questions_of,
    turned_against,
    unanswered,
)
from mtlsgate.certificates.certificate import view
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority
from tests.kits.rules import FULL, IS_A, IS_B, NOW, ROOT, SECOND, TICK, A, block, pinned, rule

DEVICES, STOLEN = RegistryName("devices", KeyKind.IDENTITY), RegistryName("stolen", KeyKind.SHA256)
LEAF = view(A.certificate)

REGISTERED = rule("registered", ROOT, registry=DEVICES)
PLAIN = rule("plain", ROOT)
NOT_STOLEN = Condition((), STOLEN)

ACTIVE, DENIED = Device("k"), Device("k", DeviceState.DENIED)
BEFORE = Device("k", not_before=NOW + SECOND)
AFTER = Device("k", not_after=NOW - SECOND)
DOWN = Unavailable("it is down")


def judged(
    rules: Sequence[Rule],
    says: Mapping[RegistryName, Answer],
    deny: Sequence[Condition] = (),
    now: datetime = NOW,
) -> Admitted | Rejection:
    """:returns: the verdict, where both registries answer the same for ``deny``."""
    answers = {
        question_of(name, LEAF, wide): answer
        for name, answer in says.items()
        for wide in (False, True)
    }
    return AdmissionPolicy(tuple(rules), tuple(deny)).judge(FULL, now, answers=answers)


def outcome(*args: object, **options: object) -> str | Reason:
    """:returns: the name of the rule that admits, or the reason of the rejection."""
    verdict = judged(*args, **options)  # type: ignore[arg-type]
    if isinstance(verdict, Admitted):
        return verdict.rule.name
    assert verdict.detail.isprintable()
    return verdict.reason


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((), Reason.NOT_REGISTERED),
        ((ACTIVE,), "registered"),
        ((DENIED,), Reason.REGISTRY_DENIED),
        ((BEFORE,), Reason.NOT_REGISTERED),
        ((AFTER,), Reason.NOT_REGISTERED),
        ((evolve(DENIED, not_after=NOW - SECOND),), Reason.REGISTRY_DENIED),
        ((Device("k", not_before=NOW, not_after=NOW),), "registered"),
        ((AFTER, ACTIVE), "registered"),
        ((ACTIVE, DENIED), Reason.REGISTRY_DENIED),
        (DOWN, Reason.REGISTRY_UNAVAILABLE),
    ],
)
def test_the_registry_must_list_the_client_as_active(
    answer: Answer, expected: str | Reason
) -> None:
    """At this instant; one key that is denied outweighs another that is active."""
    assert outcome([REGISTERED], {DEVICES: answer}) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ((), "plain"),
        ((ACTIVE,), Reason.REGISTRY_DENIED),
        ((DENIED,), Reason.REGISTRY_DENIED),
        ((AFTER,), Reason.REGISTRY_DENIED),
        (DOWN, Reason.REGISTRY_UNAVAILABLE),
    ],
)
def test_deny_keeps_out_whoever_is_listed(answer: Answer, expected: str | Reason) -> None:
    """Whatever its state or times, and if that cannot be known; of a rule and of all."""
    assert outcome([PLAIN], {STOLEN: answer}, [NOT_STOLEN]) == expected
    assert outcome([evolve(PLAIN, deny=(NOT_STOLEN,))], {STOLEN: answer}) == expected


def test_a_deny_block_matches_if_all_of_it_does() -> None:
    """Its registry and its other attributes."""
    says: dict[RegistryName, Answer] = {STOLEN: (ACTIVE,)}
    assert outcome([PLAIN], says, [evolve(IS_B, registry=STOLEN)]) == "plain"
    assert outcome([PLAIN], says, [evolve(IS_A, registry=STOLEN)]) == Reason.REGISTRY_DENIED
    assert outcome([PLAIN], {STOLEN: DOWN}, [evolve(IS_B, registry=STOLEN)]) == "plain"


@pytest.mark.parametrize("answer", [(), (DENIED,), (AFTER,), DOWN])
def test_another_rule_may_still_admit(answer: Answer) -> None:
    """In file order: what one rule's registry says keeps nobody out of another."""
    assert outcome([REGISTERED, PLAIN], {DEVICES: answer}) == "plain"
    assert outcome([PLAIN, REGISTERED], {DEVICES: answer}) == "plain"


def test_the_rest_of_the_rule_counts_as_well() -> None:
    """Being listed does not replace a CA, an allow block or a pin."""
    says: dict[RegistryName, Answer] = {DEVICES: (ACTIVE,)}
    assert outcome([evolve(REGISTERED, allow=(IS_B,))], says) == Reason.NOT_ALLOWED
    retired = evolve(REGISTERED, pins=(pinned(None, NOW - SECOND),))
    assert outcome([retired], says) == Reason.PIN_RETIRED


def test_what_was_not_asked_counts_as_favourable_and_is_named() -> None:
    """So that a registry is asked only about clients that nothing else keeps out."""
    verdict = judged([REGISTERED], {}, [NOT_STOLEN])
    assert isinstance(verdict, Admitted)
    assert [one.registry for one in verdict.questions] == ["stolen", "devices"]
    assert unanswered(verdict.questions, {}) == verdict.questions
    plain = judged([PLAIN], {})
    assert isinstance(plain, Admitted)
    assert plain.questions == ()
    never = judged([evolve(REGISTERED, allow=(IS_B,))], {})
    assert isinstance(never, Rejection)


def test_the_end_of_a_listing_counts_to_its_last_instant() -> None:
    """Both instants are inclusive."""
    listing = Device("k", not_before=NOW - SECOND, not_after=NOW + SECOND)
    says: dict[RegistryName, Answer] = {DEVICES: (listing,)}
    assert outcome([REGISTERED], says, now=NOW + SECOND) == "registered"
    assert outcome([REGISTERED], says, now=NOW + SECOND + TICK) == Reason.NOT_REGISTERED
    assert outcome([REGISTERED], says, now=NOW - SECOND - TICK) == Reason.NOT_REGISTERED


def test_the_verdict_has_the_device() -> None:
    """For its attributes and for the time at which it ends."""
    listing = Device("k", attributes={"tenant": "north"})
    verdict = judged([REGISTERED], {DEVICES: (listing,)})
    assert isinstance(verdict, Admitted)
    assert verdict.device == listing


RULES, DENY = question_of(DEVICES, LEAF), question_of(DEVICES, LEAF, True)


@pytest.mark.parametrize(
    ("question", "before", "after", "expected"),
    [
        (RULES, (ACTIVE,), (ACTIVE,), None),
        (RULES, (ACTIVE,), (DENIED,), Reason.REGISTRY_DENIED),
        (RULES, (ACTIVE,), (ACTIVE, DENIED), Reason.REGISTRY_DENIED),
        (RULES, (ACTIVE,), (), Reason.NOT_REGISTERED),
        (RULES, (ACTIVE,), (BEFORE,), Reason.NOT_REGISTERED),
        (RULES, (ACTIVE,), DOWN, Reason.REGISTRY_UNAVAILABLE),
        (RULES, (ACTIVE,), REMOVED, None),
        # Another rule admitted it.
        (RULES, (), (DENIED,), None),
        (RULES, (), (ACTIVE,), None),
        (RULES, (DENIED,), (), None),
        (DENY, (), (), None),
        (DENY, (), (ACTIVE,), Reason.REGISTRY_DENIED),
        (DENY, (), DOWN, Reason.REGISTRY_UNAVAILABLE),
        (DENY, (), REMOVED, None),
        # A block of a rule that did not admit it.
        (DENY, (ACTIVE,), (DENIED,), None),
    ],
)
def test_an_answer_that_was_in_favour_of_a_client_and_no_longer_is(
    question: Question, before: Answer, after: Answer, expected: Reason | None
) -> None:
    """It counts also where the rules that asked are no longer in force."""
    found = turned_against({question: before}, {question: after}, NOW)
    assert (found and found.reason) == expected
    assert turned_against({question: before}, {}, NOW) is None


def test_a_hostile_note_stays_on_its_line() -> None:
    """What a foreign hand wrote appears in the log."""
    verdict = judged([REGISTERED], {DEVICES: (evolve(DENIED, note="a\x1b[2Jb\nc" * 99),)})
    assert isinstance(verdict, Rejection)
    assert verdict.detail.isprintable()
    assert len(verdict.detail) < 200


def test_a_client_without_such_a_name_is_not_listed() -> None:
    """The detail says that the certificate has none."""
    verdict = judged(
        [evolve(REGISTERED, registry=RegistryName("devices", KeyKind.DNS_NAME))],
        {RegistryName("devices", KeyKind.DNS_NAME): ()},
    )
    assert isinstance(verdict, Rejection)
    assert "dns name" in verdict.detail


def test_only_matching_deny_blocks_ask() -> None:
    """A block that does not match otherwise needs no answer."""
    conditions = (evolve(IS_B, registry=STOLEN), block(common_names="a"))
    assert list(questions_of(None, conditions, leaf_of(LEAF))) == []


POLICIES = [
    AdmissionPolicy(rules, deny)
    for rules in (
        (REGISTERED,),
        (REGISTERED, PLAIN),
        (PLAIN, REGISTERED),
        (evolve(REGISTERED, deny=(NOT_STOLEN,)), PLAIN),
        (evolve(REGISTERED, allow=(IS_B,)), evolve(PLAIN, deny=(evolve(IS_A, registry=STOLEN),))),
        (PLAIN,),
    )
    for deny in ((), (NOT_STOLEN,), (evolve(IS_B, registry=STOLEN),))
]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_verdict_is_confirmed_as_it_would_be_given(policy: AdmissionPolicy) -> None:
    """Whatever registries say: the same verdict, and none only where it is another rule's."""
    hopeful = policy.judge(FULL, NOW)
    assert isinstance(hopeful, Admitted)
    says = (None, (), (ACTIVE,), (DENIED,), (BEFORE,), (AFTER,), (ACTIVE, DENIED), DOWN)
    for devices, stolen in product(says, says):
        answers = {
            question_of(name, LEAF, wide): answer
            for name, answer in ((DEVICES, devices), (STOLEN, stolen))
            for wide in (False, True)
            if answer is not None
        }
        verdict = policy.judge(FULL, NOW, answers=answers)
        confirmed = policy.confirmed(hopeful, NOW, answers)
        if isinstance(verdict, Admitted) and verdict.rule is hopeful.rule:
            assert confirmed == verdict
        else:
            assert confirmed is None


def test_a_client_that_is_not_listed_is_told_with_its_keys() -> None:
    """Whoever reads it can list the client by them."""
    verdict = judged([REGISTERED], {DEVICES: ()})
    assert isinstance(verdict, Rejection)
    assert verdict.detail == f'registry "devices": it is not listed there as {LEAF.identity.hex()}'
    names = Authority.create("CA").issue("x", dns_names=[f"{n}.example" for n in range(4)])
    name, leaf = RegistryName("names", KeyKind.DNS_NAME), view(names.certificate)
    rejection = listed(name, leaf, NOW, {question_of(name, leaf): ()})
    assert isinstance(rejection, Rejection)
    assert rejection.detail.endswith("as 0.example, 1.example and 2 more")
