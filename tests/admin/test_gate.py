"""
The admin endpoint of a gate that really runs, asked by ``mtlsgate ctl``, by curl, and
by clients with certificates.
"""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mtlsgate.commands.cli import main
from mtlsgate.testing import Version
from tests.kits.programs import BIN, RunningGate, gate, program, run

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]

TOKEN = "0123456789abcdef"
SOCKET = 'admin { listen = "unix:gate.sock" }\n'
LOOPBACK = 'admin {\n  listen = "127.0.0.1:0"\n  token_file = "token"\n}\n'
ADMIN_SERVER = """
server "operators" {
  hosts = ["127.0.0.1:0"]
  protocol "admin" {}
  tls {
    server_certificate {
      public_key_file = "server.crt"
      private_key_file = "server.key"
    }
    client_certificate "operator" {
      ca_certificate_file = "ca.crt"
      leaf_certificate_file = "admitted.crt"
    }
  }
}
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``mtlsgate init`` writes."""
    directory = tmp_path_factory.mktemp("demo")
    done = CliRunner().invoke(main, ["init", str(directory)])
    assert done.exit_code == 0, done.output
    (directory / "token").write_text(TOKEN)
    (directory / "token").chmod(0o600)
    return directory


@pytest.fixture
def config(written: Path) -> Iterator[Path]:
    """A configuration of one's own."""
    path = written / "gate.hcl"
    before = path.read_text()
    path.write_text(before.replace("localhost:8443", "127.0.0.1:0"))
    yield path
    path.write_text(before)


@contextmanager
def with_admin(config: Path, *blocks: str) -> Iterator[RunningGate]:
    """A gate with these blocks besides."""
    config.write_text(config.read_text() + "\n".join(blocks))
    with gate(config) as running:
        if any(block.startswith("admin") for block in blocks):
            line = running.read_until("the admin endpoint answers at ")
            running.where["admin"] = [line.rsplit(maxsplit=1)[1]]
        yield running


def ctl(*arguments: str | Path) -> tuple[int, str]:
    """In this process, which has all it needs loaded."""
    done = CliRunner().invoke(main, ["ctl", *map(str, arguments)])
    return done.exit_code, done.output


