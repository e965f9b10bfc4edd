"""
twistd's own options: its pid file, its log.
"""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtlsgate.observe.owner import NOBODY_ELSE
from mtlsgate.run.log_output import LogPlace
from mtlsgate.run.twistd import TwistdError, mend_pid_file
from tests.kits.programs import BIN, RunningGate, gate, program, run


class Said(list[str]):
    """The lines that were printed."""

    def mend(self, **options: Any) -> dict[str, Any]:
        mend_pid_file(options, NOBODY_ELSE, self.append)
        return options


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def ended() -> int:
    """:returns: the number of a process that is over."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def knock(running: RunningGate) -> None:
    with socket.create_connection(("127.0.0.1", running.port("demo"))) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while plain.recv(1000):
            pass


# The pid file


@pytest.mark.parametrize("content", ["own", "ended", "", "junk\n", "9" * 30, "-1", "\xb2"])
def test_a_stale_pid_file_is_removed(tmp_path: Path, said: Said, ended: int, content: str) -> None:
    """One of a dead process, of what is no process, and of a dead one whose number this
    process has again, as PID 1 of a container does after a kill."""
    path = tmp_path / "gate.pid"
    path.write_text({"own": str(os.getpid()), "ended": str(ended)}.get(content, content))
    options = said.mend(pidfile=str(path), nodaemon=True)
    assert not path.exists()
    assert (options["pidfile"], said) == (str(path), [])


def test_a_daemon_with_a_dead_ones_number_starts(tmp_path: Path, said: Said) -> None:
    """The same where there is no foreground."""
    path = tmp_path / "gate.pid"
    path.write_text(str(os.getpid()))
    said.mend(pidfile=str(path), nodaemon=False)
    assert not path.exists()


def test_the_pid_file_of_another_process_is_left_alone(tmp_path: Path, said: Said) -> None:
    """In the foreground the gate goes on without one, and says so."""
    path = tmp_path / "gate.pid"
    path.write_text(f"{os.getppid()}\n")
    options = said.mend(pidfile=str(path), nodaemon=True)
    assert options["pidfile"] == ""
    assert said == [
        f"--pidfile: {path} names process {os.getppid()}, which runs: "
        "the gate goes on without a pid file"
    ]
    assert path.read_text() == f"{os.getppid()}\n"
    # A daemon is refused, by twistd.
    assert said.mend(pidfile=str(path), nodaemon=False)["pidfile"] == str(path)


def test_a_pid_file_that_cannot_be_written(tmp_path: Path, said: Said) -> None:
    """A line, in the foreground and of a daemon; the former starts."""
    path = tmp_path / "no" / "gate.pid"
    assert said.mend(pidfile=str(path), nodaemon=True)["pidfile"] == ""
    assert said == [f"--pidfile: {path}: no such directory: the gate goes on without a pid file"]
    with pytest.raises(TwistdError, match="no such directory"):
        said.mend(pidfile=str(path), nodaemon=False)
    with pytest.raises(TwistdError, match="is not a regular file"):
        said.mend(pidfile=str(tmp_path), nodaemon=False)


def test_a_device_is_no_pid_file(said: Said) -> None:
    """twistd would remove it, as root."""
    assert said.mend(pidfile="/dev/null", nodaemon=True)["pidfile"] == ""
    assert said == [
        "--pidfile: /dev/null is not a regular file: the gate goes on without a pid file"
    ]
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_directory_that_cannot_be_written(
    tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a read-only file system, where root cannot write either."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    options = said.mend(pidfile=str(tmp_path / "gate.pid"), nodaemon=True)
    assert options["pidfile"] == ""
    why = f"--pidfile: {tmp_path} is not writable"
    assert said == [f"{why}: the gate goes on without a pid file"]


@pytest.mark.parametrize("options", [None, {}, {"pidfile": ""}, {"pidfile": None}])
def test_without_a_pid_file_there_is_nothing_to_do(options: dict[str, Any] | None) -> None:
    """Under twist, and with --pidfile=."""
    mend_pid_file(options, NOBODY_ELSE, pytest.fail)


@pytest.mark.parametrize("content", ["parent", "junk"])
def test_a_foreground_gate_starts_whatever_the_pid_file_says(demo: Path, content: str) -> None:
    """The real twistd."""
    path = demo / "twistd.pid"
    path.write_text(str(os.getpid()) if content == "parent" else content)
    with gate(demo / "gate.hcl", ("twistd", "-n"), cwd=demo) as running:
        knock(running)
        assert path.read_text() == str(os.getpid() if content == "parent" else running.process.pid)
        running.stop()
    assert path.exists() == (content == "parent")


def test_a_daemon_that_cannot_write_its_pid_file_says_so(demo: Path) -> None:
    """In one line, before it is in the background."""
    status, output = run(
        BIN / "twistd", "--pidfile=no/gate.pid", "mtlsgate", "--config", "gate.hcl", cwd=demo
    )
    assert (status, output) == (1, f"--pidfile: {demo}/no/gate.pid: no such directory\n")


# The log


@pytest.mark.parametrize(
    "options",
    [
        None,
        {},
        {"logfile": None, "logger": lambda: None, "nodaemon": True},
        {"logfile": "x.log", "syslog": True},
        {"logfile": "-", "nodaemon": False},
    ],
)
def test_others_than_text_logs_are_left_to_twistd(options: dict[str, Any] | None) -> None:
    """An observer of the user's, syslog, and what twistd refuses."""
    assert LogPlace.of(options) is None


def test_a_log_file_that_cannot_be_opened_is_one_line(demo: Path) -> None:
    """... and no traceback."""
    status, output = run(
        BIN / "twistd", "-n", "--pidfile=", "--logfile=no/gate.log",
        "mtlsgate", "--config", "gate.hcl", cwd=demo,
    )  # fmt: skip
    assert (status, output) == (1, "--logfile: no/gate.log: No such file or directory\n")


def test_lines_of_others_stand_in_order(demo: Path) -> None:
    """twistd's own first and last lines, and the gate's between them."""
    with gate(demo / "gate.hcl") as running:
        knock(running)
        running.read_until("demo: rejected")
        rest = running.stop()
    assert "starting up." in running.lines[0]
    assert rest.splitlines()[-1].endswith("Server Shut Down.")


def test_a_logger_of_the_users_gets_the_events(demo: Path) -> None:
    """With --logger nothing is written in another way."""
    (demo / "mylog.py").write_text(
        "import sys\n"
        "from twisted.logger import ILogObserver\n"
        "from zope.interface import provider\n"
        "def make():\n"
        "    out = sys.stdout\n"
        "    @provider(ILogObserver)\n"
        "    def write(event):\n"
        "        said = event.get('description') or event.get('reason')\n"
        "        out.write('%s: %s\\n' % (event.get('log_namespace'), said))\n"
        "        out.flush()\n"
        "    return write\n"
    )
    twistd = (str(BIN / "twistd"), "-n", "--pidfile=", "--logger=mylog.make")
    with gate(demo / "gate.hcl", (program("env"), f"PYTHONPATH={demo}", *twistd)) as running:
        knock(running)
        assert running.read_until("mtlsgate.gate") == "mtlsgate.gate: not_tls\n"
