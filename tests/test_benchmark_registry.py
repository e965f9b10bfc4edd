"""The benchmark of registries runs, with few devices and for a moment; its figures mean nothing."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.kits.programs import program, run

BENCHMARK = Path(__file__).parent.parent / "benchmarks" / "registry.py"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not BENCHMARK.is_file(), reason="installed without benchmarks"),
]


def test_it_measures_all_that_it_says() -> None:
    program("redis-server")
    few = ("--devices", "100", "--seconds", "0.1", "--rounds", "1", "--store", "redis")
    status, said = run(sys.executable, BENCHMARK, *few)
    # A bar may be missed here.
    assert status in (0, 1), said
    assert "Traceback" not in said, said
    rows = re.findall(r"^\| redis \| (.*?) \| (.*?) \|", said, re.MULTILINE)
    assert [re.split(r"[:,]? of |[:,] | with | to ", what)[0] for what, _ in rows] == [
        "import",
        "a gate's memory",
        "handshakes for a second",
        "the same",
        "the same",
        "denial",
    ]
    assert all(re.match(r"[0-9,.]+", figure) for _, figure in rows)
