"""
Workers that end are replaced at once, and those that keep ending less and less often.
"""

from __future__ import annotations

from twisted.internet.task import Clock

from mtlsgate.workers.backoff import LONGEST, Backoff


def test_a_worker_that_is_killed_is_replaced_at_once() -> None:
    """Twenty times in a row."""
    backoff = Backoff(Clock().seconds)
    assert [backoff.died(had_run=True) for _ in range(20)] == [0.0] * 20
    assert not backoff.is_looping


def test_workers_that_never_run_wait_longer_each_time() -> None:
    """The supervisor never spins, and never gives up."""
    clock = Clock()
    backoff, waits = Backoff(clock.seconds), []
    for _ in range(12):
        waits.append(backoff.died(had_run=False))
        clock.advance(waits[-1])
    assert waits[:4] == [0.0] * 4
    assert all(wait > 1.0 for wait in waits[5:])
    assert max(waits) == LONGEST
    assert backoff.is_looping


def test_time_forgives() -> None:
    """After an hour a death is the first again."""
    clock = Clock()
    backoff = Backoff(clock.seconds)
    for _ in range(9):
        backoff.died(had_run=False)
    clock.advance(3600)
    assert backoff.died(had_run=True) == 0.0
    assert not backoff.is_looping


def test_a_worker_that_runs_ends_the_alarm() -> None:
    """What readiness says is of the present."""
    backoff = Backoff(Clock().seconds)
    for _ in range(9):
        backoff.died(had_run=False)
    assert backoff.is_looping
    backoff.runs()
    assert not backoff.is_looping
