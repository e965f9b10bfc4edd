"""
Paths that OpenSSL did not choose: to another CA than the one at which it
stopped, and by another way.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations
from random import Random
from typing import Any

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import X509StoreFlags

from mtlsgate.admission import Path, Pin, Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import Certificate, views
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.certificates.development_ca import key_usage
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version
from mtlsgate.tls.paths import MAX_ATTEMPTS, MAX_PRESENTED, Search
from tests.kits.forgery import sha1_signed
from tests.kits.gate import Log, MemoryGate, Verdict, admitted, condition, past, rejected, rule
from tests.kits.paths import LEAF, LOWER, ROOT, UPPER, Calls, certificates, count_searches, renewed
from tests.kits.revocation import crl, der

STRICT = X509StoreFlags.PARTIAL_CHAIN | X509StoreFlags.X509_STRICT
MISMATCH = rejected(Reason.LEAF_MISMATCH)


#: One issuing CA that two roots vouch for, and a leaf of it.
ONE, TWO = Authority.create("One"), Authority.create("Two")
BY_ONE = ONE.intermediate("Issuing")
BY_TWO = TWO.intermediate("Issuing", key=BY_ONE.private_key)
CROSSED = BY_ONE.issue("crossed", dns_names=["crossed.example"])
OF_ONE, OF_TWO = ONE.issue("one"), TWO.issue("two")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """How often OpenSSL is asked for a path outside its handshakes."""
    return count_searches(monkeypatch)


def found(
    targets: Sequence[Authority],
    path: Path,
    presented: Sequence[Authority] = (),
    configured: Sequence[Authority] | None = None,
) -> list[Path]:
    search = Search(views(certificates(*(targets if configured is None else configured))), STRICT)
    leaf, *taken = path
    there = search.paths(
        leaf,
        (*taken, *views(certificates(*presented))),
        views(certificates(*targets)),
        datetime.now(UTC),
    )
    to = dict[Certificate, Path]()
    for one in there:
        to.setdefault(one[-1], one)
    return [to[one] for one in views(certificates(*targets)) if one in to]


def path(credential: Credential, *above: Authority) -> Path:
    return views((credential.certificate, *certificates(*above)))


class TestSearch:
    """The search by itself."""

    def test_each_ca_above(self) -> None:
        """One path to each, in the order asked for, the configured CAs between."""
        every = [ROOT, LOWER, UPPER]
        assert found([ROOT, UPPER], path(LEAF, LOWER), configured=every) == [
            path(LEAF, LOWER, UPPER, ROOT),
            path(LEAF, LOWER, UPPER),
        ]

    def test_what_the_client_presents(self) -> None:
        """In any order, and also from where the configured CAs end."""
        for presented in permutations([LOWER, UPPER, TWO]):
            assert found([ROOT], path(LEAF, LOWER), presented) == [path(LEAF, LOWER, UPPER, ROOT)]

    def test_nothing_above(self) -> None:
        """A CA that none of the others leads to is not reached, and costs nothing."""
        assert found([LOWER, Authority.create("Upper")], path(LEAF, LOWER)) == [path(LEAF, LOWER)]
        assert found([ROOT], path(LEAF, LOWER)) == []
        assert found([], path(LEAF, LOWER)) == []

    @pytest.mark.parametrize("presented", [*permutations([BY_ONE, BY_TWO])])
    def test_cross_signed(self, presented: Sequence[Authority]) -> None:
        """OpenSSL takes the first of two that fit, and is given the right one first."""
        assert found([ONE, TWO], path(CROSSED, BY_ONE), presented) == [
            path(CROSSED, BY_ONE, ONE),
            path(CROSSED, BY_TWO, TWO),
        ]

    def test_the_nearest(self) -> None:
        """Of two ways to one CA, the shorter."""
        longer = UPPER.intermediate("Issuing", key=BY_ONE.private_key)
        shorter = ROOT.intermediate("Issuing", key=BY_ONE.private_key)
        for presented in permutations([longer, UPPER, shorter]):
            assert found([ROOT], path(CROSSED, BY_ONE), presented) == [path(CROSSED, shorter, ROOT)]

    def test_rekeyed_roots_of_one_name(self) -> None:
        """Key identifiers tell which is meant."""
        old, new = Authority.create("Same"), Authority.create("Same")
        key = BY_ONE.private_key
        both = [old.intermediate("Issuing", key=key), new.intermediate("Issuing", key=key)]
        for presented in permutations(both):
            for target, lower in zip((old, new), both, strict=True):
                assert found([target], path(CROSSED, BY_ONE), presented) == [
                    path(CROSSED, lower, target)
                ]

    def test_circles_end(self) -> None:
        """CAs that issued each other lead no further than once around."""
        first, second = Authority.create("First"), Authority.create("Second")
        crossed = first.intermediate("Second", key=second.private_key)
        back = second.intermediate("First", key=first.private_key)
        leaf = second.issue("a")
        every = [first, second, crossed, back]
        there = found(every, path(leaf, crossed))
        assert [one[-1] for one in there] == list(views(certificates(first, second, crossed, back)))
        assert all(len(set(each)) == len(each) for each in there)

    def test_targets_are_bounded(self, calls: Calls) -> None:
        """However many CAs of one name and key there are."""
        roots = [renewed(ROOT) for _ in range(2 * MAX_ATTEMPTS)]
        assert len(found(roots, path(LEAF, LOWER), [UPPER])) == MAX_ATTEMPTS
        assert len(calls) == MAX_ATTEMPTS
        assert all(size <= MAX_PRESENTED for size, _ in calls)

    @pytest.mark.parametrize("number", [MAX_PRESENTED - 10, 200])
    def test_unrelated_certificates_are_left_out(self, calls: Calls, number: int) -> None:
        """Unrelated certificates are left out; of those that have an issuer's name, so
        many are looked at.  In whatever order they come, it ends alike."""
        junk = [Authority.create(f"Junk {each}") for each in range(number)]
        twins = [TWO.intermediate("Upper", key=ROOT.private_key) for _ in range(number)]
        for more, expected in (
            (junk, path(LEAF, LOWER, UPPER, ROOT)),
            (twins, path(LEAF, LOWER, UPPER, ROOT) if number < MAX_PRESENTED else None),
        ):
            outcomes = set()
            for seed in range(4):
                presented = [UPPER, *more]
                Random(seed).shuffle(presented)
                outcomes.add(tuple(found([ROOT], path(LEAF, LOWER), presented)))
            [outcome] = outcomes
            if expected is not None:
                assert outcome == (expected,)
        assert all(size <= MAX_PRESENTED for size, _ in calls)
        assert len(calls) <= 8


def crossings() -> Iterator[tuple[list[Rule], Verdict]]:
    """Rules, and what becomes of the cross-signed leaf."""
    mine = rule("mine", ONE, CROSSED)
    one, two = rule("one", ONE, OF_ONE), rule("two", TWO, OF_TWO)
    yes, no = condition(dns_names=["crossed.example"]), condition(dns_names=["x.example"])
    yield [one, rule("other", TWO)], admitted("other")
    yield [two, rule("other", ONE)], admitted("other")
    yield [mine, two], admitted("mine")
    yield [one, evolve(rule("other", TWO), allow=(yes,))], admitted("other")
    yield [one, evolve(rule("other", TWO), allow=(no,))], rejected(Reason.NOT_ALLOWED)
    yield [one, evolve(rule("other", TWO), deny=(yes,))], rejected(Reason.DENIED)
    yield [evolve(rule("no", ONE), allow=(no,)), rule("other", TWO)], admitted("other")
    yield [evolve(rule("deep", ONE), max_depth=0), rule("other", TWO)], admitted("other")
    yield [one, two], MISMATCH
    # The cross-signed CAs are themselves configured.
    yield [rule("low", BY_ONE, OF_ONE), rule("other", TWO)], admitted("other")
    yield [rule("low", BY_ONE, OF_ONE), rule("other", BY_TWO)], admitted("other")
    yield [rule("low", BY_TWO, OF_ONE), rule("other", BY_ONE)], admitted("other")
    yield [rule("low", [BY_ONE, BY_TWO], OF_ONE), rule("other", ONE)], admitted("other")
    yield [rule("low", [BY_ONE, BY_TWO], OF_ONE), two], MISMATCH


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("presented", [*permutations([BY_ONE, BY_TWO])], ids=["1-2", "2-1"])
@pytest.mark.parametrize(("rules", "expected"), [*crossings()])
def test_a_cross_signed_leaf(
    log: Log,
    version: Version,
    rules: list[Rule],
    expected: Verdict,
    presented: Sequence[Authority],
    swapped: bool,
) -> None:
    """Whichever root OpenSSL comes to, in whatever order rules and intermediates stand."""
    gate = MemoryGate(rules[::-1] if swapped else rules, log)
    verdict = gate.try_in(CROSSED, version, chain=certificates(*presented))
    if expected.rule is None and verdict != expected:
        # The path that OpenSSL takes is the one that is told of.
        assert verdict == MISMATCH
    else:
        assert verdict == expected


@pytest.mark.parametrize("presented", [*permutations([BY_ONE, BY_TWO])], ids=["1-2", "2-1"])
def test_one_root_alone(log: Log, presented: Sequence[Authority]) -> None:
    """Only one of the two roots is known, and its intermediate may come second."""
    for root in (ONE, TWO):
        verdict = MemoryGate([rule(ca=root)], log).try_in(CROSSED, chain=certificates(*presented))
        assert verdict == admitted()


def test_a_shorter_anchor(log: Log, version: Version) -> None:
    """The issuing CA is configured as a root of its own, beside the root above it."""
    short = renewed(BY_ONE)
    for rules, expected in (
        ([rule("short", short), rule("long", ONE, OF_ONE)], "short"),
        ([rule("short", short, OF_ONE), rule("long", ONE)], "long"),
        ([evolve(rule("short", short), max_depth=0), rule("long", ONE, OF_ONE)], "short"),
        ([rule("short", short, OF_ONE), evolve(rule("long", ONE), max_depth=1)], "long"),
    ):
        for order in (rules, rules[::-1]):
            assert MemoryGate(order, log).try_in(CROSSED, version) == admitted(expected)
    gate = MemoryGate([rule("short", short, OF_ONE), evolve(rule("long", ONE), max_depth=0)], log)
    assert gate.try_in(CROSSED, version).reason is not None


def test_a_shorter_way_to_the_same_ca(log: Log, version: Version) -> None:
    """OpenSSL went round by more intermediates than the rule allows."""
    middle = ONE.intermediate("Middle")
    longer = middle.intermediate("Issuing", key=BY_ONE.private_key)
    chain = certificates(longer, middle, BY_ONE)
    for depth, expected in ((2, admitted()), (1, admitted()), (0, None)):
        gate = MemoryGate([evolve(rule(ca=ONE), max_depth=depth)], log)
        verdict = gate.try_in(CROSSED, version, chain=chain)
        assert verdict == (expected or rejected(Reason.PATH_TOO_LONG, 2 if depth else 3))


def test_around_a_revoked_intermediate(log: Log, version: Version) -> None:
    """A CA that was certified again, and whose former certificate is revoked."""
    again = ONE.intermediate("Issuing", key=BY_ONE.private_key)
    now = datetime.now(UTC)
    lists = [
        *parse_crls(der(crl(ONE, [BY_ONE], now=now))),
        *parse_crls(der(crl(BY_ONE, now=now))),
    ]
    gate = MemoryGate([evolve(rule(ca=ONE), revocation=Revocation(tuple(lists)))], log)
    for chain in permutations(certificates(BY_ONE, again)):
        assert gate.try_in(CROSSED, version, chain=list(chain)) == admitted()
    assert gate.try_in(CROSSED, version) == rejected(Reason.REVOKED, 1)


def test_rule_on_a_root_and_another_on_its_intermediate(log: Log, version: Version) -> None:
    """Rules on one CA and on one below it add up, in either order."""
    rules = [rule("lower", LOWER, LOWER.issue("x")), rule("root", ROOT)]
    for order in (rules, rules[::-1]):
        assert MemoryGate(order, log).try_in(LEAF, version) == admitted("root")
        # Without the intermediate between the two nothing leads there.
        gate = MemoryGate(order, log)
        assert gate.try_in(LEAF, version, chain=certificates(LOWER)) == MISMATCH


@pytest.mark.parametrize("swapped", [False, True])
def test_a_pin_that_is_an_intermediate(log: Log, version: Version, swapped: bool) -> None:
    """A CA:TRUE pin keeps nobody out whom another rule's CA lets in."""
    rules = [rule("pin", pins=Credential(UPPER.certificate, UPPER.private_key)), rule("root", ROOT)]
    gate = MemoryGate(rules[::-1] if swapped else rules, log)
    assert gate.try_in(LEAF, version) == admitted("root")
    assert MemoryGate(rules[:1], log).try_in(LEAF, version).reason is Reason.UNKNOWN_CA


