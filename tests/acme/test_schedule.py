"""When a certificate is ordered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtlsgate.acme.schedule import (
    HASTENED,
    LONGEST,
    REFUSED,
    SHORTEST,
    UNREACHABLE,
    Life,
    Progress,
)

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LIFE = Life(NOW, NOW + 90 * DAY)


def failed(progress: Progress, now: datetime, **options: object) -> Progress:
    given = {"first": REFUSED, "asked": None, "random": 0.5} | options
    return progress.failed("no", now, **given)  # type: ignore[arg-type]


def test_the_first_one_is_ordered_at_once() -> None:
    assert Progress().due(None, NOW) == NOW


def test_a_certificate_is_renewed_when_two_thirds_of_its_life_are_over() -> None:
    assert Progress().due(LIFE, NOW) == NOW + 60 * DAY


@pytest.mark.parametrize("now", [NOW - DAY, NOW + 90 * DAY + timedelta(seconds=1)])
def test_one_that_is_not_valid_now_is_replaced_at_once(now: datetime) -> None:
    assert Progress().due(LIFE, now) == now


def test_the_ca_may_want_it_earlier_or_later() -> None:
    """RFC 9773; but a tenth of its life is left, whatever the CA says."""
    for at, expected in [(10 * DAY, 10 * DAY), (70 * DAY, 70 * DAY), (500 * DAY, 81 * DAY)]:
        progress = Progress().asked(NOW + at, timedelta(hours=1), NOW)
        assert progress.due(LIFE, NOW) == NOW + expected
        assert not progress.may_ask(NOW + timedelta(minutes=59))
        assert progress.may_ask(NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("again", "kept"),
    [(timedelta(0), timedelta(minutes=1)), (365 * DAY, DAY), (-DAY, timedelta(minutes=1))],
)
def test_a_ca_cannot_have_itself_asked_all_the_time_or_never(
    again: timedelta, kept: timedelta
) -> None:
    assert Progress().asked(None, again, NOW).ask == NOW + kept


def test_failures_have_growing_delays() -> None:
    progress, delays = Progress(), list[timedelta]()
    for _ in range(8):
        progress = failed(progress, NOW)
        delays.append(progress.due(None, NOW) - NOW)
    minutes = [5, 10, 20, 40, 60, 60, 60, 60]
    assert delays == [timedelta(minutes=each) for each in minutes]
    assert progress.failures == 8
    assert progress.succeeded(NOW).failures == 0
    assert progress.succeeded(NOW).problem is None


def test_no_more_than_a_few_tries_an_hour() -> None:
    """Let's Encrypt allows five failed validations of a name."""
    for random in (0.0, 1.0):
        progress, now, tries = Progress(), NOW, 0
        while now < NOW + timedelta(hours=1):
            tries += 1
            progress = failed(progress, now, random=random)
            now = progress.due(None, now)
        assert tries <= 4


def test_gates_that_failed_together_do_not_try_together() -> None:
    early, late = (failed(Progress(), NOW, random=random).wait for random in (0.0, 1.0))
    assert early is not None
    assert late is not None
    assert late - early == REFUSED / 5


def test_a_ca_that_cannot_be_reached_is_tried_again_sooner() -> None:
    progress = failed(Progress(), NOW, first=UNREACHABLE)
    assert progress.due(None, NOW) == NOW + UNREACHABLE
    for _ in range(20):
        progress = failed(progress, NOW, first=UNREACHABLE)
    assert progress.due(None, NOW) == NOW + LONGEST


def test_what_the_ca_asks_for_counts_also_if_an_operator_waits() -> None:
    day = failed(Progress(), NOW, asked=DAY)
    assert day.due(None, NOW) == NOW + DAY
    assert day.hastened().due(None, NOW) == NOW + DAY
    year = failed(Progress(), NOW, asked=365 * DAY)
    assert year.due(None, NOW) == NOW + 30 * DAY
    # It was for that attempt.
    assert failed(day, NOW).due(None, NOW) == NOW + 2 * REFUSED


def test_an_operator_waits_no_longer_than_a_quarter_of_an_hour() -> None:
    progress = Progress()
    assert progress.hastened() == progress
    for _ in range(6):
        progress = failed(progress, NOW)
    assert progress.hastened().due(None, NOW) == NOW + HASTENED
    first = failed(Progress(), NOW)
    assert first.hastened() == first


def test_there_is_a_pause_after_a_success_whatever_came() -> None:
    """A CA may issue certificates that are over before they are there."""
    progress = Progress().succeeded(NOW)
    assert progress.due(None, NOW) == NOW + SHORTEST
    assert progress.hastened().due(None, NOW) == NOW + SHORTEST
