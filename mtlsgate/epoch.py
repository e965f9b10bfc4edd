"""
From a file's name to everything that was built from it.

The one loader behind ``mtlsgate check`` and ``twistd mtlsgate``.  It goes on
after an error as far as it can, so that all problems are said in one go.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory

from mtlsgate import lint
from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.authority import self_signed
from mtlsgate.config import AlreadyReported, Located, Material, model
from mtlsgate.config.decode import Decoder
from mtlsgate.config.expressions import Scope
from mtlsgate.config.syntax import parse
from mtlsgate.config.tree import heading
from mtlsgate.context import GateContext, TlsPolicy, utc_now
from mtlsgate.credentials import (
    ServerCredential,
    is_ca,
    pair,
    parse_certificates,
    parse_private_key,
    read_file,
)
from mtlsgate.errors import START, CredentialError, Position, Problem, Report
from mtlsgate.gate import GateServer
from mtlsgate.hosts import Host, HostError, SocketAddress, parse_host
from mtlsgate.protocols import PluginError, ProtocolEnvironment, find_plugin
from mtlsgate.text import quoted

#: PEM, or base64 of what may be DER: where a name was expected, it is not repeated.
_MATERIAL = re.compile(r"-----BEGIN |\A\s*M[A-Za-z0-9+/\s]{50,}=*\s*\Z")


@frozen
class LoadedServer:
    """
    One server and what was built for it.

    :ivar model: its block.
    :ivar hosts: where it listens.
    :ivar gate: what admits clients and hands them over.
    """

    model: model.Server
    hosts: tuple[Host, ...]
    gate: GateServer


@frozen
class Epoch:
    """
    One loaded configuration and all that was built from it.

    :ivar path: the file, as the person named it.
    :ivar servers: in file order.
    :ivar warnings: what does not keep the gate from starting, but is surely
        not meant; sorted by position.
    """

    path: str
    servers: tuple[LoadedServer, ...]
    warnings: tuple[Problem, ...]


def load(
    path: str,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], datetime] = utc_now,
) -> Epoch:
    """
    :param path: the configuration file; relative paths in it start at its directory.
    :param environ: what ``env.NAME`` sees.
    :param now: the time that certificates are judged by, here and in every handshake.
    :returns: everything that is needed to listen.
    :raises ConfigError: with all that keeps the gate from starting.
    """
    return _Loader(path, environ, now).load()


class _Loader:
    """
    One load.

    :ivar report: where problems go.
    :ivar directory: where relative paths start.
    """

    def __init__(self, path: str, environ: Mapping[str, str], now: Callable[[], datetime]) -> None:
        self.report = Report(path)
        self.now = now
        # Absolute, because a daemon changes its directory before it reloads.
        self.directory = Path(path).absolute().parent
        scope = Scope(environ, lambda name: read_file(self.directory / name))
        self.decoder = Decoder(scope, self.report)

    def load(self) -> Epoch:
        configuration = self._configuration()
        self.report.raise_errors()
        assert configuration is not None
        return configuration

    def _configuration(self) -> Epoch | None:
        try:
            data = read_file(Path(self.report.path))
        except CredentialError as error:
            self.report.error(START, "configuration", str(error))
            return None
        body = parse(data, self.report)
        if body is None:
            return None
        decoded = self.decoder.decode(model.Configuration, body, START, "configuration")
        if decoded is None:
            self._go_on()
            return None
        servers = self._servers(decoded.server, decoded.settings)
        return Epoch(
            self.report.path,
            tuple(server for server in servers if server is not None),
            tuple(sorted(set(self.report.warnings))),
        )

    def _go_on(self) -> None:
        """Look for problems in what could be read of a file that is in error."""
        unplaced = [
            (where, one)
            for where, found in self.decoder.unplaced
            for one in (found if isinstance(found, tuple) else (found,))
        ]
        servers = [one for _, one in unplaced if isinstance(one, model.Server)]
        self._servers(servers, model.Settings())
        for where, one in unplaced:
            match one:
                case model.Tls():
                    for block in one.server_certificate:
                        self._credential_of(block)
                    for number, rule in enumerate(one.client_certificate, 1):
                        self._rule(rule, number)
                case model.ServerCertificate():
                    self._credential_of(one)
                case model.ClientCertificate():
                    self._rule(one, 0)
                case model.Protocol():
                    self._application(one, "")
                case Material():
                    self._read(one, where)
                case Located():
                    self._host(one, where)

    def _servers(
        self, servers: Sequence[model.Server], settings: model.Settings
    ) -> list[LoadedServer | None]:
        hosts = [
            tuple(self._host(host, server.heading) for host in server.hosts) for server in servers
        ]
        self._refuse_overlaps(zip(servers, hosts, strict=True))
        return [
            self._server(server, tuple(host for host in found if host is not None), settings)
            for server, found in zip(servers, hosts, strict=True)
        ]

    def _server(
        self, server: model.Server, hosts: tuple[Host, ...], settings: model.Settings
    ) -> LoadedServer | None:
        credentials = tuple(self._server_credentials(server, hosts))
        rules = tuple(self._rules(server.tls))
        application = self._application(server.protocol, server.name)
        if self.report.errors or application is None:
            return None
        policy = TlsPolicy(
            credentials=credentials,
            admission=AdmissionPolicy(rules) if rules else None,
            min_version=server.tls.min_version,
            strict=server.tls.verification == "strict",
            alpn=application.alpn,
        )
        lint.server(server, credentials, rules, self.now(), self.report)
        context = self._context(server, policy)
        if context is None:
            return None
        gate = GateServer(server.name, context, application.factory, settings.handshake_timeout)
        return LoadedServer(server, hosts, gate)

    def _context(self, server: model.Server, policy: TlsPolicy) -> GateContext | None:
        try:
            return GateContext(policy, self.now)
        except (SSL.Error, crypto.Error) as error:
            self.report.error(server.tls.at, "tls", f"OpenSSL refuses it: {_said(error)}")
            return None

    def _host(self, host: Located[str], where: str) -> Host | None:
        try:
            return parse_host(host.value)
        except HostError as error:
            name = "this" if _MATERIAL.search(host.value) else quoted(host.value)
            self.report.error(host.at, where, f"hosts: {name}: {error}")
            return None

    def _refuse_overlaps(
        self, servers: Iterable[tuple[model.Server, tuple[Host | None, ...]]]
    ) -> None:
        # By port or endpoint: only these can be the same address.
        taken: dict[int | str, list[tuple[SocketAddress | None, Position]]] = {}
        for server, hosts in servers:
            for host, written in zip(hosts, server.hosts, strict=True):
                if host is None:
                    continue
                for mine in host.addresses or (None,):
                    others = taken.setdefault(host.text if mine is None else mine.port, [])
                    found = (
                        at
                        for other, at in others
                        if mine is None or other is None or mine.overlaps(other)
                    )
                    if (at := next(found, None)) is None:
                        others.append((mine, written.at))
                        continue
                    self.report.error(
                        written.at,
                        server.heading,
                        f"hosts: {mine or quoted(host.text)} is taken: "
                        f"see line {at.line}, column {at.column}",
                    )
                    break

    def _read(self, material: Material, where: str) -> bytes | None:
        """:returns: the bytes, or None if the report says why not."""
        if material.text is not None:
            # From the environment it may be any bytes.
            return material.text.encode(errors="surrogateescape")
        assert material.path is not None
        if _MATERIAL.search(str(material.path)):
            inline = material.attribute.removesuffix("_file")
            text = f"this is not the name of a file, but what is in one: write {inline}"
            self.report.error(material.at, where, f"{material.attribute}: {text}")
            return None
        try:
            return read_file(self.directory / material.path)
        except CredentialError as error:
            self._refuse(material, where, error)
            return None

    def _refuse(self, material: Material, where: str, error: CredentialError) -> None:
        name = f" {quoted(str(material.path))}" if material.path is not None else ""
        self.report.error(material.at, where, f"{material.attribute}:{name} {error}")

    def _certificates(self, material: Material | None, where: str) -> tuple[x509.Certificate, ...]:
        """:returns: the certificates, or none if there is no material or the
        report says what is wrong with it."""
        data = None if material is None else self._read(material, where)
        if material is None or data is None:
            return ()
        try:
            return parse_certificates(data)
        except CredentialError as error:
            self._refuse(material, where, error)
            return ()

    def _server_credentials(
        self, server: model.Server, hosts: tuple[Host, ...]
    ) -> Iterator[ServerCredential]:
        blocks = server.tls.server_certificate
        for block in blocks:
            if (credential := self._credential_of(block)) is not None:
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

    def _credential_of(self, block: model.ServerCertificate) -> ServerCredential | None:
        where = block.heading
        chain = self._certificates(block.public_key, where)
        data = self._read(block.private_key, where)
        if data is None:
            return None
        try:
            key = parse_private_key(data, block.private_key_passphrase)
            credential = pair(chain, key) if chain else None
        except CredentialError as error:
            self._refuse(block.private_key, where, error)
            return None
        if credential is not None:
            try:
                GateContext(TlsPolicy((credential,), admission=None))
            except (SSL.Error, crypto.Error) as error:
                text = f"OpenSSL refuses it: {_said(error)}; issue a stronger one"
                self.report.error(block.at, where, text)
                return None
        return credential

    def _rules(self, tls: model.Tls) -> Iterator[Rule]:
        for number, block in enumerate(tls.client_certificate, 1):
            if (rule := self._rule(block, number)) is not None:
                yield rule

    def _rule(self, block: model.ClientCertificate, number: int) -> Rule | None:
        authorities = self._certificates(block.ca_certificate, block.heading)
        for place, authority in enumerate(authorities, 1):
            if block.ca_certificate is not None and not is_ca(authority):
                count = len(authorities)
                which = f"certificate {place} of {count}" if count > 1 else "the certificate"
                self._refuse(
                    block.ca_certificate,
                    block.heading,
                    CredentialError(
                        f"{which} is not a CA (CA:FALSE): to admit exactly it, write "
                        "leaf_certificate"
                    ),
                )
        pins = self._certificates(block.leaf_certificate, block.heading)
        if authorities or pins:
            return Rule(block.label or f"#{number}", authorities, pins)
        return None

    def _application(self, block: model.Protocol, server: str) -> _Application | None:
        where = heading("protocol", block.name)
        errors_before = len(self.report.errors)
        try:
            plugin = find_plugin(block.name)
            configuration = self.decoder.decode(plugin.configuration, block.body, block.at, where)
            # An expression that cannot be read was reported with the syntax.
            unread = any(one.where == where for one in self.report.errors)
            if configuration is None or unread or len(self.report.errors) != errors_before:
                return None
            built = plugin.build(configuration, ProtocolEnvironment(server, self.directory))
            if not IProtocolFactory.providedBy(built):
                raise PluginError(f"the plugin built a {type(built).__name__}, not a factory")
            return _Application(built, _alpn(built))
        except AlreadyReported:
            return None
        except (PluginError, ValueError) as error:
            self.report.error(block.at, where, str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- a plugin may raise anything
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.report.error(block.at, where, f"the plugin failed to build: {text}")
        return None


@frozen
class _Application:
    """
    :ivar factory: what a plugin built.
    :ivar alpn: the application protocols that it offers.
    """

    factory: IProtocolFactory
    alpn: tuple[bytes, ...]


def _said(error: Exception) -> str:
    """:returns: the reasons that OpenSSL gave."""
    return "; ".join(entry[-1] for entry in error.args[0]) if error.args else "no reason given"


def _alpn(application: IProtocolFactory) -> tuple[bytes, ...]:
    if IProtocolNegotiationFactory.providedBy(application):
        return tuple(application.acceptableProtocols())
    return ()
