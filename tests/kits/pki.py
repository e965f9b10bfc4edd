"""
Certificates on disk and a configuration beside them, for tests of the loader.

Made anew in each run; keys take a while, so a module shares them.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding

from mtlsgate.certificates.development_ca import Authority, Credential, self_signed
from mtlsgate.errors import ConfigError
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.loading import load
from mtlsgate.protocols import GROUP

#: As a message lists the protocols that there are.
INSTALLED = ", ".join(sorted({one.name for one in entry_points(group=GROUP)}))

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@frozen
class Pki:
    """
    :ivar root: a root CA.
    :ivar issuing: an intermediate below it.
    :ivar server: a server certificate for localhost, of the root.
    :ivar client: a client of the intermediate.
    :ivar other: another client of the intermediate.
    :ivar stranger: a client that signed itself.
    """

    root: Authority
    issuing: Authority
    server: Credential
    client: Credential
    other: Credential
    stranger: Credential

    def write(self, directory: Path) -> None:
        """Write everything as files, PEM and DER."""
        client, stranger = self.client.certificate, self.stranger.certificate
        files = {
            "root.crt": self.root.pem,
            "issuing.crt": self.issuing.pem,
            "bundle.crt": self.root.pem + self.issuing.pem,
            "server.crt": self.server.pem,
            "server.key": self.server.key_pem,
            "client.crt": client.public_bytes(Encoding.PEM),
            "client.der": client.public_bytes(Encoding.DER),
            "clients.crt": client.public_bytes(Encoding.PEM)
            + self.other.certificate.public_bytes(Encoding.PEM),
            "client.key": self.client.key_pem,
            "stranger.crt": stranger.public_bytes(Encoding.PEM),
        }
        for name, content in files.items():
            _write(directory / name, content)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    if path.suffix == ".key":
        path.chmod(0o600)


@cache
def pki() -> Pki:
    root = Authority.create("Root CA", now=NOW)
    issuing = root.intermediate("Issuing CA", now=NOW)
    return Pki(
        root=root,
        issuing=issuing,
        server=root.issue(
            "localhost", dns_names=["localhost"], usages=["server_auth"], now=NOW, days=90
        ),
        client=issuing.issue("client", now=NOW),
        other=issuing.issue("other", now=NOW),
        stranger=self_signed("stranger", now=NOW),
    )


def der(certificate: Authority | Credential) -> bytes:
    return certificate.certificate.public_bytes(Encoding.DER)


def base64_of(octets: bytes) -> str:
    return b64encode(octets).decode()


@frozen
class Site:
    """
    A directory with certificates and a place for a configuration.

    :ivar directory: where all is.
    """

    directory: Path

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.directory / "gate.hcl"

    def write(self, name: str, content: bytes | str) -> None:
        """Write a file."""
        data = content.encode() if isinstance(content, str) else content
        _write(self.directory / name, data)

    def load(
        self,
        text: str | bytes,
        now: datetime = NOW,
        environ: Mapping[str, str] = MappingProxyType({}),
        **options: Any,
    ) -> Epoch:
        """Load a configuration."""
        self.write("gate.hcl", text)
        return load(str(self.config), environ, lambda: now, **options)

    def problems(
        self, text: str | bytes, environ: Mapping[str, str] = MappingProxyType({})
    ) -> list[str]:
        """:returns: why it is refused, as ``line:column: where: problem``."""
        with pytest.raises(ConfigError) as caught:
            self.load(text, environ=environ)
        problems = caught.value.problems
        assert list(problems) == sorted(set(problems))
        lines = str(caught.value).split("\n")
        assert lines == list(map(str, problems))
        assert all(line.isprintable() for line in lines)
        assert not any("-----" in line for line in lines)
        prefix = f"{self.config}:"
        assert all(line.startswith(prefix) for line in lines)
        return [line.removeprefix(prefix) for line in lines]

    def warnings(self, text: str, now: datetime = NOW) -> list[str]:
        """:returns: what it warns of, as ``line:column: where: problem``."""
        prefix = f"{self.config}:"
        epoch = self.load(text, now)
        return [str(one).removeprefix(prefix) for one in epoch.warnings]


def site(directory: Path) -> Site:
    """:returns: a directory with the shared certificates in it."""
    pki().write(directory)
    return Site(directory)


def server(
    tls: str = 'client_certificate { ca_certificate_file = "issuing.crt" }',
    hosts: str = '["127.0.0.1:0"]',
    protocol: str = 'protocol "echo" {}',
    label: str = "",
) -> str:
    """
    :param tls: what is in the ``tls`` block; its first line is line 5, its
        first column 1.
    """
    return f"server {label} {{\nhosts = {hosts}\n{protocol}\ntls {{\n{tls}\n}}\n}}\n"
