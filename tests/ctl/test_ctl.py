"""
mtlsgate ctl: finding the gate, asking it, showing what it says.
"""

from __future__ import annotations

import io
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from mtlsgate.commands.cli import main
from mtlsgate.ctl import tables, top
from mtlsgate.ctl.client import Gone, Remote
from mtlsgate.ctl.gate_address import CtlError, CtlOptions, GateAddress, NotFound, find
from mtlsgate.ctl.notices import notices
from mtlsgate.ctl.words import changes, counted, duration, moment, size
from tests.kits.admin import Running
from tests.kits.pki import pki, server

TOKEN = "0123456789abcdef"
HOSTILE = "[bold]x[/bold] :smile: \x1b[31m\u202e"


def ctl(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["ctl", *map(str, arguments)])


# Where the gate is


def test_a_socket_is_where_it_is() -> None:
    """--socket is taken as it is."""
    assert find(CtlOptions(socket=Path("/run/x.sock"))) == GateAddress(path=Path("/run/x.sock"))


def test_the_configuration_tells(tmp_path: Path) -> None:
    """Its admin block does, with the token, and relative to its directory."""
    config = tmp_path / "gate.hcl"
    config.write_text('admin { listen = "unix:gate.sock" }\n')
    assert find(CtlOptions(config=(config,))) == GateAddress(path=tmp_path / "gate.sock")
    config.write_text(f'admin {{\nlisten = "127.0.0.1:9090"\ntoken = "{TOKEN}"\n}}\n')
    place = find(CtlOptions(config=(config,)))
    assert place == GateAddress(host="127.0.0.1", port=9090, token=TOKEN)
    assert TOKEN not in repr(place)


def test_a_token_file_goes_before_the_configurations(tmp_path: Path) -> None:
    """Who names another token means it."""
    config, token = tmp_path / "gate.hcl", tmp_path / "token"
    config.write_text(f'admin {{\nlisten = "127.0.0.1:9090"\ntoken = "{TOKEN}"\n}}\n')
    token.write_text("another-token-of-mine\n")
    assert find(CtlOptions(config=(config,), token_file=token)).token == "another-token-of-mine"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:9090", GateAddress(host="127.0.0.1", port=9090)),
        ("http://localhost:9090/", GateAddress(host="localhost", port=9090)),
        ("http://[::1]:9090", GateAddress(host="::1", port=9090)),
        ("https://gate.example:8443", GateAddress(host="gate.example", port=8443, is_tls=True)),
        ("https://gate.example", GateAddress(host="gate.example", port=443, is_tls=True)),
    ],
)
def test_a_url_is_where_it_says(url: str, place: GateAddress) -> None:
    """http for this machine, https for any."""
    assert find(CtlOptions(url=url)) == place


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (CtlOptions(url="http://gate.example:9090"), "http is for this machine"),
        (CtlOptions(url="ftp://x"), "is not of the form"),
        (CtlOptions(url="gate.sock"), "is not of the form"),
        (CtlOptions(url="http://localhost:9090/status"), "is not of the form"),
        (CtlOptions(url="http://user:word@localhost:9090"), "is not of the form"),
        (CtlOptions(url="http://localhost:x"), "Port could not be cast"),
        (CtlOptions(url="http://[::1"), "Invalid IPv6 URL"),
        (CtlOptions(url="http://x", socket=Path("x")), "one of them is enough"),
        (
            CtlOptions(socket=Path("x"), cert=Path("x")),
            "are for a --url that begins with https://",
        ),
        (CtlOptions(config=(Path("/nowhere/gate.hcl"),)), "/nowhere/gate.hcl: no such file"),
        (
            CtlOptions(socket=Path("x"), token_file=Path("/nowhere/t")),
            "/nowhere/t: No such file",
        ),
    ],
)
def test_what_cannot_be_found_is_told(given: CtlOptions, problem: str) -> None:
    """In one line."""
    with pytest.raises(CtlError) as caught:
        find(given)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe", b"two\nlines"])
def test_a_token_file_must_hold_one(tmp_path: Path, content: bytes) -> None:
    """What is no token would go into a header."""
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(CtlError, match="no token is in it"):
        find(CtlOptions(socket=Path("x"), token_file=tmp_path / "token"))


