"""
What the probe is told, and what it tells: arguments, words and JSON.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from mtlsgate.certificates.certificate import views
from mtlsgate.probe import (
    ALERTS,
    CertificateFacts,
    Ending,
    Outcome,
    PathProblem,
    ProbeError,
    ProbeStage,
    ProbeTarget,
    describe,
    load_identity,
    load_trust,
    parse_target,
    probe,
    problem_text,
    read_passphrase,
    to_dict,
)
from mtlsgate.testing import Authority
from tests.kits.keystores import keystore
from tests.kits.probe import (
    SHORT,
    authority,
    client_authority,
    identity,
    knock,
    server,
    server_context,
    tls_server,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)
TARGET = ProbeTarget("gate.example", 8443, "gate.example")
FACTS = CertificateFacts(
    subject="CN=client",
    issuer="CN=CA",
    not_before=NOW - timedelta(days=10),
    not_after=NOW + timedelta(days=1, hours=1),
    sha256="ab" * 32,
)


# Arguments.


@pytest.mark.parametrize(
    ("text", "name", "target"),
    [
        ("gate.example:8443", None, ProbeTarget("gate.example", 8443, "gate.example")),
        ("GATE.example.:8443", None, ProbeTarget("GATE.example.", 8443, "gate.example")),
        ("192.0.2.1:443", None, ProbeTarget("192.0.2.1", 443, "192.0.2.1")),
        ("192.0.2.1:443", "gate.example", ProbeTarget("192.0.2.1", 443, "gate.example")),
        ("[::1]:8443", None, ProbeTarget("::1", 8443, "::1")),
        ("[fe80::1%eth0]:8443", None, ProbeTarget("fe80::1%eth0", 8443, "fe80::1")),
        ("gate.example:8443", "2001:DB8::0:1", ProbeTarget("gate.example", 8443, "2001:db8::1")),
    ],
)
def test_each_way_to_write_a_target_is_read(
    text: str, name: str | None, target: ProbeTarget
) -> None:
    assert parse_target(text, name) == target


@pytest.mark.parametrize(
    "text",
    ["", "8443", ":8443", "gate.example", "gate.example:", "gate:0", "gate:65536", "gate:999999",
     "::1:8443", "[::1]", "[1.2.3.4]:1", "[zz]:1", "[1:2]:1", "https://gate:1", "a b:1",
     "bücher.example:1", "a..b:1", "-\x1b[31m:1", f"{'a' * 64}:1", "*:8443", "gate:٣"],
)  # fmt: skip
def test_no_targets(text: str) -> None:
    """A bad address is refused in one printable line."""
    with pytest.raises(ProbeError) as raised:
        parse_target(text)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["a b", "gate:1", "bücher.example", "*.example"])
def test_no_server_names(name: str) -> None:
    with pytest.raises(ProbeError, match="is not the name of a server"):
        parse_target("gate:1", name)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_chain_is_kept_whole(tmp_path: Path) -> None:
    """A chain is kept whole; without --cert there is nothing."""
    leaf = client_authority().intermediate().issue("c")
    certificate = write(tmp_path / "c.crt", leaf.pem)
    found = load_identity(certificate, write(tmp_path / "c.key", leaf.key_pem))
    assert found is not None
    assert found.chain == views(leaf.chain)
    assert load_identity(None, None) is None
    assert load_trust(None) is None
    assert load_trust(certificate) == views(leaf.chain)


def test_no_identities(tmp_path: Path) -> None:
    """What is wrong with the files is said, with the file's name, and without its content."""
    leaf = client_authority().issue("c")
    certificate = write(tmp_path / "c.crt", leaf.pem)
    key = write(tmp_path / "c.key", leaf.key_pem)
    other = write(tmp_path / "other.key", client_authority().issue("o").key_pem)
    secret = BestAvailableEncryption(b"secret")
    said: dict[tuple[Path | None, Path | None], str] = {}
    for number, encoding in enumerate((Encoding.PEM, Encoding.DER)):
        data = leaf.private_key.private_bytes(encoding, PrivateFormat.PKCS8, secret)
        encrypted = write(tmp_path / f"{number}.key", data)
        said[(certificate, encrypted)] = f"{encrypted}: the key is encrypted: set --passphrase-file"
    in_one = write(tmp_path / "c.p12", keystore(leaf))
    said |= {
        (certificate, None): "--cert needs --key, unless it is a PKCS#12 file (.p12, .pfx)",
        (None, key): "--key needs --cert, the certificate that it is the key of",
        (in_one, key): f"{in_one}: is PKCS#12, with its key in it: leave out --key",
        (in_one, None): f"{in_one}: is encrypted: set --passphrase-file",
        (certificate, other): f"{other}: the private key is not that of the certificate",
        (certificate, tmp_path / "gone"): f"{tmp_path}/gone: no such file",
        (tmp_path / "gone", key): f"{tmp_path}/gone: no such file",
        (key, key): f"{key}: PEM block 1 of 1 is a PRIVATE KEY, not a CERTIFICATE",
    }
    for (one, two), problem in said.items():
        with pytest.raises(ProbeError) as raised:
            load_identity(one, two)
        assert str(raised.value) == problem


