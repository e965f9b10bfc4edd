"""What else a rule can state: times of pins, path length, conditions, revocation lists."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from mtlsgate.admission import AdmissionPolicy, Admitted, Path, Pin, Rejection
from mtlsgate.admission.conditions import Condition
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential
from tests.kits.rules import (
    FULL,
    IS_A,
    IS_ACME,
    IS_B,
    LOWER,
    MIDDLE,
    NOW,
    OTHER,
    RENEWED,
    ROOT,
    SECOND,
    SERIAL,
    TICK,
    A,
    B,
    C,
    block,
    lists,
    outcome,
    path,
    pinned,
    rule,
)

# Pins with a time


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
def test_deny_pin_time_depth_and_allow_are_asked_in_this_order(
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


# Revocation lists


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
