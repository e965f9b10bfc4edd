"""
The targets of an epoch: whether the gate is ready without them, and the certificates for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from mtlsgate.config.model import Settings
from mtlsgate.config.tree import heading
from mtlsgate.errors import START, Report
from mtlsgate.load.clients import LoadedClient
from mtlsgate.load.servers import LoadedServer
from mtlsgate.load.target_certificates import problems_of
from mtlsgate.upstream.backends import Backends, IHasTargets


def backends_of(server: LoadedServer) -> Backends | None:
    """:returns: what connects to the server's targets; None if it has none."""
    application = IHasTargets(server.gate.application, None)
    backends: Backends | None = None if application is None else application.backends
    return backends


def all_backends(
    servers: Iterable[LoadedServer], clients: Iterable[LoadedClient]
) -> Iterator[tuple[str, Backends]]:
    """Yield the name and the targets of each server and client gate that has targets."""
    for server in servers:
        backends = backends_of(server)
        if backends is not None:
            yield server.gate.name, backends
    for client in clients:
        yield client.gate.name, client.gate.backends


def warn_of_readiness(
    settings: Settings,
    servers: Iterable[LoadedServer],
    clients: Iterable[LoadedClient],
    report: Report,
) -> None:
    """Warn if readiness depends on targets, and nothing finds out whether they are up."""
    if settings.readiness not in ("targets", "all"):
        return
    found = list(all_backends(servers, clients))
    if not found and settings.readiness == "targets":
        report.warn(START, "settings", 'readiness = "targets" has no effect: there are no targets')
    wanted = f'readiness = "{settings.readiness}"'
    unchecked = "without a health_check nothing but clients' connections tells whether its "
    for server in servers:
        backends, protocol = backends_of(server), server.model.protocol
        if backends is not None and not backends.is_checked:
            where = heading("protocol", protocol.name)
            report.warn(protocol.at, where, f"{unchecked}targets are up, for {wanted}")
    for client in clients:
        if not client.gate.backends.is_checked:
            at, where = client.model.at, client.model.heading
            report.warn(at, where, f"{unchecked}targets are up, for {wanted}")


def warn_of_target_certificates(
    servers: Iterable[LoadedServer], now: datetime, report: Report
) -> None:
    """Warn of certificates with which a server's protocol connects to targets.  Those of client
    gates are known by their attributes, and warned of there."""
    for server in servers:
        backends, protocol = backends_of(server), server.model.protocol
        if backends is not None and backends.tls is not None:
            for _, text in problems_of(backends.tls, now):
                report.warn(protocol.at, heading("protocol", protocol.name), text)