def connect(config: Path, running: RunningGate, name: str = "client") -> subprocess.Popen[bytes]:
    """:returns: openssl, which stays connected."""
    client = subprocess.Popen(
        [
            program("openssl"), "s_client", "-quiet", "-connect",
            f"127.0.0.1:{running.port('demo')}", "-cert", f"{config.parent}/{name}.crt", "-key",
            f"{config.parent}/{name}.key", "-CAfile", f"{config.parent}/ca.crt",
        ],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    running.read_until(f"CN={name}")
    return client


def leave(client: subprocess.Popen[bytes]) -> None:
    client.kill()
    client.communicate()


def test_ctl_over_a_unix_socket(config: Path) -> None:
    """Every command, as an operator would go through them."""
    with with_admin(config, SOCKET) as running:
        path = config.parent / "gate.sock"
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        status, output = run(BIN / "mtlsgate", "ctl", "status", "-c", config)
        assert status == 0, output
        assert re.search(rf"process {running.process.pid}, up \d+ s: ready$", output, re.M)
        leave(connect(config, running, "not-pinned"))
        client = connect(config, running)

        facts = json.loads(ctl("connections", "--socket", path, "--json")[1])
        [connection] = [one for one in facts["connections"] if one["state"] == "admitted"]
        assert (connection["subject"], connection["rule"]) == ("CN=client", "clients")
        assert "CN=client" in ctl("connections", "-c", config, "--server", "demo")[1]
        assert "CN=client" not in ctl("connections", "-c", config, "--server", "other")[1]
        assert "leaf_mismatch" in ctl("rejections", "-c", config)[1]
        assert 'pin "' in ctl("rejections", "-c", config, "--pins")[1]
        status, output = ctl("top", "--once", "-c", config)
        assert status == 0
        assert "CN=client" in output
        assert "leaf_mismatch" in output

        status, output = ctl("close", str(connection["number"]), "-c", config)
        assert (status, output) == (0, f"connection {connection['number']} is closed\n")
        line = running.read_until("closed 127.0.0.1:")
        assert "closed_by_operator: asked for by process " in line
        assert f"of user {os.getuid()}" in line
        client.wait(timeout=60)
        leave(client)
        status, output = ctl("close", str(connection["number"]), "-c", config)
        assert status == 1
        assert "there is no connection" in output

        status, output = ctl("drain", "--wait", "-c", config)
        assert (status, output) == (0, "draining: 0 clients still connected\n")
        assert running.process.wait(timeout=60) == 0
        assert not path.exists()
        status, output = ctl("status", "-c", config)
        assert (status, output) == (2, f"{path}: no such socket: is the gate running?\n")


def test_reload_by_ctl(config: Path) -> None:
    """A dry run says what would change and who would be dropped; a mistake is refused
    with every problem; a right one takes over and drops them."""
    with with_admin(config, SOCKET) as running:
        client = connect(config, running)
        good = config.read_text()
        config.write_text(good.replace("admitted.crt", "not-pinned.crt"))
        status, output = ctl("reload", "--dry-run", "-c", config)
        assert status == 0
        assert re.search(r"rule clients: pin added: CN=not-pinned sha256=", output)
        assert re.search(r"rule clients: pin removed: CN=client sha256=", output)
        assert re.search(r"would be dropped: demo: 127.0.0.1:\d+: leaf_mismatch: ", output)
        assert output.endswith("a trial: epoch 1 stays in force\n")
        assert client.poll() is None

        config.write_text(good.replace("ca.crt", "gone.crt").replace("whoami", "whoam"))
        status, output = ctl("reload", "-c", config)
        assert status == 1
        assert 'ca_certificate_file: "gone.crt" no such file' in output
        assert 'did you mean "whoami"?' in output
        assert output.endswith("2 problems: epoch 1 stays in force\n")
        assert "not reloaded" in ctl("status", "-c", config)[1]
        status, output = ctl("reload", "-c", config, "--json")
        assert status == 1
        assert len(json.loads(output)["problems"]) == 2

        config.write_text(good.replace("admitted.crt", "not-pinned.crt"))
        status, output = ctl("reload", "-c", config)
        assert status == 0
        assert "epoch 2 is in force, loaded in " in output
        running.read_until("no_longer_admitted")
        client.wait(timeout=60)
        leave(client)
        assert json.loads(ctl("status", "-c", config, "--json")[1])["epoch"] == 2


def test_a_reload_moves_the_endpoint(config: Path) -> None:
    """A changed admin block takes effect; one that cannot be had is refused whole."""
    with with_admin(config, SOCKET):
        old, new = config.parent / "gate.sock", config.parent / "moved.sock"
        good = config.read_text()
        config.write_text(good.replace("unix:gate.sock", "unix:gone/gate.sock"))
        status, output = ctl("reload", "--socket", old)
        assert status == 1
        assert (
            f"admin: cannot listen on {config.parent}/gone/gate.sock: no such directory" in output
        )
        assert ctl("status", "--socket", old)[0] == 0
        config.write_text(good.replace("unix:gate.sock", "unix:moved.sock"))
        status, output = ctl("reload", "--socket", old)
        assert status == 0, output
        assert ctl("status", "-c", config)[0] == 0
        assert not old.exists()
        assert new.exists()


def test_a_token_over_tcp(config: Path) -> None:
    """Over TCP only who knows the token is heard; probes are, and pages are not."""
    with with_admin(config, LOOPBACK) as running:
        place = running.where["admin"][0]
        url, token = f"http://{place}", config.parent / "token"
        assert place.startswith("127.0.0.1:")
        assert ctl("status", "--url", url, "--token-file", token)[0] == 0
        status, output = ctl("status", "--url", url)
        assert status == 2
        assert "a token is needed" in output
        wrong = config.parent / "wrong"
        wrong.write_text("x" * 20)
        status, output = ctl("drain", "--url", url, "--token-file", wrong)
        assert (status, output) == (2, f"{url}: the token is wrong (--token-file names one)\n")
        curl = [program("curl"), "-sS", "-o", "/dev/null", "-w", "%{http_code}"]
        good = ["-H", f"Authorization: Bearer {TOKEN}"]
        assert run(*curl, f"{url}/readyz")[1] == "200"
        assert run(*curl, f"{url}/status")[1] == "401"
        assert run(*curl, *good, f"{url}/status")[1] == "200"
        assert run(*curl, *good, "-H", "Host: evil.example", f"{url}/status")[1] == "421"
        assert (
            run(*curl, *good, "-H", "Origin: http://evil", "-X", "POST", f"{url}/drain")[1] == "403"
        )
        assert TOKEN not in "".join(running.lines) + running.stop()


def test_it_answers_while_the_gate_drains(config: Path) -> None:
    """After SIGTERM a client that stays holds the gate; until then the endpoint tells
    so, and it is the last to go."""
    with with_admin(config, SOCKET) as running:
        client = connect(config, running)
        running.process.send_signal(signal.SIGTERM)
        running.read_until("accepting no more")
        path = config.parent / "gate.sock"
        curl = [program("curl"), "-sS", "--unix-socket", str(path), "-w", "%{http_code}"]
        assert run(*curl, "http://gate/readyz")[1] == "draining\n503"
        assert run(*curl, "http://gate/healthz")[1] == "alive\n200"
        facts = json.loads(ctl("status", "-c", config, "--json")[1])
        assert (facts["draining"], facts["admitted"]) == (True, 1)
        status, output = ctl("reload", "-c", config)
        assert status == 1
        assert "the gate is ending" in output
        leave(client)
        assert running.process.wait(timeout=60) == 0
        assert not path.exists()
        assert "Traceback" not in running.rest()


def test_a_second_gate_does_not_take_it(config: Path) -> None:
    """One line and status 1, before anything is daemonized; the first is undisturbed."""
    with with_admin(config, SOCKET):
        pidfile = config.parent / "twistd.pid"
        status, output = run(BIN / "twistd", f"--pidfile={pidfile}", "mtlsgate", "--config", config)
        assert status == 1
        path = config.parent / "gate.sock"
        assert output == (
            f"admin: cannot listen on {path}: another process listens there (ss -lxp shows which)\n"
        )
        assert not pidfile.exists()
        assert ctl("status", "-c", config)[0] == 0


def test_what_a_killed_gate_left_is_replaced(config: Path) -> None:
    """SIGKILL leaves the socket; the next start does not mind."""
    path = config.parent / "gate.sock"
    with with_admin(config, SOCKET) as running:
        running.process.kill()
        running.process.wait()
        assert path.exists()
        assert "nobody listens there" in ctl("status", "-c", config)[1]
    with gate(config) as running:
        running.read_until("the admin endpoint answers at ")
        assert ctl("status", "-c", config)[0] == 0
        running.stop()
    assert not path.exists()


def test_a_daemon_has_it_too(config: Path) -> None:
    """Taken before the gate goes into the background, and found afterwards with the
    daemon's own number."""
    config.write_text(config.read_text() + SOCKET)
    pidfile = config.parent / "gate.pid"
    status, output = run(
        BIN / "twistd", f"--pidfile={pidfile}", f"--logfile={config.parent}/gate.log",
        f"--rundir={os.sep}", "mtlsgate", "--config", config,
    )  # fmt: skip
    assert status == 0, output
    # Connections wait until it accepts.
    facts = json.loads(ctl("status", "-c", config, "--json")[1])
    assert facts["pid"] == int(pidfile.read_text())
    assert ctl("reload", "-c", config)[0] == 0
    assert ctl("drain", "--wait", "-c", config)[0] == 0
    log = (config.parent / "gate.log").read_text()
    assert "Traceback" not in log


@pytest.mark.parametrize("tls", ["1.2", "1.3"])
def test_operators_with_certificates(config: Path, tls: Version) -> None:
    """protocol "admin" answers those whom its server's rules admit, and nobody else."""
    directory = config.parent
    with with_admin(config, ADMIN_SERVER) as running:
        url = f"https://localhost:{running.port('operators')}"
        bounds = ["--tls-max", "1.2"] if tls == "1.2" else ["--tlsv1.3"]
        curl = [program("curl"), "-sS", "--cacert", f"{directory}/ca.crt", *bounds]

        def asked(name: str | None, *options: str) -> tuple[int, str]:
            shown: list[Any] = []
            if name is not None:
                shown = ["--cert", directory / f"{name}.crt", "--key", directory / f"{name}.key"]
            return run(*curl, *shown, *options)

        status, output = asked("client", f"{url}/status")
        assert status == 0, output
        assert {one["name"] for one in json.loads(output)["servers"]} == {"demo", "operators"}
        assert asked("client", f"{url}/readyz") == (0, "ready\n")
        status, output = asked("client", "-X", "POST", f"{url}/reload")
        assert json.loads(output)["epoch"] == 2
        line = running.read_until("asked for by")
        assert "asked for by CN=client at 127.0.0.1:" in line
        status, output = asked("client", "-X", "POST", "-H", "Origin: https://evil", f"{url}/drain")
        assert "requests of other pages are refused" in output
        for name in (None, "not-pinned", "stranger"):
            status, output = asked(name, f"{url}/healthz")
            assert status != 0
            assert "alive" not in output


def test_ctl_with_a_certificate(config: Path) -> None:
    """--url, --cert, --key and --ca; whom the gate turns away is told so."""
    directory = config.parent
    with with_admin(config, ADMIN_SERVER) as running:
        url = f"https://localhost:{running.port('operators')}"

        def asked(name: str, *command: str, ca: str = "ca") -> tuple[int, str]:
            return ctl(
                *command, "--url", url, "--cert", directory / f"{name}.crt",
                "--key", directory / f"{name}.key", "--ca", directory / f"{ca}.crt",
            )  # fmt: skip

        status, output = asked("client", "status")
        assert status == 0, output
        assert "operators" in output
        status, output = asked("stranger", "status")
        assert status == 2
        assert f"{url}: rejected (" in output
        status, output = asked("client", "status", ca="stranger-ca")
        assert status == 2
        assert f"{url}: this is not who it should be: " in output
        # Its own connection is one of those that a drain waits for.
        status, output = asked("client", "drain", "--wait")
        assert status == 0, output
        assert running.process.wait(timeout=60) == 0


def test_a_client_that_hangs_does_not_hold_the_gate(config: Path) -> None:
    """Connected and silent at the admin endpoint: the gate ends all the same."""
    with with_admin(config, SOCKET) as running, socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(config.parent / "gate.sock"))
        assert ctl("drain", "-c", config)[0] == 0
        assert running.process.wait(timeout=60) == 0


