"""
The client side: connections to servers whose path and name are verified.

The server is verified during the handshake.  Any problem ends the handshake.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from datetime import datetime

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509Store, X509StoreFlags
from twisted.logger import Logger

from mtlsgate.admission import Path, Rejection
from mtlsgate.admission.conditions import Condition, leaf_of
from mtlsgate.certificates.certificate import Certificate, known
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.certificates.server_identity import as_address, name_problem, path_problem
from mtlsgate.certificates.svid import spiffe_id_of
from mtlsgate.errors import CredentialError
from mtlsgate.reasons import Reason
from mtlsgate.tls.contexts import new_context, use_credential
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.openssl_errors import verification_rejection
from mtlsgate.tls.paths import verified_path
from mtlsgate.tls.trust import encoded, fill, trust_store

_log = Logger("mtlsgate.upstream")


@frozen
class Expected:
    """
    What a server's certificate must be, besides valid.

    :ivar name: the DNS name or IP address that it must be for; None if a pin says
        enough.
    :ivar pins: the digests of the allowed leaves; empty if every leaf is allowed.
    :ivar trust: the attribute that has the trusted certificates.
    :ivar spiffe_ids: the condition on its SPIFFE ID, if that is its name; otherwise None.
    """

    name: str | None
    pins: frozenset[bytes] = frozenset()
    trust: str = "server_ca_certificate"
    spiffe_ids: Condition | None = None

    def rejection(self, leaf: Certificate) -> Rejection | None:
        """:returns: why this is not the server, or None."""
        if self.pins and leaf.sha256 not in self.pins:
            return Rejection(
                Reason.LEAF_MISMATCH,
                f"its certificate is not in server_leaf_certificate: sha256={leaf.sha256.hex()}",
                0,
            )
        if self.spiffe_ids is not None:
            return _wrong_workload(leaf, self.spiffe_ids)
        if self.name is None:
            return None
        problem = name_problem(leaf, self.name.removesuffix("."))
        if problem is None:
            return None
        return Rejection(Reason.WRONG_SERVER_NAME, f"it is not {self.name}: {problem}", 0)

    def path_rejection(self, error: int, depth: int) -> Rejection:
        """
        :param error: the verification error, as X509_V_ERR_….
        :param depth: the depth of the certificate at fault; 0 is the server's own.
        :returns: why a server's path cannot be trusted.
        """
        which = "its certificate" if depth == 0 else f"the certificate at depth {depth}"
        text = f"{which}: {path_problem(error, self.trust)}"
        return Rejection(verification_rejection(error, depth).reason, text, depth)


def _wrong_workload(leaf: Certificate, allowed: Condition) -> Rejection | None:
    """:returns: why a server is none of the allowed workloads, or None."""
    try:
        name = spiffe_id_of(leaf)
    except CredentialError as error:
        text = f"its certificate is no X.509-SVID of a workload: it {error}"
        return Rejection(Reason.SVID_INVALID, text, 0)
    if allowed.allows(leaf_of(leaf)):
        return None
    wanted = " or ".join(one for clause in allowed.clauses for one in clause.written)
    return Rejection(Reason.WRONG_SERVER_NAME, f"it is not {wanted}: it is {name}", 0)


class ServerConnection(EngineConnection):
    """
    A connection to a server, with the result of verifying the server.

    :ivar expected: what its certificate must be.
    :ivar asked_for: the name that the server is asked for (SNI), or None.
    :ivar verified: whether the certificate was verified to be that.
    :ivar rejection: why it was not, or None.
    """

    def __init__(self, context: SSL.Context, expected: Expected, asked_for: str | None) -> None:
        super().__init__(context)
        self.expected = expected
        self.asked_for = asked_for
        self.verified = False
        self.rejection: Rejection | None = None

    @property
    def path(self) -> Path:
        """The verified path of a verified server, leaf first."""
        assert self.verified
        return tuple(known(encoded(one)) for one in self.get_verified_chain() or ())


class ClientContext:
    """Makes OpenSSL connections to servers."""

    def __init__(
        self,
        anchors: Iterable[Certificate | x509.Certificate] | None,
        credential: ServerCredential | None = None,
        alpn: Sequence[bytes] = (),
        pins: Iterable[Certificate] = (),
        spiffe_ids: Condition | None = None,
    ) -> None:
        """
        :param anchors: the trusted certificates.  One that is not a CA is trusted
            only as the server's own certificate.  None means the system's trust
            store.
        :param credential: the certificate to show if the server asks.
        :param alpn: the application protocols to offer.
        :param pins: if there are any, the server's leaf must be one of them.  Without
            anchors they are trusted themselves.
        :param spiffe_ids: the condition on the server's SPIFFE ID, instead of a name.
            Then the anchors must be the bundle of its trust domain, and nothing else.
        :raises SSL.Error: if OpenSSL refuses one of these.
        """
        pinned = tuple(pins)
        self._spiffe_ids = spiffe_ids
        self._pins = frozenset(one.sha256 for one in pinned)
        stated = None if anchors is None else tuple(anchors)
        self._trust = "server_leaf_certificate" if stated == () else "server_ca_certificate"
        if spiffe_ids is not None:
            self._trust = "the bundle of its trust domain"
        self._anchors = anchors = None if stated is None else stated or pinned
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

    def connection(self, name: str | None, asked_for: str | None = None) -> ServerConnection:
        """
        :param name: the DNS name or IP address that the server's certificate must be
            for.  None only with pins or SPIFFE IDs: then they alone decide.
        :param asked_for: the name to ask the server for (SNI); by default that name.
        :returns: OpenSSL's connection for a new engine.
        :raises ValueError: if neither a name nor a pin says which server is meant.
        """
        if name is None and not self._pins and self._spiffe_ids is None:
            raise ValueError("neither a name nor a pin says which server is meant")
        asked_for = asked_for or name
        if asked_for is not None:
            # An address must not be sent as a server name (RFC 6066, 3).
            asked_for = None if as_address(asked_for) else asked_for.removesuffix(".")
        connection = ServerConnection(self._context, self._expected(name), asked_for)
        connection.set_connect_state()
        if asked_for is not None:
            connection.set_tlsext_host_name(asked_for.encode("ascii"))
        return connection

    def refuse(self, path: Path, name: str | None, at: datetime) -> Rejection | None:
        """
        Judge a server again that was verified before, perhaps by another context.

        :param path: the server's path, leaf first.
        :param name: as for `connection`.
        :param at: the time to judge by.
        :returns: why its certificate would not be accepted now, or None.
        """
        expected = self._expected(name)
        rejection = expected.rejection(path[0])
        if rejection is not None:
            return rejection
        found = verified_path(path[0], path[1:], self._store(), 0, at)
        if isinstance(found, tuple):
            return None
        error, depth, *_ = found.errors
        return expected.path_rejection(error, depth)

    def _expected(self, name: str | None) -> Expected:
        return Expected(name, self._pins, self._trust, self._spiffe_ids)

    def _store(self) -> X509Store:
        """:returns: the trusted certificates, without a context."""
        if self._anchors is not None:
            return trust_store(self._anchors, X509StoreFlags.PARTIAL_CHAIN)
        store = X509Store()
        store.load_locations(*system_store())
        return store


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
        rejection = _rejection(connection.expected, certificate, error, depth, bool(ok))
    except Exception:  # noqa: BLE001 -- see above
        _log.failure("verifying a target's certificate failed")
        rejection = Rejection(Reason.INTERNAL_ERROR, "its certificate could not be judged", depth)
    connection.rejection = connection.rejection or rejection
    connection.verified = depth == 0 and connection.rejection is None
    return connection.rejection is None


def _rejection(
    expected: Expected, certificate: X509, error: int, depth: int, ok: bool
) -> Rejection | None:
    """:returns: why a certificate of the path cannot be trusted, or None."""
    if not ok:
        return expected.path_rejection(error, depth)
    return None if depth > 0 else expected.rejection(known(encoded(certificate)))
