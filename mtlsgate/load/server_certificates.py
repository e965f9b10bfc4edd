"""
Reads a server's own certificates from ``server_certificate`` blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial

from attrs import evolve

from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.development_ca import self_signed
from mtlsgate.certificates.keystore import parse_keystore
from mtlsgate.certificates.ocsp import demands_stapling, stapling_of
from mtlsgate.certificates.parsing import (
    MissingCredential,
    ServerCredential,
    pair,
    parse_private_key,
)
from mtlsgate.certificates.token import is_token_uri, parse_token_key
from mtlsgate.config import Material, model
from mtlsgate.config.urls import parse_url
from mtlsgate.errors import CredentialError
from mtlsgate.load.acme import AcmeReader
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.listen_addresses import Host
from mtlsgate.load.state import State
from mtlsgate.spiffe.agents import Agents, SvidSource
from mtlsgate.tls.openssl_errors import REFUSALS, reasons_of
from mtlsgate.tls.server import GateContext, TlsPolicy


class CredentialReader:
    """
    Reads the certificates and keys of one load's servers.

    :ivar files: reads the files.
    :ivar _known: what was read before: a thousand servers may name the same files.
    """

    def __init__(self, files: CertificateFiles, agents: Agents, environ: Mapping[str, str]) -> None:
        """
        :param agents: has what SPIFFE agents have delivered.
        :param environ: the environment variables.
        """
        self.files = files
        self.acme = AcmeReader(files, environ)
        self._agents = agents
        self.report = files.report
        self._known: dict[object, ServerCredential] = {}

    def of(
        self, server: model.Server, hosts: tuple[Host, ...], state: State, now: datetime
    ) -> Iterator[ServerCredential | MissingCredential]:
        """
        :param hosts: the server's addresses.
        :param state: has the OCSP responses that were fetched.
        :param now: the time to judge them by, aware.
        :returns: the certificates with their keys.  A server without a block gets a
            self-signed certificate if only this machine can connect.  The report
            says what is wrong.
        """
        blocks = server.tls.server_certificate
        for block in blocks:
            if block.acme is not None:
                starttls = server.dialect is not None
                self.acme.check_reach(block.acme, hosts, starttls=starttls)
            credential = self._delivered(block) or self.read(block)
            material = block.pkcs12 or block.public_key
            if isinstance(credential, ServerCredential) and material is not None:
                yield self._stapled(block, material, credential, state, now)
            elif credential is not None:
                yield credential
        if blocks:
            return
        if all(host.is_local for host in hosts):
            made = self_signed(
                "localhost",
                dns_names=("localhost",),
                ip_addresses=("127.0.0.1", "::1"),
                usages=("server_auth",),
            )
            yield ServerCredential((made.certificate,), made.private_key)
            return
        self.report.error(
            server.tls.at,
            "tls",
            "no server_certificate block: a self-signed one is made only where every host is "
            "loopback; name a certificate and its key",
        )

    def _stapled(
        self,
        block: model.ServerCertificate,
        material: Material,
        credential: ServerCredential,
        state: State,
        now: datetime,
    ) -> ServerCredential:
        leaf, *others = credential.chain
        if not block.ocsp_stapling:
            if demands_stapling(leaf):
                self.report.warn(
                    material.at,
                    block.heading,
                    "the certificate demands a stapled OCSP response, and clients may refuse it "
                    "without: set ocsp_stapling = true",
                )
            return credential
        try:
            stapling = stapling_of(leaf, others[0] if others else None)
            parse_url(stapling.url)
        except CredentialError as error:
            self.files.refuse(material, block.heading, error)
            return credential
        except ValueError as error:
            text = f"its OCSP responder cannot be asked: {error}"
            self.report.error(material.at, block.heading, text)
            return credential
        return evolve(credential, stapling=state.with_response(stapling, now))

    def _delivered(
        self, block: model.ServerCertificate
    ) -> ServerCredential | MissingCredential | None:
        if block.agent is None:
            return None
        name = None if block.spiffe_id is None else block.spiffe_id.value
        return self._agents.credential(SvidSource(block.agent, name))

    def read(self, block: model.ServerCertificate) -> ServerCredential | MissingCredential | None:
        """:returns: the block's certificate with its key; None if the report says what is
        wrong."""
        if block.acme is not None:
            return self.acme.read(block.acme)
        chain, key = block.public_key, block.private_key
        read: Callable[[], ServerCredential | None]
        if block.pkcs12 is not None:
            materials = [block.pkcs12]
            read = partial(self._from_keystore, block, block.pkcs12)
        elif chain is not None and key is not None:
            materials = [chain, key]
            read = partial(self._from_files, block, chain, key)
        else:
            # Another error keeps the configuration from being loaded.
            return None
        for material in materials:
            if material.path is not None:
                self.files.note_own(material.path)
        self.files.warn_if_exposed(materials[-1], block.heading)
        source = (
            *((one.text, one.path) for one in materials),
            block.private_key_passphrase,
            block.pkcs12_passphrase,
        )
        credential = self._known.get(source) or self._usable(block, read())
        if credential is not None:
            self._known[source] = credential
        return credential

    def _from_files(
        self, block: model.ServerCertificate, chain: Material, key: Material
    ) -> ServerCredential | None:
        certificates = self.files.certificates(chain, block.heading)
        if key.text is not None and is_token_uri(key.text):
            return self._with_token(block, certificates, key, key.text)
        data = self.files.read(key, block.heading)
        if data is None:
            return None
        try:
            private_key = parse_private_key(data, block.private_key_passphrase)
            return pair(certificates, private_key) if certificates else None
        except CredentialError as error:
            self.files.refuse(key, block.heading, error)
            return None

    def _with_token(
        self,
        block: model.ServerCertificate,
        certificates: tuple[Certificate, ...],
        key: Material,
        uri: str,
    ) -> ServerCredential | None:
        try:
            if block.private_key_passphrase is not None:
                raise CredentialError("is in a token: private_key_passphrase has no effect")
            credential = ServerCredential(certificates, parse_token_key(uri))
        except CredentialError as error:
            self.files.refuse(key, block.heading, error)
            return None
        if not certificates:
            return None
        try:
            GateContext(TlsPolicy((credential,), admission=None))
        except REFUSALS as error:
            text = (
                "private_key: OpenSSL gets no such key from a token, or it is not that of the "
                f"certificate ({reasons_of(error)}): let OPENSSL_CONF name a configuration that "
                "loads pkcs11-provider"
            )
            self.report.error(key.at, block.heading, text)
            return None
        return credential

    def _from_keystore(
        self, block: model.ServerCertificate, keystore: Material
    ) -> ServerCredential | None:
        data = self.files.read(keystore, block.heading)
        if data is None:
            return None
        try:
            return parse_keystore(data, block.pkcs12_passphrase)
        except CredentialError as error:
            self.files.refuse(keystore, block.heading, error)
            return None

    def _usable(
        self, block: model.ServerCertificate, credential: ServerCredential | None
    ) -> ServerCredential | None:
        if credential is None:
            return None
        try:
            GateContext(TlsPolicy((credential,), admission=None))
        except REFUSALS as error:
            text = f"OpenSSL refuses it: {reasons_of(error)}; issue a stronger one"
            self.report.error(block.at, block.heading, text)
            return None
        return credential
