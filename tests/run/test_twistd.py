"""
The real twistd, with real openssl and curl at its door.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from pathlib import Path

import pytest

from tests.kits.programs import BIN, RunningGate, gate, program, run

pytestmark = pytest.mark.slow


def curl(demo: Path, running: RunningGate, client: str | None, *options: str) -> tuple[int, str]:
    shown: list[str | Path] = [] if client is None else ["--cert", demo / f"{client}.crt", "--key"]
    shown += [] if client is None else [demo / f"{client}.key"]
    port = running.port("demo")
    return run(
        program("curl"), "-sS", "--cacert", demo / "ca.crt", *shown, *options,
        f"https://localhost:{port}/",
    )  # fmt: skip


def s_client(
    demo: Path, running: RunningGate, client: str | None, *options: str
) -> tuple[int, str]:
    shown: list[str | Path] = []
    if client is not None:
        shown = ["-cert", demo / f"{client}.crt", "-key", demo / f"{client}.key"]
    return run(
        program("openssl"), "s_client", "-quiet", "-verify_return_error",
        "-connect", f"127.0.0.1:{running.port('demo')}", "-CAfile", demo / "ca.crt",
        *shown, *options, data=b"GET / HTTP/1.0\r\n\r\n",
    )  # fmt: skip


VERSIONS = [("--tls-max", "1.2"), ("--tlsv1.3",)]


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
def test_curl_gets_in_with_the_right_certificate(demo: Path, version: tuple[str, ...]) -> None:
    """curl with the admitted certificate is told who it is."""
    with gate(demo / "gate.hcl") as running:
        status, output = curl(demo, running, "client", *version)
        assert status == 0, output
        known = json.loads(output)
        assert known["subject"] == "CN=client"
        assert known["rule"] == "clients"
        assert known["server_name"] == "localhost"
        assert "admitted 127.0.0.1:" in running.read_until("admitted")


@pytest.mark.parametrize("version", VERSIONS, ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("client", "reason"),
    [(None, "no_certificate"), ("not-pinned", "leaf_mismatch"), ("stranger", "unknown_ca")],
)
def test_curl_does_not_get_in_with_a_wrong_one(
    demo: Path, client: str | None, reason: str, version: tuple[str, ...]
) -> None:
    """curl fails, gets not one byte of HTTP, and the log says why."""
    with gate(demo / "gate.hcl") as running:
        status, output = curl(demo, running, client, *version, "--include")
        assert status != 0
        assert "HTTP/" not in output
        assert f": {reason}: " in running.read_until("demo: rejected")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_openssl_is_told_the_same(demo: Path, version: str) -> None:
    """openssl s_client is let in with the admitted certificate and not with others."""
    with gate(demo / "gate.hcl") as running:
        assert "HTTP/1.0 200" in s_client(demo, running, "client", version)[1]
        for client, reason in (
            (None, "no_certificate"),
            ("not-pinned", "leaf_mismatch"),
            ("stranger", "unknown_ca"),
        ):
            status, output = s_client(demo, running, client, version)
            assert status != 0
            assert "HTTP/1" not in output
            assert f": {reason}: " in running.read_until("demo: rejected")


def test_old_versions_are_refused(demo: Path) -> None:
    """TLS 1.1 is not spoken."""
    with gate(demo / "gate.hcl") as running:
        status, _ = s_client(demo, running, "client", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0")
        assert status != 0
        assert ": unsupported_tls: " in running.read_until("demo: rejected")


def test_plaintext_is_told_from_tls(demo: Path) -> None:
    """A plain HTTP request is rejected as what it is."""
    with gate(demo / "gate.hcl") as running:
        with socket.create_connection(("127.0.0.1", running.port("demo"))) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"HTTP" not in plain.recv(1000)
        assert ": not_tls: " in running.read_until("demo: rejected")


def test_twist_runs_it_too(demo: Path) -> None:
    """``twist mtlsgate`` is the same gate."""
    command = ("twist", "--log-format=text")
    with gate(demo / "gate.hcl", command) as running:
        assert curl(demo, running, "client")[0] == 0


def test_the_first_lines_say_what_it_does(demo: Path) -> None:
    """One line per server: address, rules with what they demand, protocol."""
    with gate(demo / "gate.hcl") as running:
        line = running.lines[-1]
        port = running.port("demo")
        assert f"demo: listening on 127.0.0.1:{port}; " in line
        assert "rule clients (CA CN=mtlsgate development CA, 1 pin)" in line
        assert "protocol whoami" in line


def test_it_stops_cleanly(demo: Path) -> None:
    """SIGTERM closes the port, and nothing unhandled is logged."""
    with gate(demo / "gate.hcl") as running:
        # It listens before its reactor runs; a served connection tells that it does.
        s_client(demo, running, None)
        rest = running.stop()
    assert "Traceback" not in "".join(running.lines) + rest
    assert "Server Shut Down" in rest


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("ca.crt", "gone.crt"), 'ca_certificate_file: "gone.crt" no such file'),
        (('protocol "whoami"', 'protocol "whoam"'), 'did you mean "whoami"?'),
        (('"server.key"', "env.NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE is not set"),
        (("tls {", "tls {{"), "syntax"),
    ],
)
def test_a_wrong_configuration_is_one_plain_message(
    demo: Path, tmp_path: Path, change: tuple[str, str], said: str
) -> None:
    """Exit 1, the place and the remedy on the terminal, no help text and no traceback."""
    config = demo / f"wrong-{tmp_path.name}.hcl"
    config.write_text((demo / "gate.hcl").read_text().replace(*change))
    status, output = run(BIN / "twistd", "-n", "--pidfile=", "mtlsgate", "--config", config)
    assert status == 1
    assert said in output
    assert all(line.startswith(f"{config}:") for line in output.splitlines()), output


def test_a_missing_file_is_one_plain_message(tmp_path: Path) -> None:
    """So is a configuration that is not there."""
    config = tmp_path / "nothing.hcl"
    status, output = run(BIN / "twistd", "-n", "--pidfile=", "mtlsgate", "--config", config)
    assert (status, output) == (1, f"{config}:1:1: configuration: no such file\n")


def test_a_port_in_use_is_one_plain_message(demo: Path) -> None:
    """The second gate on a port says so, before it daemonizes, and ends."""
    with gate(demo / "gate.hcl") as running:
        config = demo / "taken.hcl"
        text = (demo / "gate.hcl").read_text()
        config.write_text(text.replace("127.0.0.1:0", f"127.0.0.1:{running.port('demo')}"))
        for options in (["-n"], []):
            status, output = run(
                BIN / "twistd", *options, "--pidfile=", "mtlsgate", "--config", config, cwd=demo
            )
            assert status == 1
            assert "another process listens there" in output
            assert len(output.splitlines()) == 1


def test_a_unix_socket_that_cannot_be_made_ends_it(demo: Path) -> None:
    """An endpoint that fails to listen ends the gate with a message, not a traceback."""
    config = demo / "unix.hcl"
    text = (demo / "gate.hcl").read_text()
    config.write_text(text.replace("127.0.0.1:0", f"unix:{demo}/no/such/directory/gate.sock"))
    status, output = run(BIN / "twistd", "-n", "--pidfile=", "mtlsgate", "--config", config)
    assert status == 1
    assert f"cannot listen on {demo}/no/such/directory/gate.sock: no such directory" in output
    assert "Traceback" not in output


def test_it_listens_on_a_unix_socket(demo: Path) -> None:
    """A Twisted endpoint string does as a host."""
    config = demo / "unix.hcl"
    text = (demo / "gate.hcl").read_text()
    config.write_text(text.replace("127.0.0.1:0", f"unix:{demo}/gate.sock"))
    with gate(config) as running:
        status, output = run(
            program("curl"), "-sS", "--unix-socket", demo / "gate.sock",
            "--cacert", demo / "ca.crt", "--cert", demo / "client.crt",
            "--key", demo / "client.key", "https://localhost/",
        )  # fmt: skip
        assert status == 0, output
        assert json.loads(output)["address"].startswith("unix:")
        assert stat.S_ISSOCK((demo / "gate.sock").stat().st_mode)
        assert "unix:" in running.where["demo"][0]


def test_daemonized_it_serves_all_the_same(demo: Path, tmp_path: Path) -> None:
    """Without -n it goes to the background with the sockets it bound before."""
    log, pid = tmp_path / "gate.log", tmp_path / "gate.pid"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = demo / "daemon.hcl"
    config.write_text((demo / "gate.hcl").read_text().replace("127.0.0.1:0", f"127.0.0.1:{port}"))
    status, output = run(
        BIN / "twistd", f"--pidfile={pid}", f"--logfile={log}", f"--rundir={tmp_path}",
        "mtlsgate", "--config", config,
    )  # fmt: skip
    try:
        assert status == 0, output
        status, output = run(
            program("curl"), "-sS", "--cacert", demo / "ca.crt", "--cert", demo / "client.crt",
            "--key", demo / "client.key", f"https://localhost:{port}/",
        )  # fmt: skip
        assert status == 0, output
        assert json.loads(output)["common_name"] == "client"
    finally:
        os.kill(int(pid.read_text()), 15)


@pytest.mark.slow
@pytest.mark.parametrize("reactor", ["asyncio", "poll", "select"])
def test_any_reactor(demo: Path, reactor: str) -> None:
    """The gate runs on any reactor that watches descriptors, not on epoll alone."""
    command = ("twistd", f"--reactor={reactor}", "-n", "--pidfile=")
    with gate(demo / "gate.hcl", command) as running:
        assert curl(demo, running, "client", "--include")[0] == 0
        assert curl(demo, running, "not-pinned", "--include")[0] != 0
        assert ": leaf_mismatch: " in running.read_until("demo: rejected")