def test_a_configuration_that_does_not_parse_is_told(tmp_path: Path) -> None:
    """... and how to ask a gate that runs what it said before."""
    config = tmp_path / "gate.hcl"
    config.write_text("server {")
    with pytest.raises(CtlError) as caught:
        find(CtlOptions(config=(config,)))
    problem, hint = str(caught.value).splitlines()
    assert problem.startswith(f"{config}:1:")
    assert "--socket or --url" in hint


def test_a_configuration_without_an_endpoint_is_told(tmp_path: Path) -> None:
    """With what to add."""
    config = tmp_path / "gate.hcl"
    config.write_text('server "x" {}\n')
    done = ctl("status", "--config", config)
    assert done.exit_code == 2
    assert "there is no admin block: add admin {" in done.output
    config.write_text(f'admin {{\nlisten = "127.0.0.1:0"\ntoken = "{TOKEN}"\n}}\n')
    assert "the port is the system's choice" in ctl("status", "-c", config).output
    config.write_text("admin {}\n")
    problem, hint = ctl("status", "-c", config).output.splitlines()
    assert problem == f"{config}:1:1: admin: listen is missing"
    assert "--socket" in hint


# Asking


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Somebody on a unix socket who answers every request so; yields the requests."""
    requests: list[bytes] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                requests.append(connection.recv(65536))
                if requests[-1]:
                    connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield requests
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


def http(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def test_the_token_is_presented(tmp_path: Path) -> None:
    """As RFC 6750 says."""
    with answering(tmp_path / "s", http("200 OK", "{}")) as requests:
        Remote(GateAddress(path=tmp_path / "s", token=TOKEN)).get(
            "/connections", after=3, server=None
        )
    [request] = requests
    assert request.startswith(b"GET /connections?after=3 HTTP/1.1\r\n")
    assert b"Authorization: Bearer " + TOKEN.encode() in request
    assert b"Host: localhost\r\n" in request


@pytest.mark.parametrize(
    ("answer", "kind", "problem"),
    [
        (http("401 x", '{"error": "the token is wrong"}'), CtlError, "--token-file names one"),
        (http("403 x", '{"error": "no"}'), CtlError, ": no"),
        (http("404 x", '{"error": "there is none"}'), NotFound, "there is none"),
        (http("503 x", "starting"), CtlError, "the gate is starting"),
        (http("500 x", '{"error": "bad\\u001b[31m"}'), CtlError, "bad\\x1b[31m"),
        (http("200 x", "hello"), CtlError, "not the admin endpoint"),
        (http("200 x", "[]"), CtlError, "not the admin endpoint"),
        (http("404 x", "<html>"), CtlError, "not the admin endpoint"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", CtlError, "not the admin endpoint"),
        (b"", Gone, "closed before there was an answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
            Gone,
            "closed before there was an answer",
        ),
    ],
)
def test_answers_that_are_none(
    tmp_path: Path, answer: bytes, kind: type[CtlError], problem: str
) -> None:
    """Refusals and strangers are one line each."""
    with answering(tmp_path / "s", answer), pytest.raises(kind) as caught:
        Remote(GateAddress(path=tmp_path / "s")).get("/status")
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("command", "answer", "status", "said"),
    [
        ("health", http("200 OK", "alive\n"), 0, "alive\n"),
        ("ready", http("200 OK", "ready\n"), 0, "ready\n"),
        ("ready", http("503 x", "draining\n"), 1, "draining\n"),
        ("ready", http("503 x", "bad\x1b[31m\n"), 1, "bad\\x1b[31m\n"),
        ("ready", http("200 OK", "alive\n"), 2, "not the admin endpoint of a gate\n"),
        ("ready", http("200 OK", "{}"), 2, "not the admin endpoint of a gate\n"),
        ("health", http("404 x", "<html>"), 2, "not the admin endpoint of a gate\n"),
        ("health", b"", 2, "closed before there was an answer\n"),
    ],
)
def test_probes_ask_ctl(
    tmp_path: Path, command: str, answer: bytes, status: int, said: str
) -> None:
    """A probe exits 0 for a gate that is well, 1 for one that is not, and 2 if it cannot tell."""
    with answering(tmp_path / "s", answer) as requests:
        done = ctl(command, "--socket", tmp_path / "s")
    assert done.exit_code == status
    assert done.output.endswith(said)
    path = {"health": b"/healthz", "ready": b"/readyz"}[command]
    assert requests[0].startswith(b"GET " + path + b" HTTP/1.1\r\n")


def test_a_probe_fails_where_no_gate_runs(tmp_path: Path) -> None:
    """Where no gate runs, a probe says so, and fails."""
    done = ctl("ready", "--socket", tmp_path / "s")
    assert done.exit_code == 2
    assert "no such socket: is the gate running?" in done.output


def test_nobody_is_there(tmp_path: Path) -> None:
    """No socket, a dead one, one that may not be opened, a port that is closed."""
    path = tmp_path / "gate.sock"
    for text in ("no such socket: is the gate running?", "nobody listens there"):
        done = ctl("status", "--socket", path)
        assert done.exit_code == 2
        assert text in done.output
        if not path.exists():
            with socket.socket(socket.AF_UNIX) as dead:
                dead.bind(str(path))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = ctl("status", "--url", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert "nobody listens there: is the gate running?" in done.output
    denied = Remote(GateAddress(path=path))._in_words(PermissionError(13, "x"), 1)
    assert str(denied) == f"{path}: permission denied: only the gate's user and root may connect"
    late = Remote(GateAddress(path=path))._in_words(TimeoutError(), 10)
    assert str(late) == f"{path}: no answer within 10 s"


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    """The files are named."""
    done = ctl("status", "--url", "https://localhost:1", "--cert", tmp_path / "gone.crt")
    assert done.exit_code == 2
    assert f"{tmp_path}/gone.crt: No such file" in done.output


def test_options_may_come_first(tmp_path: Path) -> None:
    """Before the command's name as well as after it; after it counts."""
    first = ctl("--socket", tmp_path / "a", "status")
    assert first.output == f"{tmp_path}/a: no such socket: is the gate running?\n"
    second = ctl("--socket", tmp_path / "a", "status", "--socket", tmp_path / "b")
    assert second.output == f"{tmp_path}/b: no such socket: is the gate running?\n"


