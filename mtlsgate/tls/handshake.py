"""
An engine's OpenSSL connection, and what the Context's callbacks record on it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from OpenSSL import SSL
from OpenSSL.crypto import X509

from mtlsgate.admission import Admitted, Path, Rejection
from mtlsgate.certificates.certificate import Certificate, known
from mtlsgate.tls.judge import Pending
from mtlsgate.tls.trust import encoded

#: How many of a rejected client's certificates are shown: anybody can send many.
_MOST = 16


class Handshake:
    """
    What the verify callback records for the verdict.

    :ivar certificates: the certificates that OpenSSL has verified so far, by depth.
    :ivar verdict: the verdict, or None.  A rejection is final.
    :ivar judged_at: when the verdict was given.
    :ivar resumed: whether the client resumed a session.
    """

    __slots__ = ("certificates", "judged_at", "resumed", "verdict")

    def __init__(self) -> None:
        self.certificates: dict[int, Certificate] = {}
        self.verdict: Admitted | Rejection | Pending | None = None
        self.judged_at: datetime | None = None
        self.resumed = False

    @property
    def path(self) -> Path:
        """The path, leaf first.  OpenSSL verifies from the anchor down, so the path
        is complete at depth 0."""
        return tuple(map(self.certificates.__getitem__, range(len(self.certificates))))


class ServerSide(Protocol):
    """Makes a server's Context and answers its callbacks."""

    def verify(
        self, connection: EngineConnection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        """:returns: whether to go on with the handshake."""

    def choose_certificate(self, connection: EngineConnection) -> None:
        """Show the certificate with the name that the client asks for."""


class EngineConnection(SSL.Connection):
    """
    The OpenSSL connection of an engine.

    A Context's callbacks reject connections of any other class: only an engine
    is known to respect the verdict.

    :ivar gate: answers the callbacks of a server's Context; None for a client.
    :ivar handshake: what the callbacks record.
    """

    def __init__(self, context: SSL.Context, gate: ServerSide | None = None) -> None:
        super().__init__(context, None)
        self.gate = gate
        self.handshake = Handshake()

    @property
    def server_name(self) -> str | None:
        """The name that the client asks for (SNI), as the client wrote it."""
        name = self.get_servername()
        return None if name is None else name.decode("latin-1")

    def presented(self) -> Path:
        """
        :returns: what a client presented, the leaf first, as far as OpenSSL shows it; empty
            if it presented nothing.  If it resumes a session, the leaf is that of the
            session's full handshake.  Nothing of it need be verified, and the client may
            not have the key.
        """
        try:
            return self._presented()
        except Exception:  # noqa: BLE001 -- the rejection stands, whatever can be shown of it
            return ()

    def _presented(self) -> Path:
        leaf = self.get_peer_certificate()
        if leaf is not None:
            return (known(encoded(leaf)), *self.presented_chain()[:_MOST])
        seen = self.handshake.certificates
        if 0 in seen:
            return tuple(seen[depth] for depth in sorted(seen))
        chain = self.get_verified_chain() or []
        return tuple(known(encoded(one)) for one in chain[:_MOST])

    def presented_chain(self) -> list[Certificate]:
        """:returns: what the client sent after its leaf."""
        return [known(encoded(one)) for one in self.get_peer_cert_chain() or ()]
