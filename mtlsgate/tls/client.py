"""
The client side: connections to servers whose path and name are verified.

The server is verified during the handshake.  Any problem ends the handshake.
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
    A connection to a server, with the result of verifying the server.

    :ivar expected_name: the name that its certificate must be for.
    :ivar verified: whether the certificate was verified for that name.
    :ivar problem: why it was not, or None.
    """

    def __init__(self, context: SSL.Context, server_name: str) -> None:
        super().__init__(context)
        self.expected_name = server_name
        self.verified = False
        self.problem: str | None = None


class ClientContext:
    """Makes OpenSSL connections to servers."""

    def __init__(
        self,
        anchors: Iterable[Certificate | x509.Certificate] | None,
        credential: ServerCredential | None = None,
        alpn: Sequence[bytes] = (),
    ) -> None:
        """
        :param anchors: the trusted certificates.  One that is not a CA is trusted
            only as the server's own certificate.  None means the system's trust
            store.
        :param credential: the certificate to show if the server asks.
        :param alpn: the application protocols to offer.
        :raises SSL.Error: if OpenSSL refuses one of these.
        """
        self._context = context = new_context(SSL.TLS_CLIENT_METHOD)
        # No resumption: each connection verifies the server again.
        context.set_options(SSL.OP_NO_TICKET)
        context.set_verify(SSL.VERIFY_PEER, verify)
        if anchors is None:
            context.load_verify_locations(*system_store())
        else:
            # Trust each of them, including intermediates and leaves.
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
            # An address must not be sent as a server name (RFC 6066, 3).
            connection.set_tlsext_host_name(server_name.removesuffix(".").encode("ascii"))
        return connection


def system_store() -> tuple[str | None, str | None]:
    """:returns: file and directory of the system's trust store; None if missing."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile or None, paths.capath or None


def verify(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    """
    OpenSSL calls this for each certificate of the server's path, from the anchor
    down to depth 0.

    :returns: whether to go on with the handshake.
    """
    # An exception would end the handshake without an alert, and any truthy
    # answer would trust the server: always answer True or False.
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
    """:returns: why a certificate of the path cannot be trusted, or None."""
    if not ok:
        which = "its certificate" if depth == 0 else f"the certificate at depth {depth}"
        return f"{which}: {path_problem(error, 'server_ca_certificate')}"
    if depth > 0:
        return None
    problem = name_problem(known(encoded(certificate)), server_name.removesuffix("."))
    return None if problem is None else f"it is not {server_name}: {problem}"
