"""
Which target a connection goes to: weights, the least used, backups.
"""

from __future__ import annotations

from collections import Counter

import pytest

from mtlsgate.upstream.rotation import Balance, Member, Rotation
from mtlsgate.upstream.state import TargetState, TargetStates, TargetUse
from mtlsgate.upstream.targets import parse_target


def state(name: str) -> TargetState:
    return TargetState(parse_target(f"{name}.example:1"))


def names(rotation: Rotation, count: int, *, now: float = 0.0) -> str:
    """:returns: the first letters of the next targets."""
    chosen = [rotation.choose(now) for _ in range(count)]
    return "".join("-" if one is None else one.target.text[0] for one in chosen)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ({"a": 1, "b": 1, "c": 1}, "abcabc"),
        ({"a": 3, "b": 1}, "aabaaaba"),
        ({"a": 5, "b": 1, "c": 1}, "aabacaa"),
        ({"a": 100, "b": 50}, "abaaba"),
    ],
)
def test_targets_take_turns_by_weight(weights: dict[str, int], expected: str) -> None:
    """A target gets its share, and not all of it at once."""
    rotation = Rotation([Member(state(name), weight) for name, weight in weights.items()], 10.0)
    assert names(rotation, len(expected)) == expected
    rest = Counter(names(rotation, 10 * sum(weights.values())))
    assert rest == {name: 10 * weight for name, weight in weights.items()}


def test_what_is_down_leaves_its_share_to_the_others() -> None:
    """The others' shares stay in proportion."""
    a, b, c = state("a"), state("b"), state("c")
    rotation = Rotation([Member(a, 1), Member(b, 1), Member(c, 2)], 10.0)
    b.failed(0.0, "x")
    assert "b" not in names(rotation, 40)


def test_the_least_used_in_proportion_to_its_weight() -> None:
    """With open connections counted until they end; a tie goes to the one whose turn it is."""
    a, b = state("a"), state("b")
    rotation = Rotation([Member(a), Member(b, 2)], 10.0, "least_connections")
    uses: list[TargetUse] = []
    order = ""
    for _ in range(6):
        chosen = rotation.choose(0.0)
        assert chosen is not None
        uses.append(TargetUse(chosen))
        order += chosen.target.text[0]
    assert Counter(order) == {"a": 2, "b": 4}
    assert (a.in_use, b.in_use) == (2, 4)
    for use in uses:
        if use.state is b:
            use.end()
            use.end()
    assert b.in_use == 0
    assert names(rotation, 1) == "b"


def test_without_connections_the_least_used_take_turns() -> None:
    """Short connections do not all go to the first."""
    rotation = Rotation([Member(state(name)) for name in "abc"], 10.0, "least_connections")
    assert names(rotation, 6) == "abcabc"


@pytest.mark.parametrize("balance", ["round_robin", "least_connections"])
def test_a_backup_is_used_only_while_no_other_is_up(balance: Balance) -> None:
    """And after the others if all are down."""
    a, b, c = state("a"), state("b"), state("c")
    rotation = Rotation(
        [Member(c, is_backup=True), Member(a), Member(b)], retry_after=10.0, balance=balance
    )
    assert names(rotation, 4) == "abab"
    a.failed(0.0, "x")
    assert names(rotation, 2, now=1.0) == "bb"
    b.failed(2.0, "x")
    assert names(rotation, 2, now=3.0) == "cc"
    c.failed(3.0, "x")
    tried = [a.target, b.target]
    assert names(rotation, 1, now=4.0) in "ab"
    assert rotation.choose(4.0, tried) is c
    assert rotation.choose(4.0, [*tried, c.target]) is None
    a.answered()
    assert names(rotation, 2, now=5.0) == "aa"


def test_without_a_time_to_retry_only_an_answer_brings_a_target_back() -> None:
    """As where checks look for it."""
    a, b = state("a"), state("b")
    rotation = Rotation([Member(a), Member(b)], retry_after=None)
    a.failed(0.0, "x")
    assert names(rotation, 3, now=1e9) == "bbb"
    a.answered()
    assert sorted(names(rotation, 2, now=1e9)) == ["a", "b"]


def test_a_state_tells_since_when_it_is_down_and_why() -> None:
    """Repeated failures are counted, and change neither."""
    one = state("a")
    assert (one.is_up, one.down_since, one.problem) == (None, None, None)
    assert one.failed(5.0, "connection refused")
    assert not one.failed(7.0, "no answer within 5 s")
    assert (one.is_up, one.down_since, one.failures) == (False, 5.0, 2)
    assert one.problem == "no answer within 5 s"
    assert one.answered() == 5.0
    assert one.answered() is None
    assert (one.is_up, one.down_since, one.failures) == (True, None, 2)


def test_states_are_those_of_a_server_as_long_as_somebody_has_them() -> None:
    """Two servers may see one target differently; what no epoch has is forgotten."""
    states, target = TargetStates(), parse_target("a.example:1")
    kept = states.of("sql", target)
    kept.failed(0.0, "x")
    assert states.of("sql", parse_target("a.example:1")) is kept
    assert states.of("web", target) is not kept
    del kept
    assert states.of("sql", target).is_up is None
