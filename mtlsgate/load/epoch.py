"""
From a file's name to everything that was built from it.

The one loader behind ``mtlsgate check`` and ``twistd mtlsgate``.  It goes on
after an error as far as it can, so that all problems are said in one go.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import frozen
from OpenSSL import SSL, crypto

from mtlsgate.admission import AdmissionPolicy
from mtlsgate.config import Located, Material, model
from mtlsgate.config.decode import Decoder
from mtlsgate.config.expressions import Scope
from mtlsgate.config.material import looks_like_material
from mtlsgate.config.syntax import parse
from mtlsgate.errors import START, CredentialError, Problem, Report
from mtlsgate.gate.connection import Terms
from mtlsgate.gate.factory import GateServer
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.trusted_proxies import TrustedProxies
from mtlsgate.interfaces import IGate
from mtlsgate.load import lint
from mtlsgate.load.address_conflicts import names_elsewhere, refuse_names, refuse_overlaps
from mtlsgate.load.admin_endpoint import AdminEndpoint, read_admin
from mtlsgate.load.applications import ApplicationReader
from mtlsgate.load.expiry import Expiry, expiries_of
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.files import Materials
from mtlsgate.load.listen_addresses import Host, HostError, parse_host
from mtlsgate.load.progress import patience
from mtlsgate.load.rules import RuleReader
from mtlsgate.load.server_certificates import CredentialReader
from mtlsgate.load.trusted_proxies import trusted_proxies
from mtlsgate.protocols import no_gate
from mtlsgate.text import quoted
from mtlsgate.tls.contexts import reasons_of
from mtlsgate.tls.server import GateContext, TlsPolicy, utc_now

#: In seconds and bytes, where the configuration says nothing.  OpenSSL takes no
#: chain above 100 KiB.
HANDSHAKE_TIMEOUT = 10.0
HANDSHAKE_BYTES = 128 * 1024

T = TypeVar("T")

__all__ = ["Epoch", "LoadedServer", "load"]


@frozen
class LoadedServer:
    """
    One server and what was built for it.

    :ivar model: its block.
    :ivar hosts: where it listens.
    :ivar gate: what admits clients and hands them over.
    :ivar proxies: who connects for them; None where they do themselves.
    """

    model: model.Server
    hosts: tuple[Host, ...]
    gate: GateServer
    proxies: TrustedProxies | None = None


@frozen
class Epoch:
    """
    One loaded configuration and all that was built from it.

    :ivar path: the file, as the person named it.
    :ivar servers: in file order.
    :ivar settings: what holds for the gate as a whole.
    :ivar admin: how it can be asked and told, or None.
    :ivar warnings: what does not keep the gate from starting, but is surely
        not meant; sorted by position.
    :ivar expiries: until when what they held is good.
    """

    path: str
    servers: tuple[LoadedServer, ...]
    settings: model.Settings
    admin: AdminEndpoint | None
    warnings: tuple[Problem, ...]
    expiries: tuple[Expiry, ...] = ()


def load(
    path: str,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], datetime] = utc_now,
    *,
    offline: bool = False,
    say: Callable[[str], object] | None = None,
    seen: dict[Path, Stamp] | None = None,
    reactor: object | None = None,
    gate: Callable[[], IGate] = no_gate,
) -> Epoch:
    """
    :param path: the configuration file; relative paths in it start at its directory.
    :param environ: what ``env.NAME`` sees.
    :param now: the time that certificates are judged by, here and in every handshake.
    :param offline: look no host name up and open no socket, for who does not
        want to listen.
    :param say: prints a line, for the person who waits while many certificates
        are read; called from another thread.
    :param seen: gets the files and directories that were read, or looked for, in
        the state in which they were then; also if the load fails.
    :param reactor: what protocol plugins get for theirs; by default the installed one.
    :param gate: where protocols find the gate once it runs.
    :returns: everything that is needed to listen.
    :raises ConfigError: with all that keeps the gate from starting.
    """
    with _no_collection():
        watched = {} if seen is None else seen
        return _Loader(path, environ, now, offline, say, watched, reactor, gate).load()


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector from looking, again and again, at what grows
    and stays: of a hundred thousand pins it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class _Loader:
    """
    One load.

    :ivar report: where problems go.
    :ivar offline: whether to look no host name up.
    :ivar say: prints a line for the person who waits.
    :ivar directory: where relative paths start.
    """

    def __init__(
        self,
        path: str,
        environ: Mapping[str, str],
        now: Callable[[], datetime],
        offline: bool,
        say: Callable[[str], object] | None,
        seen: dict[Path, Stamp],
        reactor: object | None,
        gate: Callable[[], IGate],
    ) -> None:
        self.report = Report(path)
        self.say = say
        self.now = now
        self.offline = offline
        # Absolute, because a daemon changes its directory before it reloads.
        self.directory = Path(path).absolute().parent
        self.materials = Materials(self.directory, self.report, seen)
        self.rules = RuleReader(self.materials, self.report, now)
        # Not of the loader, which would then hold itself, and all that was read.
        directory, materials = self.directory, self.materials
        scope = Scope(environ, lambda name: materials.read_file(directory / name))
        self.decoder = Decoder(scope, self.report)
        self.credentials = CredentialReader(self.materials)
        self.applications = ApplicationReader(self.decoder, self.materials, reactor, gate)

    def load(self) -> Epoch:
        configuration = self._configuration()
        self.report.raise_errors()
        assert configuration is not None
        return configuration

    def _configuration(self) -> Epoch | None:
        try:
            data = self.materials.read_file(Path(self.report.path).absolute())
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
        with patience(self.say, self.report.path):
            found = self._servers(decoded.server, decoded.settings)
        servers = tuple(server for server in found if server is not None)
        self._refuse_audit_of_input(decoded.settings.audit)
        admin = self._admin(decoded.admin, servers)
        return Epoch(
            self.report.path,
            servers,
            decoded.settings,
            admin,
            tuple(sorted(set(self.report.warnings))),
            tuple(
                expiry
                for server in servers
                for expiry in expiries_of(server.gate.name, server.gate.context.policy, self.now())
            ),
        )

    def _refuse_audit_of_input(self, audit: model.Audit | None) -> None:
        if audit is None or looks_like_material(audit.file.value):
            return
        path = self.directory / audit.file.value
        with suppress(OSError, ValueError, RuntimeError):
            if {path, path.resolve()} & self.materials.seen.keys():
                self.report.error(
                    audit.file.at,
                    "audit",
                    f"file: {quoted(audit.file.value)} is read as part of the configuration, and "
                    "would be written to: name another file",
                )

    def _go_on(self) -> None:
        """Look for problems in what could be read of a file that is in error."""
        unplaced = [
            (where, name, one)
            for where, name, found in self.decoder.unplaced
            for one in (found if isinstance(found, tuple) else (found,))
        ]
        servers = [one for *_, one in unplaced if isinstance(one, model.Server)]
        self._servers(servers, model.Settings())
        for where, name, one in unplaced:
            match one:
                case model.Tls():
                    for block in one.server_certificate:
                        self.credentials.read(block)
                    for number, rule in enumerate(one.client_certificate, 1):
                        self.rules.rule(rule, number)
                case model.ServerCertificate():
                    self.credentials.read(one)
                case model.ClientCertificate():
                    self.rules.rule(one, 0)
                case model.Protocol():
                    self.applications.application(one, "")
                case Material():
                    self.materials.read(one, where)
                case model.Admin():
                    self._admin(one, ())
                case model.Pin():
                    self.materials.certificates(one.leaf_certificate, one.heading)
                case Located() if name == "hosts":
                    self._host(one, where)

    def _admin(
        self, block: model.Admin | None, servers: Iterable[LoadedServer]
    ) -> AdminEndpoint | None:
        hosts = [host for server in servers for host in server.hosts]
        taken = [address for host in hosts for address in host.addresses]
        if block is None:
            return None
        return read_admin(block, self.materials, self.report, taken, offline=self.offline)

    def _servers(
        self, servers: Sequence[model.Server], settings: model.Settings
    ) -> list[LoadedServer | None]:
        hosts = [
            tuple(self._host(host, server.heading) for host in server.hosts) for server in servers
        ]
        if not self.offline:
            refuse_overlaps(list(zip(servers, hosts, strict=True)), self.report)
        elsewhere = names_elsewhere(list(zip(servers, hosts, strict=True)))
        return [
            self._server(server, tuple(host for host in found if host is not None), settings, names)
            for server, found, names in zip(servers, hosts, elsewhere, strict=True)
        ]

    def _server(
        self,
        server: model.Server,
        hosts: tuple[Host, ...],
        settings: model.Settings,
        elsewhere: tuple[str, ...],
    ) -> LoadedServer | None:
        errors_before = len(self.report.errors)
        refuse_names(server, self.report)
        proxies = trusted_proxies(server, self.report)
        credentials = tuple(self.credentials.of(server, hosts))
        deny = tuple(self.rules.conditions(server.tls.deny, "deny"))
        rules = tuple(self.rules.rules(server.tls, deny))
        names = tuple(name.value for name in server.server_names)
        application = self.applications.application(
            server.protocol, server.name, names, server.tls.client_authentication, elsewhere
        )
        authorizer = self.applications.authorizer(server)
        judged = server.tls.client_authentication == "required"
        complete = len(rules) == len(server.tls.client_certificate) and bool(rules) == judged
        if len(self.report.errors) != errors_before or application is None or not complete:
            return None
        policy = TlsPolicy(
            credentials=credentials,
            admission=AdmissionPolicy(rules, deny) if judged else None,
            min_version=server.tls.min_version,
            strict=server.tls.verification != "compatible",
            always_ask_twice=server.tls.verification == "double",
            send_ca_names=server.tls.send_ca_names,
            session_lifetime=server.tls.resumption,
            alpn=application.alpn,
        )
        lint.server(server, credentials, policy.admission, self.now(), self.report)
        context = self._context(server, policy)
        if context is None:
            return None
        gate = GateServer(
            server.name,
            context,
            application.factory,
            _first(server.handshake_timeout, settings.handshake_timeout, HANDSHAKE_TIMEOUT),
            _terms(server, settings),
            authorizer,
        )
        return LoadedServer(server, hosts, gate, proxies)

    def _context(self, server: model.Server, policy: TlsPolicy) -> GateContext | None:
        try:
            return GateContext(policy, self.now)
        except (SSL.Error, crypto.Error) as error:
            self.report.error(server.tls.at, "tls", f"OpenSSL refuses it: {reasons_of(error)}")
            return None

    def _host(self, host: Located[str], where: str) -> Host | None:
        try:
            return parse_host(host.value, offline=self.offline)
        except HostError as error:
            name = "this" if looks_like_material(host.value) else quoted(host.value)
            self.report.error(host.at, where, f"hosts: {name}: {error}")
            return None


def _first(*values: T | None) -> T:
    """:returns: the first that is not None."""
    return next(value for value in values if value is not None)


def _terms(server: model.Server, settings: model.Settings) -> Terms:
    """:returns: what the server says, or else the settings, or else the gate."""

    def said(name: str) -> Any:
        value = getattr(server, name)
        return getattr(settings, name) if value is None else value

    return Terms(
        limits=Limits(
            **{one.name: said(one.name) for one in attrs.fields(Limits)}
            | {"handshake_bytes": _first(said("handshake_bytes"), HANDSHAKE_BYTES)}
        ),
        idle_timeout=said("idle_timeout"),
        close_on_expiry=said("close_on_expiry") is not False,
        judged_on_reload=said("on_reload") != "keep",
        revoke_grace=said("revoke_grace") or 0.0,
    )
