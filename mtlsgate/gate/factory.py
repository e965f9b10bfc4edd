"""
The factory that admits verified clients to one server.

`GateFactory` accepts connections and shakes hands; a `Doorkeeper` stands where
the application's protocol will stand until the client is verified, and then
makes room for it.  The application gets the TLS transport itself, so once a
client is in, nothing of this module is in the way of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IProtocolFactory, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from mtlsgate.admission import Pin, Rejection
from mtlsgate.gate.admission import Doorkeeper
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.gate.connection import RECORD_HEADER, Terms, Visit
from mtlsgate.gate.registry import Connections
from mtlsgate.interfaces import IRetirable, ITlsFacts, IVerifiedPeer
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.peer import TlsFacts, VerifiedPeer
from mtlsgate.tls.clienthello import ClientHello
from mtlsgate.tls.server import GateContext
from mtlsgate.tls.transport import HalfClosingTransport

_log = Logger("mtlsgate")

__all__ = ["GateFactory", "GateServer"]


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
    :ivar terms: what connections are held to.
    :ivar authorizer: who is asked after the rules, or None.
    :ivar pins_used: since it was built.
    """

    name: str
    context: GateContext
    application: IProtocolFactory
    handshake_timeout: float = 10.0
    terms: Terms = Terms()
    authorizer: Authorizer | None = None
    pins_used: PinsUsed = field(factory=PinsUsed, eq=False)


class GateTransport(HalfClosingTransport):
    """
    The TLS transport that an application's protocol gets.

    ``IVerifiedPeer(transport)`` tells who is at the other end.

    :ivar visit: what is known of the connection.
    """

    visit: Visit
    factory: GateFactory

    def __conform__(self, interface: object) -> object:
        if interface is ITlsFacts:
            return self._facts()
        return self.visit.peer if interface is IVerifiedPeer else None

    def _facts(self) -> TlsFacts:
        connection: SSL.Connection = self.getHandle()
        name = connection.get_servername()
        return TlsFacts(
            None if name is None else name.decode("latin-1"),
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            connection.get_certificate(as_cryptography=True),
        )

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the client sent to the application so far, and got from it."""
        connection = self.getHandle()
        return (0, 0) if connection is None else (connection.received, connection.sent)

    def dataReceived(self, data: bytes) -> None:
        """Hand on what comes, but not without end before the client is admitted."""
        visit = self.visit
        if visit.admitted_at is None:
            if visit.received_in_handshake < RECORD_HEADER:
                visit.beginning += data[:RECORD_HEADER]
            visit.received_in_handshake += len(data)
            limit = visit.terms.limits.handshake_bytes
            if limit is not None and visit.received_in_handshake > limit:
                assert isinstance(self.wrappedProtocol, Doorkeeper)
                self.wrappedProtocol.too_much()
                return
        # By name, as in GateConnection: this, too, runs for whatever comes.
        HalfClosingTransport.dataReceived(self, data)

    def loseConnection(self) -> None:
        """End the connection in good order."""
        self._note_leaving()
        super().loseConnection()

    def abortConnection(self) -> None:
        """End the connection at once."""
        self._note_leaving()
        super().abortConnection()

    def _note_leaving(self) -> None:
        # Not if it is lost already: then a transport stops its producer, and
        # producers end what they write to.
        if getattr(self.transport, "connected", True):
            self.visit.is_left = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Account for the connection, once everybody else knows."""
        connection = self.getHandle()
        try:
            super().connectionLost(reason)
        finally:
            # Also if the application fails at it, which would be counted for ever.
            self.factory.end(self.visit, reason, connection.received, connection.sent)


class GateFactory(TLSMemoryBIOFactory):
    """
    The factory to listen with: admits verified clients to one server.

    :ivar server: the server.
    :ivar place: the address it listens on, as the configuration has it.
    :ivar connections: where its connections are accounted for.
    :ivar again: once another epoch is in force, what that makes of a client
        that this one admits; None before.
    :ivar follow: likewise, what holds a client to that once it came in.
    :ivar _visits: how many of its connections are not over.
    :ivar _leaving: how often it was told to stop, and has not yet.
    """

    protocol = GateTransport
    again: Callable[[Visit, VerifiedPeer | None], Rejection | None] | None = None
    follow: Callable[[Visit], object] | None = None

    def __init__(
        self,
        server: GateServer,
        clock: IReactorTime,
        connections: Connections | None = None,
        place: str = "",
    ) -> None:
        """
        :param clock: the reactor, for time limits.
        :param connections: by default, some of its own that only the log observes.
        """
        self.server = server
        self.place = place
        # Not "or": some without a connection in them are false.
        self.connections = Connections(clock, [HumanLog()]) if connections is None else connections
        self._visits = 0
        self._leaving = 0
        super().__init__(server.context, False, _DoorkeeperFactory(server, clock), clock)

    def buildProtocol(  # type: ignore[override]  # None is IProtocolFactory's way to decline
        self, addr: IAddress | None
    ) -> GateTransport | None:
        """:returns: the TLS side of a connection; None if a limit keeps it out."""
        assert addr is not None
        server = self.server
        visit = self.connections.arrive(self.place, server.name, server.terms, addr)
        return None if visit is None else self._take(visit, None)

    def arrive(
        self, visit: Visit, address: IAddress | None = None, hello: ClientHello | None = None
    ) -> GateTransport | None:
        """
        :param visit: a connection that was taken elsewhere.
        :param address: the client's, if it turned out to be another.
        :param hello: its ClientHello, if that was read.
        :returns: the protocol for it; None if a limit keeps it out.
        """
        moved = self.connections.move(visit, self.server.name, self.server.terms, address)
        return self._take(visit, hello) if moved else None

    def _take(self, visit: Visit, hello: ClientHello | None) -> GateTransport:
        transport = super().buildProtocol(visit.address)
        assert isinstance(transport, GateTransport)
        assert isinstance(transport.wrappedProtocol, Doorkeeper)
        transport.wrappedProtocol.hello = hello
        transport.visit, visit.transport = visit, transport
        visit.abort = transport.abortConnection
        self._visits += 1
        return transport

    def end(self, visit: Visit, why: Failure, received: int, sent: int) -> None:
        """A connection is over."""
        self.connections.end(visit, why, received, sent)
        # Neither holds the other any longer, so that both are gone at once, and
        # not when garbage is next collected.
        visit.transport = None
        self._visits -= 1
        self._stop_if_alone()

    def doStop(self) -> None:
        """Stop the application's factory, but not before its last connection is over."""
        self._leaving += 1
        if self._leaving == self.numPorts:
            self._retire()
        self._stop_if_alone()

    def _retire(self) -> None:
        application = self.server.application
        if IRetirable.providedBy(application):
            try:
                application.retire()
            except Exception:  # noqa: BLE001 -- a protocol's own; it is stopped all the same
                _log.failure("{server}: a protocol failed to retire", server=self.server.name)

    def _stop_if_alone(self) -> None:
        while self._leaving and (self.numPorts > 1 or self._visits == 0):
            self._leaving -= 1
            super().doStop()


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
