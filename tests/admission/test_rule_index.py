from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_network
from typing import Any
from unittest.mock import patch

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from mtlsgate.admission import AdmissionPolicy, Admitted, Path, Rejection, Rule, policy
from mtlsgate.admission.conditions import Condition, Leaf, clause, read_value
from mtlsgate.admission.rule_index import RuleIndex, _ByCondition
from mtlsgate.certificates.certificate import view, views
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential
from mtlsgate.tls.judge import Judge, Pending
from tests.kits.rules import CONDITIONS, FILES, NOW, PATHS

ROOT = Authority.create("root")
LOWER = ROOT.intermediate("lower")
ALICE = LOWER.issue(
    "alice",
    organization="Acme",
    dns_names=["alice.a.example"],
    uris=["spiffe://td/team/alice"],
    ip_addresses=["10.1.2.3", "2001:db8::1"],
)


def condition(**values: Sequence[str]) -> Condition:
    return Condition(
        tuple(
            clause(attribute, {one: read_value(attribute, one) for one in some})
            for attribute, some in values.items()
        )
    )


# What is found


@frozen(slots=False)
class Stated(Leaf):
    """A leaf that has what a test says."""

    stated: Mapping[str, tuple[Any, ...]] = {}

    def values(self, attribute: str, wide: bool = False) -> tuple[Any, ...]:
        return self.stated.get(attribute, ())


WORDS = st.sampled_from(["a", "b", "xn--c"])
ADDRESSES = st.ip_addresses()
ATTRIBUTES = ["common_names", "dns_names", "uris", "spiffe_ids", "ip_addresses"]


@st.composite
def written_and_had(draw: st.DrawFn, attribute: str) -> tuple[str, Any]:
    """:returns: a value of a clause, and what a leaf may have that it matches."""
    if attribute == "common_names":
        word = draw(WORDS)
        return word, word
    if attribute == "dns_names":
        parent = ".".join(draw(st.lists(WORDS, min_size=1, max_size=3)))
        wild = draw(st.booleans())
        return (f"*.{parent}", f"{draw(WORDS)}.{parent}") if wild else (parent, parent)
    if attribute == "ip_addresses":
        address = draw(ADDRESSES)
        length = draw(st.integers(1, address.max_prefixlen))
        network = ip_network(f"{address}/{length}", strict=False)
        return str(draw(st.sampled_from([network, address]))), address
    front = (
        "spiffe://td" if attribute == "spiffe_ids" else draw(st.sampled_from(["urn:x", "a://b"]))
    )
    wanted = draw(st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=7))
    had = []
    for segment in wanted:
        count = draw(st.integers(1, 3)) if segment == "**" else 1
        had += [draw(WORDS) for _ in range(count)] if "*" in segment else [segment]
    return "/".join([front, *wanted]), "/".join([front, *had])


@pytest.mark.parametrize("attribute", ATTRIBUTES)
@given(data=st.data())
def test_what_matches_is_found(attribute: str, data: st.DataObject) -> None:
    """Of a value and a clause that it satisfies, whatever the pattern."""
    text, value = data.draw(written_and_had(attribute))
    allowing = condition(**{attribute: [text]})
    leaf = Stated(view(ALICE.certificate), {attribute: (value,)})
    assert allowing.allows(leaf)
    rules = [Rule("it", (ROOT.certificate,), allow=(allowing,)), *others(5)]
    assert RuleIndex(rules).candidates_by(leaf, None) == [0]


def others(count: int) -> list[Rule]:
    return [
        Rule(str(n), (ROOT.certificate,), allow=(condition(sha256=[f"{n:064x}"]),))
        for n in range(count)
    ]


