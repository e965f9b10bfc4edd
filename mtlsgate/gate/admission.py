"""
Between TLS and the application: who waits for the verdict on one connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.admission import Admitted, Pin, Rejection
from mtlsgate.certificates.server_names import same_name
from mtlsgate.gate.events import Admission, Negotiated
from mtlsgate.gate.judging import Held
from mtlsgate.peer import VerifiedPeer, address_text
from mtlsgate.reasons import Reason
from mtlsgate.tls.clienthello import ClientHello
from mtlsgate.tls.handshake import GateConnection
from mtlsgate.tls.openssl_errors import handshake_rejection

if TYPE_CHECKING:
    from mtlsgate.gate.factory import GateServer, GateTransport

_log = Logger("mtlsgate.gate")


@implementer(IHandshakeListener)
class Doorkeeper(Protocol):
    """
    Waits for the handshake and lets the application in, or says why not.

    :ivar hello: what was read before TLS began, if anything was.
    :ivar _is_settled: whether the verdict has been told.
    :ivar _rejection: why the connection is turned away, once it is, but for
        what the handshake itself says.
    :ivar _timeout: ends a handshake that takes too long.
    :ivar _asking: what waits for the authorizer.
    :ivar _early: what the client sent meanwhile.
    :ivar _farewell: ends the connection of a client that the application
        declined and that does not leave.
    """

    transport: GateTransport
    hello: ClientHello | None = None
    _is_settled = False
    _timeout: IDelayedCall | None = None
    _farewell: IDelayedCall | None = None
    _asking: Deferred[Rejection | None] | None = None
    _rejection: Rejection | None = None

    def __init__(self, server: GateServer, clock: IReactorTime, address: IAddress) -> None:
        self._server = server
        self._clock = clock
        self._address = address
        self._early: list[bytes] = []

    def connectionMade(self) -> None:
        """Give the client until the timeout."""
        waited = self._clock.seconds() - self.transport.entry.arrival.began
        limit = self._server.handshake_timeout - waited
        self._timeout = self._clock.callLater(max(0, limit), self._timed_out)
        if ITCPTransport.providedBy(self.transport):
            # Nagle's algorithm against delayed acknowledgements costs 40 ms an exchange.
            self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        """Hand the connection over, if the verdict is to admit."""
        self._stop_timing()
        try:
            self._judge(self._connection())
        except Exception:  # noqa: BLE001 -- whatever it is, it must not let anyone in
            self._failed()

    def _failed(self) -> None:
        _log.failure("{server}: admitting a client failed", server=self._server.name)
        if not self._is_settled:
            self._tell(Rejection(Reason.INTERNAL_ERROR, "admitting the client failed"))
        self.transport.abortConnection()

    def _judge(self, connection: GateConnection) -> None:
        server_name = connection.server_name
        if self.hello is not None and not same_name(self.hello.server_name, server_name):
            # The rules are those of the name that was read first; after a
            # HelloRetryRequest the client may have named another.
            self._turn_away(
                Rejection(Reason.UNKNOWN_SERVER_NAME, "the client asked for one name, then another")
            )
        elif self._server.context.admission is None:
            self._consider(None, None)
        else:
            verdict = self._server.context.conclude(connection)
            if isinstance(verdict, Admitted):
                peer = _verified_peer(verdict, connection, server_name, self._address)
                self._consider(peer, verdict.pin)
            else:
                self._turn_away(verdict)

    def _consider(self, peer: VerifiedPeer | None, pin: Pin | None) -> None:
        """What else is to be asked of a client that the rules admit."""
        objection: Rejection | Deferred[Rejection | None] | None = self._objection(peer)
        if objection is None and peer is not None and self._server.authorizer is not None:
            objection = self._server.authorizer.objection(peer, self._clock)
        if isinstance(objection, Deferred):
            # Its time limit is the authorizer's own.
            self.transport.pauseProducing()
            # First, for the answer may be there already.
            self._asking = objection
            objection.addCallback(self._answered, peer, pin)
        else:
            self._settle(objection, peer, pin)

    def _answered(
        self, objection: Rejection | None, peer: VerifiedPeer | None, pin: Pin | None
    ) -> None:
        self._asking = None
        is_ending = self._rejection is not None or self.transport.entry.closing is not None
        if self._is_settled or is_ending:
            # That it is over comes a turn of the reactor after that it is to be.
            return
        self.transport.resumeProducing()
        try:
            # The epoch and the limits may have changed since.
            self._settle(objection or self._objection(peer), peer, pin)
        except Exception:  # noqa: BLE001 -- whatever it is, it must not let anyone in
            self._failed()

    def _objection(self, peer: VerifiedPeer | None) -> Rejection | None:
        registry, entry = self.transport.factory.registry, self.transport.entry
        held = self._held(peer)
        if isinstance(held, Rejection):
            return held
        if held is not None:
            registry.hold(entry, held.server, held.terms)
        return registry.refuse_admission(entry, None if peer is None else peer.identity)

    def _held(self, peer: VerifiedPeer | None) -> Held | Rejection | None:
        """:returns: what another epoch says; None if there is no other."""
        factory, listener = self.transport.factory, self.transport.entry.arrival.listener
        if factory.judging is None or factory.judging.is_in_force(listener, self._server):
            return None
        return factory.judging.judge(listener, self._connection().server_name, peer)

    def _settle(
        self, objection: Rejection | None, peer: VerifiedPeer | None, pin: Pin | None
    ) -> None:
        if objection is not None:
            self._turn_away(objection)
        else:
            self._let_in(peer, pin)

    def _let_in(self, peer: VerifiedPeer | None, pin: Pin | None) -> None:
        server, transport = self._server, self.transport
        held = self._held(peer)
        if isinstance(held, Held):
            peer, pin = held.peer, held.pin
        identity = None if peer is None else peer.identity
        registry = transport.factory.registry
        registry.admit(
            transport.entry,
            Admission(
                peer=peer,
                identity=identity,
                pin=pin,
                negotiated=_negotiated(self._connection()),
                since=registry.clock.seconds(),
                is_first_use=pin is not None and server.pins_used.note(pin, identity),
            ),
        )
        self._is_settled = True
        early, self._early = self._early, []
        if self._hand_over(transport):
            for data in early:
                transport.wrappedProtocol.dataReceived(data)

    def _hand_over(self, transport: GateTransport) -> bool:
        """:returns: whether the application took it."""
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
                return False
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
            return False
        return True

    def dataReceived(self, data: bytes) -> None:
        """
        Keep what comes while the authorizer thinks, which is no more than the
        transport had read when it was paused; drop what an application that
        declined will never read.
        """
        if self._asking is not None:
            self._early.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say why nobody came in; not called once somebody did."""
        if self._farewell is not None and self._farewell.active():
            self._farewell.cancel()
        self._stop_timing()
        if self._is_settled:
            return
        rejection = self._rejection
        if self._asking is not None:
            rejection = Rejection(
                Reason.PEER_GONE, "the client went away while the authorizer was asked"
            )
        if rejection is None:
            verdict = self._connection().handshake.verdict
            rejection = (
                verdict
                if isinstance(verdict, Rejection)
                else handshake_rejection(reason, self.transport.beginning)
            )
        self._tell(rejection)
        if self._asking is not None:
            self._asking.cancel()

    def too_much(self) -> None:
        """The client sent more than it may before it is admitted."""
        limit = self.transport.entry.terms.limits.handshake_bytes
        self._rejection = Rejection(
            Reason.HANDSHAKE_TOO_LARGE, f"the client sent more than {limit} bytes in its handshake"
        )
        self.transport.abortConnection()

    def _timed_out(self) -> None:
        self._rejection = Rejection(
            Reason.HANDSHAKE_TIMEOUT,
            f"the handshake was not complete after {self._server.handshake_timeout:g} s",
        )
        self.transport.abortConnection()

    def _turn_away(self, rejection: Rejection) -> None:
        self._tell(rejection)
        self.transport.abortConnection()

    def _tell(self, rejection: Rejection) -> None:
        self._is_settled = True
        connection = self._connection()
        self.transport.factory.registry.reject(
            self.transport.entry,
            rejection,
            leaf=connection.presented_leaf(),
            server_name=connection.server_name,
            tls_version=connection.get_protocol_version_name(),
            received=self.transport.received_in_handshake,
        )

    def _connection(self) -> GateConnection:
        return cast(GateConnection, self.transport.getHandle())

    def _stop_timing(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None


def _negotiated(connection: GateConnection) -> Negotiated:
    return Negotiated(
        server_name=connection.server_name,
        tls_version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        group=connection.get_group_name(),
        alpn=connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace") or None,
        resumed=connection.handshake.resumed,
    )


def _verified_peer(
    verdict: Admitted, connection: GateConnection, server_name: str | None, address: IAddress
) -> VerifiedPeer:
    negotiated = _negotiated(connection)
    return VerifiedPeer(
        path=verdict.path,
        rule=verdict.rule.name,
        address=address,
        server_name=server_name,
        tls_version=negotiated.tls_version,
        cipher=negotiated.cipher,
        group=negotiated.group,
        alpn=negotiated.alpn,
        resumed=negotiated.resumed,
    )
