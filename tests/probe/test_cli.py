"""
The command ``mtlsgate probe``: its options, its output and its exit status.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from mtlsgate.commands.cli import main
from mtlsgate.testing import Authority
from tests.kits.keystores import keystore
from tests.kits.probe import (
    Tls,
    authority,
    both_versions,
    client_authority,
    drain,
    raw,
    server,
    server_context,
    serving,
    tls_server,
    write_demo,
)
from tests.kits.programs import BIN, gate


def probe(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["probe", *map(str, arguments)])


def knock(handle: Callable[[socket.socket], None], *options: str | Path) -> Result:
    """Probe a server that is called localhost, and wait long for what comes."""
    with serving(handle) as target:
        return probe(str(target), "--server-name", "localhost", "--timeout", "1m", *options)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """The client's certificate c.crt and key c.key, the server's CA ca.crt."""
    leaf = client_authority().issue("client")
    (tmp_path / "c.crt").write_bytes(leaf.pem)
    (tmp_path / "c.key").write_bytes(leaf.key_pem)
    (tmp_path / "ca.crt").write_bytes(authority().pem)
    return tmp_path


@pytest.mark.slow
@both_versions
def test_the_real_command_at_a_real_gate(tls: Tls, tmp_path: Path) -> None:
    """It knocks as each of the clients that ``init`` wrote, and tells what it heard."""
    demo = write_demo(tmp_path)
    with gate(demo / "gate.hcl") as running:
        for client, status, verdict in (("client", 0, "admitted"), ("stranger", 1, "refused")):
            done = subprocess.run(
                [
                    BIN / "mtlsgate", "probe", f"127.0.0.1:{running.port('demo')}",
                    "--cert", demo / f"{client}.crt", "--key", demo / f"{client}.key",
                    "--ca", demo / "ca.crt", "--server-name", "localhost", "--tls", tls,
                    "--wait", "5s" if status else "200ms",
                ],
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )  # fmt: skip
            assert (done.returncode, done.stderr) == (status, "")
            lines = done.stdout.splitlines()
            assert lines[0] == f"target     127.0.0.1:{running.port('demo')}"
            assert any(line.startswith(f"tls        TLSv{tls}, ") for line in lines)
            assert any(line.startswith(f"{verdict:<11}") for line in lines)


@both_versions
def test_every_option_reaches_the_probe(tls: Tls, files: Path) -> None:
    """Every option reaches the probe, and the words go to stdout."""
    seen = []

    def note(connection: SSL.Connection, _socket: socket.socket) -> None:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        assert certificate is not None
        seen.append((connection.get_servername(), certificate.subject.rfc4514_string()))

    result = knock(
        tls_server(server_context(server(), client_authority()), note),
        "--cert", files / "c.crt", "--key", files / "c.key", "--ca", files / "ca.crt",
        "--wait", "200ms", "--tls", tls,
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[1].startswith(f"tls        TLSv{tls}, ")
    assert "verified   the chain leads to a CA in --ca" in lines
    assert lines[-1] == "admitted   no objection within 0.2 s: admitted, as far as TLS tells"
    assert seen == [(b"localhost", "CN=client")]


@both_versions
def test_a_keystore_is_presented(tls: Tls, files: Path) -> None:
    """With its passphrase in a file, a pipe or on standard input."""
    (files / "c.p12").write_bytes(keystore(client_authority().issue("in-one")))
    for source, given in ((files / "passphrase", None), ("-", "secret\n")):
        (files / "passphrase").write_text("secret\n")
        with serving(tls_server(server_context(server(), client_authority()))) as target:
            result = CliRunner().invoke(
                main,
                [
                    "probe", str(target), "--server-name", "localhost", "--timeout", "1m",
                    "--cert", str(files / "c.p12"), "--passphrase-file", str(source),
                    "--wait", "200ms", "--tls", tls,
                ],
                input=given,
            )  # fmt: skip
        assert (result.exit_code, result.stderr) == (0, "")
        assert "presented  CN=in-one, " in result.stdout


def test_a_passphrase_that_cannot_be_read(files: Path) -> None:
    """In one line, and nothing is connected to."""
    for source in (files, files / "gone"):
        result = probe("gate:1", "--cert", files / "c.crt", "--passphrase-file", source)
        assert result.exit_code == 2
        assert "Traceback" not in result.output
        assert "--passphrase-file" in result.stderr


@both_versions
def test_an_alert_is_status_1(tls: Tls) -> None:
    """An alert is status 1."""
    result = knock(
        tls_server(server_context(server(), client_authority())), "--tls", tls, "--wait", "1m"
    )
    assert (result.exit_code, result.stderr) == (1, "")
    assert "\nrefused    the server sent the alert " in result.stdout


def test_not_the_server_that_was_meant(files: Path) -> None:
    """So is a server that is not below --ca, also where it admits."""
    shown = Authority.create("Another").issue("s", dns_names=["localhost"])
    for options, status in (((), 0), (("--ca", files / "ca.crt"), 1)):
        result = knock(tls_server(server_context(shown)), "--wait", "200ms", *options)
        assert result.exit_code == status
        assert "\nadmitted   " in result.stdout


def test_not_known() -> None:
    """Where nobody can tell, the status is 2, and what was seen is still said on stdout."""
    for options in ((), ("--json",)):
        result = knock(raw(b"220 hello\r\n"), *options)
        assert (result.exit_code, result.stderr) == (2, "")
        assert "the server does not speak TLS here" in result.stdout


def test_the_timeout() -> None:
    """--timeout ends the wait for a handshake."""
    with serving(drain) as target:
        result = probe(str(target), "--timeout", "200ms")
    assert result.exit_code == 2
    assert result.stdout.splitlines()[-1] == "unknown    no answer in TLS within 0.2 s"


def test_json_prints_one_document_and_nothing_else(files: Path) -> None:
    """--json prints one document and nothing else; the status is the same and in it, too."""
    for clients, wait, status in ((None, "200ms", 0), (client_authority(), "1m", 1)):
        result = knock(
            tls_server(server_context(server(), clients)),
            "--json", "--wait", wait, "--ca", files / "ca.crt",
        )  # fmt: skip
        found = json.loads(result.stdout)
        assert (result.exit_code, result.stderr) == (status, "")
        assert found["exit_status"] == status
        assert found["server"]["verified"] is True
        assert found["timeout_seconds"] == 60


def test_the_defaults() -> None:
    """Ten seconds for the handshake, and one for the verdict."""
    with serving(tls_server(server_context(server()))) as target:
        found = json.loads(probe(str(target), "--json").stdout)
    assert (found["timeout_seconds"], found["wait_seconds"]) == (10, 1)
    assert found["server_name"] == target.host


def test_arguments_that_cannot_be(files: Path) -> None:
    """What keeps it from being tried goes to stderr in one line, and the status is 2."""
    certificate, key = files / "c.crt", files / "c.key"
    (files / "bad.crt").write_text("nothing")
    said: list[tuple[tuple[str | Path, ...], str]] = [
        (("gate",), '"gate" is not an address: write "gate.example:8443" or "[::1]:8443"'),
        (
            ("gate:1", "--cert", certificate),
            "--cert needs --key, unless it is a PKCS#12 file (.p12, .pfx)",
        ),
        (
            ("gate:1", "--key", key),
            "--key needs --cert, the certificate that it is the key of",
        ),
        (("gate:1", "--ca", files / "none"), f"{files}/none: no such file"),
        (
            ("gate:1", "--server-name", "a b"),
            '"a b" is not the name of a server: write it in ASCII (xn--…), without a port',
        ),
    ]
    for arguments, problem in said:
        result = probe(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == f"mtlsgate probe: {problem}\n"
    result = probe("gate:1", "--ca", files / "bad.crt")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--timeout", "10"), "Invalid value for '--timeout': not a duration; write it as"),
        (("--timeout", "0s"), "Invalid value for '--timeout': a duration must be longer than zero"),
        (("--wait", "x"), "Invalid value for '--wait': not a duration"),
        (("--wait", "61m"), "Invalid value for '--wait': longer than an hour"),
        (("--tls", "1.1"), "Invalid value for '--tls'"),
        (("more",), "Got unexpected extra argument"),
    ],
)
def test_options_that_cannot_be(options: tuple[str, ...], problem: str) -> None:
    """Usage errors have status 2, like all that does not answer the question."""
    result = probe("gate:1", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert problem in result.stderr


def test_the_longest_wait_is_one_that_sockets_take() -> None:
    """An hour does not overflow."""
    result = knock(raw(b"220 hello\r\n"), "--timeout", "1h", "--wait", "1h")
    assert (result.exit_code, result.exception.__class__) == (2, SystemExit)


def test_a_key_that_openssl_does_not_take(files: Path) -> None:
    """What OpenSSL objects to is no traceback either."""
    weak = client_authority().issue("weak", key=rsa.generate_private_key(65537, 1024))
    (files / "weak.crt").write_bytes(weak.pem)
    (files / "weak.key").write_bytes(weak.key_pem)
    result = probe("127.0.0.1:1", "--cert", files / "weak.crt", "--key", files / "weak.key")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        "mtlsgate probe: OpenSSL does not take the client certificate: "
    )


@pytest.mark.slow
def test_other_commands_do_not_pay_for_it(tmp_path: Path) -> None:
    """``check`` imports nothing of the probe."""
    demo = write_demo(tmp_path)
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from mtlsgate.commands.cli import main\n"
        f"result = CliRunner().invoke(main, ['check', '--config', {str(demo / 'gate.hcl')!r}])\n"
        "assert result.exit_code == 0, result.output\n"
        "assert not [one for one in sys.modules if one.startswith('mtlsgate.probe')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
