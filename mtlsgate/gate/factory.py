"""
The factory that admits verified clients to one server.

`GateFactory` accepts connections and shakes hands; a `Doorkeeper` stands where
the application's protocol will stand until the client is verified, and then
makes room for it.  The application gets the TLS transport itself, so once a
client is in, nothing of this module is in the way of its bytes.
"""

from __future__ import annotations

from OpenSSL import SSL
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from mtlsgate.certificates.certificate import known
from mtlsgate.gate.admission import Doorkeeper
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.judging import Judging
from mtlsgate.gate.registry import Registry
from mtlsgate.gate.server import GateServer
from mtlsgate.interfaces import IRetirable, ITlsFacts, IVerifiedPeer
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.peer import TlsFacts
from mtlsgate.tls.clienthello import ClientHello
from mtlsgate.tls.half_closing import HalfClosingTransport
from mtlsgate.tls.trust import encoded

_log = Logger("mtlsgate")

#: The length of a TLS record's header (RFC 8446, 5.1).
RECORD_HEADER = 5

__all__ = ["GateFactory", "GateServer"]


class GateTransport(HalfClosingTransport):
    """
    The TLS transport that an application's protocol gets.

    ``IVerifiedPeer(transport)`` tells who is at the other end.

    :ivar entry: what the registry knows of the connection.
    :ivar received_in_handshake: bytes that came before it was admitted.
    :ivar beginning: the first of these, a record's header at least: OpenSSL does
        not tell what it takes for no TLS.
    :ivar is_left: whether the application had ended it when it was lost.
    """

    entry: Entry
    factory: GateFactory
    received_in_handshake = 0
    beginning = b""
    is_left = False

    def __conform__(self, interface: object) -> object:
        if interface is ITlsFacts:
            return self._facts()
        admission = self.entry.admission
        return admission.peer if admission and interface is IVerifiedPeer else None

    def _facts(self) -> TlsFacts:
        connection: SSL.Connection = self.getHandle()
        name, own = connection.get_servername(), connection.get_certificate()
        return TlsFacts(
            None if name is None else name.decode("latin-1"),
            connection.get_protocol_version_name(),
            connection.get_cipher_name() or "",
            None if own is None else known(encoded(own)),
        )

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that the client sent to the application so far, and got from it."""
        connection = self.getHandle()
        return (0, 0) if connection is None else (connection.received, connection.sent)

    def dataReceived(self, data: bytes) -> None:
        """Hand on what comes, but not without end before the client is admitted."""
        if self.entry.admission is None:
            if self.received_in_handshake < RECORD_HEADER:
                self.beginning += data[:RECORD_HEADER]
            self.received_in_handshake += len(data)
            limit = self.entry.terms.limits.handshake_bytes
            if limit is not None and self.received_in_handshake > limit:
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
            self.is_left = True

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Account for the connection, once everybody else knows."""
        connection = self.getHandle()
        try:
            super().connectionLost(reason)
        finally:
            # Also if the application fails at it, which would be counted for ever.
            self.factory.end(self, reason, connection.received, connection.sent)


class GateFactory(TLSMemoryBIOFactory):
    """
    The factory to listen with: admits verified clients to one server.

    :ivar server: the server.
    :ivar place: the address it listens on, as the configuration has it.
    :ivar registry: where its connections are accounted for.
    :ivar judging: what the configuration in force says; None if there is never
        another than this server's.
    :ivar _unfinished: how many of its connections are not over.
    :ivar _leaving: how often it was told to stop, and has not yet.
    """

    protocol = GateTransport

    def __init__(
        self,
        server: GateServer,
        clock: IReactorTime,
        registry: Registry | None = None,
        place: str = "",
        judging: Judging | None = None,
    ) -> None:
        """
        :param clock: the reactor, for time limits.
        :param registry: by default, one of its own that only the log observes.
        """
        self.server = server
        self.place = place
        self.judging = judging
        # Not "or": one without a connection in it is false.
        self.registry = Registry(clock, [HumanLog()]) if registry is None else registry
        self._unfinished = 0
        self._leaving = 0
        super().__init__(server.context, False, _DoorkeeperFactory(server, clock), clock)

    def buildProtocol(  # type: ignore[override]  # None is IProtocolFactory's way to decline
        self, addr: IAddress | None
    ) -> GateTransport | None:
        """:returns: the TLS side of a connection; None if a limit keeps it out."""
        assert addr is not None
        server = self.server
        entry = self.registry.arrive(self.place, server.name, server.terms, addr)
        return None if entry is None else self._take(entry, None)

    def arrive(
        self, entry: Entry, address: IAddress | None = None, hello: ClientHello | None = None
    ) -> GateTransport | None:
        """
        :param entry: a connection that was taken elsewhere.
        :param address: the client's, if it turned out to be another.
        :param hello: its ClientHello, if that was read.
        :returns: the protocol for it; None if a limit keeps it out.
        """
        moved = self.registry.move(entry, self.server.name, self.server.terms, address)
        return self._take(entry, hello) if moved else None

    def _take(self, entry: Entry, hello: ClientHello | None) -> GateTransport:
        transport = super().buildProtocol(entry.arrival.address)
        assert isinstance(transport, GateTransport)
        assert isinstance(transport.wrappedProtocol, Doorkeeper)
        transport.wrappedProtocol.hello = hello
        transport.entry = entry
        self.registry.attach(entry, transport)
        self._unfinished += 1
        return transport

    def end(self, transport: GateTransport, why: Failure, received: int, sent: int) -> None:
        """A connection is over."""
        self.registry.end(transport.entry, why, received, sent, by_application=transport.is_left)
        self._unfinished -= 1
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
        while self._leaving and (self.numPorts > 1 or self._unfinished == 0):
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
