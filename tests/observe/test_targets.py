"""
What is told of targets: in the status, in metrics, and by readiness.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from mtlsgate.load.readiness import backends_of
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.state import TargetUse
from tests.kits.admin import Running
from tests.kits.gate import Log
from tests.kits.pki import NOW, server

READINESS = 'settings {\nreadiness = "targets"\n}\n'
TARGETS = 'target = ["127.0.0.1:1", { address = "unix:/run/x.sock", weight = 3, backup = true }]\n'
TLS = 'client_certificate {\nca_certificate_file = "root.crt"\n}'


def text(protocol: str = TARGETS) -> str:
    return server(TLS, label='"sql"', protocol=f'protocol "proxy" {{\n{protocol}}}') + server(
        TLS, label='"echo"', hosts='["127.0.0.1:0"]'
    )


@pytest.fixture
def running(tmp_path: Path, log: Log) -> Iterator[Running]:
    made = Running(tmp_path, READINESS + text())
    yield made
    made.stop()


def backends(running: Running) -> Backends:
    found = backends_of(running.service.runner.epoch.servers[0])
    assert found is not None
    return found


def test_the_status_has_each_target(running: Running) -> None:
    """With its share, its latest failure and how long connecting takes."""
    first, second = backends(running).states
    backends(running).unreachable(first, "connection refused")
    running.clock.advance(60)
    second.dialled(0.25)
    second.answered()
    use = TargetUse(second)
    sql, echo = running.control.status().service.servers
    assert echo.targets == ()
    one, two = sql.targets
    assert (one.address, one.up, one.is_known) == ("127.0.0.1:1", False, True)
    assert (one.last_error, one.failures) == ("connection refused", 1)
    # The wall clock of this gate stands still.
    assert one.down_since == NOW - timedelta(seconds=60)
    assert (one.weight, one.backup, one.last_dial) == (1, False, None)
    assert (two.address, two.up, two.down_since) == ("unix:/run/x.sock", True, None)
    assert (two.last_dial, two.in_use, two.weight, two.backup) == (0.25, 1, 3, True)
    use.end()


def test_a_target_that_nobody_tried_counts_as_up(running: Running) -> None:
    """But it is said that this is not known."""
    one, _ = running.control.status().service.servers[0].targets
    assert (one.up, one.is_known, one.last_error) == (True, False, None)


def test_metrics_tell_of_each_target(running: Running) -> None:
    """By server and target."""
    first, second = backends(running).states
    backends(running).unreachable(first, "connection refused")
    second.dialled(0.25)
    second.dialled(0.5)
    second.answered()
    page = running.control.exposition()[1].decode()
    for line in (
        'mtlsgate_target_up{server="sql",target="127.0.0.1:1"} 0.0',
        'mtlsgate_target_up{server="sql",target="unix:/run/x.sock"} 1.0',
        'mtlsgate_target_failures_total{server="sql",target="127.0.0.1:1"} 1.0',
        'mtlsgate_target_dial_seconds_count{server="sql",target="unix:/run/x.sock"} 2.0',
        'mtlsgate_target_dial_seconds_sum{server="sql",target="unix:/run/x.sock"} 0.75',
        'mtlsgate_target_connections{server="sql",target="127.0.0.1:1"} 0.0',
    ):
        assert line in page.splitlines()


def test_without_a_target_that_is_up_the_gate_is_not_ready(running: Running) -> None:
    """One of each server is enough, a backup too; one that is due to be tried again counts."""
    assert running.control.not_ready is None
    first, second = backends(running).states
    backends(running).unreachable(first, "x")
    assert running.control.not_ready is None
    backends(running).unreachable(second, "x")
    assert running.control.not_ready == "no target of sql is up"
    status = running.control.status().service
    assert (status.ready, status.not_ready) == (False, "no target of sql is up")
    running.clock.advance(10)
    assert running.control.not_ready is None


def test_by_default_targets_do_not_matter_to_readiness(tmp_path: Path, log: Log) -> None:
    """The gate listens: what is behind it may be nobody's business."""
    running = Running(tmp_path, text())
    for state in backends(running).states:
        backends(running).unreachable(state, "x")
    assert running.control.not_ready is None
    running.stop()


def test_readiness_without_checks_is_warned_of(tmp_path: Path, log: Log) -> None:
    """At the protocol that has none; and where there are no targets at all."""
    running = Running(tmp_path, READINESS + text())
    [warning] = map(str, running.service.runner.epoch.warnings)
    assert 'protocol "proxy": without a health_check nothing but clients' in warning
    running.stop()
    running = Running(tmp_path, READINESS + server(TLS, hosts='["127.0.0.1:0"]'))
    [warning] = map(str, running.service.runner.epoch.warnings)
    assert 'settings: readiness = "targets" has no effect: there are no targets' in warning
    running.stop()


def test_a_reload_keeps_the_state_of_the_targets(running: Running) -> None:
    """What stays a target of the server."""
    backends(running).unreachable(backends(running).states[0], "x")
    before = running.service.runner.epoch
    running.site.write("gate.hcl", READINESS + text('target = ["127.0.0.1:2", "127.0.0.1:1"]\n'))
    running.service.reloader.reload()
    assert running.service.runner.epoch is not before
    assert [one.up for one in running.control.status().service.servers[0].targets] == [True, False]
