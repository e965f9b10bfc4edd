from __future__ import annotations

import ipaddress
import os
import shlex
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import PolicyBuilder, Store
from OpenSSL.crypto import (
    X509,
    X509Store,
    X509StoreContext,
    X509StoreContextError,
    X509StoreFlags,
)

from mtlsgate.certificates.certificate import view, views
from mtlsgate.certificates.parsing import pair, parse_certificates, parse_private_key
from mtlsgate.commands.cli import main
from mtlsgate.commands.init import commands, is_pinned, write_setup
from mtlsgate.load.loading import load

FILES = {
    *("gate.hcl", "admitted.crt", "ca.crt", "ca.key", "server.crt", "server.key"),
    *("client.crt", "client.key", "not-pinned.crt", "not-pinned.key"),
    *("stranger.crt", "stranger.key", "stranger-ca.crt", "stranger-ca.key"),
}


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, arguments)])


def good(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


def bad(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 1
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.stderr


def certificate(path: Path) -> x509.Certificate:
    return parse_certificates(path.read_bytes())[0].x509


def admitted(directory: Path, name: str, ca: str = "ca") -> bool:
    """:returns: whether the client's certificate holds against the CA's."""
    store = X509Store()
    store.set_flags(X509StoreFlags.X509_STRICT)
    store.add_cert(X509.from_cryptography(certificate(directory / f"{ca}.crt")))
    leaf = X509.from_cryptography(certificate(directory / f"{name}.crt"))
    try:
        X509StoreContext(store, leaf).verify_certificate()
    except X509StoreContextError:
        return False
    return True


def test_it_writes_a_setup(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "demo"
    output = good(directory)
    assert {one.name for one in directory.iterdir()} == FILES
    assert {line.split()[1] for line in output.splitlines() if line.startswith("wrote ")} == {
        str(directory / name) for name in FILES
    }
    assert "kept" not in output


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask is, and from the start."""
    before = os.umask(0)
    try:
        good(tmp_path)
    finally:
        os.umask(before)
    for path in tmp_path.iterdir():
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o600 if path.suffix == ".key" else 0o644), path


def test_the_setup_loads_without_a_warning(tmp_path: Path) -> None:
    good(tmp_path)
    epoch = load(str(tmp_path / "gate.hcl"), {})
    assert epoch.warnings == ()
    (server,) = epoch.servers
    policy = server.gate.context.policy
    assert policy.admission is not None
    (rule,) = policy.admission.rules
    assert rule.authorities == views([certificate(tmp_path / "ca.crt")])
    assert tuple(pin.certificate for pin in rule.pins) == views(
        [certificate(tmp_path / "client.crt")]
    )
    assert policy.credentials[0].chain == views([certificate(tmp_path / "server.crt")])


def test_every_key_is_that_of_its_certificate(tmp_path: Path) -> None:
    good(tmp_path)
    for path in tmp_path.glob("*.key"):
        pair((certificate(path.with_suffix(".crt")),), parse_private_key(path.read_bytes()))


def test_the_certificates_are_what_they_should_be(tmp_path: Path) -> None:
    good(tmp_path)
    assert admitted(tmp_path, "client")
    assert admitted(tmp_path, "not-pinned")
    assert not admitted(tmp_path, "stranger")
    assert admitted(tmp_path, "stranger", ca="stranger-ca")
    assert {
        name: view(certificate(tmp_path / f"{name}.crt")).is_ca
        for name in ("ca", "stranger-ca", "server", "client", "not-pinned", "stranger")
    } == {
        "ca": True,
        "stranger-ca": True,
        "server": False,
        "client": False,
        "not-pinned": False,
        "stranger": False,
    }


def test_the_stranger_has_the_names_and_nothing_else(tmp_path: Path) -> None:
    """Its CA is called like ours, and it like an admitted client."""
    good(tmp_path)
    assert (
        certificate(tmp_path / "ca.crt").subject
        == certificate(tmp_path / "stranger-ca.crt").subject
    )
    stranger, client = (certificate(tmp_path / f"{name}.crt") for name in ("stranger", "client"))
    assert (stranger.subject, stranger.issuer) == (client.subject, client.issuer)
    assert stranger != client


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1"])
def test_clients_can_verify_the_server(tmp_path: Path, name: str) -> None:
    good(tmp_path)
    store = Store([certificate(tmp_path / "ca.crt")])
    try:
        subject: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        subject = x509.DNSName(name)
    verifier = PolicyBuilder().store(store).build_server_verifier(subject)  # type: ignore[arg-type]
    verifier.verify(certificate(tmp_path / "server.crt"), [])


def test_options_name_hosts_clients_and_days(tmp_path: Path) -> None:
    good(
        *(tmp_path, "--days", "7", "--host", "gate.example", "--host", "192.0.2.7"),
        *("--client", "alice", "--client", "bob", "--host", "2001:db8::7"),
    )
    server = certificate(tmp_path / "server.crt")
    names = server.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "gate.example"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == [
        *("127.0.0.1", "::1", "192.0.2.7", "2001:db8::7"),
    ]
    clients = [certificate(tmp_path / f"{name}.crt") for name in ("alice", "bob")]
    assert list(parse_certificates((tmp_path / "admitted.crt").read_bytes())) == list(
        views(clients)
    )
    assert [
        one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value for one in clients
    ] == ["alice", "bob"]
    assert not (tmp_path / "client.crt").exists()
    now = datetime.now(UTC)
    for path in tmp_path.glob("*.crt"):
        for one in parse_certificates(path.read_bytes()):
            assert timedelta(days=6) < one.not_after - now <= timedelta(days=7)


def test_a_client_named_twice_is_one(tmp_path: Path) -> None:
    output = good(tmp_path, "--client", "a", "--client", "a")
    assert "kept" not in output
    assert len(parse_certificates((tmp_path / "admitted.crt").read_bytes())) == 1


def test_running_it_twice_changes_nothing(tmp_path: Path) -> None:
    first = good(tmp_path)
    content = {one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in tmp_path.iterdir()}
    second = good(tmp_path)
    assert content == {
        one.name: (one.read_bytes(), one.stat().st_mtime_ns) for one in tmp_path.iterdir()
    }
    kept = {line for line in second.splitlines() if line.startswith("kept ")}
    assert kept == {f"kept     {tmp_path / name} (it was there)" for name in FILES}
    assert "wrote" not in second
    assert first.partition("\n\n")[2] == second.partition("\n\n")[2]


def test_what_is_there_is_kept_and_the_rest_is_made(tmp_path: Path) -> None:
    good(tmp_path)
    ca = (tmp_path / "ca.crt").read_bytes()
    (tmp_path / "gate.hcl").write_text("mine\n")
    for name in ("server", "client"):
        (tmp_path / f"{name}.crt").unlink()
        (tmp_path / f"{name}.key").unlink()
    (tmp_path / "admitted.crt").unlink()
    output = good(tmp_path)
    assert (tmp_path / "gate.hcl").read_text() == "mine\n"
    assert (tmp_path / "ca.crt").read_bytes() == ca
    assert admitted(tmp_path, "client")
    assert is_pinned(tmp_path, "client")
    assert f"kept     {tmp_path}/gate.hcl (it was there)" in output
    assert f"wrote    {tmp_path}/server.key" in output


def test_a_client_that_kept_pins_do_not_name_is_said(tmp_path: Path) -> None:
    """... and the commands are for one that is admitted."""
    good(tmp_path)
    output = good(tmp_path, "--client", "bob", "--client", "client")
    assert (
        f"{tmp_path}/admitted.crt was there and does not pin bob: append its certificate" in output
    )
    assert "--cert " + str(tmp_path / "client.crt") in output
    assert str(tmp_path / "bob.crt") not in output.partition("Start the gate")[2]
    assert not is_pinned(tmp_path, "bob")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("ca.crt", b"", "ca.crt: is empty; remove its pair to have a new one made"),
        ("ca.key", b"junk!", "ca.key: is neither PEM nor DER nor base64 of DER; remove its pair"),
        ("server.key", None, "server.key: no such file; remove its pair to have a new one made"),
        ("client.crt", None, "client.crt: no such file; remove its pair to have a new one made"),
        ("admitted.crt", b"", "admitted.crt: is empty; remove its pair to have a new one made"),
        (
            "ca.key",
            "stranger-ca.key",
            "ca.key: the private key is not that of the certificate; remove the pair to have a new "
            "one made",
        ),
    ],
)
def test_what_was_left_broken_is_said_and_kept(
    tmp_path: Path, name: str, content: bytes | str | None, expected: str
) -> None:
    """As after a full disk: nothing is issued by half a CA."""
    good(tmp_path)
    path = tmp_path / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(
            content if isinstance(content, bytes) else (tmp_path / content).read_bytes()
        )
    for other in ("not-pinned.crt", "not-pinned.key"):
        (tmp_path / other).unlink()
    assert bad(tmp_path).startswith(f"mtlsgate init: {tmp_path}/{expected}")
    assert path.exists() is (content is not None)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    directory = tmp_path / "demo"
    directory.mkdir()
    (directory / "gate.hcl").symlink_to(tmp_path / "elsewhere")
    output = good(directory)
    assert f"kept     {directory}/gate.hcl (it was there)" in output
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../x", "a/b", "/x", "-x", ".x", "a b", "a\n", "a\0", "\xfc", "a'b"),
        *("ca", "server", "stranger", "stranger-ca", "not-pinned", "admitted", "gate"),
    ],
)
def test_a_clients_name_is_a_file_name_and_not_one_that_is_taken(tmp_path: Path, name: str) -> None:
    directory = tmp_path / "demo"
    error = bad(directory, "--client", "fine", f"--client={name}")
    assert error.startswith('mtlsgate init: "')
    assert error.endswith("\" cannot be the name of a client's files\n")
    assert error.rstrip("\n").isprintable()
    assert not directory.exists()


@pytest.mark.parametrize("name", ["alice", "a", "A.b-c_d@example.org", "7"])
def test_other_names_will_do(tmp_path: Path, name: str) -> None:
    good(tmp_path, "--client", name)
    assert is_pinned(tmp_path, name)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--days", "0"], 2),
        (["--days", "3651"], 2),
        (["--days", "x"], 2),
        (["--host", "\xfc.example"], 1),
        (["--host", "*"], 1),
        (["--host", "a b"], 1),
        (["--host", "a..b"], 1),
        (["--host", "http://a"], 1),
        (["--host", ""], 1),
        (["--nosuch"], 2),
    ],
)
def test_options_that_cannot_be_are_refused(
    tmp_path: Path, arguments: list[str], code: int
) -> None:
    result = run(tmp_path, *arguments)
    assert result.exit_code == code
    assert isinstance(result.exception, SystemExit)
    assert "Traceback" not in result.output
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert run(tmp_path / "file").exit_code == 2
    error = bad(tmp_path / "file" / "demo")
    assert error.startswith("mtlsgate init: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize("name", ["with space", "it's", "a\nb", "$(x)", "%s {x}"])
def test_odd_directories_do_no_harm(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    output = good(directory)
    load(str(directory / "gate.hcl"), {})
    lines = output.partition("Start the gate:\n")[2]
    assert f"--config {shlex.quote(f'{directory}/gate.hcl')}" in lines
    assert f"--cacert {shlex.quote(f'{directory}/ca.crt')}" in lines


def test_it_prints_what_to_try(tmp_path: Path) -> None:
    """One client that is let in and three that are not, with curl and with openssl."""
    output = good(tmp_path, "--client", "alice")
    d = tmp_path
    tried = output.partition("Start the gate:\n")[2].splitlines()
    openssl = (
        "  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet -verify_return_error "
        f"-connect localhost:8443 -CAfile {d}/ca.crt"
    )
    curl = f"  curl --cacert {d}/ca.crt"
    assert tried == [
        f"  mtlsgate run --config {d}/gate.hcl",
        "",
        "Let in:",
        f"{curl} --cert {d}/alice.crt --key {d}/alice.key https://localhost:8443/",
        f"{openssl} -cert {d}/alice.crt -key {d}/alice.key",
        "",
        "Not let in, no certificate:",
        f"{curl} https://localhost:8443/",
        openssl,
        "",
        "Not let in, of the same CA but not pinned:",
        f"{curl} --cert {d}/not-pinned.crt --key {d}/not-pinned.key https://localhost:8443/",
        f"{openssl} -cert {d}/not-pinned.crt -key {d}/not-pinned.key",
        "",
        "Not let in, a stranger from another CA of the same name:",
        f"{curl} --cert {d}/stranger.crt --key {d}/stranger.key https://localhost:8443/",
        f"{openssl} -cert {d}/stranger.crt -key {d}/stranger.key",
    ]


def test_the_setup_says_what_it_wrote_and_kept(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    first = write_setup(tmp_path, days=1, hosts=(), clients=("client",), now=now)
    assert {one.name for one in first.written} == FILES
    assert first.kept == []
    (tmp_path / "gate.hcl").unlink()
    second = write_setup(tmp_path, days=1, hosts=(), clients=("client",), now=now)
    assert second.written == [tmp_path / "gate.hcl"]
    assert {one.name for one in second.kept} == FILES - {"gate.hcl"}


def test_commands_name_four_clients() -> None:
    assert [len(lines) for _, lines in commands(Path("demo"), "client")] == [2, 2, 2, 2]