@st.composite
def clauses_and_leaf(
    draw: st.DrawFn,
) -> tuple[list[list[Condition]], dict[str, tuple[Any, ...]]]:
    """:returns: the ``allow`` blocks of some rules, and what a leaf has, of
    which much satisfies some of them."""
    pool = {one: draw(st.lists(written_and_had(one), min_size=2, max_size=3)) for one in ATTRIBUTES}
    blocks = [
        [
            condition(
                **{
                    one: draw(
                        st.lists(st.sampled_from(pool[one]), min_size=1, max_size=2).map(texts)
                    )
                    for one in draw(
                        st.lists(st.sampled_from(ATTRIBUTES), min_size=1, max_size=3, unique=True)
                    )
                }
            )
            for _ in range(draw(st.integers(0, 2)))
        ]
        for _ in range(draw(st.integers(1, 5)))
    ]
    stated = {
        one: tuple(value for _, value in draw(st.lists(st.sampled_from(pool[one]), max_size=2)))
        for one in ATTRIBUTES
    }
    return blocks, stated


def texts(drawn: list[tuple[str, Any]]) -> list[str]:
    return [text for text, _ in drawn]


@pytest.mark.slow
@given(drawn=clauses_and_leaf())
def test_nothing_that_allows_is_left_out(
    drawn: tuple[list[list[Condition]], dict[str, tuple[Any, ...]]],
) -> None:
    """A rule that allows a leaf is a candidate for it, however many blocks and
    clauses it has."""
    blocks, stated = drawn
    leaf = Stated(view(ALICE.certificate), stated)
    rules = [
        Rule(str(place), (ROOT.certificate,), allow=tuple(allow))
        for place, allow in enumerate(blocks)
    ]
    found = RuleIndex(rules).candidates_by(leaf, None)
    assert list(found) == sorted(set(found))
    for place, rule in enumerate(rules):
        if not rule.allow or any(one.allows(leaf) for one in rule.allow):
            assert place in found


def test_of_equal_reasons_the_first_is_told() -> None:
    """... in file order, whether or not the rule was looked for."""
    names, organizations = condition(common_names=["alice"]), condition(organizations=["Acme"])
    other = condition(common_names=["bob"])
    rules = (
        Rule("not found", (ROOT.certificate,), allow=(other,), deny=(names,)),
        Rule("found", (ROOT.certificate,), deny=(organizations,)),
    )
    for some, expected in ((rules, "common_names"), (rules[::-1], "organizations")):
        verdict = AdmissionPolicy(some).judge(path(ALICE), datetime.now(UTC))
        assert isinstance(verdict, Rejection)
        assert verdict.reason is Reason.DENIED
        assert verdict.detail == f"a deny block names it by {expected}"


@given(rules=FILES, of=PATHS, deny=CONDITIONS, data=st.data())
def test_verdicts_do_not_depend_on_it(
    rules: list[Rule], of: Path, deny: list[Condition], data: st.DataObject
) -> None:
    """Verdict, reason, depth, text and hopes are those of asking every rule."""
    one = AdmissionPolicy(tuple(rules), tuple(deny))
    # As the second validator might object.
    lengths = data.draw(st.frozensets(st.integers(1, 3)))

    def objection(path: Path) -> Rejection | None:
        return Rejection(Reason.VALIDATORS_DISAGREE, "no", 0) if len(path) in lengths else None

    def everything() -> tuple[object, ...]:
        return (
            one.judge(of, NOW, objection),
            tuple(one.hopes(of, NOW)),
        )

    found = everything()
    with patch.object(_ByCondition, "candidates", lambda self, leaf: set(self.places)):
        assert found == everything()


@given(rules=FILES, of=PATHS, among=st.data())
def test_hopes_among_some(rules: list[Rule], of: Path, among: st.DataObject) -> None:
    """Asked of some CAs, the hopes are those of all but for the other CAs."""
    one = AdmissionPolicy(tuple(rules))
    digests = sorted({digest for rule in rules for digest in rule.authority_digests})
    some = among.draw(st.frozensets(st.sampled_from(digests or [b""])))
    by_digest = {digest: ca for rule in rules for digest, ca in rule.authority_by_digest.items()}
    wanted = {by_digest[digest] for digest in some if digest in by_digest}
    assert tuple(one.hopes(of, NOW, some)) == tuple(ca for ca in one.hopes(of, NOW) if ca in wanted)


