from __future__ import annotations

import errno
import os
import re
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from mtlsgate.certificates.certificate import view, views
from mtlsgate.certificates.development_ca import self_signed
from mtlsgate.certificates.parsing import (
    MAX_FILE_BYTES,
    PrivateKey,
    ServerCredential,
    pair,
    parse_certificates,
    parse_private_key,
    read_file,
)
from mtlsgate.errors import CredentialError
from tests.kits.pki import der, pki

PASSPHRASE = "correct horse ☃"


@cache
def keys() -> dict[str, PrivateKey]:
    return {
        "rsa": rsa.generate_private_key(65537, 2048),
        "ec": ec.generate_private_key(ec.SECP256R1()),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "ed448": ed448.Ed448PrivateKey.generate(),
    }


def written(
    key: str,
    encoding: Encoding = Encoding.PEM,
    form: PrivateFormat = PrivateFormat.PKCS8,
    passphrase: str | None = None,
) -> bytes:
    encryption: KeySerializationEncryption = NoEncryption()
    if passphrase is not None:
        encryption = BestAvailableEncryption(passphrase.encode())
    return keys()[key].private_bytes(encoding, form, encryption)


def public(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def assert_keeps_secrets(error: CredentialError, data: bytes) -> None:
    """The message is one line and holds nothing of the data that is long enough to matter."""
    text = str(error)
    assert text.isprintable()
    assert "-----" not in text
    for run in re.findall(rb"[A-Za-z0-9+/=]{12,}", data):
        for start in range(0, len(run) - 11, 4):
            assert run[start : start + 12].decode() not in text
    assert not data or data[:12].hex() not in text
    # The cause would print with a traceback.
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None


# Certificates


def certificate_forms() -> dict[str, bytes]:
    client = pki().client.certificate
    pem, octets = client.public_bytes(Encoding.PEM), client.public_bytes(Encoding.DER)
    coded = b64encode(octets)
    return {
        "PEM": pem,
        "PEM without a last line end": pem.rstrip(),
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "PEM with text around": b"subject=/CN=client\n\n" + pem + b"\nbye: bye\n",
        "PEM with a BOM": b"\xef\xbb\xbf" + pem,
        "PEM indented as in a heredoc": b"".join(b"    " + line for line in pem.splitlines(True)),
        "PEM in one line": b"-----BEGIN CERTIFICATE-----\n"
        + coded
        + b"\n-----END CERTIFICATE-----",
        "PEM of OpenSSL's old name": pem.replace(b" CERTIFICATE", b" X509 CERTIFICATE"),
        "PEM with blank lines in it": pem.replace(b"\n", b"\n\n"),
        "PEM with blanks at the ends of lines": pem.replace(b"\n", b" \t \n"),
        "PEM with blanks and CRLF": pem.replace(b"\n", b"  \r\n"),
        "PEM with text around it": b"Bag Attributes\n  a: b\n" + pem + b"the end -- not\n",
        "PEM with a form feed": b"\f" + pem.replace(b"-----\n", b"-----\f\n"),
        "DER": octets,
        "base64 of DER": coded,
        "base64 of DER in lines": b"\n".join(coded[i : i + 64] for i in range(0, len(coded), 64)),
        "base64 of DER with space around": b"\r\n  " + coded + b"\r\n",
    }


@pytest.mark.parametrize("form", certificate_forms())
def test_a_certificate_is_read_from_every_form(form: str) -> None:
    assert parse_certificates(certificate_forms()[form]) == views([pki().client.certificate])


@pytest.mark.parametrize("between", [b"", b"\n", b"\r\n", b"text between - -- --- ----\n"])
def test_a_bundle_is_read_in_its_order(between: bytes) -> None:
    found = parse_certificates(between.join([pki().root.pem, pki().issuing.pem, pki().root.pem]))
    root, issuing = pki().root.certificate, pki().issuing.certificate
    assert found == views((root, issuing, root))


@pytest.mark.parametrize(
    "key", ["rsa", "ec", "p384", "ed25519"], ids=["RSA", "P-256", "P-384", "Ed25519"]
)
def test_certificates_of_every_kind_of_key_are_read(key: str) -> None:
    one = self_signed("x", key=keys()[key])  # type: ignore[arg-type]
    assert parse_certificates(der(one)) == views([one.certificate])


def damaged_certificates() -> dict[str, tuple[bytes, str]]:
    root, issuing = pki().root.pem, pki().issuing.pem
    octets = der(pki().client)
    lines = issuing.splitlines(keepends=True)
    body = b"".join(lines[1:-1])
    version = octets.index(b"\xa0\x03\x02\x01\x02") + 4
    return {
        "nothing": (b"", "is empty"),
        "white space": (b" \r\n\t", "is empty"),
        "text": (b"hello, world", "is neither PEM nor DER nor base64 of DER"),
        "base64 of text": (b64encode(b"hello, world"), "the certificate does not parse: "),
        "zeros": (bytes(100), "is neither PEM nor DER nor base64 of DER"),
        "truncated DER": (octets[:-1], "the certificate does not parse: "),
        "DER with more after it": (octets + b"\0", "the certificate does not parse: "),
        "two certificates in DER": (octets + octets, "the certificate does not parse: "),
        "an unknown version": (
            octets[:version] + b"\x05" + octets[version + 1 :],
            "the certificate does not parse: its version is none that exists",
        ),
        "no END": (
            root + issuing.replace(b"-----END", b"-----ENDS"),
            "the PEM is damaged: 2 BEGIN lines and 1 END lines make 1 whole blocks",
        ),
        "no BEGIN": (
            root + issuing.replace(b"-----BEGIN", b"-----BEGINS"),
            "the PEM is damaged: 1 BEGIN lines and 2 END lines make 1 whole blocks",
        ),
        "another END": (
            issuing.replace(b"END CERTIFICATE", b"END X509 CERTIFICATE"),
            "the PEM is damaged: 1 BEGIN lines and 1 END lines make 0 whole blocks",
        ),
        "an END lost between two": (
            root.replace(b"-----END CERTIFICATE-----\n", b"") + issuing,
            "the PEM is damaged: 2 BEGIN lines and 1 END lines make 1 whole blocks",
        ),
        "a damaged line in the second": (
            root + issuing.replace(body[:8], b"!!!!!!!!") + root,
            "PEM block 2 of 3 does not parse: its base64 is damaged",
        ),
        "a line lost in the second": (
            root + b"".join([*lines[:2], *lines[3:]]) + root,
            "certificate 2 of 3 does not parse: ",
        ),
        "an empty block": (
            b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            "the certificate does not parse: ",
        ),
        "a key": (
            pki().client.key_pem,
            "PEM block 1 of 1 is a PRIVATE KEY, not a CERTIFICATE",
        ),
        "a key after a certificate": (
            root + pki().client.key_pem,
            "PEM block 2 of 2 is a PRIVATE KEY, not a CERTIFICATE",
        ),
        "an old encrypted key": (
            written("rsa", form=PrivateFormat.TraditionalOpenSSL, passphrase="x"),
            "PEM block 1 of 1 is a RSA PRIVATE KEY, not a CERTIFICATE",
        ),
        "a key in DER": (written("ec", Encoding.DER), "the certificate does not parse: "),
        "a request": (
            root.replace(b" CERTIFICATE", b" CERTIFICATE REQUEST"),
            "is a certificate request: name the certificate that the CA made of it",
        ),
    }


@pytest.mark.parametrize("name", damaged_certificates())
def test_what_is_no_certificate_is_refused_and_named(name: str) -> None:
    data, expected = damaged_certificates()[name]
    with pytest.raises(CredentialError) as caught:
        parse_certificates(data)
    assert str(caught.value).startswith(expected)
    assert_keeps_secrets(caught.value, data)


def test_every_truncation_and_flip_of_a_bundle_is_read_or_refused_never_more() -> None:
    """Whatever happens to a bundle, no certificate in it is lost without an error."""
    bundle = pki().root.pem + pki().issuing.pem
    first = len(pki().root.pem)
    for at in range(0, len(bundle), 3):
        flipped = bundle[:at] + bytes([bundle[at] ^ 0x41]) + bundle[at + 1 :]
        with suppress(CredentialError):
            assert len(parse_certificates(flipped)) == 2
        # Between the two, one whole certificate is left; without its last line end, both are.
        if not first - 1 <= at < first + len(b"-----BEGIN ") and at < len(bundle) - 1:
            with pytest.raises(CredentialError):
                parse_certificates(bundle[:at])


@pytest.mark.parametrize(
    "line", [b"-----BEGIN CERTIFICATE-----\n", b"-----BEGIN A-----\n-----END B-----\n", b"-----"]
)
def test_a_hostile_file_takes_no_longer_than_its_length(line: bytes) -> None:
    """A cost in the square of the length would keep this from ending."""
    with pytest.raises(CredentialError):
        parse_certificates(line * 500_000)


# Private keys


@pytest.mark.parametrize(
    ("key", "form"),
    [
        *((key, "PEM") for key in ("rsa", "ec", "p384", "ed25519", "ed448")),
        *(("ec", form) for form in ("PEM with CRLF", "PEM indented", "DER", "base64 of DER")),
    ],
)
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_pkcs8_keys_are_read(key: str, passphrase: str | None, form: str) -> None:
    pem = written(key, passphrase=passphrase)
    octets = written(key, Encoding.DER, passphrase=passphrase)
    data = {
        "PEM": pem,
        "PEM with CRLF": pem.replace(b"\n", b"\r\n"),
        "PEM indented": b"".join(b"  " + line for line in pem.splitlines(True)),
        "DER": octets,
        "base64 of DER": b64encode(octets),
    }[form]
    assert public(parse_private_key(data, passphrase)) == public(keys()[key])


@pytest.mark.parametrize("key", ["rsa", "ec"], ids=["PKCS#1", "SEC1"])
@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_openssls_traditional_keys_are_read(key: str, passphrase: str | None) -> None:
    data = written(key, form=PrivateFormat.TraditionalOpenSSL, passphrase=passphrase)
    assert (b"DEK-Info" in data) == (passphrase is not None)
    assert public(parse_private_key(data, passphrase)) == public(keys()[key])


@pytest.mark.parametrize("key", ["rsa", "ec"])
def test_openssls_traditional_keys_are_read_from_der(key: str) -> None:
    data = written(key, Encoding.DER, PrivateFormat.TraditionalOpenSSL)
    assert public(parse_private_key(data)) == public(keys()[key])


def test_what_stands_beside_the_one_key_is_ignored() -> None:
    """``openssl ecparam -genkey`` writes the parameters first; some write the certificate."""
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    key = written("ec", form=PrivateFormat.TraditionalOpenSSL)
    found = parse_private_key(parameters + key + pki().client.pem)
    assert public(found) == public(keys()["ec"])


def refused_keys() -> dict[str, tuple[bytes, str | None, str]]:
    clear, secret = written("ec"), written("ec", passphrase=PASSPHRASE)
    old = written("rsa", form=PrivateFormat.TraditionalOpenSSL, passphrase=PASSPHRASE)
    damaged = (
        "is not a private key (PKCS#8, PKCS#1 or SEC1), is damaged, or the passphrase is wrong"
    )
    none = "is not a private key (PKCS#8, PKCS#1 or SEC1) or is damaged"
    encrypted = "the key is encrypted: set private_key_passphrase"
    plain = "the key is not encrypted: remove private_key_passphrase"
    kind = "is a key of a kind that TLS cannot use; use RSA, EC or Ed25519"
    pkcs8 = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return {
        "nothing": (b"\n", None, "is empty"),
        "text": (b"hello", None, "is neither PEM nor DER nor base64 of DER"),
        "a certificate": (pki().client.pem, None, "holds no whole PEM private keys; it needs one"),
        "a certificate in DER": (der(pki().client), None, none),
        "two keys": (clear + clear, None, "holds 2 whole PEM private keys; it needs one"),
        "half a key": (clear[:100], None, "holds no whole PEM private keys; it needs one"),
        "a damaged key": (clear.replace(b"\n", b"\nAAAA", 1), None, none),
        "no passphrase": (secret, None, encrypted),
        "no passphrase, PKCS#1": (old, None, encrypted),
        "no passphrase, DER": (
            written("ec", Encoding.DER, passphrase=PASSPHRASE),
            None,
            encrypted,
        ),
        "a wrong passphrase": (secret, "tr0ub4dor", damaged),
        "a wrong passphrase, PKCS#1": (old, "wrong", damaged),
        "a passphrase for nothing": (clear, PASSPHRASE, plain),
        "a passphrase for nothing, PKCS#1": (
            written("rsa", form=PrivateFormat.TraditionalOpenSSL),
            PASSPHRASE,
            plain,
        ),
        "a passphrase for nothing, DER": (written("ec", Encoding.DER), PASSPHRASE, plain),
        "X25519": (x25519.X25519PrivateKey.generate().private_bytes(*pkcs8), None, kind),
        "DSA": (dsa.generate_private_key(2048).private_bytes(*pkcs8), None, kind),
        "OpenSSH's own form": (
            keys()["ed25519"].private_bytes(
                Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
            ),
            None,
            "is a key in OpenSSH's format: ssh-keygen -p -m PKCS8 -f FILE converts a copy of it",
        ),
        "a public key": (
            keys()["ec"]
            .public_key()
            .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            None,
            "holds no whole PEM private keys; it needs one",
        ),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", refused_keys())
def test_what_is_no_usable_key_is_refused_without_a_byte_of_it(name: str) -> None:
    data, passphrase, expected = refused_keys()[name]
    with pytest.raises(CredentialError) as caught:
        parse_private_key(data, passphrase)
    assert str(caught.value) == expected
    assert_keeps_secrets(caught.value, data)


def test_a_passphrase_may_be_any_bytes_that_an_environment_variable_can_hold() -> None:
    raw = b"caf\xe9"
    data = keys()["ec"].private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(raw)
    )
    assert public(parse_private_key(data, os.fsdecode(raw))) == public(keys()["ec"])


# Pairs


def test_the_key_must_be_that_of_the_first_certificate() -> None:
    chain = (pki().server.certificate, pki().root.certificate)
    key = pki().server.private_key
    assert pair(chain, key) == ServerCredential(chain, key)
    with pytest.raises(CredentialError) as caught:
        pair(chain[:1], pki().client.private_key)
    assert str(caught.value) == "the private key is not that of the certificate"
    with pytest.raises(CredentialError) as caught:
        pair(chain[::-1], key)
    assert str(caught.value) == (
        "the private key is not that of the certificate that comes first; the leaf must come first"
    )


def test_a_key_of_another_kind_is_not_that_of_the_certificate() -> None:
    for key in keys().values():
        with pytest.raises(CredentialError, match="is not that of the certificate"):
            pair((pki().server.certificate,), key)


def test_a_credential_does_not_print_its_key() -> None:
    assert "key" not in repr(ServerCredential((), keys()["ec"])).lower()


def test_a_ca_says_so() -> None:
    assert view(pki().root.certificate).is_ca
    assert not view(pki().client.certificate).is_ca
    assert view(self_signed("x", is_ca=True).certificate).is_ca


def test_a_certificate_without_basic_constraints_is_no_ca() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    one = pki().client.certificate
    made = (
        x509.CertificateBuilder()
        .subject_name(one.subject)
        .issuer_name(one.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(one.not_valid_before_utc)
        .not_valid_after(one.not_valid_after_utc)
    )
    from cryptography.hazmat.primitives.hashes import SHA256

    assert not view(made.sign(key, SHA256())).is_ca


def test_the_fingerprint_is_that_of_the_der() -> None:
    assert view(pki().client.certificate).sha256.hex() == pki().client.sha256


# Files


def refusal(path: Path, opener: Callable[[str, int], int] = os.open) -> str:
    with pytest.raises(CredentialError) as caught:
        read_file(path, opener)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


def test_a_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x\0\r\n")
    (tmp_path / "link").symlink_to("a")
    assert read_file(tmp_path / "a") == read_file(tmp_path / "link") == b"x\0\r\n"


@pytest.mark.slow
def test_what_is_no_file_to_read_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "blank").write_text(" \n\n")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "gone").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(MAX_FILE_BYTES + 1)
    expected = {
        "missing": "no such file",
        "missing/file": "no such file",
        "gone": "no such file",
        ".": "is a directory, not a file",
        "empty": "is empty",
        "blank": "is empty",
        "fifo": "is not a regular file",
        "/dev/zero": "is not a regular file",
        "huge": "is larger than 256 MiB",
        "loop": "cannot be read: Too many levels of symbolic links",
        "empty/file": "cannot be read: Not a directory",
        "a\0b": "cannot be read: embedded null byte",
        "a" * 300: "cannot be read: File name too long",
    }
    assert {name: refusal(tmp_path / name) for name in expected} == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            PermissionError(errno.EACCES, "Permission denied"),
            "permission denied: the gate's user cannot read it",
        ),
        (OSError(errno.EIO, "Input/output error"), "cannot be read: Input/output error"),
        (OSError("odd"), "cannot be read: odd"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    error: OSError, expected: str, tmp_path: Path
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise error

    (tmp_path / "a").write_text("x")
    assert refusal(tmp_path / "a", refuse) == expected


def test_a_file_that_is_longer_than_it_says() -> None:
    """As those of the kernel are, and one that grows meanwhile: all of it is read."""
    path = Path("/proc/self/cmdline")
    if not path.exists():
        pytest.skip("no procfs here")
    assert path.stat().st_size == 0
    assert read_file(path) == path.read_bytes()
