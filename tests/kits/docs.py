"""The documentation's pages, their sections, and the files that their samples name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.testing import Authority, Credential, self_signed

ROOT = Path(__file__).parent.parent.parent

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("how-to/*.md"))]


def sections(page: Path, level: int) -> dict[str, str]:
    """:returns: what stands under each heading of a level, by its text without backquotes."""
    parts = re.split(rf"^{'#' * level} (.*)$", page.read_text(), flags=re.MULTILINE)
    return {
        title.replace("`", ""): body for title, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def make_files(directory: Path, text: str) -> None:
    """
    Write what each name in the text stands for: a certificate, two in a
    ``.pem``, a key, a token, a revocation list, a directory of such, or one with a page.
    """
    directory.mkdir(exist_ok=True)
    for name in re.findall(r'\broot\s*= "([\w-]+)"', text):
        (directory / name).mkdir(exist_ok=True)
        (directory / name / "index.html").write_text("Hello\n")
    authorities: dict[str, Authority] = {}
    authority: Authority | None = None
    servers: dict[str, Credential] = {}
    clients: dict[str, Credential] = {}
    for folder, name in _names(text):
        path = directory / name
        issue: Callable[[str], Credential] = authority.issue if authority else self_signed
        if folder:
            path.mkdir(exist_ok=True)
            path /= "one.crl" if folder == "crl" else "one.crt"
        if folder == "crl" or name.endswith(".crl"):
            assert authority is not None
            content = crl(authority)
        elif name.endswith(".token"):
            content = b"0123456789abcdef\n"
        elif folder:
            content = issue("one").pem
        elif re.search(r"^server\b|-server\.|^gate\.", name):
            server = servers.setdefault(path.stem, _server(path.stem))
            content = server.key_pem if name.endswith(".key") else server.pem
        elif f"{path.stem}.crt" in text and f"{path.stem}.key" in text:
            client = clients.setdefault(path.stem, issue(path.stem))
            content = client.key_pem if name.endswith(".key") else client.pem
        elif re.search(r"(?:^|-)ca\.", name):
            authority = authorities.setdefault(name, Authority.create(name))
            content = authority.pem
        else:
            content = issue("one").pem + (issue("another").pem if name.endswith(".pem") else b"")
        path.write_bytes(content)
        # Of a key that others may read the gate would warn.
        path.chmod(0o600)


def _names(text: str) -> Iterator[tuple[str, str]]:
    """Yield (what a directory is of, or "", and the name) for all files in the text."""
    for found in re.finditer(
        r'\b(?:(?P<of>leaf_certificate|crl)_dir\s*= "(?P<folder>[\w-]+)"'
        r"|(?P<file>[\w-]+\.(?:crt|key|pem|crl|token))\b)",
        text,
    ):
        yield found["of"] or "", found["folder"] or found["file"]


def _server(name: str) -> Credential:
    names = ["localhost", f"{name}.example"]
    # A gate may show the same to its targets.
    usages = ["server_auth", "client_auth"]
    return Authority.create("Server CA").issue(name, dns_names=names, usages=usages)


def crl(authority: Authority) -> bytes:
    """:returns: a revocation list of a CA, with nothing on it."""
    now = datetime.now(UTC)
    key = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key.value)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - timedelta(hours=1))
        .next_update(now + timedelta(days=7))
        .add_extension(identifier, critical=False)
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    return builder.sign(authority.private_key, SHA256()).public_bytes(Encoding.PEM)