def test_a_lone_pin_and_a_ca(log: Log, version: Version) -> None:
    """A leaf that is pinned without a CA comes in by a CA's rule as well, if that holds,
    and once the pin is retired by nothing else."""
    retired = Rule("pin", pins=(Pin(LEAF.certificate, "old", retire_after=past()),))
    for name, expected in (("leaf.example", admitted("ca")), ("x.example", None)):
        ca = evolve(rule("ca", ROOT), allow=(condition(dns_names=[name]),))
        for rules in ([retired, ca], [ca, retired]):
            verdict = MemoryGate(rules, log).try_in(LEAF, version)
            assert verdict == (expected or rejected(Reason.NOT_ALLOWED))
        current = [ca, rule("pin", pins=LEAF)]
        assert MemoryGate(current, log).try_in(LEAF, version) == (expected or admitted("pin"))
        assert MemoryGate(current[::-1], log).try_in(LEAF, version) == admitted("pin")


#: A day's validity, in the past and to come.
GONE: dict[str, Any] = {"not_before": past(2), "not_after": past()}
TO_COME: dict[str, Any] = {"not_before": datetime.now(UTC) + timedelta(days=1)}
NARROW = x509.NameConstraints([x509.DNSName("in.example")], None)
SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

UNFIT: dict[str, dict[str, Any]] = {
    "expired": GONE,
    "not yet valid": TO_COME,
    "path length": {"path_length": 0},
    "name constraints": {"name_constraints": NARROW},
    "extended key usage": {"extra_extensions": [(SERVERS, False)]},
    "key usage": {"extra_extensions": [(key_usage("crl_sign"), True)]},
    "critical extension": {"extra_extensions": [(x509.SubjectKeyIdentifier(bytes(20)), True)]},
    "weak key": {"key": rsa.generate_private_key(65537, 1024)},
}


