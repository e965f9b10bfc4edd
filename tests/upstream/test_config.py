"""
The ``tls`` block of a protocol that dials a target: what it needs, and what is
said where that is not there.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from mtlsgate.config import Misconfigured
from mtlsgate.config.decode import Decoder
from mtlsgate.config.expressions import Scope
from mtlsgate.config.syntax import parse
from mtlsgate.errors import START, ConfigError, Report
from mtlsgate.protocols import ProtocolEnvironment
from mtlsgate.testing import Authority
from mtlsgate.upstream.tls import TargetTls, TlsClient
from tests.kits.keystores import joined, keystore
from tests.kits.pki import base64_of, der, pki


@frozen
class _Holder:
    tls: TargetTls


def build(directory: Path, text: str) -> TlsClient:
    """:returns: what a ``tls`` block of this text makes.  Its first line is line 2."""
    report = Report("gate.hcl")
    body = parse(f"tls {{\n{text}\n}}\n".encode(), report)
    assert body is not None, report.errors
    decoded = Decoder(Scope({}, lambda name: (directory / name).read_bytes()), report).decode(
        _Holder, body, START, "protocol"
    )
    report.raise_errors()
    assert decoded is not None
    return decoded.tls.client(ProtocolEnvironment("server", directory))


def problem(directory: Path, text: str) -> str:
    """:returns: why it is refused, as ``line:column: problem``."""
    with pytest.raises((Misconfigured, ConfigError)) as caught:
        build(directory, text)
    assert str(caught.value).isprintable()
    if isinstance(caught.value, Misconfigured):
        at = caught.value.at
        return f"{at.line}:{at.column}: {caught.value.text}"
    return str(caught.value).removeprefix("gate.hcl:")


CA = 'server_ca_certificate_file = "root.crt"\n'


@pytest.mark.parametrize(
    "text",
    [
        CA,
        'server_ca_certificate_file = "bundle.crt"',
        pytest.param(
            f'server_ca_certificate = "{base64_of(der(pki().root))}"', id="server_ca_certificate"
        ),
        'server_ca_certificate_file = "client.crt"',
        CA + 'server_name = "db.example"',
        CA + 'server_name = "127.0.0.1"',
        'server_leaf_certificate_file = "client.crt"',
        CA + 'server_leaf_certificate_file = "client.crt"',
        CA + 'client_certificate_file = "client.crt"\nclient_private_key_file = "client.key"',
    ],
)
def test_a_complete_block_is_taken(text: str, tmp_path: Path) -> None:
    """What is complete is taken, inline or as files."""
    pki().write(tmp_path)
    assert isinstance(build(tmp_path, text), TlsClient)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1:1: tls: no CA to verify the target with: set server_ca_certificate(_file)"),
        ('server_ca_certificate_file = "nowhere"', '2:1: server_ca_certificate_file: "nowhere" no'),
        ('server_ca_certificate_file = "client.key"', '2:1: server_ca_certificate_file: "client.k'),
        ('server_ca_certificate = "system"', "2:1: server_ca_certificate: is neither PEM nor DER"),
        (
            CA + 'client_certificate_file = "client.crt"',
            "3:1: tls: client_certificate needs client_private_key",
        ),
        (
            CA + 'client_private_key_file = "client.key"',
            "3:1: tls: client_private_key needs client_certificate",
        ),
        (CA + 'client_private_key_passphrase = "x"', "3:1: tls: there is no client_private_key"),
        (
            CA + 'client_certificate_file = "client.crt"\nclient_private_key_file = "server.key"',
            '4:1: client_private_key_file: "server.key" the private key is not that of the',
        ),
        (
            CA + 'client_certificate_file = "client.crt"\nclient_private_key_file = "locked.key"',
            '4:1: client_private_key_file: "locked.key" the key is encrypted: set '
            "client_private_key_passphrase",
        ),
        (CA + 'server_name = "a b"', "3:1: tls: server_name must be a DNS name"),
        (CA + 'server_name = ""', "3:15: tls: server_name: is empty: write a value, or remove it"),
        (CA + 'server_name = "bücher.example"', "3:1: tls: server_name must be a DNS name"),
        (CA + 'verify = "no"', '3:1: tls: unknown attribute "verify"'),
    ],
)
def test_an_incomplete_block_is_refused_at_its_place(
    text: str, expected: str, tmp_path: Path
) -> None:
    """What is missing or unfit is said at its place."""
    pki().write(tmp_path)
    locked = pki().client.private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "locked.key").write_bytes(locked)
    assert problem(tmp_path, text).startswith(expected)


def test_encrypted_key(tmp_path: Path) -> None:
    """An encrypted key is read with its passphrase."""
    pki().write(tmp_path)
    locked = pki().client.private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
    )
    (tmp_path / "locked.key").write_bytes(locked)
    text = CA + (
        'client_certificate_file = "client.crt"\nclient_private_key_file = "locked.key"\n'
        'client_private_key_passphrase = "{}"'
    )
    assert build(tmp_path, text.format("secret"))
    assert "passphrase is wrong" in problem(tmp_path, text.format("other"))


KEYSTORE = CA + 'client_pkcs12_file = "{}"\n'
WITH_PASSPHRASE = KEYSTORE + 'client_pkcs12_passphrase = "secret"\n'


def write_keystores(directory: Path) -> None:
    """Write one that fits, and some that do not."""
    pki().write(directory)
    trust = serialize_key_and_certificates(
        None, None, None, [pki().root.certificate], BestAvailableEncryption(b"secret")
    )
    both = joined(keystore(pki().client, None), keystore(pki().server, None))
    files = {"app.p12": keystore(pki().client), "trust.p12": trust, "both.p12": both}
    for name, data in {**files, "cut.p12": files["app.p12"][:200]}.items():
        (directory / name).write_bytes(data)


def test_a_keystore_has_all_that_files_have(tmp_path: Path) -> None:
    """A keystore has the certificate, the key and the intermediates."""
    write_keystores(tmp_path)
    found = build(tmp_path, WITH_PASSPHRASE.format("app.p12")).credential
    assert found is not None
    assert [one.x509 for one in found.chain] == list(pki().client.chain)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            WITH_PASSPHRASE.format("app.p12").replace('"secret"', '"wrong"'),
            '"app.p12" cannot be decrypted: client_pkcs12_passphrase is wrong',
        ),
        (KEYSTORE.format("app.p12"), '"app.p12" is encrypted: set client_pkcs12_passphrase'),
        (
            WITH_PASSPHRASE.format("trust.p12"),
            '"trust.p12" has no private key with its certificate: it may be a trust store; '
            "export one with the key",
        ),
        (KEYSTORE.format("both.p12"), '"both.p12" has several certificates that are no CA'),
        (WITH_PASSPHRASE.format("cut.p12"), '"cut.p12" is damaged'),
        (WITH_PASSPHRASE.format("client.crt"), '"client.crt" is not PKCS#12 (.p12, .pfx)'),
        (WITH_PASSPHRASE.format("none.p12"), '"none.p12" no such file'),
    ],
)
def test_a_keystore_that_is_not_taken(text: str, expected: str, tmp_path: Path) -> None:
    """What is wrong with it is said at its place, with the remedy, and with nothing that is
    in it."""
    write_keystores(tmp_path)
    said = problem(tmp_path, text)
    assert said.startswith(f"3:1: client_pkcs12_file: {expected}")
    assert "secret" not in said
    assert "wrong" not in said.replace("is wrong", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            WITH_PASSPHRASE.format("app.p12")
            + f'client_certificate = "{base64_of(der(pki().root))}"',
            "5:1: tls: client_certificate and client_pkcs12_file are mutually exclusive",
        ),
        (
            WITH_PASSPHRASE.format("app.p12") + 'client_private_key_passphrase = "secret"',
            "5:1: tls: there is no client_private_key to decrypt",
        ),
        (
            CA + 'client_pkcs12_passphrase = "secret"',
            "3:1: tls: there is no client_pkcs12_file to decrypt",
        ),
        (
            WITH_PASSPHRASE.format("app.p12") + 'spiffe = "unix:/run/agent.sock"',
            "5:1: tls: spiffe and client_pkcs12_file are mutually exclusive",
        ),
    ],
)
def test_a_keystore_stands_alone(text: str, expected: str, tmp_path: Path) -> None:
    """Nothing beside it may say which certificate is shown."""
    write_keystores(tmp_path)
    assert problem(tmp_path, text).startswith(expected)


def test_system_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only ``server_ca_certificate_file = "system"`` means the system's trust store; where
    there is none, that is an error."""
    store = tmp_path / "store.pem"
    store.write_bytes(Authority.create().pem)

    def paths(file: str) -> ssl.DefaultVerifyPaths:
        return ssl.DefaultVerifyPaths(file, "", "", "", "", "")

    text = 'server_ca_certificate_file = "system"'
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths(str(store)))
    assert build(tmp_path, text)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths(""))
    assert problem(tmp_path, text).startswith(
        "2:1: server_ca_certificate_file: this system has no trust store"
    )
