"""
Between TLS and the application.

`GateFactory` accepts connections and shakes hands; a `Doorkeeper` stands where
the application's protocol will stand until the client is verified, and then
makes room for it.  The application gets the TLS transport itself, so once a
client is in, nothing of this module is in the way of its bytes.
"""

from __future__ import annotations

from typing import Literal, cast

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.admission import Admitted, Rejection
from mtlsgate.context import GateConnection, GateContext
from mtlsgate.credentials import UNPARSABLE, sha256
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.peer import VerifiedPeer, address_text
from mtlsgate.reasons import Reason
from mtlsgate.text import printable
from mtlsgate.verification import handshake_rejection

_log = Logger("mtlsgate.gate")

_ADMITTED = (
    "{server}: admitted {peer_address} by rule {rule}: "
    "subject={subject} sha256={fingerprint} tls={tls_version}"
)
_ADMITTED_ANYONE = "{server}: admitted {peer_address} without a certificate: tls={tls_version}"
_REJECTED = "{server}: rejected {peer_address}: {reason}: {detail}"
_REJECTED_LEAF = (
    " [depth={depth} subject={subject} issuer={issuer} serial={serial} sha256={fingerprint}]"
)


@frozen
class GateServer:
    """
    One server, ready to listen.

    :ivar name: as logs call it.
    :ivar context: makes its TLS connections.
    :ivar application: the factory that verified connections are handed to.
    :ivar handshake_timeout: seconds from connecting to a complete handshake.
    """

    name: str
    context: GateContext
    application: IProtocolFactory
    handshake_timeout: float = 10.0


class GateTransport(BufferingTLSTransport):
    """
    The TLS transport that an application's protocol gets.

    ``IVerifiedPeer(transport)`` tells who is at the other end.

    :ivar peer: who that is, once verified; None before that, and on a server
        that asks for no certificate.
    """

    peer: VerifiedPeer | None = None

    def __conform__(self, interface: object) -> object:
        return self.peer if interface is IVerifiedPeer else None


class GateFactory(TLSMemoryBIOFactory):
    """
    The factory to listen with: admits verified clients to one server.

    :ivar server: the server.
    """

    protocol = GateTransport

    def __init__(self, server: GateServer, clock: IReactorTime) -> None:
        """
        :param clock: the reactor, for time limits.
        """
        self.server = server
        super().__init__(server.context, False, _DoorkeeperFactory(server, clock), clock)


class _DoorkeeperFactory(Factory):
    noisy = False

    def __init__(self, server: GateServer, clock: IReactorTime) -> None:
        self.server = server
        self.clock = clock

    def doStart(self) -> None:
        self.server.application.doStart()
        super().doStart()

    def doStop(self) -> None:
        super().doStop()
        self.server.application.doStop()

    def logPrefix(self) -> str:
        return self.server.name

    def buildProtocol(self, addr: IAddress | None) -> Doorkeeper:
        assert addr is not None
        return Doorkeeper(self.server, self.clock, addr)


