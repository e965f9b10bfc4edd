"""
Drill: the disk under the logs is full, and later has room again.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

from mtlsgate.ctl.client import Remote
from mtlsgate.ctl.gate_address import GateAddress
from tests.kits.drills import Site
from tests.kits.programs import BIN, serving

pytestmark = pytest.mark.slow

SETTINGS = """admin { listen = "unix:gate.sock" }
settings {
  log { file = "gate.log" }
  audit { file = "audit.log" }
"""


def limit_files(pid: int, size: int) -> None:
    """Let no write of a process go beyond that many bytes of a file."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_clients_are_served_while_nothing_can_be_written(site: Site) -> None:
    """A full disk costs lines, which are counted, and no connection. When there is room
    again, both logs say how many lines are missing, and go on."""
    site.change("settings {", SETTINGS)
    socket = site.path / "gate.sock"
    with serving([str(BIN / "mtlsgate"), "run", "--config", str(site.config)], socket):
        gate = Remote(GateAddress(path=socket))
        status = gate.get("/status")
        port = int(status["servers"][0]["listening"][0].rpartition(":")[2])
        limit_files(status["pid"], 1)
        for _ in range(3):
            assert site.is_served(port)
        limit_files(status["pid"], resource.RLIM_INFINITY)
        assert site.is_served(port)
        assert gate.objection("/readyz") is None
    audit = events(site.path / "audit.log")
    (gap,) = (one for one in audit if one["event"] == "lost")
    assert gap["lines"] >= 3
    assert any(one["event"] == "admitted" for one in audit[audit.index(gap) :])
    log = (site.path / "gate.log").read_text()
    assert "Traceback" not in log
    assert "lines of this log are missing" in log
    assert "audit.log is written again" in log
