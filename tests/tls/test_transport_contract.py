"""
The gate's transport does what Twisted's TLS transports do, and where it differs it is
known: `DIFFERENCES`, of which docs/plugins.md tells.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.kits.docs import ROOT
from tests.kits.transport_contract import ROWS

pytestmark = pytest.mark.slow

_BEGUN = ["made", "handshake", "data"]

#: What the client got, and what the protocol was told, in this order, each once.  How a
#: connection ends whose client leaves without close_notify depends on who is quicker.
EXPECTED: dict[str, tuple[object, list[str]]] = {
    "close_by_the_client": ("hi", [*_BEGUN, "ConnectionDone"]),
    "cut_off": ("hi", [*_BEGUN, "ConnectionLost"]),
    "reset_by_the_client": (None, [*_BEGUN, "ConnectionLost"]),
    "lose_connection": (3_000_000, [*_BEGUN, "ConnectionLost"]),
    "abort_connection": (0, [*_BEGUN, "ConnectionAborted"]),
    "write_sequence": (30, [*_BEGUN, "ConnectionLost"]),
    "write_text": (0, [*_BEGUN, "TypeError", "ConnectionLost"]),
    "push_producer": (640 * 65_536, [*_BEGUN, "resume", "pause", "ConnectionLost"]),
    "pull_producer": (100_000, [*_BEGUN, "ConnectionLost"]),
    "producer_twice": (0, [*_BEGUN, "RuntimeError", "ConnectionLost"]),
    "pause_and_resume": (0, [*_BEGUN, "all", "ConnectionLost"]),
    "half_close": (None, [*_BEGUN, "read ended", "ConnectionLost"]),
    "facts": (0, [*_BEGUN, "CN=alice", "x", "IPv4AddressIPv4Address", "ConnectionLost"]),
}

#: What Twisted's own does instead.
DIFFERENCES: dict[str, tuple[object, list[str]]] = {
    # An end by `abortConnection` looks like any other that is not clean.
    "abort_connection": (0, [*_BEGUN, "ConnectionLost"]),
    # What was read already is delivered to a protocol that has paused its transport.
    "pause_and_resume": (0, [*_BEGUN, "while paused", "all", "ConnectionLost"]),
    # `IHalfCloseableProtocol` is not asked: close_notify ends the connection.
    "half_close": (None, [*_BEGUN, "ConnectionLost"]),
}


@pytest.mark.parametrize("reactor", ["epoll", "asyncio", "poll", "select"])
def test_each_row(reactor: str) -> None:
    """... on any reactor that watches descriptors."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.kits.transport_contract", reactor],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    observed: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    assert set(EXPECTED) == set(ROWS)
    for name, expected in EXPECTED.items():
        assert _clean(observed["ours"][name]) == _clean(expected), name
        assert _clean(observed["twisted"][name]) == _clean(DIFFERENCES.get(name, expected)), name


def _clean(row: Any) -> tuple[object, list[str]]:
    """:returns: the row, with one word for both ends that are a matter of who is quicker."""
    answer, notes = row
    if isinstance(answer, str) and "Reset" in answer:
        answer = 0
    gone = ("ConnectionDone", "ConnectionLost")
    return answer, ["gone" if one in gone else one for one in notes]
