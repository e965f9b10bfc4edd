"""
A client of a gate: an endpoint that shows a certificate, and verifies the server.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from mtlsgate.api.material import material_of
from mtlsgate.api.reading import PythonReport
from mtlsgate.config import Located, Material, Misconfigured
from mtlsgate.errors import NOWHERE, Report
from mtlsgate.protocols import ProtocolEnvironment
from mtlsgate.upstream.dialling_reactor import dialling
from mtlsgate.upstream.tls import TargetTls


def client_endpoint(
    reactor: Any,
    host: str,
    port: int,
    *,
    ca: object = None,
    certificate: object = None,
    key: object = None,
    server_name: str | None = None,
    timeout: float = 30.0,
) -> IStreamClientEndpoint:
    """
    :param ca: the trusted CAs for the server; ``"system"`` means the system's trust
        store.
    :param certificate: the client's certificate, leaf first.
    :param key: its key.
    :param server_name: the name that the server's certificate must be for; by default
        the host.
    :param timeout: seconds for the connection.
    :returns: an endpoint.  Its protocol is connected when the server is verified.
    :raises ConfigError: with everything that is wrong.
    """
    report = PythonReport(f"mtls:{host}:{port}")
    trust = _material("ca", ca, report)
    if trust is None:
        text = 'ca: missing: name the CAs to verify the server with, or "system"'
        report.error(NOWHERE, "", text)
    chain, secret = _material("certificate", certificate, report), _material("key", key, report)
    if (chain is None) != (secret is None):
        missing = "key" if secret is None else "certificate"
        report.error(NOWHERE, "", f"{missing}: missing: certificate and key come together")
    target = TargetTls(
        at=NOWHERE,
        server_ca_certificate=trust,
        client_certificate=chain,
        client_private_key=secret,
        server_name=Located(server_name or host, NOWHERE),
    )
    report.raise_errors()
    for _, problem in target.problems():
        report.error(NOWHERE, "", problem)
    report.raise_errors()
    try:
        client = target.client(ProtocolEnvironment("mtls", Path.cwd()))
    except Misconfigured as error:
        report.error(NOWHERE, "", error.text)
        report.raise_errors()
        raise
    below = HostnameEndpoint(dialling(reactor), host.encode(), port, timeout=timeout)
    return client.wrap(below, host)


def _material(name: str, given: object, report: Report) -> Material | None:
    try:
        return material_of(name, given)
    except ValueError as error:
        report.error(NOWHERE, "", f"{name}: {error}")
        return Material(name, NOWHERE, "")
