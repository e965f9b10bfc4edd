"""
Several servers on one address: the ClientHello's server name says which.

The name is read before TLS begins, so that each server keeps an `SSL.Context`
of its own: its rules alone judge the client, and no session of one server is
known to another.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from attrs import frozen
from twisted.internet.interfaces import IAddress, IDelayedCall, IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.admission import Rejection
from mtlsgate.certificates.server_names import NameTable
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.factory import GateFactory, GateTransport
from mtlsgate.gate.lingering import ReadingFactory
from mtlsgate.gate.registry import Registry
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Reason
from mtlsgate.text import printable
from mtlsgate.tls.clienthello import (
    Alert,
    ClientHello,
    ClientHelloReader,
    NoClientHello,
    alert_record,
)
from mtlsgate.tls.half_closing import no_more


@frozen
class ServerChoice:
    """
    The servers of one address.

    :ivar name: what logs call the address.
    :ivar by_name: their factories by the names that they declare.
    :ivar otherwise: the default server's factory, for any other name and for
        none; None refuses these.
    :ivar handshake_timeout: seconds for the ClientHello.
    :ivar place: the address, as the configuration has it.
    :ivar terms: what connections are held to whose server is not known yet.
    """

    name: str
    by_name: NameTable[GateFactory]
    otherwise: GateFactory | None
    handshake_timeout: float
    place: str = ""
    terms: Terms = Terms()

    def choose(self, server_name: str | None) -> GateFactory | None:
        """:returns: the factory for a ClientHello's server name, or None."""
        return self.by_name.find(server_name) or self.otherwise


class DispatchingFactory(ReadingFactory):
    """
    The factory to listen with where servers share an address.

    :ivar choice: the servers.
    :ivar registry: where its connections are accounted for.
    """

    noisy = False

    def __init__(self, choice: ServerChoice, registry: Registry) -> None:
        """:param registry: the same as those of the servers' factories."""
        self.choice = choice
        self.registry = registry
        self._factories = {id(one): one for one in choice.by_name.values()}
        if choice.otherwise is not None:
            self._factories[id(choice.otherwise)] = choice.otherwise

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return self.choice.name

    def doStart(self) -> None:
        """Start the factories of all servers, or none if one of them fails to."""
        with ExitStack() as undo:
            for factory in self._factories.values():
                factory.doStart()
                undo.callback(factory.doStop)
            undo.pop_all()
        super().doStart()

    def stop_what_follows(self) -> None:
        """Stop the factories of all servers."""
        for factory in self._factories.values():
            factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Dispatcher | None:
        """:returns: what reads the ClientHello of one connection; None if a
        limit keeps it out."""
        assert addr is not None
        choice = self.choice
        entry = self.registry.arrive(choice.place, choice.name, choice.terms, addr)
        return None if entry is None else self._dispatcher(entry)

    def arrive(self, entry: Entry, address: IAddress | None = None) -> Dispatcher | None:
        """
        :param entry: a connection that was taken elsewhere.
        :param address: the client's, if it turned out to be another.
        :returns: what reads its ClientHello; None if a limit keeps it out.
        """
        choice = self.choice
        moved = self.registry.move(entry, choice.name, choice.terms, address)
        return self._dispatcher(entry) if moved else None

    def _dispatcher(self, entry: Entry) -> Dispatcher:
        self.begin()
        return Dispatcher(self.choice, self.registry, entry, self.finish)


@implementer(IHalfCloseableProtocol)
class Dispatcher(Protocol):
    """
    Reads a connection's ClientHello, and then passes everything on to the TLS
    of the server that it asks for.

    :ivar _tls: that server's end, once it is chosen.
    """

    traffic = (0, 0)
    _received = 0
    _tls: GateTransport | None = None
    _timeout: IDelayedCall | None = None

    def __init__(
        self,
        choice: ServerChoice,
        registry: Registry,
        entry: Entry,
        finish: Callable[[], object],
    ) -> None:
        """:param finish: called once, when the connection is over or a server's."""
        self._choice = choice
        self._finish = finish
        self._clock = registry.clock
        self._registry = registry
        self._entry = entry
        self._reader = ClientHelloReader()

    def connectionMade(self) -> None:
        """Give the client until the timeout."""
        self._registry.attach(self._entry, self)
        waited = self._clock.seconds() - self._entry.arrival.began
        limit = self._choice.handshake_timeout - waited
        self._timeout = self._clock.callLater(max(0, limit), self._timed_out)

    def abortConnection(self) -> None:
        """End the connection at once."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        """Wait for the ClientHello; after it, hand on what comes."""
        if self._tls is not None:
            self._tls.dataReceived(data)
        elif self._timeout is not None:
            self._received += len(data)
            outcome = self._reader.feed(data)
            if isinstance(outcome, ClientHello):
                self._pass_on(outcome)
            elif outcome is not None:
                self._refuse(outcome)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the server's end, or the log if there is none yet."""
        if self._tls is not None:
            self._tls.connectionLost(reason)
            return
        if self._timeout is not None:
            self._end(
                Rejection(Reason.PEER_GONE, "the client went away before its ClientHello was whole")
            )
        if not self._entry.ended:
            self._registry.leave(self._entry)
        self._finish()

    def readConnectionLost(self) -> None:
        """The client's TCP will bring no more."""
        assert self.transport is not None
        no_more(self._tls, self.transport)

    def writeConnectionLost(self) -> None:
        """Not called: no direction of TCP is ended alone."""

    def _pass_on(self, hello: ClientHello) -> None:
        factory = self._choice.choose(hello.server_name)
        if factory is None:
            name = "no server name" if hello.server_name is None else "a name no server declares"
            self._refuse(
                NoClientHello(
                    Reason.UNKNOWN_SERVER_NAME,
                    f"the client asked for {name}",
                    Alert.UNRECOGNIZED_NAME,
                ),
                hello.server_name,
            )
            return
        self._stop_timing()
        received, self._reader = bytes(self._reader.received), ClientHelloReader()
        assert self.transport is not None
        self._tls = factory.arrive(self._entry, hello=hello)
        if self._tls is None:
            # A limit of the server keeps it out.
            self.transport.loseConnection()
            return
        self._finish()
        self._tls.makeConnection(self.transport)
        self._tls.dataReceived(received)

    def _refuse(self, outcome: NoClientHello, server_name: str | None = None) -> None:
        assert self.transport is not None
        self._end(Rejection(outcome.reason, outcome.detail), server_name)
        if outcome.alert is not None:
            self.transport.write(alert_record(outcome.alert))
        self.transport.loseConnection()

    def _timed_out(self) -> None:
        self._end(
            Rejection(
                Reason.HANDSHAKE_TIMEOUT,
                f"no whole ClientHello after {self._choice.handshake_timeout:g} s",
            )
        )
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def _end(self, rejection: Rejection, server_name: str | None = None) -> None:
        self._stop_timing()
        self._registry.reject(
            self._entry,
            rejection,
            server_name=None if server_name is None else printable(server_name),
            received=self._received,
        )

    def _stop_timing(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None
