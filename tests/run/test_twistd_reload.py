"""
Signals and files that change, with the real twistd and real sockets.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from tests.kits.programs import BIN, RunningGate, gate, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]


@pytest.fixture
def here(demo: Path, tmp_path: Path) -> Path:
    """A copy of its own, with an echo."""
    for path in demo.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = tmp_path / "gate.hcl"
    text = config.read_text()
    config.write_text(text.replace('protocol "whoami" {}', 'protocol "echo" {}'))
    return tmp_path


def change(here: Path, before: str, after: str) -> None:
    """Edit the configuration, in one step."""
    config = here / "gate.hcl"
    text = config.read_text()
    assert before in text
    beside = config.with_suffix(".new")
    beside.write_text(text.replace(before, after))
    beside.replace(config)


def reload(running: RunningGate) -> str:
    running.process.send_signal(signal.SIGHUP)
    return running.read_until("[mtlsgate.reloads#")


def connect(here: Path, running: RunningGate, name: str = "client") -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(here / "ca.crt"))
    context.load_cert_chain(here / f"{name}.crt", here / f"{name}.key")
    plain = socket.create_connection(("127.0.0.1", running.port("demo")), timeout=60)
    return context.wrap_socket(plain, server_hostname="localhost")


def echoes(connection: ssl.SSLSocket, data: bytes = b"knock") -> bool:
    with suppress(OSError):
        connection.sendall(data)
        return connection.recv(len(data)) == data
    return False


def test_sighup_loads_anew(here: Path) -> None:
    """The port stays; a live client that is no longer admitted does not."""
    with gate(here / "gate.hcl") as running, connect(here, running) as live:
        assert echoes(live)
        port = running.port("demo")
        change(here, "admitted.crt", "not-pinned.crt")
        reload(running)
        assert "epoch 2 is in force" in running.read_until("epoch")
        assert "no_longer_admitted: leaf_mismatch" in running.read_until("demo: closed")
        assert not echoes(live)
        assert running.port("demo") == port
        with connect(here, running, "not-pinned") as other:
            assert echoes(other)


def test_what_is_wrong_changes_nothing(here: Path) -> None:
    """The log has the place, and the gate goes on."""
    with gate(here / "gate.hcl") as running, connect(here, running) as live:
        change(here, "admitted.crt", "missing.crt")
        problem = reload(running)
        assert f"{here}/gate.hcl:" in problem
        assert '"missing.crt" no such file' in problem
        assert "epoch 1 stays in force" in running.read_until("epoch")
        assert echoes(live)
        with connect(here, running) as another:
            assert echoes(another)


def test_a_changed_file_is_noticed(here: Path) -> None:
    """A changed file that the configuration only names is noticed."""
    change(here, "settings {", "settings {\n  watch = true")
    with gate(here / "gate.hcl") as running:
        pins = here / "admitted.crt"
        beside = here / "beside"
        beside.write_bytes((here / "not-pinned.crt").read_bytes())
        beside.replace(pins)
        assert "pin added: CN=not-pinned" in running.read_until("pin added")
        assert "epoch 2 is in force" in running.read_until("epoch")
        with connect(here, running, "not-pinned") as client:
            assert echoes(client)


def test_watch_after_a_trial(here: Path) -> None:
    """To have been told what would change is not to have it changed."""
    change(here, "settings {", 'admin { listen = "unix:admin.sock" }\nsettings {\n  watch = true')
    ctl = (BIN / "mtlsgate", "ctl", "reload", "--dry-run", "--config", here / "gate.hcl")
    with gate(here / "gate.hcl") as running:
        change(here, "admitted.crt", "not-pinned.crt")
        status, output = run(*ctl)
        # On a slow machine the change may be noticed before the trial.
        assert status == 0, output
        assert re.search("a trial: epoch [12] stays in force", output), output
        assert "epoch 2 is in force" in running.read_until("epoch 2")


def test_a_daemon_loads_anew_from_its_old_directory(here: Path) -> None:
    """--rundir leads elsewhere; a relative path still means what it meant."""
    elsewhere = here / "elsewhere"
    elsewhere.mkdir()
    command = ("twistd", "-n", "--pidfile=", f"--rundir={elsewhere}")
    with gate(Path("gate.hcl"), command, cwd=here) as running:
        assert "epoch 2 is in force" in reload(running)


def test_sigterm_waits_for_connections(here: Path) -> None:
    """... and for no new ones."""
    change(here, "settings {", 'settings {\n  drain_timeout = "1h"')
    with gate(here / "gate.hcl") as running, connect(here, running) as live:
        assert echoes(live)
        running.process.terminate()
        running.read_until("1 connections have 3600 s to end")
        with pytest.raises(OSError, match="refused"):
            connect(here, running)
        assert echoes(live, b"still here")
        live.close()
        assert running.process.wait(timeout=60) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait(here: Path, number: signal.Signals) -> None:
    change(here, "settings {", 'settings {\n  drain_timeout = "1h"')
    with gate(here / "gate.hcl") as running, connect(here, running) as live:
        assert echoes(live)
        running.process.send_signal(number)
        running.read_until("1 connections have 3600 s to end")
        running.process.send_signal(number)
        running.read_until("demo: closed")
        assert not echoes(live)
        assert running.process.wait(timeout=60) == 0


def test_reloads_under_load_lose_nobody(here: Path) -> None:
    """200 reloads while clients come and go: each of them gets in."""
    problems: list[str] = []
    done = threading.Event()
    count = [0]

    def come_and_go(running: RunningGate) -> None:
        while not done.is_set():
            try:
                with connect(here, running) as client:
                    client.sendall(b"knock")
                    if client.recv(5) != b"knock":
                        problems.append("no echo")
                count[0] += 1
            except OSError as error:
                problems.append(repr(error))

    with gate(here / "gate.hcl") as running:
        threads = [threading.Thread(target=come_and_go, args=(running,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in range(2, 202):
                # Something to take over each time.
                names = ('"clients"', '"people"') if number % 2 == 0 else ('"people"', '"clients"')
                change(here, *names)
                running.process.send_signal(signal.SIGHUP)
                running.read_until(f"epoch {number} is in force")
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert problems == []
    assert count[0] > 100


def test_out_of_descriptors(here: Path) -> None:
    """Accepting pauses, and goes on; nothing dies, and who is in stays in."""
    with gate(here / "gate.hcl", limits=(128, 128)) as running, connect(here, running) as live:
        crowd = [
            socket.create_connection(("127.0.0.1", running.port("demo")), timeout=60)
            for _ in range(200)
        ]
        running.read_until("no connection is accepted until some end")
        assert echoes(live)
        for one in crowd:
            one.close()
        running.read_until("connections are accepted")
        with connect(here, running) as client:
            assert echoes(client)
        assert "Traceback" not in json.dumps(running.lines)