def test_top_on_a_terminal(config: Path) -> None:
    """It shows the gate, and shows it again; Ctrl-C ends it with status 0 and gives the
    terminal back."""
    with with_admin(config, SOCKET) as running:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [BIN / "mtlsgate", "ctl", "top", "-c", str(config), "--every", "50ms"],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        ) as process:  # fmt: skip
            os.close(theirs)
            seen = b""
            while seen.count(f"process {running.process.pid}".encode()) < 3:
                seen += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            seen += _rest(ours)
            assert process.wait(timeout=60) == 0
        os.close(ours)
    # The other screen, and back; the cursor hidden, and shown.
    assert seen.index(b"\x1b[?1049h") < seen.index(b"\x1b[?1049l")
    assert seen.rindex(b"\x1b[?25l") < seen.rindex(b"\x1b[?25h")
    assert b"Traceback" not in seen
    assert b"Aborted" not in seen


def _rest(terminal: int) -> bytes:
    rest = b""
    # Linux says so where the other side is closed.
    with suppress(OSError):
        while data := os.read(terminal, 65536):
            rest += data
    return rest


def test_top_ends_with_the_gate(config: Path) -> None:
    """When the gate is gone it says so, with status 2."""
    with with_admin(config, SOCKET) as running:
        ours, theirs = pty.openpty()
        with subprocess.Popen(
            [BIN / "mtlsgate", "ctl", "top", "-c", str(config), "--every", "50ms"],
            stdin=theirs, stdout=theirs, stderr=subprocess.PIPE,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
        ) as process:  # fmt: skip
            os.close(theirs)
            assert os.read(ours, 65536)
            running.stop()
            _rest(ours)
            assert process.stderr is not None
            said = process.stderr.read().decode()
            assert said.startswith(f"{config.parent}/gate.sock: ")
            assert said.count("\n") == 1
            assert process.wait(timeout=60) == 2
        os.close(ours)
