"""
What people write who are new to the gate, and exactly what it says (``mistakes.txt``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    pkcs7,
    pkcs12,
)

from tests.kits.pki import Site, pki, site

_HOSTS = 'hosts = ["127.0.0.1:0"]\n'
_RULE = 'client_certificate { ca_certificate_file = "issuing.crt" }\n'
_SERVER = f'server {{\n{_HOSTS}protocol "echo" {{}}\ntls {{\n'
_WHOLE = f"{_SERVER}{_RULE}}}\n}}\n"


def _in_context(context: str, text: str) -> str:
    """:returns: a file that has the text in a block."""
    match context:
        case "whole":
            return text
        case "file":
            return f"{text}\n{_WHOLE}"
        case "settings":
            return f"settings {{\n{text}\n}}\n{_WHOLE}"
        case "server":
            rest = _WHOLE.removeprefix("server {\n")
            if text.startswith("hosts"):
                rest = rest.removeprefix(_HOSTS)
            return f"server {{\n{text}\n{rest}"
        case "tls":
            return f"{_SERVER}{text}\n{_RULE}}}\n}}\n"
        case "rule":
            return f"{_SERVER}client_certificate {{\n{text}\n}}\n}}\n}}\n"
        case _:
            return f"{_SERVER}server_certificate {{\n{text}\n}}\n{_RULE}}}\n}}\n"


def _cases() -> Iterator[tuple[str, str, list[str]]]:
    text = Path(__file__).with_name("mistakes.txt").read_text()
    for case in text.split("\n=== ")[1:]:
        context, _, rest = case.partition("\n")
        written, _, problems = rest.partition("\n---\n")
        yield context, written, problems.strip().split("\n")


@pytest.fixture
def here(tmp_path: Path) -> Site:
    """:returns: a site with the files that people name by mistake."""
    found = site(tmp_path)
    certificate = x509.load_pem_x509_certificate(pki().client.pem)
    pfx = pkcs12.serialize_key_and_certificates(
        b"x", None, certificate, [certificate], NoEncryption()
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), SHA256())
    found.write("client.p12", pfx)
    found.write("bundle.p7b", pkcs7.serialize_certificates([certificate], Encoding.DER))
    found.write("request.csr", signed.public_bytes(Encoding.PEM))
    found.write("issuing.key", pki().server.key_pem)
    (tmp_path / "pins").mkdir(exist_ok=True)
    return found


@pytest.mark.parametrize(("context", "text", "problems"), list(_cases()))
def test_what_is_said_of_a_mistake(
    here: Site, context: str, text: str, problems: list[str]
) -> None:
    environ = {
        "EMPTY": "",
        "WORD": "word",
        "CA_LITERAL": pki().issuing.pem.decode().replace("\n", "\\n"),
    }
    assert here.problems(_in_context(context, text), environ) == problems


def test_there_are_many() -> None:
    assert len(list(_cases())) >= 130
