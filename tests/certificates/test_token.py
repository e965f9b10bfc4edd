"""Keys in a token: their URIs, and a gate that signs with one."""

from __future__ import annotations

import os
import ssl
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mtlsgate.certificates.token import TokenKey, is_token_uri, parse_token_key
from mtlsgate.errors import CredentialError
from mtlsgate.load.loading import load
from tests.kits.pki import NOW, site
from tests.kits.programs import gate, program, run
from tests.kits.service import ALICE, ROOT
from tests.kits.tls_client import echoed

URI = "pkcs11:token=gate;object=key;type=private"


def test_what_openssl_reads_in_place_of_a_key() -> None:
    """The format of pkcs11-provider, as its own tool writes it."""
    lines = TokenKey("pkcs11:token=gate;object=key2;type=private").pem.decode().splitlines()
    assert (lines[0], lines[-1]) == (
        "-----BEGIN PKCS#11 PROVIDER URI-----",
        "-----END PKCS#11 PROVIDER URI-----",
    )
    assert b64decode("".join(lines[1:-1])) == (
        b"\x30\x47\x1a\x19PKCS#11 Provider URI v1.0"
        b"\x0c\x2apkcs11:token=gate;object=key2;type=private"
    )
    long = TokenKey(f"pkcs11:object={'x' * 300}").pem
    assert b"\x0c\x82\x01\x3a" in b64decode(b"".join(long.splitlines()[1:-1]))


@pytest.mark.parametrize(
    "uri",
    [
        URI,
        "pkcs11:object=key",
        "pkcs11:id=%01%02;token=a%20b",
        f"{URI}?pin-source=file:/run/pin&module-name=softhsm2",
        f"{URI}?pin-value=1234",
    ],
)
def test_a_uri_of_a_token_is_kept_and_not_shown(uri: str) -> None:
    assert is_token_uri(uri)
    key = parse_token_key(f" {uri}\n")
    assert key.uri == uri
    assert uri not in repr(key)


@pytest.mark.parametrize(
    "uri",
    ["pkcs11:", "pkcs11:key", "pkcs11:object=", "pkcs11:object=a b", "pkcs11:type=cert;object=a"],
)
def test_what_is_no_uri_of_a_key(uri: str) -> None:
    assert is_token_uri(uri)
    with pytest.raises(CredentialError) as failed:
        parse_token_key(uri)
    assert uri not in str(failed.value) or uri == "pkcs11:"


def config(key: str) -> str:
    return f"""\
server "door" {{
  hosts = ["127.0.0.1:0"]
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      public_key_file = "server.crt"
      {key}
    }}
    client_certificate {{ ca_certificate_file = "ca.crt" }}
  }}
}}
"""


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        (f'private_key = "{URI}"', "let OPENSSL_CONF name a configuration that loads"),
        ('private_key = "pkcs11:x"', "is no URI of a key in a token"),
        (f'private_key = "{URI}"\nprivate_key_passphrase = "x"', "has no effect"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(tmp_path: Path, key: str, problem: str) -> None:
    here = site(tmp_path)
    here.write("ca.crt", ROOT.pem)
    [line] = here.problems(config(key))
    assert problem in line
    assert line.startswith("7:")


def provider() -> Path:
    """
    :returns: pkcs11-provider.  Debian 12 does not have it, so a test without it is skipped
        also in CI.
    """
    given = os.environ.get("MTLSGATE_PKCS11_PROVIDER")
    places = [Path(given)] if given else list(Path("/usr/lib").glob("*/ossl-modules/pkcs11.so"))
    if not places or not places[0].exists():
        pytest.skip("pkcs11-provider is not installed (MTLSGATE_PKCS11_PROVIDER names it)")
    return places[0]


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["", "settings { workers = 2 }\n"])
def test_a_gate_signs_with_a_key_that_it_does_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: str
) -> None:
    module = next(iter(Path("/usr/lib").glob("**/softhsm/libsofthsm2.so")), Path("none"))
    conf, tokens = tmp_path / "openssl.cnf", tmp_path / "tokens"
    tokens.mkdir()
    (tmp_path / "softhsm.conf").write_text(f"directories.tokendir = {tokens}\n")
    conf.write_text(
        "openssl_conf = init\n[init]\nproviders = all\n[all]\ndefault = own\npkcs11 = token\n"
        f"[own]\nactivate = 1\n[token]\nmodule = {provider()}\n"
        f"pkcs11-module-path = {module}\npkcs11-module-token-pin = 1234\n"
        "pkcs11-module-quirks = no-deinit no-operation-state\nactivate = 1\n"
    )
    made = ROOT.issue("token", dns_names=["gate.example"], usages=["server_auth"])
    key = made.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(key)
    monkeypatch.setenv("SOFTHSM2_CONF", str(tmp_path / "softhsm.conf"))
    util = program("softhsm2-util")
    file = str(tmp_path / "key.pem")
    for words in (
        "--init-token --free --label gate --pin 1234 --so-pin 5678",
        f"--import {file} --token gate --label key --id 01 --pin 1234",
    ):
        status, text = run(util, *words.split())
        assert status == 0, text
    (tmp_path / "key.pem").unlink()
    monkeypatch.setenv("OPENSSL_CONF", str(conf))
    (tmp_path / "server.crt").write_bytes(made.pem)
    (tmp_path / "ca.crt").write_bytes(ROOT.pem)
    (tmp_path / "alice.crt").write_bytes(ALICE.pem)
    (tmp_path / "alice.key").write_bytes(ALICE.key_pem)
    written = tmp_path / "gate.hcl"
    written.write_text(settings + "\n" + config(f'private_key = "{URI}"'))
    with gate(written) as running:
        port = running.port("door")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            assert echoed(tmp_path, port, version) == made.certificate
        log = "".join(running.lines) + running.stop()
    assert "the module of private_key's token runs code of yours" in log
    assert "1234" not in log


def test_a_token_keeps_the_sandbox_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its module reads files and connects to devices that nobody has named."""
    here = site(tmp_path)
    here.write("ca.crt", ROOT.pem)
    monkeypatch.setattr("mtlsgate.tls.server.use_credential", lambda context, credential: None)
    here.write("gate.hcl", config(f'private_key = "{URI}"'))
    epoch = load(str(here.config), {}, lambda: NOW)
    assert epoch.reach.user_code == ('server "door": the module of private_key\'s token',)