def test_a_keystore_is_an_identity(tmp_path: Path) -> None:
    """It has the key in it, and so the chain, as a gate's own; its passphrase must be right."""
    leaf = client_authority().intermediate().issue("c")
    path = write(tmp_path / "c.p12", keystore(leaf))
    found = load_identity(path, passphrase="secret")
    assert found is not None
    assert found.chain == views(leaf.chain)
    with pytest.raises(ProbeError) as raised:
        load_identity(path, passphrase="wrong")
    assert str(raised.value) == f"{path}: cannot be decrypted: --passphrase-file is wrong"


def test_an_encrypted_key_is_decrypted(tmp_path: Path) -> None:
    """A passphrase is for whichever of the files is encrypted, and for nothing else."""
    leaf = client_authority().issue("c")
    secret = BestAvailableEncryption(b"secret")
    data = leaf.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, secret)
    certificate = write(tmp_path / "c.crt", leaf.pem)
    encrypted = write(tmp_path / "c.key", data)
    assert load_identity(certificate, encrypted, "secret") is not None
    plain = write(tmp_path / "plain.key", leaf.key_pem)
    for arguments, problem in (
        ((certificate, encrypted, "wrong"), "or the passphrase is wrong"),
        ((certificate, plain, "secret"), "the key is not encrypted: remove --passphrase-file"),
        ((None, None, "secret"), "--passphrase-file has no effect without --cert"),
    ):
        with pytest.raises(ProbeError, match=problem):
            load_identity(*arguments)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"secret", "secret"),
        (b" se cret \r\nand a comment\n", " se cret "),
        ("naïve 🔑\n".encode(), "naïve 🔑"),
        (b"x" * 4096 + b"\n", "x" * 4096),
    ],
)
def test_a_passphrase_is_a_line(data: bytes, expected: str) -> None:
    """The first line, without its end, whatever follows."""
    assert read_passphrase(BytesIO(data)) == expected
    assert read_passphrase(None) is None


@pytest.mark.parametrize(
    ("data", "problem"),
    [(b"", "is empty"), (b"\nsecret\n", "is empty"), (b"x" * 5000, "longer than 4096 bytes")],
)
def test_no_passphrases(data: bytes, problem: str) -> None:
    """An empty one is a mistake, and what has no end is not read."""
    with pytest.raises(ProbeError, match=problem):
        read_passphrase(BytesIO(data))


def test_an_identity_that_openssl_does_not_take() -> None:
    """A key that is too weak is an error before anything is sent."""
    weak = rsa.generate_private_key(65537, 1024)
    leaf = client_authority().issue("c", key=weak)
    with pytest.raises(ProbeError, match=r"OpenSSL does not take the client certificate: .*small"):
        probe(parse_target("127.0.0.1:1"), identity=identity(leaf))


# Words and JSON.


def test_control_characters_do_not_reach_the_terminal() -> None:
    """Names from certificates are escaped, wherever they come from."""
    evil = "\x1b[31m\u202e\nadmitted"
    ca = Authority.create("\x1b]0;pwned\x07")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, evil)])
    shown = ca.issue(None, subject=subject, dns_names=["x\x1b[0m.example"], usages=["server_auth"])
    context = server_context(shown, ca)
    context.add_client_ca(ca.certificate)
    outcome = knock(
        tls_server(context), ca.issue(None, subject=subject), ca=authority(), wait=SHORT
    )
    assert outcome.presented
    lines = describe(outcome)
    assert all(line.isprintable() for line in lines)
    assert "\\x1b[31m\\u202e\\nadmitted" in "".join(lines)
    assert json.dumps(to_dict(outcome)).isprintable()


@pytest.mark.parametrize(
    ("not_before", "not_after", "said", "days"),
    [
        (timedelta(-9), timedelta(1), "1 day left", 1),
        (timedelta(-9), timedelta(0, 1), "0 days left", 0),
        (timedelta(-9), timedelta(0, -1), "EXPIRED 0 days ago", -1),
        (timedelta(-9), timedelta(-3), "EXPIRED 3 days ago", -3),
        (timedelta(1), timedelta(9), "NOT VALID before 2026-05-02 00:00 UTC", 9),
    ],
)
def test_validity_is_told_in_days(
    not_before: timedelta, not_after: timedelta, said: str, days: int
) -> None:
    facts = CertificateFacts("CN=a", "CN=b", NOW + not_before, NOW + not_after, "ff")
    outcome = Outcome(TARGET, NOW, 1, 1, Ending.SILENCE, ProbeStage.AFTER, chain=(facts,))
    assert f"server     CN=a, issued by CN=b, {said}" in describe(outcome)
    assert to_dict(outcome)["server"]["chain"][0]["days_left"] == days


