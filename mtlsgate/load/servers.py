"""
Builds a server from its ``server`` block: rules, certificates and terms.

To take connections it also needs an application, the factory that gets verified
connections.  `ServerBuilder.gate` builds the first part, and `serve` joins the two.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import attrs
from attrs import evolve, frozen

from mtlsgate.admission import AdmissionPolicy
from mtlsgate.config import Located, model
from mtlsgate.errors import Report
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.server import GateServer
from mtlsgate.gate.terms import Terms
from mtlsgate.gate.trusted_proxies import TrustedProxies
from mtlsgate.load import lint
from mtlsgate.load.address_conflicts import refuse_names
from mtlsgate.load.applications import Application
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.listen_addresses import Host
from mtlsgate.load.registries import LoadedRegistry, RegistryReader
from mtlsgate.load.rules import RuleReader
from mtlsgate.load.server_certificates import CredentialReader
from mtlsgate.load.state import KeptDocuments, State, state_directory
from mtlsgate.load.trusted_proxies import trusted_proxies
from mtlsgate.spiffe.agents import Agents
from mtlsgate.tls.openssl_errors import REFUSALS, reasons_of
from mtlsgate.tls.server import GateContext, TlsPolicy

#: The defaults, in seconds and bytes.  OpenSSL refuses chains above 100 KiB.
HANDSHAKE_TIMEOUT = 10.0
HANDSHAKE_BYTES = 128 * 1024

T = TypeVar("T")


@frozen
class LoadedServer:
    """
    One server and what was built for it.

    :ivar model: its block.
    :ivar hosts: its addresses.
    :ivar gate: admits clients and hands them over.
    :ivar proxies: the trusted proxies; None if clients connect directly.
    """

    model: model.Server
    hosts: tuple[Host, ...]
    gate: GateServer
    proxies: TrustedProxies | None = None


@frozen
class GateParts:
    """
    The rules, certificates and terms of one server.

    :ivar model: its block.
    :ivar policy: its rules and certificates.  The application protocols (ALPN) come
        from the application.
    :ivar handshake_timeout: the most seconds from connecting to a complete handshake.
    :ivar terms: the terms of its connections.
    :ivar authorizer: asked after the rules, or None.
    :ivar proxies: the trusted proxies; None if clients connect directly.
    :ivar state: where fetched documents are kept.
    :ivar registries: the stores of devices that it asks.
    """

    model: model.Server
    policy: TlsPolicy
    handshake_timeout: float
    terms: Terms
    authorizer: Authorizer | None
    proxies: TrustedProxies | None
    state: State
    registries: tuple[LoadedRegistry, ...] = ()


class ServerBuilder:
    """
    Builds the servers of one load.

    :ivar rules: reads ``client_certificate`` blocks.
    :ivar credentials: reads ``server_certificate`` blocks.
    """

    def __init__(
        self,
        files: CertificateFiles,
        report: Report,
        now: Callable[[], datetime],
        registries: RegistryReader,
        kept: KeptDocuments | None = None,
        environ: Mapping[str, str] = os.environ,
        agents: Agents | None = None,
    ) -> None:
        """
        :param files: reads the files that the blocks name.
        :param report: where problems go.
        :param now: the time by which certificates are judged.
        :param registries: has those that rules name.
        :param kept: what was fetched; by default what is on disk.
        :param environ: the environment variables.
        :param agents: what SPIFFE agents have delivered; by default nothing.
        """
        agents = Agents() if agents is None else agents
        self._kept = KeptDocuments() if kept is None else kept
        self._environ = environ
        self._registries = registries
        self.rules = RuleReader(files, report, now, registries, agents, environ)
        self.credentials = CredentialReader(files, agents, environ)
        self._report = report
        self._directory = files.directory

    def state(self, settings: model.Settings) -> State:
        """:returns: where fetched documents are kept."""
        directory = state_directory(settings.state_dir, self._directory, self._environ)
        return State(directory, self._kept)

    def gate(
        self,
        server: model.Server,
        hosts: tuple[Host, ...],
        settings: model.Settings,
        authorizer: Authorizer | None,
    ) -> GateParts | None:
        """
        :param hosts: the server's addresses.
        :param settings: used for what the server does not set.
        :returns: the server's parts; None if the report says what is wrong.
        """
        errors_before = len(self._report.errors)
        tls = server.tls
        refuse_names(server, self._report)
        proxies = trusted_proxies(server, self._report)
        state = self.state(settings)
        own = tuple(self.credentials.of(server, hosts, state, self.rules.now()))
        deny = tuple(self.rules.conditions(tls.deny, "deny"))
        rules = tuple(self.rules.rules(tls, deny, state))
        judged = tls.client_authentication == "required"
        complete = len(rules) == len(tls.client_certificate) and bool(rules) == judged
        # A block of a certificate may have been in error before.
        if len(self._report.errors) != errors_before or not complete or not own:
            return None
        policy = TlsPolicy(
            own=own,
            admission=AdmissionPolicy(rules, deny) if judged else None,
            min_version=tls.min_version,
            strict=tls.verification != "compatible",
            always_ask_twice=tls.verification == "double",
            send_ca_names=tls.send_ca_names,
            session_lifetime=tls.resumption,
        )
        timeout = _first(server.handshake_timeout, settings.handshake_timeout, HANDSHAKE_TIMEOUT)
        terms = terms_of(server, settings)
        self._check_count_in(server, settings, terms)
        asked = frozenset() if policy.admission is None else policy.admission.registries
        registries = tuple(
            one
            for name, one in self._registries.found.items()
            if name in asked or name == terms.count_in
        )
        return GateParts(server, policy, timeout, terms, authorizer, proxies, state, registries)

    def _check_count_in(self, server: model.Server, settings: model.Settings, terms: Terms) -> None:
        """Report a ``count_in`` that counts nothing, or names no registry."""
        where = "settings" if server.count_in is None else server.heading
        written = settings.count_in if server.count_in is None else server.count_in
        if written is None:
            return
        self._registries.named(written, where, "count_in")
        if terms.limits.max_connections_per_identity is None:
            text = "count_in has no effect without max_connections_per_identity"
            self._report.error(written.at, where, text)


def serve(
    gate: GateParts,
    hosts: tuple[Host, ...],
    application: Application,
    now: Callable[[], datetime],
    report: Report,
) -> LoadedServer | None:
    """:returns: the server with its application; None if OpenSSL refuses it, which is
    reported."""
    server = gate.model
    alpn = application.alpn or (() if server.dialect is None else server.dialect.alpn)
    policy = evolve(gate.policy, alpn=alpn)
    lint.server(server, policy.own, policy.admission, now(), report)
    try:
        context = GateContext(policy, now)
    except REFUSALS as error:
        report.error(server.tls.at, "tls", f"OpenSSL refuses it: {reasons_of(error)}")
        return None
    lint.request(server, context.request_size, report)
    ready = GateServer(
        server.name,
        context,
        application.factory,
        gate.handshake_timeout,
        gate.terms,
        gate.authorizer,
    )
    return LoadedServer(server, hosts, ready, gate.proxies)


def terms_of(server: model.Server, settings: model.Settings) -> Terms:
    """:returns: the server's terms.  What it does not set comes from the settings, then
    from the defaults."""

    def stated(name: str) -> Any:
        value = getattr(server, name)
        return getattr(settings, name) if value is None else value

    return Terms(
        limits=Limits(
            **{one.name: stated(one.name) for one in attrs.fields(Limits)}
            | {"handshake_bytes": _first(stated("handshake_bytes"), HANDSHAKE_BYTES)}
        ),
        count_in=_value(stated("count_in")),
        idle_timeout=stated("idle_timeout"),
        close_on_expiry=stated("close_on_expiry") is not False,
        judged_on_reload=stated("on_reload") != "keep",
        revoke_grace=stated("revoke_grace") or 0.0,
        log_admitted=stated("log_admitted") is not False,
    )


def _value(located: Located[str] | None) -> str | None:
    return None if located is None else located.value


def _first(*values: T | None) -> T:
    """:returns: the first that is not None."""
    return next(value for value in values if value is not None)
