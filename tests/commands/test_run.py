"""
`mtlsgate run`: what it refuses, in one line; that it runs is tried with the log.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.programs import BIN, run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--uid", "no-such-user"], "mtlsgate run: no such user or group: --uid=no-such-user\n"),
        (
            ["--reactor", "perpetual"],
            "mtlsgate run: The specified reactor does not exist: 'perpetual'.\n",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, options: list[str], said: str) -> None:
    """And status 1; never a traceback."""
    assert run(BIN / "mtlsgate", "run", *options, cwd=tmp_path) == (1, said)
