"""
The client's side: connections to servers whose path and name are verified.

The server is verified within the handshake, and whatever goes wrong in doing so
ends it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence

from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.logger import Logger

from mtlsgate.certificates.certificate import Certificate, known
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.certificates.server_identity import as_address, name_problem, path_problem
from mtlsgate.tls.contexts import new_context, use_credential
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.trust import encoded, fill

_log = Logger("mtlsgate.upstream")


class ServerConnection(EngineConnection):
    """
    A connection to a server, with what came of verifying it.

    :ivar expected_name: what it should be called.
    :ivar verified: whether it proved that.
    :ivar problem: why not, or None.
    """

    def __init__(self, context: SSL.Context, server_name: str) -> None:
        super().__init__(context)
        self.expected_name = server_name
        self.verified = False
        self.problem: str | None = None


class ClientContext:
    """Makes OpenSSL's connections to servers."""

    def __init__(
        self,
        anchors: Iterable[Certificate | x509.Certificate] | None,
        credential: ServerCredential | None = None,
        alpn: Sequence[bytes] = (),
    ) -> None:
        """
        :param anchors: the trusted certificates; one that is no CA is trusted
            for itself alone.  None is the system's trust store.
        :param credential: what to show if the server asks.
        :param alpn: the application protocols to offer.
        :raises SSL.Error: if OpenSSL refuses any of it.
        """
        self._context = context = new_context(SSL.TLS_CLIENT_METHOD)
        # Nothing is resumed: each connection verifies its server anew.
        context.set_options(SSL.OP_NO_TICKET)
        context.set_verify(SSL.VERIFY_PEER, verify)
        if anchors is None:
            context.load_verify_locations(*system_store())
        else:
            # Each is trusted, also one with others above it.
            fill(context.get_cert_store(), anchors, X509StoreFlags.PARTIAL_CHAIN)
        if credential is not None:
            use_credential(context, credential)
        if alpn:
            context.set_alpn_protos(list(alpn))

    def connection(self, server_name: str) -> ServerConnection:
        """
        :param server_name: the DNS name or IP address that the server's certificate
            must be for.
        :returns: OpenSSL's connection for a new engine.
        """
        connection = ServerConnection(self._context, server_name)
        connection.set_connect_state()
        if as_address(server_name) is None:
            # An address is no server name (RFC 6066, 3).
            connection.set_tlsext_host_name(server_name.removesuffix(".").encode("ascii"))
        return connection


def system_store() -> tuple[str | None, str | None]:
    """:returns: file and directory of the system's trust store, where they exist."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or None, paths.capath or None


def verify(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """
    :returns: whether to go on with the handshake; OpenSSL asks for each
        certificate of the server's path, from the anchor down to depth 0.
    """
    # An exception would leave the handshake without an alert, and a truthy
    # answer that is no bool would trust: everything ends in True or False.
    assert isinstance(connection, ServerConnection)
    try:
        problem = _problem(connection.expected_name, certificate, error, depth, bool(ok))
    except Exception:  # noqa: BLE001 -- see above
        _log.failure("verifying a target's certificate failed")
        problem = "its certificate could not be judged"
    connection.problem = connection.problem or problem
    connection.verified = depth == 0 and connection.problem is None
    return connection.problem is None


def _problem(server_name: str, certificate: X509, error: int, depth: int, ok: bool) -> str | None:
    """:returns: why a certificate of the path is not to be trusted, or None."""
    if not ok:
        which = "its certificate" if depth == 0 else f"the certificate at depth {depth}"
        return f"{which}: {path_problem(error, 'server_ca_certificate')}"
    if depth > 0:
        return None
    problem = name_problem(known(encoded(certificate)), server_name.removesuffix("."))
    return None if problem is None else f"it is not {server_name}: {problem}"
