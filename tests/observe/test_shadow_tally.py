"""What is remembered of the clients on which the shadow has another verdict."""

from __future__ import annotations

from datetime import timedelta

import pytest
from twisted.internet.address import IPv4Address

from mtlsgate.admission import Rejection
from mtlsgate.certificates.certificate import view
from mtlsgate.gate.shadow import NotJudged, Outcome, ShadowVerdict, Standing, compare
from mtlsgate.observe.shadow_tally import ShadowTally
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority
from tests.kits.pki import NOW

LEAF = view(Authority.create().issue("leaf").certificate)
IN = Standing(server="door", rule="rule")
BY_ANOTHER = Standing(server="door", rule="another")
ELSEWHERE = Standing(server="back", rule="rule")
OUT = Standing(server="door", rejection=Rejection(Reason.DENIED, "it is denied", 0))
GONE = Standing(server="", rejection=Rejection(Reason.SERVER_REMOVED, "no server listens there"))


def verdict(now: Standing, then: Standing | None, later: int = 0) -> ShadowVerdict:
    return ShadowVerdict(
        at=NOW + timedelta(seconds=later),
        connection=1,
        address=IPv4Address("TCP", "192.0.2.1", 5000),
        leaf=LEAF,
        now=now,
        then=then,
        not_judged=NotJudged.BUSY if then is None else None,
    )


@pytest.mark.parametrize(
    ("now", "then", "expected", "rule", "reason"),
    [
        (IN, IN, Outcome.SAME, "rule", ""),
        (IN, BY_ANOTHER, Outcome.OTHER_RULE, "rule", ""),
        (IN, ELSEWHERE, Outcome.OTHER_SERVER, "rule", ""),
        (IN, OUT, Outcome.WOULD_BE_OUT, "rule", "denied"),
        (IN, GONE, Outcome.WOULD_BE_OUT, "rule", "server_removed"),
        (OUT, BY_ANOTHER, Outcome.WOULD_BE_IN, "another", "denied"),
        (OUT, ELSEWHERE, Outcome.WOULD_BE_IN, "rule", "denied"),
        (OUT, GONE, Outcome.SAME, "", ""),
        (IN, None, Outcome.NOT_JUDGED, "rule", "busy"),
    ],
)
def test_how_two_verdicts_differ(
    now: Standing, then: Standing | None, expected: Outcome, rule: str, reason: str
) -> None:
    """The outcome, with the rule and the reason to look at."""
    found = verdict(now, then)
    assert (found.outcome, found.rule, found.reason) == (expected, rule, reason)
    if then is not None:
        assert compare(now, then) is expected


def outcomes(tally: ShadowTally) -> list[tuple[str, int]]:
    return [(one.outcome, one.count) for one in tally.clients({})]


def test_the_latest_verdict_on_a_client_counts() -> None:
    """A client that is no longer out is not listed as out; but all verdicts are counted."""
    tally = ShadowTally()
    assert tally.note(verdict(IN, OUT))
    assert not tally.note(verdict(IN, OUT, 1))
    assert outcomes(tally) == [("would_be_out", 2)]
    assert tally.note(verdict(IN, BY_ANOTHER, 2))
    assert outcomes(tally) == [("other_rule", 1)]
    assert not tally.note(verdict(IN, IN, 3))
    assert outcomes(tally) == []
    assert sum(one.count for one in tally.outcome_counts()) == 4
    assert tally.count_of(Outcome.WOULD_BE_OUT) == 2
    # It was logged already.
    assert not tally.note(verdict(IN, OUT, 4))


def test_a_rejected_client_makes_nobody_be_forgotten() -> None:
    """It has not shown that it has the key of the certificate that it presents."""
    tally = ShadowTally()
    tally.note(verdict(IN, OUT))
    tally.note(verdict(OUT, OUT, 1))
    assert outcomes(tally) == [("would_be_out", 1)]
    tally.note(verdict(OUT, IN, 2))
    assert outcomes(tally) == [("would_be_out", 1), ("would_be_in", 1)]


def test_who_was_not_judged_stays_as_it_was() -> None:
    """Nothing is known of it that is new."""
    tally = ShadowTally()
    tally.note(verdict(IN, OUT))
    tally.note(verdict(IN, None, 1))
    assert outcomes(tally) == [("would_be_out", 1)]
    assert tally.count_of(Outcome.NOT_JUDGED) == 1


def test_what_is_told_of_a_client() -> None:
    """Everything that a person needs to find it."""
    tally = ShadowTally()
    tally.note(verdict(IN, OUT))
    tally.note(verdict(IN, OUT, 5))
    [told] = tally.clients({("door", LEAF.identity): 3})
    assert told.subject == "CN=leaf"
    assert (told.sha256, told.identity) == (LEAF.sha256.hex(), LEAF.identity.hex())
    assert (told.rule, told.reason, told.reason_then) == ("rule", None, "denied")
    assert (told.server, told.server_then, told.rule_then) == ("door", "door", None)
    assert told.detail_then == "it is denied"
    assert told.address == "192.0.2.1:5000"
    assert (told.first, told.last) == (NOW, NOW + timedelta(seconds=5))
    assert (told.count, told.connected) == (2, 3)
