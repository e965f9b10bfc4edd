"""
Where the log goes, by twistd's options and by the configuration.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mtlsgate.config import Located, model
from mtlsgate.errors import START, GateError
from mtlsgate.load.epoch import Epoch
from mtlsgate.observe.event_log import EventLog
from mtlsgate.observe.log_stream import PlainStream, RotatedFile
from mtlsgate.run.log_output import (
    STDERR,
    LogFollower,
    LogPlace,
    is_journal,
    log_notices,
    open_log,
)
from tests.kits.programs import BIN, RUN, RunningGate, gate

FOREGROUND = {"logfile": None, "nodaemon": True}
DAEMON = {"logfile": None, "nodaemon": False}


class NoReactor:
    running = False

    def callLater(self, delay: float, function: object, /) -> object:
        raise AssertionError("no reactor runs")


def epoch(directory: Path, **log: Any) -> Epoch:
    """:returns: one with a ``log`` block."""
    if "file" in log:
        log["file"] = Located(log["file"], START)
    settings = model.Settings(log=model.Log(at=START, **log)) if log else model.Settings()
    return Epoch(str(directory / "gate.hcl"), (), settings, None, ())


def stream_of(directory: Path, options: dict[str, Any], **log: Any) -> object:
    place = LogPlace.of(options)
    assert place is not None
    return open_log(place, epoch(directory, **log)).stream


def test_a_file_of_the_configuration_is_beside_it(tmp_path: Path) -> None:
    """In the foreground and as a daemon."""
    for options in (FOREGROUND, DAEMON):
        stream = stream_of(tmp_path, options, file="gate.log")
        assert isinstance(stream, RotatedFile)
        assert stream.file.path == tmp_path / "gate.log"


def test_a_file_of_the_command_line_has_precedence(tmp_path: Path) -> None:
    """And a line says so."""
    options = {"logfile": str(tmp_path / "given.log"), "nodaemon": True}
    stream = stream_of(tmp_path, options, file="gate.log")
    assert isinstance(stream, RotatedFile)
    assert stream.file.path == tmp_path / "given.log"
    config = tmp_path / "gate.hcl"
    assert log_notices(options, epoch(tmp_path, file="gate.log")) == (
        f"{config}:1:1: log: file: --logfile={tmp_path}/given.log is given, and has precedence "
        "(warning)",
    )
    assert log_notices(options, epoch(tmp_path, level="warn")) == ()


@pytest.mark.parametrize(
    ("options", "who"),
    [
        (None, "twist"),
        ({}, "twist"),
        ({"logfile": None, "logger": print}, "--logger"),
        ({"logfile": None, "syslog": True}, "--syslog"),
    ],
)
def test_a_block_without_effect_is_told(
    tmp_path: Path, options: dict[str, Any] | None, who: str
) -> None:
    """Where somebody else writes the log."""
    (line,) = log_notices(options, epoch(tmp_path, level="warn"))
    assert f"log: {who} writes the log in its own way" in line
    assert log_notices(options, epoch(tmp_path)) == ()


def test_a_file_that_cannot_be_opened_is_an_error_at_its_place(tmp_path: Path) -> None:
    """With file, line and reason."""
    with pytest.raises(GateError) as caught:
        stream_of(tmp_path, FOREGROUND, file="no/gate.log")
    assert str(caught.value) == (
        f'{tmp_path}/gate.hcl:1:1: log: file: "no/gate.log" cannot be opened for writing: '
        "No such file or directory"
    )
    with pytest.raises(GateError, match="has no standard streams"):
        stream_of(tmp_path, DAEMON, file="/dev/stderr")


def test_standard_streams_have_names(tmp_path: Path) -> None:
    """Also where they are sockets, which cannot be opened by name."""
    assert isinstance(stream_of(tmp_path, FOREGROUND, file=str(STDERR)), PlainStream)
    named = {"logfile": "/dev/stdout", "nodaemon": True}
    assert isinstance(stream_of(tmp_path, named), PlainStream)


def test_the_journal_is_known_by_its_stream(tmp_path: Path) -> None:
    """$JOURNAL_STREAM names device and inode of the stream that leads there, and may be
    inherited by a program whose streams lead elsewhere (systemd.exec(5))."""
    with (tmp_path / "x").open("w") as file:
        found = os.fstat(file.fileno())
        named = {"JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"}
        assert is_journal(file.fileno(), named)
        assert not is_journal(file.fileno(), {})
        assert not is_journal(file.fileno(), {"JOURNAL_STREAM": f"{found.st_dev}:0"})
    assert not is_journal(-1, named)


@pytest.mark.slow
def test_errors_at_start_have_their_priority_in_the_journal(tmp_path: Path) -> None:
    """A pipe stands for the journal here."""
    reading, writing = os.pipe()
    found = os.fstat(writing)
    done = subprocess.run(
        [BIN / "mtlsgate", "run", "--config", "gone.hcl"],
        cwd=tmp_path,
        stderr=writing,
        env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}"},
        check=False,
    )
    os.close(writing)
    with open(reading) as journal:
        assert journal.read() == "<3>gone.hcl:1:1: configuration: no such file\n"
    assert done.returncode == 1


def test_a_log_that_is_no_regular_file_is_never_moved_away(tmp_path: Path) -> None:
    """A pipe, or a device such as /dev/null: however much is written, and also when
    a signal asks for a new file."""
    pipe = tmp_path / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        place = LogPlace.of({"logfile": str(pipe), "nodaemon": False})
        assert place is not None
        log = EventLog(open_log(place, epoch(tmp_path)), NoReactor())
        log.rotate()
        log({"log_format": "written", "log_time": 0.0})
        assert b"written" in os.read(reader, 1000)
        assert stat.S_ISFIFO(pipe.stat().st_mode)
        assert list(tmp_path.iterdir()) == [pipe]
        log.turn_to(open_log(LogPlace(None, STDERR), epoch(tmp_path)))
    finally:
        os.close(reader)


def test_a_reload_changes_the_log_or_nothing(tmp_path: Path) -> None:
    """Prepared first: what is discarded leaves the log as it was."""
    place = LogPlace.of(FOREGROUND)
    assert place is not None
    log = EventLog(open_log(place, epoch(tmp_path, file="one.log")), NoReactor())
    follower = LogFollower(log, place)
    follower.prepare(epoch(tmp_path, file="two.log")).discard()
    with pytest.raises(GateError, match=r"no/x\.log"):
        follower.prepare(epoch(tmp_path, file="no/x.log"))
    log({"log_format": "first", "log_time": 0.0})
    # A file of the same name stays open: its directory may be root's.
    follower.prepare(epoch(tmp_path, file="one.log", format="json")).commit()
    log({"log_format": "second", "log_time": 0.0})
    follower.prepare(epoch(tmp_path, file="two.log", format="json")).commit()
    log({"log_format": "third", "log_time": 0.0})
    first, second = (tmp_path / "one.log").read_text().splitlines()
    assert first.endswith("first")
    assert json.loads(second)["text"] == "second"
    assert json.loads((tmp_path / "two.log").read_text())["text"] == "third"


def test_log_and_audit_log_are_two_files(demo: Path, tmp_path: Path) -> None:
    """... and neither is one that is read."""
    block = 'settings {\n  audit { file = "a.log" }\n  log { file = "./a.log" }\n'
    config = demo / "same.hcl"
    text = (demo / "gate.hcl").read_text()
    config.write_text(text.replace("settings {", block, 1))
    from mtlsgate.load.loading import load

    with pytest.raises(GateError, match=r'"\./a\.log" is the file of audit, too'):
        load(config)
    config.write_text(config.read_text().replace("./a.log", "same.hcl"))
    with pytest.raises(GateError, match="is read as part of the configuration"):
        load(config)


def knock(running: RunningGate) -> None:
    with socket.create_connection(("127.0.0.1", running.port("demo"))) as plain:
        plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while plain.recv(1000):
            pass


@pytest.mark.slow
def test_a_gate_run_by_hand_logs_json_to_standard_error(demo: Path, tmp_path: Path) -> None:
    """`mtlsgate run`: level info, no pid file; a reload turns the log to a file, a signal
    rotates it."""
    for path in demo.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "gate.hcl"
    text = config.read_text()
    # In its sandbox it could not begin to write files.
    text = text.replace("settings {", "settings {\n  sandbox = false", 1)
    config.write_text(text.replace("settings {", 'settings {\n  log { format = "json" }', 1))
    before = set(tmp_path.iterdir())
    with gate(config, RUN) as running:
        knock(running)
        said = json.loads(running.read_until("rejected"))
        assert (said["namespace"], said["level"], said["reason"]) == (
            "mtlsgate.gate",
            "warn",
            "not_tls",
        )
        assert set(tmp_path.iterdir()) == before
        config.write_text(text.replace("settings {", 'settings {\n  log { file = "x.log" }', 1))
        running.process.send_signal(signal.SIGHUP)
        running.wait_for(tmp_path / "x.log", "epoch 2 is in force")
        knock(running)
        running.wait_for(tmp_path / "x.log", "rejected")
        running.process.send_signal(signal.SIGUSR1)
        running.wait_for(tmp_path / "x.log.1", "rejected")
        running.stop()
    assert "Server Shut Down" in (tmp_path / "x.log").read_text()
    assert stat.S_IMODE((tmp_path / "x.log").stat().st_mode) == 0o640
