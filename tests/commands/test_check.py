from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mtlsgate.certificates.development_ca import Authority, Credential, self_signed
from mtlsgate.commands.cli import main
from tests.kits.pki import INSTALLED, server
from tests.kits.revocation import crl, der

BIN = Path(sys.executable).parent


def check(config: Path, *options: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["check", "--config", str(config), *options], env=env)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of today, with one CA, two pins and a server certificate."""
    ca = Authority.create("Fleet CA")
    shown = ca.issue("localhost", dns_names=["localhost"], usages=["server_auth"], days=90)
    pins = [ca.issue(name, organization="Device " * 8) for name in ("one", "two")]
    (tmp_path / "ca.crt").write_bytes(ca.pem)
    (tmp_path / "server.crt").write_bytes(shown.pem)
    (tmp_path / "server.key").write_bytes(shown.key_pem)
    (tmp_path / "server.key").chmod(0o600)
    (tmp_path / "pins.crt").write_bytes(b"".join(pin.pem for pin in pins))
    path = tmp_path / "gate.hcl"
    path.write_text(
        server(
            """\
server_certificate {
public_key_file = "server.crt"
private_key_file = "server.key"
}
client_certificate "IOT" {
ca_certificate_file = "ca.crt"
leaf_certificate_file = "pins.crt"
}""",
            hosts='["127.0.0.1:8443", "unix:gate.sock"]',
            label='"devices"',
        )
        + server('client_authentication = "none"', protocol='protocol "whoami" {}')
    )
    return path


def fingerprints(directory: Path) -> list[str]:
    from mtlsgate.certificates.parsing import parse_certificates

    return [
        one.sha256.hex()
        for name in ("server.crt", "ca.crt", "pins.crt")
        for one in parse_certificates((directory / name).read_bytes())
    ]


def test_it_says_what_the_gate_would_do(config: Path) -> None:
    result = check(config)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == (
        "devices: listening on 127.0.0.1:8443, unix:gate.sock; admits by rule IOT (CA CN=Fleet CA,"
        " 2 pins); protocol echo"
    )
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[1:6]]
    assert rows[0] == ["what", "subject", "days left", "SHA-256"]
    found = fingerprints(config.parent)
    assert [row[0] for row in rows[1:]] == [
        *("server certificate", "rule IOT: CA", "rule IOT: pin", "rule IOT: pin")
    ]
    assert [row[-1] for row in rows[1:]] == found
    assert [row[-2] for row in rows[1:]] == ["89", "3649", "364", "364"]
    assert "127.0.0.1:0: listening on 127.0.0.1:0; lets in anyone; protocol whoami" in lines


@pytest.mark.slow
def test_the_real_command_says_it_in_whole_lines_also_to_a_pipe(config: Path) -> None:
    """A fingerprint can be searched for, however wide the terminal is said to be."""
    for extra in ({"COLUMNS": "40"}, {"FORCE_COLOR": "1", "COLUMNS": "40"}, {"TERM": "dumb"}):
        done = subprocess.run(
            [BIN / "mtlsgate", "check", "--config", config],
            capture_output=True,
            text=True,
            env={**os.environ, **extra},
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        for fingerprint in fingerprints(config.parent):
            assert fingerprint in done.stdout
        assert "devices: listening on 127.0.0.1:8443, unix:gate.sock; admits by" in done.stdout


def test_long_labels_and_subjects_leave_fingerprints_whole(tmp_path: Path) -> None:
    pin = self_signed("x" * 60, organization="y" * 60, organizational_unit="z" * 60)
    (tmp_path / "pin.crt").write_bytes(pin.pem)
    path = tmp_path / "gate.hcl"
    path.write_text(
        server(f'client_certificate "{"l" * 300}" {{ leaf_certificate_file = "pin.crt" }}')
    )
    assert f" {pin.sha256}" in check(path).stdout


def test_problems_go_to_stderr_and_the_exit_code_is_1(tmp_path: Path) -> None:
    path = tmp_path / "gate.hcl"
    path.write_text(
        server(
            'client_certificate "A" { ca_certificate_file = "nosuch.crt" }',
            protocol='protocol "ecko" {}',
        )
    )
    result = check(path)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f'{path}:3:1: protocol "ecko": no protocol plugin "ecko"; did you mean "echo"? '
        f"(installed: {INSTALLED})\n"
        f'{path}:5:26: client_certificate "A": ca_certificate_file: "nosuch.crt" no such file\n'
    )


@pytest.mark.slow
def test_the_real_command_says_problems_on_stderr(tmp_path: Path) -> None:
    done = subprocess.run(
        [BIN / "mtlsgate", "check", "--config", "nosuch.hcl"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "nosuch.hcl:1:1: configuration: no such file\n"


def test_the_configuration_is_gate_hcl_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["check"])
    assert result.stderr == "gate.hcl:1:1: configuration: no such file\n"


@pytest.fixture
def expiring(tmp_path: Path) -> Path:
    now = datetime.now(UTC)
    pins = [
        self_signed("old", not_before=now - timedelta(days=9), not_after=now - timedelta(days=3)),
        self_signed("soon", not_before=now - timedelta(days=9), not_after=now + timedelta(days=3)),
    ]
    for name, pin in zip(("old", "soon"), pins, strict=True):
        (tmp_path / f"{name}.crt").write_bytes(pin.pem)
    path = tmp_path / "gate.hcl"
    path.write_text(
        server(
            'client_certificate { leaf_certificate_file = "old.crt" }\n'
            'client_certificate { leaf_certificate_file = "soon.crt" }'
        )
    )
    return path


def test_warnings_are_said_and_stop_nothing(expiring: Path) -> None:
    result = check(expiring)
    assert result.exit_code == 0
    old, soon = result.stderr.splitlines()
    assert old.startswith(f"{expiring}:5:22: client_certificate: the pin 'CN=old' expired on ")
    assert soon.startswith(f"{expiring}:6:22: client_certificate: the pin 'CN=soon' expires soon, ")
    assert old.endswith(" (warning)")
    assert soon.endswith(" (warning)")
    assert re.search(r" -[34] ", result.stdout)


def test_strict_makes_warnings_errors(expiring: Path) -> None:
    result = check(expiring, "--strict")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 2


def test_strict_is_content_with_what_is_in_order(config: Path) -> None:
    assert check(config, "--strict").exit_code == 0


def test_labels_and_subjects_cannot_forge_lines(tmp_path: Path) -> None:
    pin = self_signed("a\nb\x1b[31m\u202e")
    (tmp_path / "pin.crt").write_bytes(pin.pem)
    path = tmp_path / "gate.hcl"
    path.write_text(
        server(
            'client_certificate "x\\ny\\u001b[2J" { leaf_certificate_file = "pin.crt" }',
            label='"s\\nt\\u001b[2J [bold]"',
        )
    )
    result = check(path)
    assert result.exit_code == 0
    assert all(line.isprintable() for line in result.stdout.splitlines())
    assert len(result.stdout.splitlines()) == 4
    assert result.stdout.startswith("s\\nt\\x1b[2J [bold]: listening on 127.0.0.1:0; ")


@pytest.mark.slow
def test_it_needs_no_reactor_and_binds_nothing(config: Path) -> None:
    """``check`` runs beside the gate that it checks."""
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise AssertionError('listened')\n"
        "socket.socket.listen = refuse\n"
        "from click.testing import CliRunner\n"
        "from mtlsgate.commands.cli import main\n"
        f"result = CliRunner().invoke(main, ['check', '--config', {str(config)!r}])\n"
        "assert result.exit_code == 0, result.output\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_bundle_of_many_cas_is_counted(tmp_path: Path) -> None:
    authorities = [Authority.create(f"CA {number}") for number in range(5)]
    (tmp_path / "ca.crt").write_bytes(b"".join(one.pem for one in authorities))
    path = tmp_path / "gate.hcl"
    path.write_text(server('client_certificate { ca_certificate_file = "ca.crt" }'))
    first = check(path).stdout.splitlines()[0]
    assert "rule #1 (CA CN=CA 0 or CN=CA 1 or CN=CA 2 or 2 more)" in first


def test_help_and_version() -> None:
    for arguments in (["--help"], ["check", "--help"], ["init", "-h"], ["--version"]):
        assert CliRunner().invoke(main, arguments).exit_code == 0
    assert CliRunner().invoke(main, ["nosuch"]).exit_code == 2


def test_a_chain_is_shown_by_its_leaf(tmp_path: Path) -> None:
    root = Authority.create("Root")
    made: Credential = root.intermediate("Between").issue("localhost", usages=["server_auth"])
    (tmp_path / "server.crt").write_bytes(made.pem)
    (tmp_path / "server.key").write_bytes(made.key_pem)
    path = tmp_path / "gate.hcl"
    path.write_text(
        server(
            'server_certificate {\npublic_key_file = "server.crt"\n'
            'private_key_file = "server.key"\n}\nclient_authentication = "none"'
        )
    )
    output = check(path).stdout
    assert made.sha256 in output
    assert "CN=Between" not in output


def test_it_shows_every_deadline(tmp_path: Path) -> None:
    """Of lists the one in force, and of a pin the earlier of its ends; each is a warning
    when it is near, and with --strict an error."""
    now = datetime.now(UTC)
    authority = Authority.create("Fleet CA", now=now)
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "pin.crt").write_bytes(authority.issue("alice", now=now).pem)
    lists = [
        crl(
            authority,
            now=now,
            number=number,
            this_update=now - timedelta(days=91 - number),
            next_update=now + timedelta(days=left, minutes=1),
        )
        for number, left in ((1, 40), (2, 5))
    ]
    (tmp_path / "lists").mkdir()
    for number, one in enumerate(lists):
        (tmp_path / "lists" / f"{number}.crl").write_bytes(der(one))
    end = (now + timedelta(days=20, minutes=1)).isoformat(timespec="seconds")
    path = tmp_path / "gate.hcl"
    path.write_text(
        server(
            'client_certificate "x" {\n  ca_certificate_file = "ca.crt"\n  crl_dir = "lists"\n'
            f'  pin "laptop" {{\n    leaf_certificate_file = "pin.crt"\n'
            f'    retire_after = "{end}"\n  }}\n}}'
        )
    )
    result = check(path)
    rows = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()[2:]]
    shown = {row[0]: row[2] for row in rows if row[0].startswith("rule x: ")}
    assert shown.keys() == {"rule x: CA", "rule x: pin laptop", "rule x: CRL"}
    assert (shown["rule x: pin laptop"], shown["rule x: CRL"]) == ("20", "5")
    assert "retires soon, on " in result.stderr
    assert "expires soon, at " in result.stderr
    assert (result.exit_code, check(path, "--strict").exit_code) == (0, 1)
