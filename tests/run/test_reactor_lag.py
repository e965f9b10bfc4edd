"""
A stalled reactor is measured, and what stalls it is named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from mtlsgate.run.reactor_lag import BETWEEN_WARNINGS, INTERVAL, LATE, ReactorLag, described
from tests.kits.logged import Logged


def guilty(look: Callable[[], object]) -> object:
    """What keeps the reactor from its turns."""
    return look()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lag(clock: Clock) -> ReactorLag:
    """One that is measured by hand; the reactor is in the test."""
    return ReactorLag(clock, clock.seconds, lambda: sys._getframe(2))


@pytest.fixture
def logged() -> Logged:
    return Logged("mtlsgate.reactor")


def stall(lag: ReactorLag, clock: Clock, seconds: float) -> None:
    """Be late for a heartbeat, with the thread looking on."""
    lag.beat()
    clock.advance(INTERVAL + seconds)
    guilty(lag.look)
    guilty(lag.look)
    lag.beat()


def texts(events: list[LogEvent]) -> list[str]:
    return [str(event["log_format"]).partition(" {")[0] for event in events]


def test_heartbeats_are_measured(lag: ReactorLag, clock: Clock) -> None:
    """How late each is; being on time is no lag."""
    for late in (0.0, 0.01, 0.3):
        lag.beat()
        clock.advance(INTERVAL + late)
        lag.beat()
        clock.advance(INTERVAL)
    assert lag.seconds.total == pytest.approx(0.31)
    assert sum(lag.seconds.counts) == 5


def test_a_stall_is_told_with_what_the_reactor_does(
    lag: ReactorLag, clock: Clock, logged: Logged
) -> None:
    """Once, while it lasts; and when it is over, how long it was."""
    with logged:
        stall(lag, clock, 0.5)
    warning, end = logged.events
    assert warning["log_level"].name == "warn"
    assert warning["seconds"] == pytest.approx(0.5)
    first, second, *_ = warning["where"].split(" < ")
    assert (first.split()[-1], second.split()[-1]) == ("guilty", "stall")
    assert first.startswith(f"{__name__}:")
    assert end["log_level"].name == "info"
    assert end["seconds"] == pytest.approx(0.5)


def test_a_little_lag_is_not_told(lag: ReactorLag, clock: Clock, logged: Logged) -> None:
    """Only what clients notice is."""
    with logged:
        for _ in range(10):
            stall(lag, clock, LATE * 0.9)
    assert logged.events == []


def test_warnings_are_rare(lag: ReactorLag, clock: Clock, logged: Logged) -> None:
    """A gate that is always late does not fill its log."""
    with logged:
        for _ in range(20):
            stall(lag, clock, BETWEEN_WARNINGS / 8)
    warnings = [event for event in logged.events if event["log_level"].name == "warn"]
    assert 2 <= len(warnings) <= 3


def test_a_stall_of_all_threads_is_told_when_it_is_over(
    lag: ReactorLag, clock: Clock, logged: Logged
) -> None:
    """As when the process was stopped, or a library held the interpreter's lock."""
    with logged:
        lag.beat()
        clock.advance(3)
        lag.beat()
    [event] = logged.events
    assert "no thread could look" in event["log_format"]
    assert event["seconds"] == pytest.approx(3 - INTERVAL)


def test_a_stack_is_named_in_one_line() -> None:
    """The innermost functions, and not all of a deep one."""

    def deep(depth: int) -> str:
        return described(sys._getframe()) if depth == 0 else deep(depth - 1)

    assert deep(20).count(" < ") == 5
    assert described(None) == "no function"


def test_a_reactor_that_waits_is_not_blamed() -> None:
    """If its thread waits for events, others had the processor."""
    frame: FrameType | None = eval(
        compile("__import__('sys')._getframe()", "poll", "eval"),
        {"__name__": "twisted.internet.epollreactor"},
    )
    assert "wait for events" in described(frame)
