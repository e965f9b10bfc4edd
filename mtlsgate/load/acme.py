"""
Certificates of the gate itself that a CA issues by ACME: what a configuration wants, and
what the storage has.

Loading orders nothing and asks nobody.  `mtlsgate.run.certificate_orders` orders, and
`mtlsgate.load.refresh.renewed` makes an epoch with what came.
"""

from __future__ import annotations

import binascii
import os
import stat
from base64 import urlsafe_b64decode
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path

from attrs import evolve

from mtlsgate.acme.storage import Storage, parse_kept
from mtlsgate.acme.wanted import AccountBinding, WantedCertificate
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.config import Material
from mtlsgate.config.model import Server
from mtlsgate.config.own_certificate import Acme
from mtlsgate.errors import CredentialError
from mtlsgate.load.addresses import SocketAddress
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.listen_addresses import Host
from mtlsgate.text import quoted
from mtlsgate.tls.server import TlsPolicy

#: Where CAs connect to for TLS-ALPN-01 (RFC 8737, 3).
_PORT = 443
#: What imports the libraries that `mtlsgate[acme]` brings.
_ORDERING = "mtlsgate.acme.ordering"


def modules_for(servers: Iterable[Server]) -> tuple[str, ...]:
    """:returns: the modules that are imported for the servers' ``acme`` blocks."""
    blocks = [block for one in servers for block in one.tls.server_certificate]
    return (_ORDERING,) if any(block.acme is not None for block in blocks) else ()


class AcmeReader:
    """
    Reads the ``acme`` blocks of one load.

    :ivar files: reads the files that they name.
    """

    def __init__(self, files: CertificateFiles, environ: Mapping[str, str]) -> None:
        """:param environ: systemd sets ``STATE_DIRECTORY`` in it."""
        self.files = files
        self.report = files.report
        self._environ = environ

    def read(self, block: Acme) -> ServerCredential | MissingCredential | None:
        """:returns: the block's certificate; None if the report says what is wrong."""
        errors_before = len(self.report.errors)
        if any(True for _ in block.problems()):
            # They are reported already.
            return None
        try:
            # Now: later the gate's user may not read Python's files.
            import_module(_ORDERING)
        except ImportError as error:
            text = f"{error.name} is not installed: pip install 'mtlsgate[acme]'"
            self.report.error(block.at, "acme", text)
            return None
        storage, authorities = self._storage(block), None
        if block.ca_file is not None:
            authorities = Material("ca_file", block.ca_file.at, path=Path(block.ca_file.value))
        wanted = WantedCertificate(
            directory=block.directory.value,
            names=tuple(one.value.lower() for one in block.names),
            storage=storage,
            contact=tuple(one.value for one in block.contact),
            authorities=self.files.certificates(authorities, "acme"),
            binding=self._binding(block),
        )
        self.files.note_own(storage.certificate_path(wanted.file_name))
        try:
            found = credential_of(wanted)
        except CredentialError as error:
            at = block.at if block.storage is None else block.storage.at
            name = quoted(str(storage.certificate_path(wanted.file_name)))
            self.report.error(at, "acme", f"storage: {name} {error}")
        return None if len(self.report.errors) > errors_before else found

    def _storage(self, block: Acme) -> Storage:
        directory = self.files.directory
        at = block.at
        if block.storage is not None:
            directory, at = directory / block.storage.value, block.storage.at
        else:
            given = self._environ.get("STATE_DIRECTORY", "").partition(":")[0]
            directory = (Path(given) if given else directory) / "acme"
        try:
            found = directory.stat()
        except (OSError, ValueError):
            return Storage(directory)
        name = f"storage: {quoted(str(directory))}"
        if not stat.S_ISDIR(found.st_mode):
            self.report.error(at, "acme", f"{name} is not a directory")
        elif found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            text = f"{name} is open to others on this machine, and has private keys: chmod 700 it"
            self.report.error(at, "acme", text)
        elif not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
            text = f"{name} is not this user's: the gate could keep nothing in it"
            self.report.warn(at, "acme", text)
        return Storage(directory)

    def _binding(self, block: Acme) -> AccountBinding | None:
        key = block.eab_hmac_key
        if block.eab_key_id is None or key is None:
            return None
        data = self.files.read(key, "acme")
        if data is None:
            return None
        text = data.decode("ascii", "replace").strip().rstrip("=")
        try:
            secret = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except (binascii.Error, ValueError):
            secret = b""
        if not secret or not text.replace("-", "").replace("_", "").isalnum():
            self.files.refuse(key, "acme", CredentialError("is no base64url, as CAs give it"))
            return None
        return AccountBinding(key_id=block.eab_key_id, hmac_key=text)

    def refuse_in_python(self, server: Server) -> None:
        """Report the blocks of a server that is not this program's: nothing would order."""
        for block in server.tls.server_certificate:
            if block.acme is not None:
                text = "a gate in Python orders no certificates: run twistd mtlsgate, or name files"
                self.report.error(block.acme.at, "acme", text)

    def check_reach(self, block: Acme, hosts: Iterable[Host], *, starttls: bool) -> None:
        """Report if the CA could not see the server's answer to its challenge."""
        if starttls:
            text = (
                "the CA speaks TLS at once, and this server's clients begin in plaintext: let "
                "acme stand in a server without starttls that has the same storage and names, "
                "and name its files here"
            )
            self.report.error(block.at, "acme", text)
            return
        ports = {
            one.port
            for host in hosts
            for one in host.addresses
            if isinstance(one, SocketAddress) and one.port
        }
        if ports and _PORT not in ports:
            found = ", ".join(map(str, sorted(ports)))
            self.report.warn(
                block.at,
                "acme",
                f"the CA connects to port {_PORT} of each name, and the server listens on "
                f"{found}: it issues nothing unless something forwards {_PORT} to it",
            )


def credential_of(wanted: WantedCertificate) -> ServerCredential | MissingCredential:
    """
    :returns: the certificate as the storage has it now.  One that is damaged is missing:
        it will be ordered again.
    :raises CredentialError: if it cannot be read.
    """
    storage, name = wanted.storage, wanted.file_name
    data = storage.certificate(name)
    why = storage.progress(name).problem if data is None else None
    if data is not None:
        try:
            return evolve(parse_kept(data), source=wanted)
        except CredentialError as error:
            why = f"{name}.pem in its storage is damaged: {error}"
    elif why is None:
        why = "the CA has not issued it yet"
    return MissingCredential(wanted, wanted.names, why)


def wanted_by(policy: TlsPolicy) -> Iterator[WantedCertificate]:
    """:returns: the certificates that a server wants from CAs."""
    for one in policy.own:
        if isinstance(one.source, WantedCertificate):
            yield one.source


def all_wanted(policies: Iterable[TlsPolicy]) -> tuple[WantedCertificate, ...]:
    """:returns: the certificates that servers want from CAs, each once."""
    return tuple({one.key: one for policy in policies for one in wanted_by(policy)}.values())