@pytest.mark.parametrize("arguments", [["--help"], ["ctl", "--help"], ["ctl", "top", "--help"]])
def test_help_is_quick(arguments: list[str]) -> None:
    """It does not wait for what only some commands need."""
    program = (
        "import sys; from mtlsgate.commands.cli import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "slow = {'rich', 'twisted.internet', 'cryptography', 'prometheus_client'}\n"
        "sys.exit(str(sorted(slow & set(sys.modules)) or ''))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.stderr == "\n" or done.stderr == ""
    assert "Usage:" in done.stdout


# Showing


def shown(what: Any, width: int = 200) -> str:
    """:returns: what a terminal without colours would show."""
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, highlight=False, emoji=False).print(what)
    return stream.getvalue()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.stop()


class InMemory(Remote):
    """A gate that is asked in memory."""

    def __init__(self, running: Running) -> None:
        super().__init__(GateAddress(path=Path("x")))
        object.__setattr__(self, "running", running)

    def get(self, path: str, **query: object) -> Any:
        from mtlsgate.observe.connection_status import ConnectionSelection

        found = self.running.control.status(ConnectionSelection()).to_dict()  # type: ignore[attr-defined]
        answers = {
            "/status": found["service"],
            "/connections": {"connections": found["connections"], "next": None},
            "/rejections": {"rejections": found["rejections"], "total": 0},
        }
        return json.loads(json.dumps(answers[path]))


def test_the_status_is_shown(running: Running) -> None:
    """Version, epoch, readiness, counts, and a line for each server."""
    client = running.client(pki().client)
    running.clock.advance(7300)
    lines = shown(tables.status(InMemory(running).get("/status"))).splitlines()
    assert lines[0].startswith("mtlsgate 1.2.3, process ")
    assert lines[0].rstrip().endswith("up 2 h: ready")
    assert lines[1].strip() == f"{running.site.config}: epoch 1, for 2 h"
    assert lines[2].strip() == (
        "1 client connected, 0 handshakes in progress, 0 connections rejected since the start"
    )
    assert lines[-1].split()[:2] == ["door", "unix:127.0.0.1:0"]
    running.service.runner.drain()
    assert "not ready: draining" in shown(tables.status(InMemory(running).get("/status")))
    client.close()