def test_a_key_that_the_server_cannot_use() -> None:
    """Asked for, and given, but TLS found no way to present it."""
    outcome = Outcome(
        ProbeTarget("h", 1, "h"), NOW, 1, 1, Ending.ALERT, ProbeStage.AFTER, alert=116, asked=True,
        offered=FACTS,
    )  # fmt: skip
    assert (
        "presented  nothing: the server takes no signature that the key of --cert can make"
        in describe(outcome)
    )


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        (PathProblem(10, 0, FACTS), "expired"),
        (PathProblem(10, 1, FACTS), "CN=client: expired"),
        (PathProblem(10, 1, None), "expired"),
        (PathProblem(999, 0, FACTS), "OpenSSL's verification error 999"),
        (PathProblem(19, 2, FACTS), "the chain ends in a CA that is not in --ca: CN=CA"),
    ],
)
def test_path_problems(problem: PathProblem, said: str) -> None:
    assert problem_text(problem) == said


def test_a_certificate_without_facts() -> None:
    """One that does not parse at all is said to be there, and is nobody's."""
    outcome = Outcome(
        TARGET, NOW, 1, 1, Ending.SILENCE, ProbeStage.AFTER, problems=(), name_problem="unreadable"
    )
    assert "server     a certificate that does not parse" in describe(outcome)
    assert (outcome.name_matches, outcome.exit_status) == (False, 1)


CERTIFICATE = {
    "subject": str, "issuer": str, "not_before": str, "not_after": str, "days_left": int,
    "sha256": str,
}  # fmt: skip
SCHEMA = {
    "version": int, "host": str, "port": int, "address": str, "server_name": str, "at": str,
    "timeout_seconds": float, "wait_seconds": float, "verdict": str, "exit_status": int,
    "ending": str, "stage": str, "explanation": str,
    "alert": {"number": int, "name": str},
    "tls": {"version": str, "cipher": str, "group": str},
    "server": {
        "chain": [CERTIFICATE], "verified": bool, "problems": [str], "name_matches": bool,
        "name_problem": str,
    },
    "client": {"asked": bool, "ca_names": [str], "presented": CERTIFICATE},
}  # fmt: skip


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(one) for key, one in value.items()}
    if isinstance(value, list):
        return [shape(value[0])]
    return type(value)


def test_the_json_has_every_key_with_its_type() -> None:
    """Every key, with the type of its value; the version stands for that."""
    context = server_context(server(dns_names=["a.example"]), client_authority())
    context.add_client_ca(client_authority().certificate)
    stranger = authority().issue("stranger")
    outcome = knock(tls_server(context), stranger, ca=client_authority(), tls="1.3")
    found = json.loads(json.dumps(to_dict(outcome)))
    assert shape(found) == SCHEMA
    assert found["version"] == 1
    assert (found["verdict"], found["exit_status"]) == ("refused", 1)
    assert (found["ending"], found["stage"]) == ("alert", "after")
    assert found["alert"] == {"number": 48, "name": "unknown_ca"}
    assert found["client"]["presented"]["sha256"] == stranger.sha256
    assert found["explanation"] == (
        "the server sent the alert unknown_ca (48) after the handshake; usually: " + ALERTS[48][1]
    )


def test_json_of_nothing() -> None:
    """What was not reached is null or empty, and no key is missing."""
    found = to_dict(Outcome(TARGET, NOW, 10.0, 1.0, Ending.NO_CONNECTION, detail="why"))
    assert found.keys() == SCHEMA.keys()
    assert found == found | {
        "address": None,
        "at": "2026-05-01T00:00:00+00:00",
        "verdict": "unknown",
        "exit_status": 2,
        "explanation": "no connection: why",
        "alert": None,
        "tls": None,
        "server": {
            "chain": [], "verified": None, "problems": [], "name_matches": None,
            "name_problem": None,
        },
        "client": {"asked": None, "ca_names": [], "presented": None},
    }  # fmt: skip


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("stage", ProbeStage)
def test_every_outcome_has_words(ending: Ending, stage: ProbeStage) -> None:
    """No outcome is without a verdict, a text and a status."""
    outcome = Outcome(TARGET, NOW, 1, 1, ending, stage, alert=40)
    lines = describe(outcome)
    assert lines[0] == "target     gate.example:8443"
    assert any(line.startswith(outcome.verdict.value) for line in lines)
    assert outcome.exit_status in (0, 1, 2)
    assert to_dict(outcome)["explanation"]
