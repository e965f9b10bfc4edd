"""
Files that are neither a certificate nor a key are named, with the command that converts them.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)

from mtlsgate.certificates.parsing import parse_certificates, parse_private_key
from mtlsgate.errors import CredentialError
from tests.kits.pki import pki


def _certificate() -> x509.Certificate:
    return x509.load_pem_x509_certificate(pki().client.pem)


def _pfx() -> bytes:
    return pkcs12.serialize_key_and_certificates(
        b"name", None, _certificate(), [_certificate()], NoEncryption()
    )


def _request() -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(ec.generate_private_key(ec.SECP256R1()), SHA256()).public_bytes(
        Encoding.PEM
    )


def _openssh() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def _openssh_public() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)


FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "PKCS#12": (
        _pfx,
        "is PKCS#12: pkcs12_file and client_pkcs12_file take one with its key; elsewhere: "
        "openssl pkcs12 -in FILE -nokeys -out FILE.crt for its",
    ),
    "PKCS#7 DER": (
        lambda: pkcs7.serialize_certificates([_certificate()], Encoding.DER),
        "is PKCS#7: openssl pkcs7 -inform DER -print_certs -in FILE -out FILE.pem",
    ),
    "PKCS#7 PEM": (
        lambda: pkcs7.serialize_certificates([_certificate()], Encoding.PEM),
        "is PKCS#7: openssl pkcs7 -print_certs -in FILE -out FILE.pem",
    ),
    "request": (_request, "is a certificate request: name the certificate that the CA made of it"),
    "OpenSSH": (_openssh, "is a key in OpenSSH's format: ssh-keygen -p -m PKCS8 -f FILE"),
    "OpenSSH public": (_openssh_public, "is an SSH key, and TLS needs a certificate"),
    "Java": (lambda: b"\xfe\xed\xfe\xed\0\0\0\2" + bytes(99), "is a Java keystore: keytool"),
    "gzip": (lambda: b"\x1f\x8b\x08" + bytes(99), "is compressed: unpack it"),
    "UTF-16": (lambda: pki().client.pem.decode().encode("utf-16"), "is text in UTF-16: save it"),
    "HTML": (lambda: b"\n<!DOCTYPE html><html></html>", "is a web page: download the file itself"),
    "literal line ends": (
        lambda: pki().client.pem.replace(b"\n", rb"\n"),
        r"has its line ends written as \n, a backslash and an n",
    ),
}


@pytest.mark.parametrize("parse", [parse_certificates, parse_private_key])
@pytest.mark.parametrize("name", FILES)
def test_what_it_is_and_what_to_do(name: str, parse: Callable[[bytes], object]) -> None:
    make, expected = FILES[name]
    with pytest.raises(CredentialError) as caught:
        parse(make())
    assert str(caught.value).startswith(expected)


def test_the_commands_convert(tmp_path: Path) -> None:
    """What the messages say to type makes a file that is read."""
    (tmp_path / "FILE").write_bytes(FILES["PKCS#12"][0]())
    command = FILES["PKCS#12"][1].partition("elsewhere: ")[2].removesuffix(" for its")
    subprocess.run(
        [*command.split(), "-passin", "pass:"], cwd=tmp_path, check=True, capture_output=True
    )
    assert parse_certificates((tmp_path / "FILE.crt").read_bytes())
    for name in ("PKCS#7 DER", "PKCS#7 PEM"):
        (tmp_path / "FILE").write_bytes(FILES[name][0]())
        command = FILES[name][1].partition(": ")[2]
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
        assert parse_certificates((tmp_path / "FILE.pem").read_bytes())
