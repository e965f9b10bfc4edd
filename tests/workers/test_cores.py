"""
``workers = "auto"``: as many as the process gets cores for.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mtlsgate.workers.cores import usable_cores


def cores(directory: Path, quotas: dict[str, str], own: str = "0::/pod/gate\n") -> int:
    """:param quotas: what ``cpu.max`` says, by cgroup."""
    for name, text in quotas.items():
        (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / name / "cpu.max").write_text(text)
    (directory / "own").write_text(own)
    return usable_cores(lambda: 8, directory / "own", directory)


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({}, 8),
        ({"pod/gate": "max 100000\n"}, 8),
        ({"pod/gate": "200000 100000\n"}, 2),
        ({"pod/gate": "150000 100000\n"}, 2),
        ({"pod/gate": "10000 100000\n"}, 1),
        ({"pod": "300000 100000\n", "pod/gate": "max 100000\n"}, 3),
        ({"": "400000 100000\n"}, 4),
        ({"pod/gate": "nonsense\n"}, 8),
        ({"pod/gate": "100000 0\n"}, 8),
    ],
)
def test_the_quota_of_a_container_counts(
    tmp_path: Path, quotas: dict[str, str], expected: int
) -> None:
    """Also that of a cgroup above; part of a core is one."""
    assert cores(tmp_path, quotas) == expected


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    """As on a machine without them, or with version 1 only."""
    assert usable_cores(lambda: 3, tmp_path / "none", tmp_path) == 3
    assert cores(tmp_path, {"pod/gate": "100000 100000\n"}, own="1:cpu:/pod\n") == 8
