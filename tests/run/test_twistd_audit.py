"""
The real twistd, and the file that it keeps its audit log in.
"""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import socket
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.kits.programs import BIN, RunningGate, free_port, gate, run
from tests.kits.service import AUDITED, ROOT, server

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with certificates and a configuration; its gate listens on a port."""
    return furnish(tmp_path)


def furnish(directory: Path) -> Path:
    own = ROOT.issue("localhost", dns_names=["localhost"], usages=["server_auth"])
    for name, content in (("ca.crt", ROOT.pem), ("s.crt", own.pem), ("s.key", own.key_pem)):
        (directory / name).write_bytes(content)
    (directory / "s.key").chmod(0o600)
    configure(directory, "audit.log")
    return directory


def configure(site: Path, audit: str) -> None:
    text = AUDITED.replace("audit.log", audit) + server()
    (site / "gate.hcl").write_text(text.replace("unix:door.sock", "127.0.0.1:0"))


def knock(running: RunningGate) -> None:
    """Come as somebody who speaks no TLS, until that has been said."""
    with socket.create_connection(("127.0.0.1", running.port("door"))) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while plain.recv(1000):
            pass
    running.read_until("door: rejected")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_there_when_it_is_killed(site: Path) -> None:
    """What happened stands in the file, with no time to write anything at the end."""
    with gate(site / "gate.hcl") as running:
        knock(running)
        running.process.kill()
        running.process.wait(timeout=60)
    [line] = lines(site / "audit.log")
    assert (line["event"], line["reason"]) == ("rejected", "not_tls")


def test_it_is_rotated_on_a_signal(site: Path) -> None:
    """SIGUSR1 turns to a new file, also where a reload has moved it."""
    with gate(site / "gate.hcl") as running:
        for epoch, name in ((1, "audit.log"), (2, "moved.log")):
            knock(running)
            (site / name).rename(site / f"{name}.1")
            running.process.send_signal(signal.SIGUSR1)
            running.read_until(f"the audit log goes on in {site / name}")
            knock(running)
            for path in (site / name, site / f"{name}.1"):
                assert [line["epoch"] for line in lines(path) if line["event"] == "rejected"] == [
                    epoch
                ]
            configure(site, "moved.log")
            running.process.send_signal(signal.SIGHUP)
            running.read_until(f"epoch {epoch + 1} is in force")


def test_without_an_audit_log_the_signal_ends_nothing(site: Path) -> None:
    """As it would by default."""
    (site / "gate.hcl").write_text("\n" + server().replace("unix:door.sock", "127.0.0.1:0"))
    with gate(site / "gate.hcl") as running:
        knock(running)
        running.process.send_signal(signal.SIGUSR1)
        knock(running)


def test_it_is_rotated_with_twistds_own_log(site: Path) -> None:
    """One signal, and both go on in new files."""
    port = free_port()
    config = site / "gate.hcl"
    config.write_text(config.read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    status, output = run(
        BIN / "twistd", "--pidfile=gate.pid", "--logfile=gate.log",
        "mtlsgate", "--config", "gate.hcl", cwd=site,
    )  # fmt: skip
    assert status == 0, output
    pid = int((site / "gate.pid").read_text())
    ended = os.pidfd_open(pid)
    try:
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            # Its reactor runs, then, and the signal is its own.
            while plain.recv(1000):
                pass
        (site / "audit.log").rename(site / "audit.log.1")
        os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGTERM)
        assert select.select([ended], [], [], 60)[0]
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.close(ended)
    assert len(lines(site / "audit.log.1")) == 1
    assert (site / "audit.log").exists()
    assert "door: rejected" in (site / "gate.log.1").read_text()
    assert "the audit log goes on in" in (site / "gate.log.1").read_text()
    assert "door: rejected" not in (site / "gate.log").read_text()


def test_a_full_disk_is_said_once(site: Path) -> None:
    """Clients are served all the same."""
    configure(site, "/dev/full")
    with gate(site / "gate.hcl") as running:
        for _ in range(3):
            knock(running)
        running.stop()
    text = "".join(running.lines)
    assert text.count("the audit log /dev/full cannot be written: No space left on device") == 1


def test_a_path_that_cannot_be_opened_is_one_plain_message(site: Path) -> None:
    """By line and column, before anything is in the background."""
    configure(site, "no/such/audit.log")
    for options in (["-n"], []):
        status, output = run(
            BIN / "twistd", *options, "--pidfile=", "mtlsgate", "--config", "gate.hcl", cwd=site
        )
        assert (status, output) == (
            1,
            'gate.hcl:3:12: audit: file: "no/such/audit.log" cannot be opened for writing: '
            "No such file or directory\n",
        )


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_the_file_is_whose_the_gate_is() -> None:
    """With --uid: it is made before privileges drop, and rotated after."""
    nobody = pwd.getpwnam("nobody")
    command = ("twistd", "-n", "--pidfile=", "--uid=nobody")
    # Not where pytest keeps things, which is root's alone.
    with TemporaryDirectory() as name:
        site = furnish(Path(name))
        site.chmod(0o755)
        os.chown(site, nobody.pw_uid, -1)
        audit = site / "audit.log"
        with gate(site / "gate.hcl", command) as running:
            knock(running)
            audit.rename(site / "audit.log.1")
            running.process.send_signal(signal.SIGUSR1)
            running.read_until("the audit log goes on")
            knock(running)
            running.stop()
        assert "cannot be opened again" not in "".join(running.lines)
        for path in (audit, site / "audit.log.1"):
            assert path.stat().st_uid == nobody.pw_uid
            assert len(lines(path)) == 1