@implementer(IHandshakeListener)
class Doorkeeper(Protocol):
    """
    Waits for the handshake and lets the application in, or says why not.

    :ivar _rejection: why the connection was turned away, once it was.
    :ivar _timeout: ends a handshake that takes too long.
    :ivar _farewell: ends the connection of a client that the application
        declined and that does not leave.
    """

    transport: GateTransport
    _timeout: IDelayedCall | None = None
    _farewell: IDelayedCall | None = None
    _rejection: Rejection | None = None

    def __init__(self, server: GateServer, clock: IReactorTime, address: IAddress) -> None:
        self._server = server
        self._clock = clock
        self._address = address

    def connectionMade(self) -> None:
        """Give the client until the timeout."""
        self._timeout = self._clock.callLater(self._server.handshake_timeout, self._timed_out)
        if ITCPTransport.providedBy(self.transport):
            # Nagle's algorithm against delayed acknowledgements costs 40 ms an exchange.
            self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        """Hand the connection over, if the verdict is to admit."""
        self._stop_timing()
        transport = self.transport
        connection = self._connection()
        verdict = connection.handshake.verdict
        if self._server.context.admission is None:
            _log.info(
                _ADMITTED_ANYONE,
                server=self._server.name,
                peer_address=address_text(self._address),
                sni=_server_name(connection),
                tls_version=connection.get_protocol_version_name(),
            )
        elif isinstance(verdict, Admitted):
            transport.peer = _verified_peer(verdict, connection, self._address)
            self._log_admission(transport.peer)
        else:
            # Nothing is known to lead here; whatever does is not let in.
            self._turn_away(Rejection(Reason.INTERNAL_ERROR, "the client was not judged"))
            return
        self._hand_over(transport)

    def _hand_over(self, transport: GateTransport) -> None:
        try:
            application = self._server.application.buildProtocol(self._address)
            if application is None:
                _log.info(
                    "{server}: the application declined {peer_address}",
                    server=self._server.name,
                    peer_address=address_text(self._address),
                )
                transport.loseConnection()
                # Which waits for the client to end TLS, too.
                self._farewell = self._clock.callLater(
                    self._server.handshake_timeout, transport.abortConnection
                )
                return
            transport.wrappedProtocol = application
            application.makeConnection(transport)
            if IHandshakeListener.providedBy(application):
                application.handshakeCompleted()
        except Exception:  # noqa: BLE001 -- it is not ours; it costs this connection alone
            _log.failure(
                "{server}: the application failed to take {peer_address}",
                server=self._server.name,
                peer_address=address_text(self._address),
            )
            transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Drop what an application that declined will never read."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say why nobody came in; not called once somebody did."""
        if self._farewell is not None and self._farewell.active():
            self._farewell.cancel()
        if self._timeout is None:
            return
        self._stop_timing()
        connection = self._connection()
        verdict = connection.handshake.verdict
        rejection = self._rejection
        if rejection is None and isinstance(verdict, Rejection):
            rejection = verdict
        self._log_rejection(rejection or handshake_rejection(reason), connection)

    def _connection(self) -> GateConnection:
        return cast(GateConnection, self.transport.getHandle())

    def _stop_timing(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None

    def _timed_out(self) -> None:
        self._rejection = Rejection(
            Reason.HANDSHAKE_TIMEOUT,
            f"the handshake was not complete after {self._server.handshake_timeout:g} s",
        )
        self.transport.abortConnection()

    def _turn_away(self, rejection: Rejection) -> None:
        self._log_rejection(rejection, self._connection())
        self.transport.abortConnection()

    def _log_admission(self, peer: VerifiedPeer) -> None:
        _log.info(
            _ADMITTED,
            server=self._server.name,
            peer_address=address_text(peer.address),
            rule=peer.rule,
            subject=printable(peer.subject),
            serial=f"{peer.serial:x}",
            fingerprint=peer.sha256,
            dns_names=[printable(name) for name in peer.dns_names],
            uris=[printable(name) for name in peer.uris],
            sni=peer.server_name,
            tls_version=peer.tls_version,
        )

    def _log_rejection(self, rejection: Rejection, connection: GateConnection) -> None:
        leaf = connection.presented_leaf()
        _log.warn(
            _REJECTED if leaf is None else _REJECTED + _REJECTED_LEAF,
            server=self._server.name,
            peer_address=address_text(self._address),
            reason=rejection.reason.value,
            detail=printable(rejection.detail),
            depth=rejection.depth,
            sni=_server_name(connection),
            tls_version=connection.get_protocol_version_name(),
            **_facts(leaf),
        )


def _facts(leaf: x509.Certificate | None) -> dict[str, str | None]:
    """:returns: the fields of a log event that name a leaf, safe to print."""
    if leaf is None:
        return {"subject": None, "issuer": None, "serial": None, "fingerprint": None}
    return {
        "subject": _name(leaf, "subject"),
        "issuer": _name(leaf, "issuer"),
        "serial": f"{leaf.serial_number:x}",
        "fingerprint": sha256(leaf).hex(),
    }


def _name(leaf: x509.Certificate, which: Literal["subject", "issuer"]) -> str:
    try:
        name: x509.Name = getattr(leaf, which)
        return printable(name.rfc4514_string())
    except UNPARSABLE:
        return "(does not parse)"


def _server_name(connection: SSL.Connection) -> str | None:
    name = connection.get_servername()
    return None if name is None else printable(name.decode("ascii", "backslashreplace"))


def _verified_peer(
    verdict: Admitted, connection: SSL.Connection, address: IAddress
) -> VerifiedPeer:
    return VerifiedPeer(
        path=verdict.path,
        rule=verdict.rule.name,
        address=address,
        server_name=_server_name(connection),
        tls_version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        group=connection.get_group_name(),
        alpn=connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace") or None,
    )