def test_a_failed_reload_is_shown(running: Running) -> None:
    """With every problem, until one succeeds."""
    running.site.write("gate.hcl", running.text.replace("issuing.crt", "gone.crt"))
    running.service.reloader.reload()
    text = shown(tables.status(InMemory(running).get("/status")))
    assert "not reloaded, 2026-06-15 12:00:00Z:" in text
    assert '"gone.crt" no such file' in text


@pytest.mark.parametrize(
    ("days_left", "expected"),
    [
        (2, "expires 2026-06-15 12:00:00Z (2 days left)"),
        (0, "expires 2026-06-15 12:00:00Z (less than a day left)"),
        (-1, "expired 2026-06-15 12:00:00Z (less than a day ago)"),
        (-2, "expired 2026-06-15 12:00:00Z (1 day ago)"),
    ],
)
def test_what_ends_soon_is_told_in_days(days_left: int, expected: str) -> None:
    """Certificates of hours, as X.509-SVIDs are, end in less than a day."""
    deadline = {
        "kind": "server_certificate", "rule": None, "is_due": True, "days_left": days_left,
        "at": "2026-06-15T12:00:00",
    }  # fmt: skip
    facts = {"servers": [{"name": "door", "deadlines": [deadline]}], "clients": [], "warnings": []}
    text = "".join(shown(one, 200) for one in notices(facts))
    assert text.strip() == f"door: a certificate of the server {expected}"


def test_names_are_neither_markup_nor_commands() -> None:
    """What a certificate says is shown as it stands there, and no more."""
    target = {
        "address": HOSTILE, "up": False, "is_known": True, "last_error": HOSTILE,
        "down_since": "2026-06-15T11:00:00", "last_dial": 0.0123, "in_use": 3, "failures": 4,
        "weight": 1, "backup": False,
    }  # fmt: skip
    status = {
        "version": HOSTILE, "pid": 1, "uptime": 1, "ready": False, "not_ready": HOSTILE,
        "config": HOSTILE, "epoch": 1, "epoch_age": 1, "admitted": 1, "handshakes": 0,
        "rejected": 1, "warnings": [HOSTILE], "servers": [{
            "name": HOSTILE, "listening": [HOSTILE], "protocol": HOSTILE, "rules": [
                {"name": HOSTILE, "pins": 1}], "admitted": 1, "handshakes": 0,
            "client_authentication": "required", "deadlines": [
                {"kind": "crl", "rule": HOSTILE, "days_left": -3, "is_due": True,
                 "at": "2026-06-12T12:00:00"}],
            "limits": {"max_connections": 5, "max_handshakes": None}, "targets": [target],
        }],
        "clients": [{
            "name": HOSTILE, "listening": [HOSTILE], "targets": [target], "connected": 1,
            "dialling": 0, "max_connections": None, "max_handshakes": 5, "deadlines": [],
        }],
        "last_reload": {"at": "2026-06-15T12:00:00", "succeeded": False, "problems": [HOSTILE]},
    }  # fmt: skip
    connection = {
        "number": 1, "server": HOSTILE, "state": "admitted", "address": HOSTILE, "rule": HOSTILE,
        "target": None, "subject": HOSTILE, "sha256": "ab" * 32, "seconds": 5, "idle": None,
        "received": 1000, "sent": 0, "tls_version": "TLSv1.3", "resumed": True,
        "server_name": HOSTILE,
    }  # fmt: skip
    rejection = {
        "at": "2026-06-15T12:00:00", "server": HOSTILE, "address": HOSTILE, "reason": "unknown_ca",
        "detail": HOSTILE, "leaf": {"subject": HOSTILE, "sha256": "cd" * 32},
        "pin_block": "pin \x1b {}",
    }  # fmt: skip
    look = top.Look(0.0, status, [connection], [rejection])
    for what in (
        tables.status(status),
        tables.connections([connection]),
        tables.rejections([rejection]),
        top.frame(None, look, 50),
    ):
        text = shown(what, 1000)
        assert "[bold]x[/bold] :smile: \\x1b[31m\\u202e" in text
        assert all(line.isprintable() for line in text.splitlines())
    lines = tables.pins([rejection])
    assert lines[1] == "pin \\x1b {}"
    assert all(line.isprintable() for line in lines)
    told = changes(
        {"succeeded": True, "changes": [HOSTILE], "dropped": [HOSTILE], "epoch": 2,
         "is_trial": True, "problems": [], "seconds": 1}
    )  # fmt: skip
    assert all(line.isprintable() for line in told)


