"""
One connection's OpenSSL side, and what is known of its client meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from OpenSSL import SSL

from mtlsgate.admission import Admitted, Path, Rejection
from mtlsgate.certificates.certificate import Certificate, known
from mtlsgate.tls.half_closing import HalfClosingConnection
from mtlsgate.tls.judge import Pending
from mtlsgate.tls.trust import encoded

if TYPE_CHECKING:
    from mtlsgate.tls.server import GateContext


class Handshake:
    """
    What is known of one connection's client while it shakes hands.

    :ivar certificates: what OpenSSL verified so far, by depth.
    :ivar verdict: the outcome, once there is one.  A rejection stands.
    :ivar resumed: whether it resumed a session.
    """

    __slots__ = ("certificates", "resumed", "verdict")

    def __init__(self) -> None:
        self.certificates: dict[int, Certificate] = {}
        self.verdict: Admitted | Rejection | Pending | None = None
        self.resumed = False

    @property
    def path(self) -> Path:
        """The path, leaf first.  OpenSSL goes from the anchor down, so at depth
        0 all of it is there."""
        return tuple(map(self.certificates.__getitem__, range(len(self.certificates))))


class GateConnection(HalfClosingConnection):
    """
    An OpenSSL connection that carries its `Handshake`, and counts.

    What runs for each record calls its base class by name: `super` is the
    better part of what counting costs.

    :ivar gate: what made it, and answers OpenSSL's questions about it.
    :ivar received: bytes that the client sent to the application.
    :ivar sent: bytes that it got from it.
    """

    def __init__(self, context: SSL.Context, gate: GateContext) -> None:
        super().__init__(context, None)
        self.gate = gate
        self.handshake = Handshake()
        self.received = self.sent = 0
        self._begun = False

    def recv(self, bufsiz: int, flags: int | None = None) -> bytes:
        """Count what the client sent."""
        data = HalfClosingConnection.recv(self, bufsiz, flags)
        self.received += len(data)
        return data

    def send(self, buf: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Count what the client gets."""
        sent = HalfClosingConnection.send(self, buf, flags)
        self.sent += sent
        return sent

    def do_handshake(self) -> None:
        """
        Go on with the handshake.  Twisted asks for it once before a byte has
        arrived, when there is nothing that a server could do yet.  A client
        that ends TLS in the middle of it is gone; Twisted does not expect the
        error that OpenSSL has for this.
        """
        if not self._begun:
            self._begun = True
            raise SSL.WantReadError
        try:
            super().do_handshake()
        except SSL.ZeroReturnError:
            raise SSL.SysCallError(-1, "Unexpected EOF") from None

    @property
    def server_name(self) -> str | None:
        """The name that the client asks for (SNI), as it is written there."""
        name = self.get_servername()
        return None if name is None else name.decode("latin-1")

    def presented_leaf(self) -> Certificate | None:
        """
        The leaf that a rejected client presented, for the log; it may not have
        proved that it holds the key.
        """
        if 0 in self.handshake.certificates:
            return self.handshake.certificates[0]
        chain = self.get_verified_chain()
        return known(encoded(chain[0])) if chain else None

    def presented_chain(self) -> list[Certificate]:
        """What the client sent after its leaf."""
        return [known(encoded(one)) for one in self.get_peer_cert_chain() or ()]
