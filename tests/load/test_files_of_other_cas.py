"""
Files as step-ca and cert-manager write them: chains in one file, keys in several formats,
leaves without basic constraints or with an empty subject.

The files have the same shape as theirs; what each page of the documentation says to write
for them is in the configurations here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from twisted.internet.task import Clock

from mtlsgate.load.loading import load
from mtlsgate.testing import Authority, Client, Credential, Version, gate

PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
NAME = "gate.example"
#: step-ca's extension that names the provisioner.
PROVISIONER = x509.ObjectIdentifier("1.3.6.1.4.1.37476.9000.64.1")


def p256() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa2048() -> PrivateKey:
    return rsa.generate_private_key(65537, 2048)


#: A kind of key, how it is encoded, and what its PEM begins with.
KEYS: Mapping[str, tuple[Callable[[], PrivateKey], PrivateFormat, bytes]] = {
    "SEC1": (p256, PrivateFormat.TraditionalOpenSSL, b"EC PRIVATE KEY"),
    "EC in PKCS#8": (p256, PrivateFormat.PKCS8, b"PRIVATE KEY"),
    "PKCS#1": (rsa2048, PrivateFormat.TraditionalOpenSSL, b"RSA PRIVATE KEY"),
    "RSA in PKCS#8": (rsa2048, PrivateFormat.PKCS8, b"PRIVATE KEY"),
    "Ed25519 in PKCS#8": (ed25519.Ed25519PrivateKey.generate, PrivateFormat.PKCS8, b"PRIVATE KEY"),
}


@cache
def key_of(kind: str, holder: str) -> PrivateKey:
    """:returns: a key; to make one takes a while, so tests share them."""
    make, _, _ = KEYS[kind]
    return make()


def key_pem(kind: str, key: PrivateKey) -> bytes:
    _, form, first = KEYS[kind]
    pem = key.private_bytes(Encoding.PEM, form, NoEncryption())
    assert first in pem.splitlines()[0]
    return pem


def usage(*, encipherment: bool) -> x509.KeyUsage:
    rest = dict.fromkeys(
        (
            "content_commitment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=True, key_encipherment=encipherment, **rest)


def leaf(
    issuer: Authority,
    key: PrivateKey,
    name: str | None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    """:returns: a certificate for 90 days, with identifiers of both keys."""
    now = datetime.now(UTC)
    attributes = [] if name is None else [x509.NameAttribute(NameOID.COMMON_NAME, name)]
    identifiers = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifiers.value), False
        )
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(issuer.private_key, SHA256())


def of_step(issuer: Authority, key: PrivateKey, name: str) -> x509.Certificate:
    """:returns: as step-ca issues it: for servers and clients, without basic constraints."""
    both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (usage(encipherment=isinstance(key, rsa.RSAPrivateKey)), True),
        (x509.ExtendedKeyUsage(both), False),
        (x509.SubjectAlternativeName([x509.DNSName(name)]), False),
        (x509.UnrecognizedExtension(PROVISIONER, b"\x30\x03\x02\x01\x01"), False),
    ]
    return leaf(issuer, key, name, extensions)


def of_cert_manager(issuer: Authority, key: PrivateKey, name: str) -> x509.Certificate:
    """:returns: as cert-manager asks for it with ``dnsNames`` only: with no subject."""
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (usage(encipherment=True), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
        # RFC 5280, 4.2.1.6: critical, because the subject is empty.
        (x509.SubjectAlternativeName([x509.DNSName(name)]), True),
    ]
    return leaf(issuer, key, None, extensions)


def chain_pem(certificate: x509.Certificate, issuer: Authority) -> bytes:
    """:returns: one file: the leaf, and the intermediate after it."""
    both = (certificate, issuer.certificate)
    return b"".join(one.public_bytes(Encoding.PEM) for one in both)


def write(directory: Path, public: str, private: str, ca: str, files: Mapping[str, bytes]) -> Path:
    """:returns: a configuration that names the files, beside them."""
    for name, content in files.items():
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    config = directory / "gate.hcl"
    config.write_text(
        f"""
settings {{
  watch = true
}}
server "presses" {{
  hosts = ["127.0.0.1:0"]
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      public_key_file  = "{public}"
      private_key_file = "{private}"
    }}
    client_certificate "plant" {{
      ca_certificate_file = "{ca}"
    }}
  }}
}}
"""
    )
    return config


def is_admitted(config: Path, credential: Credential, version: Version) -> bool:
    """:returns: whether the client gets an answer, in TLS that trusts nothing but the files."""
    clock = Clock()
    client = Client(gate(config, clock), credential, clock=clock, max_version=version)
    client.handshake()
    client.send(b"hello")
    return client.receive() == b"hello"


@pytest.mark.parametrize("kind", KEYS)
def test_step_cas_files_work(kind: str, tmp_path: Path, version: Version) -> None:
    """A chain in one file, for the gate and for a client, below step-ca's intermediate."""
    root = Authority.create("Plant Root CA", path_length=1)
    issuing, other = (root.intermediate(f"Plant {name} CA", path_length=0) for name in "AB")
    key, of_client = key_of(kind, "gate"), key_of(kind, "client")
    files = {
        "gate.crt": chain_pem(of_step(issuing, key, NAME), issuing),
        "gate.key": key_pem(kind, key),
        "root_ca.crt": root.pem,
        "intermediate_ca.crt": issuing.certificate.public_bytes(Encoding.PEM),
    }
    press = Credential(of_step(issuing, of_client, "press-7"), of_client, (issuing.certificate,))
    stray = Credential(of_step(other, of_client, "press-8"), of_client, (other.certificate,))
    config = write(tmp_path, "gate.crt", "gate.key", "root_ca.crt", files)
    assert load(str(config)).warnings == ()
    assert is_admitted(config, press, version)
    assert is_admitted(config, stray, version)
    config = write(tmp_path, "gate.crt", "gate.key", "intermediate_ca.crt", files)
    assert is_admitted(config, press, version)
    assert not is_admitted(config, stray, version)


@pytest.mark.parametrize("kind", KEYS)
def test_cert_managers_secret_works(kind: str, tmp_path: Path, version: Version) -> None:
    """tls.crt, tls.key and ca.crt: a leaf without a subject, and whatever key was asked for."""
    ca = Authority.create("cluster CA")
    key, of_client = key_of(kind, "gate"), key_of(kind, "client")
    certificate = of_cert_manager(ca, key, NAME)
    files = {
        "tls.crt": certificate.public_bytes(Encoding.PEM),
        "tls.key": key_pem(kind, key),
        "ca.crt": ca.pem,
    }
    config = write(tmp_path, "tls.crt", "tls.key", "ca.crt", files)
    assert load(str(config)).warnings == ()
    client = Credential(of_cert_manager(ca, of_client, "press-7"), of_client)
    assert is_admitted(config, client, version)
    foreign = Authority.create("cluster CA")
    stranger = Credential(of_cert_manager(foreign, of_client, "press-7"), of_client)
    assert not is_admitted(config, stranger, version)
