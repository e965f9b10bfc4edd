"""
Drill: the gate may no longer read its own key.
"""

from __future__ import annotations

import signal

import pytest

from tests.kits.drills import Site, echoes, obeying_modes
from tests.kits.programs import BIN, gate, run

pytestmark = pytest.mark.slow


def test_a_reload_without_the_key_changes_nothing(site: Site) -> None:
    """It changes nothing and names the file; the gate serves with the key that it has. Once
    the mode is right, the next reload takes over."""
    command = [*obeying_modes(), str(BIN / "twistd"), "-n", "--pidfile="]
    key = site.path / "server.key"
    with gate(site.config, command) as running:
        port = running.port("demo")
        with site.connect(port) as live:
            key.chmod(0)
            running.process.send_signal(signal.SIGHUP)
            said = running.read_until("server.key")
            assert "permission denied" in said
            running.read_until("epoch 1 stays in force")
            assert echoes(live)
            assert site.is_served(port)
            key.chmod(0o600)
            running.process.send_signal(signal.SIGHUP)
            running.read_until("epoch 2 is in force")
            assert echoes(live)
        assert site.is_served(port)


def test_a_start_without_the_key_is_refused_in_one_line(site: Site) -> None:
    """It is one line, with the file and its place in the configuration, and exit status 1."""
    (site.path / "server.key").chmod(0)
    start = BIN / "mtlsgate", "run", "--config", site.config
    status, said = run(*obeying_modes(), *start)
    assert status == 1
    (line,) = said.splitlines()
    assert line.startswith(f"{site.config}:")
    assert 'private_key_file: "server.key" permission denied' in line
