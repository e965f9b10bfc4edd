from __future__ import annotations

import ctypes

import pytest

from mtlsgate.run.memory_trim import MemoryTrim, give_back


@pytest.mark.parametrize(
    ("counts", "times"),
    [
        ([], 0),
        ([0, 5000, 5000, 4000, 2501], 0),
        ([0, 5000, 2500], 1),
        ([5000, 0, 0, 0], 1),
        ([5000, 0, 5000, 0], 2),
        ([255, 0], 0),
        ([256, 0], 1),
        # What ebbs slowly is given back as it goes, and not every time.
        (list(range(5000, -1, -1)), 5),
        ([1, 0] * 1000, 0),
    ],
)
def test_memory_is_given_back_when_most_connections_are_gone(counts: list[int], times: int) -> None:
    given: list[None] = []
    trimmer = MemoryTrim(lambda: given.append(None))
    for count in counts:
        trimmer.look(count)
    assert len(given) == times


def test_giving_back_is_harmless() -> None:
    give_back()


def test_where_the_c_library_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others than glibc have no such call."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back()