def test_a_rule_that_lets_in_anyone_is_plain(tmp_path: Path) -> None:
    """It is not an empty list of rules."""
    running = Running(tmp_path, server('client_authentication = "none"'))
    assert "lets in anyone" in shown(tables.status(InMemory(running).get("/status")))
    running.stop()


def test_pins_to_paste_are_there_once() -> None:
    """A client that comes again and again wants one pin."""
    one = {
        "server": "door", "reason": "unknown_ca", "pin_block": "pin {}", "leaf": {"subject": "CN=x"}
    }  # fmt: skip
    none = {"server": "door", "reason": "no_certificate", "pin_block": None, "leaf": None}
    assert tables.pins([one, none, one]) == [
        "# CN=x, rejected by door: unknown_ca",
        "pin {}",
    ]


def test_traffic_is_what_came_since() -> None:
    """A second; of a connection that is new, since it came."""

    def connection(number: int, octets: int, seconds: float) -> dict[str, Any]:
        return {"number": number, "received": octets, "sent": octets, "seconds": seconds}

    before = top.Look(10.0, {}, [connection(1, 100, 5), connection(2, 100, 5)], [])
    now = top.Look(12.0, {}, [connection(1, 300, 7), connection(3, 50, 1)], [])
    assert top.rates(before, now) == {1: 200.0, 3: 100.0}
    assert top.rates(None, now) == {1: 600 / 7, 3: 100.0}
    assert top.rates(now, now) == {1: 0.0, 3: 0.0}


def test_top_looks_again_until_it_is_told_to_end(running: Running) -> None:
    """On a terminal it refreshes; Ctrl-C is where it ends."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=150, height=40)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        running.clock.advance(60)
        if len(waits) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        top.show(InMemory(running), console, 2.0, once=False, wait=wait)
    assert waits == [2.0, 2.0, 2.0]
    text = stream.getvalue()
    assert "up 0 s" in text
    assert "up 2 min" in text
    # The terminal is as it was.
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in text


def test_top_looks_once_where_there_is_no_terminal(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    """One frame, whole lines, no escape sequences."""
    top.show(InMemory(running), Console(file=io.StringIO()), 2.0, once=False)
    printed = capsys.readouterr().out
    assert "mtlsgate 1.2.3" in printed
    assert "\x1b" not in printed
    assert all(line == line.rstrip() for line in printed.splitlines())


def test_numbers_are_as_people_read_them() -> None:
    """Numbers as people read them."""
    assert [duration(one) for one in (-1, 0, 59.9, 60, 3599, 3600, 86399, 200_000)] == [
        "0 s", "0 s", "59 s", "1 min", "59 min", "1 h", "23 h", "2 d",
    ]  # fmt: skip
    assert [size(one) for one in (0, 999, 999.6, 1000, 999_949, 999_999, 5e9, 7e15)] == [
        "0 B", "999 B", "1.0 kB", "1.0 kB", "999.9 kB", "1.0 MB", "5.0 GB", "7000.0 TB",
    ]  # fmt: skip
    assert [counted(one, "pin") for one in (0, 1, 2)] == ["0 pins", "1 pin", "2 pins"]
    assert moment("2026-06-15T12:00:00.123+00:00") == "2026-06-15 12:00:00Z"


def test_changes_are_told() -> None:
    """Of a reload, of a trial, and of one that was refused."""
    base = {
        "succeeded": True, "is_trial": False, "epoch": 2, "seconds": 0.5, "changes": [],
        "dropped": [], "problems": [],
    }  # fmt: skip
    assert changes(base) == [
        "nothing changes for clients",
        "epoch 2 is in force, loaded in 0.50 s",
    ]
    assert changes(base | {"is_trial": True, "changes": ["a"], "dropped": ["b"], "epoch": 1}) == [
        "a",
        "would be dropped: b",
        "a trial: epoch 1 stays in force",
    ]
    assert changes(base | {"succeeded": False, "problems": ["x", "y"], "epoch": 1}) == [
        "2 problems: epoch 1 stays in force"
    ]
