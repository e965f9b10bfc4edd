"""
Deadlines that come near while the gate runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, LogLevel, capturedLogs, formatEvent

from mtlsgate.load.epoch import Epoch
from mtlsgate.load.expiry import Expiry, Kind
from mtlsgate.run.deadline_watch import INTERVAL, DeadlineWatch

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def days(number: float) -> datetime:
    return NOW + timedelta(days=number)


def epoch(*expiries: Expiry) -> Epoch:
    return Epoch("gate.hcl", (), cast(Any, None), None, (), expiries)


class Watched:
    """
    A watch whose time a test makes.

    :ivar epoch: the one in force.
    :ivar now: the time.
    """

    def __init__(self, *expiries: Expiry) -> None:
        self.epoch = epoch(*expiries)
        self.now = NOW
        self.clock = Clock()
        self.watch = DeadlineWatch(lambda: self.epoch, lambda: self.now, self.clock)
        self.watch.startService()

    def lines_on(self, when: datetime) -> list[str]:
        """:returns: what is logged when that day has come."""
        self.now = when
        with capturedLogs() as events:
            self.clock.advance(INTERVAL)
        return [formatEvent(event) for event in of_the_watch(events)]


def of_the_watch(events: Sequence[LogEvent]) -> Iterator[LogEvent]:
    for event in events:
        if event["log_namespace"] == "mtlsgate.deadlines":
            assert event["log_level"] is LogLevel.warn
            yield event


def test_a_deadline_that_comes_near_is_logged_once() -> None:
    """With what it is, whose it is, and when."""
    watched = Watched(
        Expiry(Kind.SERVER_CERTIFICATE, "door", None, days(40)),
        Expiry(Kind.CRL, "door", "fleet", days(10), (), timedelta(days=1)),
    )
    assert watched.lines_on(days(8.9)) == []
    assert watched.lines_on(days(9.1)) == [
        "door: rule fleet: a revocation list is to be replaced by 2026-06-25 12:00:00Z"
    ]
    assert watched.lines_on(days(9.2)) == []
    assert watched.lines_on(days(11)) == [
        "door: a certificate of the server expires 2026-07-25 12:00:00Z"
    ]
    assert watched.lines_on(days(50)) == []


def test_what_is_near_at_the_load_is_a_warning_of_the_load() -> None:
    """... at start, and of each reload."""
    near = Expiry(Kind.CA, "door", "fleet", days(5))
    watched = Watched(near)
    assert watched.lines_on(days(1)) == []
    watched.epoch = epoch(near, Expiry(Kind.PIN, "door", "fleet", days(20)))
    assert watched.lines_on(days(2)) == []
    assert watched.lines_on(days(3)) == []


def test_each_retirement_is_one() -> None:
    """When one pin is retired, the next comes near."""
    watched = Watched(Expiry(Kind.PIN, "door", "fleet", None, (days(40), days(80))))
    assert len(watched.lines_on(days(11))) == 1
    assert watched.lines_on(days(41)) == []
    assert watched.lines_on(days(51)) == [
        "door: rule fleet: a pin expires or is retired 2026-09-03 12:00:00Z"
    ]


def test_that_a_pin_begins_is_no_warning() -> None:
    """It was meant to."""
    watched = Watched(Expiry(Kind.PIN_NOT_BEFORE, "door", "fleet", None, (days(3),), timedelta.min))
    for number in range(5):
        assert watched.lines_on(days(number)) == []


@pytest.mark.parametrize("name", ["a\nb", "\u202egnp"])
def test_names_are_safe_to_print(name: str) -> None:
    """Of servers and rules, which the configuration chooses."""
    watched = Watched(Expiry(Kind.CA, name, name, days(40)))
    [line] = watched.lines_on(days(11))
    assert line.isprintable()


def test_it_stops() -> None:
    """Nothing is left to be called."""
    watched = Watched()
    watched.watch.stopService()
    assert watched.clock.getDelayedCalls() == []
