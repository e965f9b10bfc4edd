"""
What several workers know of targets, in one answer.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from mtlsgate.observe.server_status import TargetStatus
from mtlsgate.observe.target_metrics import target_metrics
from mtlsgate.workers.summing import counters_of, sum_metrics, sum_target

NOW = datetime(2026, 6, 15, tzinfo=UTC)
UNKNOWN = TargetStatus(
    address="a.example:1", up=True, is_known=False, down_since=None, last_error=None,
    last_dial=None, dials=0, seconds_dialling=0.0, failures=0, in_use=0, weight=2, backup=False,
)  # fmt: skip
UP = evolve(UNKNOWN, is_known=True, last_dial=0.25, dials=2, seconds_dialling=0.5, in_use=1)
DOWN = evolve(
    UNKNOWN, up=False, is_known=True, down_since=NOW, last_error="connection refused", failures=3
)


@pytest.mark.parametrize(
    ("found", "up", "is_known"),
    [
        ([UNKNOWN, UNKNOWN], True, False),
        ([UNKNOWN, UP], True, True),
        ([DOWN, UP], True, True),
        ([DOWN, UNKNOWN], False, True),
        ([DOWN, DOWN], False, True),
    ],
)
def test_a_target_is_up_if_a_worker_found_it_up(
    found: list[TargetStatus], up: bool, is_known: bool
) -> None:
    """One that only failed is down, whatever workers think that never tried it."""
    told = sum_target(found)
    assert (told.up, told.is_known) == (up, is_known)
    assert told.down_since == (None if up else NOW)


def test_what_is_counted_of_targets_is_added() -> None:
    """The first failure is since when it is down."""
    told = sum_target([evolve(DOWN, down_since=NOW + timedelta(1)), DOWN])
    assert (told.failures, told.down_since, told.weight) == (6, NOW, 2)
    told = sum_target([UP, DOWN, UP])
    assert (told.dials, told.seconds_dialling, told.in_use, told.failures) == (4, 1.0, 2, 3)
    assert (told.last_dial, told.last_error) == (0.25, "connection refused")


def test_metrics_of_targets_are_added_also_of_workers_that_are_gone() -> None:
    """Connections, times and failures; a target is up if it is for a worker."""
    one = list(target_metrics([("sql", UP)]))
    other = list(target_metrics([("sql", DOWN)]))
    found = sum_metrics({"1": one, "2": other}, counters_of(one), [])
    values = {sample.name: sample.value for family in found for sample in family.samples}
    assert values == {
        "mtlsgate_target_up": 1.0,
        "mtlsgate_target_connections": 1.0,
        "mtlsgate_target_dial_seconds_count": 4.0,
        "mtlsgate_target_dial_seconds_sum": 1.0,
        "mtlsgate_target_failures_total": 3.0,
    }