@pytest.mark.parametrize("where", ["configured", "presented"])
@pytest.mark.parametrize("options", UNFIT.values(), ids=UNFIT)
def test_the_upper_ca_must_be_fit(
    log: Log, version: Version, options: dict[str, Any], where: str
) -> None:
    """What holds for a rule's CA, or for one between, holds as well where another rule's
    CA stands below it: who is rejected with one rule is rejected with both."""
    if where == "configured":
        upper = root = Authority.create("Upper", **options)
    else:
        root = Authority.create("Top")
        upper = root.intermediate("Upper", **options)
    lower = upper.intermediate("Lower", path_length=0)
    leaf = lower.issue("leaf", dns_names=["x.out.example"])
    other = lower.issue("other")
    assert MemoryGate([rule("root", root)], log).try_in(leaf, version).reason is not None
    both = MemoryGate([rule("lower", lower, other), rule("root", root)], log)
    assert both.try_in(leaf, version) == MISMATCH
    # What the lower rule says holds by itself.
    assert both.try_in(other, version) == admitted("lower")


def test_the_signature_of_the_upper_ca_must_be_strong(log: Log, version: Version) -> None:
    """SHA-1 counts where the weakly signed certificate is no longer the anchor."""
    upper = Authority.create("Upper", key=rsa.generate_private_key(65537, 2048))
    made = upper.intermediate("Lower")
    weak = sha1_signed(upper, Credential(made.certificate, made.private_key))
    lower = Authority(weak.certificate, made.private_key, parent=upper)
    leaf, other = lower.issue("leaf"), lower.issue("other")
    assert MemoryGate([rule("upper", upper)], log).try_in(leaf, version) == rejected(
        Reason.WEAK_KEY, 1
    )
    both = MemoryGate([rule("lower", lower, other), rule("upper", upper)], log)
    assert both.try_in(leaf, version) == MISMATCH