# What it costs

COUNT = 200


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rules that were asked, by name."""
    found: list[str] = []

    def counting(whole: Callable[..., Any]) -> Callable[..., Any]:
        def count(rule: Rule, *rest: Any) -> Any:
            found.append(rule.name)
            return whole(rule, *rest)

        return count

    for name in ("verdict_of", "_may_admit"):
        monkeypatch.setattr(policy, name, counting(getattr(policy, name)))
    return found


@cache
def many() -> tuple[Authority, ...]:
    return tuple(Authority.create(str(number)) for number in range(COUNT))


def path(leaf: Credential) -> Path:
    return views((leaf.certificate, LOWER.certificate, ROOT.certificate))


ALLOWED: dict[str, Callable[[int], Condition]] = {
    "common_names": lambda n: condition(common_names=[f"client {n}"]),
    "two": lambda n: condition(organizations=["Acme"], common_names=[f"client {n}"]),
    "dns_names": lambda n: condition(dns_names=[f"*.{n}.example"]),
    "spiffe_ids": lambda n: condition(spiffe_ids=[f"spiffe://td/{n}/**"]),
    "ip_addresses": lambda n: condition(
        ip_addresses=[f"10.1.{n + 3}.0/24", f"2001:db8:{n + 1}::/48"]
    ),
    "sha256": lambda n: condition(sha256=[f"{n:064x}"]),
}


@pytest.mark.parametrize("shape", ["one CA", "a CA each"])
@pytest.mark.parametrize("allowed", ALLOWED)
def test_many_rules_that_allow_others(asked: list[str], shape: str, allowed: str) -> None:
    """Hundreds of rules reject a client without being asked one by one, whether
    they are on the client's CA or on others."""
    rules = [
        Rule(
            str(number),
            (ROOT.certificate if shape == "one CA" else many()[number].certificate,),
            allow=(ALLOWED[allowed](number),),
        )
        for number in range(COUNT)
    ]
    judge = Judge(AdmissionPolicy(tuple(rules)), lambda: datetime.now(UTC))
    verdict = judge.on_path(path(ALICE))
    assert isinstance(verdict, Rejection)
    reason = Reason.NOT_ALLOWED if shape == "one CA" else Reason.UNKNOWN_CA
    assert verdict.reason is reason
    assert len(asked) <= 2


def test_one_of_many_rules(asked: list[str]) -> None:
    """Nor are the others asked before the one that admits."""
    rules = [
        Rule(
            str(number), (ROOT.certificate,), allow=(condition(common_names=[f"client {number}"]),)
        )
        for number in range(COUNT)
    ]
    last = Rule("last", (ROOT.certificate,), allow=(condition(common_names=["alice"]),))
    verdict = AdmissionPolicy((*rules, last)).judge(path(ALICE), datetime.now(UTC))
    assert isinstance(verdict, Admitted)
    assert verdict.rule is last
    assert asked == ["last"]


def test_hope_in_many_cas(asked: list[str]) -> None:
    """Of hundreds of CAs that a client might have another path to, only those
    are looked at that it has a way to."""
    rules = [Rule(str(number), (one.certificate,)) for number, one in enumerate(many())]
    judge = Judge(AdmissionPolicy(tuple(rules)), lambda: datetime.now(UTC))
    pending = judge.on_path(path(ALICE))
    assert isinstance(pending, Pending)
    # One is enough to wait for what else the client presents.
    assert len(asked) <= 1
    verdict = judge.on_presented(
        pending, path(ALICE)[0], views([many()[7].certificate, LOWER.certificate])
    )
    assert isinstance(verdict, Rejection)
    assert verdict.reason is Reason.UNKNOWN_CA
    assert len(asked) <= 1
