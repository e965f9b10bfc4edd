"""
A configuration in the shadow of several workers, with the real twistd and real sockets.
"""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.kits.programs import BIN, run
from tests.kits.workers import WorkersGate, echoes, furnish, workers_gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]


def report(here: WorkersGate) -> dict[str, Any]:
    """:returns: what the shadow has found out."""
    found: dict[str, Any] = here.remote.get("/shadow")["shadow"]
    return found


def ctl(config: Path, *arguments: str) -> tuple[int, str]:
    return run(BIN / "mtlsgate", "ctl", "shadow", *arguments, "--config", config)


def counts(here: WorkersGate) -> dict[str, int]:
    """:returns: how many verdicts had each outcome."""
    found: dict[str, int] = {}
    for one in report(here)["counts"]:
        found[one["outcome"]] = found.get(one["outcome"], 0) + one["count"]
    return found


def test_all_workers_have_the_same_shadow(demo: Path, tmp_path: Path) -> None:
    """What one has found out is told with what the others have; a worker that begins later has
    the same; and one file with an error is in the shadow of none."""
    config = furnish(demo, tmp_path, 'audit { file = "audit.log" }')
    text = config.read_text()
    rule = 'client_certificate "clients" {'
    denying = text.replace(rule, f'deny {{ common_names = ["client"] }}\n    {rule}', 1)
    (tmp_path / "next.hcl").write_text(denying)
    (tmp_path / "bad.hcl").write_text(denying.replace("ca.crt", "gone.crt"))
    with workers_gate(config) as here, ExitStack() as open_ones:
        clients = [open_ones.enter_context(here.connect()) for _ in range(4)]
        assert all(map(echoes, clients))
        status, said = ctl(config, str(tmp_path / "bad.hcl"))
        assert status == 1
        assert '"gone.crt" no such file' in said
        assert here.remote.get("/status")["shadow"] is None
        status, said = ctl(config, str(tmp_path / "next.hcl"))
        assert (status, "is in the shadow" in said) == (0, True)
        here.wait_for(lambda: counts(here) == {"would_be_out": 4})
        assert (report(here)["live"], report(here)["closed"]) == (4, 4)
        assert report(here)["identities"] == 1
        [row] = report(here)["clients"]
        assert (row["count"], row["connected"], row["subject"]) == (4, 4, "CN=client")
        assert all(map(echoes, clients))
        # The file is not read again for another worker.
        (tmp_path / "next.hcl").unlink()
        for index in range(2):
            here.kill(index, signal.SIGKILL)
        here.wait_for(lambda: all(one["restarts"] == 1 for one in here.workers()))
        here.wait_for(lambda: all(one["state"] == "running" for one in here.workers()))
        with here.connect() as client:
            assert echoes(client)
            here.wait_for(lambda: counts(here).get("would_be_out") == 1)
        status, said = ctl(config, "off")
        assert (status, said) == (0, "nothing is in the shadow any more\n")
        assert here.remote.get("/shadow") == {"shadow": None}
        here.kill(0)
        here.wait_for(lambda: here.workers()[0]["restarts"] == 2)
        here.wait_for(lambda: here.workers()[0]["state"] == "running")
        assert here.remote.get("/shadow") == {"shadow": None}
    lines = [json.loads(line) for line in (tmp_path / "audit.log").read_text().splitlines()]
    assert [one["action"] for one in lines if one["event"] == "operator"] == [
        "shadow", "shadow_off",
    ]  # fmt: skip
    assert sum(one["event"] == "shadow" and one["live"] for one in lines) == 4


def test_the_settings_name_it_for_all(demo: Path, tmp_path: Path) -> None:
    """A reload reads it again; one that is broken is a warning with the same words everywhere."""
    config = furnish(demo, tmp_path, 'shadow = "next.hcl"')
    with workers_gate(config) as here:
        warnings = here.remote.get("/status")["warnings"]
        [warning] = [one for one in warnings if "shadow" in one]
        assert warning.endswith("next.hcl:1:1: configuration: no such file")
        assert here.remote.get("/status")["shadow"]["since"] is None
        (tmp_path / "next.hcl").write_text(config.read_text())
        reload = here.remote.post("/reload")
        assert reload["succeeded"], reload["problems"]
        status = here.remote.get("/status")
        assert not any("shadow" in one for one in status["warnings"])
        assert status["shadow"]["set_by"] == "settings"
        with here.connect() as client:
            assert echoes(client)
        here.wait_for(lambda: counts(here) == {"same": 1})
