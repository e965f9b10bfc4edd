"""
Between TLS and the application.

`GateFactory` accepts connections and shakes hands; a `Doorkeeper` stands where
the application's protocol will stand until the client is verified, and then
makes room for it.  The application gets the TLS transport itself, so once a
client is in, nothing of this module is in the way of its bytes.
"""

from __future__ import annotations

from typing import cast

from attrs import field, frozen
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
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate import events
from mtlsgate.admission import Admitted, Pin, Rejection
from mtlsgate.context import GateConnection, GateContext
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.names import same_name
from mtlsgate.peer import VerifiedPeer, address_text
from mtlsgate.reasons import Reason
from mtlsgate.transport import HalfClosingTransport
from mtlsgate.verification import handshake_rejection

_log = Logger("mtlsgate.gate")


@frozen
class Arrival:
    """
    What is known of a connection before its TLS begins.

    :ivar began: when it came, in the clock's seconds.
    :ivar server_name: what its ClientHello asks for, as it is written there.
    :ivar hello: whether that was read.
    """

    began: float
    server_name: str | None
    hello: bool = True


class PinsUsed:
    """Which pins with a name have been used: the first use of each is logged."""

    def __init__(self) -> None:
        self._seen: set[tuple[bytes, str]] = set()

    def note(self, pin: Pin) -> bool:
        """:returns: whether the pin has a name and is used for the first time."""
        if pin.name is None:
            return False
        use = (pin.digest, pin.name)
        first = use not in self._seen
        self._seen.add(use)
        return first


@frozen
class GateServer:
    """
    One server, ready to listen.

    :ivar name: as logs call it.
    :ivar context: makes its TLS connections.
    :ivar application: the factory that verified connections are handed to.
    :ivar handshake_timeout: seconds from connecting to a complete handshake.
    :ivar pins_used: since it was built.
    """

    name: str
    context: GateContext
    application: IProtocolFactory
    handshake_timeout: float = 10.0
    pins_used: PinsUsed = field(factory=PinsUsed, eq=False)


class GateTransport(HalfClosingTransport):
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

    def admit(self, address: IAddress, arrival: Arrival) -> GateTransport:
        """
        :param arrival: what is known of a connection that began elsewhere.
        :returns: the protocol for it.
        """
        transport = self.buildProtocol(address)
        assert isinstance(transport, GateTransport)
        assert isinstance(transport.wrappedProtocol, Doorkeeper)
        transport.wrappedProtocol.arrival = arrival
        return transport

    def arrive(self, address: IAddress, began: float) -> GateTransport:
        """
        :param began: when the connection came, in the clock's seconds.
        :returns: the protocol for one whose TLS begins now.
        """
        return self.admit(address, Arrival(began, None, hello=False))


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

    :ivar arrival: how the connection came here, if by way of its server name or
        of a proxy.
    :ivar _rejection: why the connection was turned away, once it was.
    :ivar _timeout: ends a handshake that takes too long.
    :ivar _farewell: ends the connection of a client that the application
        declined and that does not leave.
    """

    transport: GateTransport
    arrival: Arrival | None = None
    _timeout: IDelayedCall | None = None
    _farewell: IDelayedCall | None = None
    _rejection: Rejection | None = None

    def __init__(self, server: GateServer, clock: IReactorTime, address: IAddress) -> None:
        self._server = server
        self._clock = clock
        self._address = address

    def connectionMade(self) -> None:
        """Give the client until the timeout."""
        limit = self._server.handshake_timeout
        if self.arrival is not None:
            limit -= self._clock.seconds() - self.arrival.began
        self._timeout = self._clock.callLater(max(0, limit), self._timed_out)
        if ITCPTransport.providedBy(self.transport):
            # Nagle's algorithm against delayed acknowledgements costs 40 ms an exchange.
            self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:
        """Hand the connection over, if the verdict is to admit."""
        self._stop_timing()
        connection = self._connection()
        arrival = self.arrival
        if (arrival is not None and arrival.hello) and not same_name(
            arrival.server_name, connection.server_name
        ):
            # The rules are those of the name that was read first; after a
            # HelloRetryRequest the client may have named another.
            self._turn_away(
                Rejection(Reason.UNKNOWN_SERVER_NAME, "the client asked for one name, then another")
            )
        elif self._server.context.admission is None:
            self._let_in(None, connection)
        else:
            verdict = self._server.context.conclude(connection)
            if isinstance(verdict, Admitted):
                self._let_in(verdict, connection)
            else:
                self._turn_away(verdict)

    def _let_in(self, verdict: Admitted | None, connection: GateConnection) -> None:
        server, transport = self._server, self.transport
        if verdict is None:
            events.admitted_anyone(
                server.name,
                self._address,
                connection.server_name,
                connection.get_protocol_version_name(),
            )
        else:
            transport.peer = _verified_peer(verdict, connection, self._address)
            events.admitted(server.name, transport.peer)
            if verdict.pin is not None and server.pins_used.note(verdict.pin):
                events.pin_first_used(server.name, verdict.rule, verdict.pin)
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
        self._log_rejection(
            rejection or handshake_rejection(reason, connection.beginning), connection
        )

    def _log_rejection(self, rejection: Rejection, connection: GateConnection) -> None:
        events.rejected(
            self._server.name,
            self._address,
            rejection,
            leaf=connection.presented_leaf(),
            sni=connection.server_name,
            tls_version=connection.get_protocol_version_name(),
        )

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


def _verified_peer(
    verdict: Admitted, connection: GateConnection, address: IAddress
) -> VerifiedPeer:
    return VerifiedPeer(
        path=verdict.path,
        rule=verdict.rule.name,
        address=address,
        server_name=connection.server_name,
        tls_version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        group=connection.get_group_name(),
        alpn=connection.get_alpn_proto_negotiated().decode("ascii", "backslashreplace") or None,
        resumed=connection.handshake.resumed,
    )
