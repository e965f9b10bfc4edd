"""PKCS#12 keystores: what is taken from them, and what is said of those that do not fit."""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from mtlsgate.certificates.keystore import parse_keystore
from mtlsgate.certificates.token import TokenKey
from mtlsgate.errors import CredentialError
from mtlsgate.testing import Authority, self_signed
from tests.kits.keystores import joined, keystore
from tests.kits.programs import program, run

ROOT = Authority.create("Root")
MIDDLE = ROOT.intermediate()
GATE = MIDDLE.intermediate().issue("gate", dns_names=["gate.example"], usages=["server_auth"])
OTHER = MIDDLE.issue("other", usages=["server_auth"])


def refused(data: bytes, passphrase: str | None = "secret") -> str:
    with pytest.raises(CredentialError) as failed:
        parse_keystore(data, passphrase)
    text = str(failed.value)
    assert text.isprintable()
    return text


@pytest.mark.parametrize("passphrase", ["secret", "naïve 🔑", None])
def test_a_certificate_with_its_key_and_its_chain(passphrase: str | None) -> None:
    found = parse_keystore(keystore(GATE, passphrase), passphrase)
    assert [one.x509 for one in found.chain] == list(GATE.chain)
    assert not isinstance(found.private_key, TokenKey)
    assert found.private_key.public_key() == GATE.private_key.public_key()


def test_base64_of_one_as_environment_variables_have_it() -> None:
    text = base64.encodebytes(keystore(GATE))
    assert parse_keystore(text, "secret").chain[0].x509 == GATE.certificate


def test_the_chain_is_in_order_and_ends_below_the_root() -> None:
    """Whatever stands in the file beside it, and in whichever order."""
    extra = [ROOT.certificate, Authority.create("Stranger").certificate]
    made = serialize_key_and_certificates(
        b"gate",
        GATE.private_key,
        GATE.certificate,
        [*extra, *reversed(GATE.intermediates)],
        BestAvailableEncryption(b"secret"),
    )
    assert [one.x509 for one in parse_keystore(made, "secret").chain] == list(GATE.chain)


def test_a_self_signed_one_stands_alone() -> None:
    made = self_signed("gate", usages=["server_auth"])
    assert len(parse_keystore(keystore(made), "secret").chain) == 1


def test_a_wrong_passphrase_and_a_missing_one() -> None:
    assert refused(keystore(GATE), "wrong") == "cannot be decrypted: pkcs12_passphrase is wrong"
    assert refused(keystore(GATE), "") == "cannot be decrypted: pkcs12_passphrase is wrong"
    assert refused(keystore(GATE), None) == "is encrypted: set pkcs12_passphrase"
    with pytest.raises(CredentialError, match="set client_pkcs12_passphrase"):
        parse_keystore(keystore(GATE), None, "client_pkcs12_passphrase")


def test_one_without_a_key() -> None:
    made = serialize_key_and_certificates(
        b"trust", None, None, [ROOT.certificate], BestAvailableEncryption(b"secret")
    )
    assert "has no private key with its certificate" in refused(made)


def test_one_with_several_keys() -> None:
    """The gate must not choose one by the order in the file."""
    both = joined(keystore(GATE, None), keystore(OTHER, None))
    text = refused(both, None)
    assert '"CN=gate"' in text
    assert '"CN=other"' in text
    assert "export each into a file of its own" in text


def test_a_key_of_another_certificate() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises((CredentialError, ValueError)):
        parse_keystore(
            serialize_key_and_certificates(
                b"x", key, GATE.certificate, None, BestAvailableEncryption(b"secret")
            ),
            "secret",
        )


@pytest.mark.parametrize("cut", [1, 20, 200, -1, -100])
def test_one_that_is_cut_short(cut: int) -> None:
    assert "is damaged" in refused(keystore(GATE)[:cut]) or cut == 1


def test_bytes_changed_anywhere_are_an_error_and_nothing_worse() -> None:
    data = keystore(GATE)
    for place in range(0, len(data), 37):
        changed = data[:place] + bytes((data[place] ^ 0x55,)) + data[place + 1 :]
        with suppress(CredentialError):
            assert parse_keystore(changed, "secret").chain[0].x509 == GATE.certificate


@pytest.mark.parametrize(
    "data", [b"", b" \n", b"x", b"\x30\x03\x02\x01\x03", GATE.pem, b"\xff" * 99]
)
def test_what_is_no_keystore(data: bytes) -> None:
    assert refused(data).startswith(("is empty", "is not PKCS#12", "is damaged"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-legacy"],
        ["-legacy", "-certpbe", "PBE-SHA1-RC2-40", "-keypbe", "PBE-SHA1-RC2-40"],
        ["-certpbe", "NONE", "-keypbe", "AES-256-CBC"],
    ],
    ids=["today's", "legacy", "RC2", "open certificates"],
)
def test_those_that_openssl_makes(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "gate.crt").write_bytes(GATE.pem)
    (tmp_path / "gate.key").write_bytes(GATE.key_pem)
    status, text = run(
        program("openssl"),
        *["pkcs12", "-export", "-in", str(tmp_path / "gate.crt")],
        *["-inkey", str(tmp_path / "gate.key"), "-passout", "pass:secret"],
        *[*options, "-out", str(tmp_path / "gate.p12")],
    )
    assert status == 0, text
    found = parse_keystore((tmp_path / "gate.p12").read_bytes(), "secret")
    assert [one.x509 for one in found.chain] == list(GATE.chain)
    assert isinstance(found.chain[0].x509, x509.Certificate)
