"""
``mtlsgate init``: writes a development setup that works at once.
"""

from __future__ import annotations

import ipaddress
import os
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from attrs import field, frozen
from cryptography import x509

from mtlsgate.certificates.development_ca import Authority, Credential
from mtlsgate.certificates.parsing import (
    PrivateKey,
    pair,
    parse_certificates,
    parse_private_key,
    read_file,
)
from mtlsgate.errors import CredentialError
from mtlsgate.text import printable, quoted

T = TypeVar("T")

_CA_NAME = "mtlsgate development CA"

_GATE_HCL = """\
# An mTLS gate for development, written by mtlsgate init.
# Start it:  twistd -n mtlsgate --config {file}

settings {{
  # How long a client may take for its handshake.
  handshake_timeout = "10s"
}}

server "demo" {{
  # Where to listen. "*:8443" is every address, IPv4 and IPv6.
  hosts = ["localhost:8443"]

  # What verified clients, and nobody else, are connected to.
  # whoami is HTTP and tells them who the gate takes them for.
  protocol "whoami" {{}}

  tls {{
    # What the gate shows of itself.
    server_certificate {{
      public_key_file  = "server.crt"
      private_key_file = "server.key"
    }}

    # A rule: clients whose certificate the CA issued and that is, byte for
    # byte, one of the leaves. Without leaf_certificate_file it would be every
    # certificate of the CA. Several client_certificate blocks add up.
    client_certificate "clients" {{
      ca_certificate_file   = "ca.crt"
      leaf_certificate_file = "admitted.crt"
    }}
  }}
}}
"""


@frozen
class Setup:
    """
    What `write_setup` did.

    :ivar written: the files that it wrote, in order.
    :ivar kept: the files that already existed and were not changed.
    """

    written: list[Path] = field(factory=list)
    kept: list[Path] = field(factory=list)


def write_setup(
    directory: Path,
    *,
    days: int,
    hosts: Sequence[str],
    clients: Sequence[str],
    now: datetime,
) -> Setup:
    """
    Write a configuration and its development PKI.  Existing files are not overwritten.

    :param days: how long the certificates are valid.
    :param hosts: further names and IP addresses of the server.
    :param clients: the names of the admitted clients.
    :raises OSError: if the directory cannot be written to.
    :raises ValueError: if a client's name is not a file name, if a host is invalid, or
        if existing files cannot be used.
    """
    return _Writer(directory, days, now).write(hosts, clients)


#: Names that the setup itself uses.
_RESERVED = frozenset({"admitted", "ca", "gate", "not-pinned", "server", "stranger", "stranger-ca"})

_HOST_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class _Writer:
    def __init__(self, directory: Path, days: int, now: datetime) -> None:
        self.directory = directory
        self.days = days
        self.now = now
        self.setup = Setup()

    def write(self, hosts: Sequence[str], clients: Sequence[str]) -> Setup:
        for client in clients:
            if client in _RESERVED or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._@-]*", client):
                raise ValueError(f"{quoted(client)} cannot be the name of a client's files")
        for host in hosts:
            if not (_is_address(host) or _HOST_NAME.fullmatch(host)):
                raise ValueError(f"{quoted(host)} is neither an IP address nor an ASCII host name")
        self.directory.mkdir(parents=True, exist_ok=True)
        authority = self._authority("ca")
        names = ["localhost", *(host for host in hosts if not _is_address(host))]
        addresses = ["127.0.0.1", "::1", *filter(_is_address, hosts)]
        self._pair(
            "server",
            lambda: authority.issue(
                "localhost",
                dns_names=names,
                ip_addresses=addresses,
                usages=("server_auth",),
                now=self.now,
                days=self.days,
            ),
        )
        for client in clients:
            self._client(client, authority, client)
        self._client("not-pinned", authority, "not-pinned")
        # A CA with the same name, but another key.
        self._client("stranger", self._authority("stranger-ca"), clients[0])
        pins = [self.directory / f"{client}.crt" for client in clients]
        self._file("admitted.crt", lambda: b"".join(pin.read_bytes() for pin in pins))
        self._file("gate.hcl", lambda: self._configuration().encode())
        return self.setup

    def _configuration(self) -> str:
        # The name is in a comment: a line end in it must not end the comment.
        return _GATE_HCL.format(file=printable(shlex.quote(f"{self.directory}/gate.hcl")))

    def _authority(self, name: str) -> Authority:
        certificate, key = self._pair(
            name, lambda: Authority.create(_CA_NAME, now=self.now, days=self.days)
        )
        return Authority(certificate, key)  # type: ignore[arg-type]

    def _client(self, name: str, authority: Authority, common_name: str) -> None:
        self._pair(name, lambda: authority.issue(common_name, now=self.now, days=self.days))

    def _pair(
        self, name: str, make: Callable[[], Authority | Credential]
    ) -> tuple[x509.Certificate, PrivateKey]:
        """Make NAME.crt and NAME.key, or keep both if they exist."""
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        if certificate.exists() or key.exists():
            self.setup.kept.extend((certificate, key))
        else:
            made = make()
            self._file(key.name, lambda: made.key_pem, mode=0o600)
            self._file(certificate.name, lambda: made.pem)
        chain = _parsed(certificate, parse_certificates)
        private_key = _parsed(key, parse_private_key)
        try:
            pair(chain, private_key)
        except CredentialError as error:
            raise ValueError(f"{key}: {error}; remove the pair to have a new one made") from None
        return chain[0].x509, private_key

    def _file(self, name: str, content: Callable[[], bytes], mode: int = 0o644) -> None:
        path = self.directory / name
        try:
            # Set the mode at creation: a key must never be readable, not even briefly.
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        except FileExistsError:
            self.setup.kept.append(path)
            return
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content())
        self.setup.written.append(path)


def _parsed(path: Path, parse: Callable[[bytes], T]) -> T:
    try:
        return parse(read_file(path))
    except CredentialError as error:
        raise ValueError(f"{path}: {error}; remove its pair to have a new one made") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def commands(directory: Path, client: str) -> Iterator[tuple[str, list[str]]]:
    """
    :param client: the name of an admitted client.
    :returns: things to try with the running gate: a heading and its shell commands.
    """
    url = "https://localhost:8443/"
    ca = shlex.quote(f"{directory}/ca.crt")

    def shown(dashes: str, name: str | None) -> str:
        if name is None:
            return ""
        certificate, key = (shlex.quote(f"{directory}/{name}.{end}") for end in ("crt", "key"))
        return f" {dashes}cert {certificate} {dashes}key {key}"

    def curl(name: str | None) -> str:
        return f"curl --cacert {ca}{shown('--', name)} {url}"

    def openssl(name: str | None) -> str:
        return (
            "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -quiet "
            f"-verify_return_error -connect localhost:8443 -CAfile {ca}{shown('-', name)}"
        )

    yield "Let in:", [curl(client), openssl(client)]
    yield "Not let in, no certificate:", [curl(None), openssl(None)]
    yield "Not let in, of the same CA but not pinned:", [curl("not-pinned"), openssl("not-pinned")]
    yield (
        "Not let in, a stranger from another CA of the same name:",
        [curl("stranger"), openssl("stranger")],
    )


def is_pinned(directory: Path, client: str) -> bool:
    """:returns: whether the setup's pins include the client's certificate;
    pins that were kept may not."""
    pins = _parsed(directory / "admitted.crt", parse_certificates)
    return _parsed(directory / f"{client}.crt", parse_certificates)[0] in pins
