"""
Path validation against x509-limbo, by the gate as a whole.

The cases are in the file that MTLSGATE_LIMBO names; ``.ci/run`` names it where
it is there.  What is pinned here stands in docs/conformance.md, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from attrs import frozen

from mtlsgate.reasons import Reason
from tests.kits.limbo import Case, Verification, load, verdict

VARIABLE = "MTLSGATE_LIMBO"
PAGE = Path(__file__).parent.parent / "docs" / "conformance.md"

SETS = ("core", "profile", "webpki", "crl", "depth")


@frozen
class Score:
    """How many cases ran and matched, and how many were taken for the other kind."""

    run: int
    match: int
    false_accept: int
    false_reject: int

    def __str__(self) -> str:
        return f"{self.run} / {self.match} / {self.false_accept} / {self.false_reject}"


EXPECTED: Mapping[Verification, Mapping[str, Score]] = {
    "strict": {
        "core": Score(91, 91, 0, 0),
        "profile": Score(30, 23, 5, 2),
        "webpki": Score(29, 16, 13, 0),
        "crl": Score(8, 7, 0, 1),
        "depth": Score(6, 6, 0, 0),
    },
    "compatible": {
        "core": Score(91, 91, 0, 0),
        "profile": Score(30, 11, 17, 2),
        "webpki": Score(29, 14, 15, 0),
        "crl": Score(8, 6, 2, 0),
        "depth": Score(6, 6, 0, 0),
    },
    "double": {
        "core": Score(91, 91, 0, 0),
        "profile": Score(30, 23, 5, 2),
        "webpki": Score(29, 17, 12, 0),
        "crl": Score(8, 7, 0, 1),
        "depth": Score(6, 6, 0, 0),
    },
}


@cache
def cases() -> tuple[Case, ...]:
    place = os.environ.get(VARIABLE)
    if not place:
        pytest.skip(f"{VARIABLE} names no file of recast x509-limbo cases")
    return tuple(load(Path(place)))


@cache
def results(verification: Verification, kind: str) -> tuple[Score, tuple[str, ...]]:
    """:returns: the score of a set, and the names of its mismatches."""
    ran = [(case, verdict(case, verification)) for case in cases() if case.set == kind]
    accepted = [case.name for case, one in ran if one.admitted and not case.succeeds]
    rejected = [case.name for case, one in ran if case.succeeds and not one.admitted]
    wrong = accepted + rejected
    score = Score(len(ran), len(ran) - len(wrong), len(accepted), len(rejected))
    return score, tuple(wrong)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("verification", get_args(Verification))
def test_the_score_is_the_one_that_is_documented(verification: Verification, kind: str) -> None:
    """Every case of the set runs, and the score is the one that is documented."""
    score, wrong = results(verification, kind)
    assert score == EXPECTED[verification][kind], wrong


@pytest.mark.parametrize("verification", get_args(Verification))
def test_no_false_accepts_in_what_a_gate_must_get_right(verification: Verification) -> None:
    """No false accept and at most two false rejects in what a gate must get
    right; of the profile, when strict, no less than the best of the others."""
    core, _ = results(verification, "core")
    assert core.false_accept == 0
    assert core.false_reject <= 2
    profile, _ = results(verification, "profile")
    assert profile.match >= 22 or verification == "compatible"


def test_every_case_has_its_key() -> None:
    """None of the cases has to be left out."""
    assert all(case.key is not None for case in cases() if case.set in SETS)


@pytest.mark.parametrize("verification", get_args(Verification))
def test_second_opinion_decides(verification: Verification) -> None:
    """Where OpenSSL says the same, that is the reason.  These are its four gaps,
    and without the second opinion they would have been admitted."""
    decided = {
        case.name
        for case in cases()
        if case.set == "core" and not case.succeeds
        if verdict(case, verification).reason is Reason.VALIDATORS_DISAGREE
    }
    assert decided == {
        "cve::cve-2025-61727",
        "rfc5280::nc::nc-forbids-dnsname-wildcard-san",
        "rfc5280::nc::nc-permits-invalid-dns-san",
        "rfc5280::nc::nc-permits-invalid-email-san",
    }


def test_page_scores() -> None:
    """The page's scoreboard is this one."""
    page = PAGE.read_text()
    for verification, scores in EXPECTED.items():
        cells = " | ".join(str(scores[kind]) for kind in SETS)
        assert f"| mtlsgate, `{verification}` | {cells} |" in page


def test_page_mismatches() -> None:
    """The page explains every mismatch, says under which settings it occurs,
    and explains no other."""
    told = {
        name: set(where.split(", "))
        for name, where in re.findall(r"^\| `(\S+::\S+)` \| ([a-z, ]+) \|", PAGE.read_text(), re.M)
    }
    found: dict[str, set[str]] = {}
    for verification in get_args(Verification):
        for kind in SETS:
            for name in results(verification, kind)[1]:
                found.setdefault(name, set()).add(verification)
    every = set(get_args(Verification))
    assert told == {name: {"all"} if where == every else where for name, where in found.items()}
