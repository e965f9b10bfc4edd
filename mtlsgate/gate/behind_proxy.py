"""
Registry that come by way of a proxy: the PROXY header before TLS.

The order is TCP, PROXY, TLS.  A `ProxiedFactory` stands in front of the
factory that does TLS.  Once a connection's header was read, its bytes go to
that factory's protocol directly, with nothing of this module in their way, on
a transport whose `getPeer` and `getHost` are what the header says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Structure
from typing import cast

from attrs import frozen
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from mtlsgate.admission import Rejection
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.lingering import ReadingFactory
from mtlsgate.gate.registry import Registry
from mtlsgate.gate.terms import Terms
from mtlsgate.gate.trusted_proxies import TrustedProxies
from mtlsgate.proxyprotocol import Header, HeaderReader
from mtlsgate.reasons import Reason
from mtlsgate.tls.half_closing import no_more, prompt


class Receiving(Structure):
    """A factory that takes connections that were taken elsewhere."""

    def arrive(self, entry: Entry, address: IAddress | None = None) -> IProtocol | None:
        """
        :param entry: the connection.
        :param address: the client's, if it turned out to be another.
        :returns: the protocol for it; None if a limit keeps it out.
        """

    def doStart(self) -> None: ...
    def doStop(self) -> None: ...


@frozen
class ProxyDoor:
    """
    What stands before an address that proxies connect to.

    :ivar name: what logs call the address.
    :ivar trusted: who may send a header.
    :ivar inner: the factory that does TLS.
    :ivar timeout: seconds for the header; what is left of them is for the rest
        of the handshake.
    :ivar place: the address, as the configuration has it.
    :ivar terms: what connections are held to of which no header was read yet.
    """

    name: str
    trusted: TrustedProxies
    inner: Receiving
    timeout: float
    place: str = ""
    terms: Terms = Terms()


class ProxiedFactory(ReadingFactory):
    """
    The factory to listen with where proxies connect.

    :ivar door: what stands there.
    :ivar registry: where its connections are accounted for.
    """

    noisy = False

    def __init__(self, door: ProxyDoor, registry: Registry) -> None:
        """:param registry: the same as those of the factory that does TLS."""
        self.door = door
        self.registry = registry

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return self.door.name

    def doStart(self) -> None:
        """Start the factory behind it."""
        self.door.inner.doStart()
        super().doStart()

    def stop_what_follows(self) -> None:
        """Stop the factory behind it."""
        self.door.inner.doStop()

    def buildProtocol(self, addr: IAddress | None) -> HeaderKeeper | None:
        """:returns: what reads the header of one connection; None if a limit
        keeps it out."""
        assert addr is not None
        door = self.door
        entry = self.registry.arrive(door.place, door.name, door.terms, addr)
        if entry is None:
            return None
        self.begin()
        return HeaderKeeper(door, self.registry, entry, self.finish)


@implementer(IHalfCloseableProtocol)
class HeaderKeeper(Protocol):
    """
    Reads a connection's PROXY header, and then makes room for TLS.

    :ivar _entry: the connection; its address is the other end's until a header
        says otherwise: the proxy's, where it is one.
    :ivar _timeout: ends the wait for the header; None once there is a verdict.
    :ivar _inner: what does TLS, once the header was read.
    """

    traffic = (0, 0)
    _received = 0
    _timeout: IDelayedCall | None = None
    _inner: IProtocol | None = None

    def __init__(
        self,
        door: ProxyDoor,
        registry: Registry,
        entry: Entry,
        finish: Callable[[], object],
    ) -> None:
        """:param finish: called once, when the connection is over or made room for TLS."""
        self._door = door
        self._finish = finish
        self._registry = registry
        self._entry = entry
        self._reader = HeaderReader()

    def connectionMade(self) -> None:
        """Turn away who is no proxy; give a proxy until the timeout."""
        assert self.transport is not None
        self._registry.attach(self._entry, self)
        if not self._door.trusted.trusts(self._entry.arrival.address):
            self._refuse(Reason.UNTRUSTED_PROXY, "it is not one of the trusted_proxies")
            return
        self._timeout = self._registry.clock.callLater(self._door.timeout, self._timed_out)

    def abortConnection(self) -> None:
        """End the connection at once."""
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def dataReceived(self, data: bytes) -> None:
        """Wait for the header."""
        if self._timeout is None:
            return
        self._received += len(data)
        outcome = self._reader.feed(data)
        if isinstance(outcome, Header):
            self._stop_timing()
            self._make_room(outcome)
        elif outcome is not None:
            self._refuse(Reason.PROXY_PROTOCOL_ERROR, outcome.detail)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Say that nobody came; not called once there is TLS to be told."""
        if self._timeout is not None:
            self._reject(Reason.PEER_GONE, "it went away before its PROXY header was whole")
        if not self._entry.ended:
            self._registry.leave(self._entry)
        self._finish()

    def readConnectionLost(self) -> None:
        """The TCP connection will bring no more."""
        assert self.transport is not None
        no_more(self._inner, self.transport)

    def writeConnectionLost(self) -> None:
        """Not called: no direction of TCP is ended alone."""

    def _make_room(self, header: Header) -> None:
        assert self.transport is not None
        transport: ITransport = self.transport
        client: IAddress | None = None
        if header.source is not None and header.destination is not None:
            client = header.source
            # It provides what that one does.
            proxied = ProxiedTransport(prompt(transport), client, header.destination)
            transport = cast(ITransport, proxied)
        self._inner = inner = self._door.inner.arrive(self._entry, client)
        if inner is None:
            transport.abortConnection()  # type: ignore[attr-defined]
            return
        rest, self._reader = self._reader.rest, HeaderReader()
        # What the connection has to say it says to its protocol, which stays
        # this object: whatever kind of transport it is, it need not know better.
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]
        self.connectionLost = inner.connectionLost  # type: ignore[method-assign,assignment]
        self._finish()
        inner.makeConnection(transport)
        if rest:
            inner.dataReceived(rest)

    def _timed_out(self) -> None:
        self._refuse(
            Reason.HANDSHAKE_TIMEOUT, f"no whole PROXY header after {self._door.timeout:g} s"
        )

    def _refuse(self, reason: Reason, detail: str) -> None:
        self._reject(reason, detail)
        assert self.transport is not None
        self.transport.abortConnection()  # type: ignore[attr-defined]

    def _reject(self, reason: Reason, detail: str) -> None:
        self._stop_timing()
        self._registry.reject(self._entry, Rejection(reason, detail), received=self._received)

    def _stop_timing(self) -> None:
        if self._timeout is not None and self._timeout.active():
            self._timeout.cancel()
        self._timeout = None


class ProxiedTransport:
    """
    A connection's transport, but for the addresses at its ends.
    """

    def __init__(self, transport: ITransport, peer: IAddress, host: IAddress) -> None:
        """
        :param transport: the connection's own.
        :param peer: the client's address.
        :param host: the address that the client connected to.
        """
        self._transport = transport
        self._peer = peer
        self._host = host
        directlyProvides(self, providedBy(transport))
        # What every byte goes through, bound here and not looked up each time.
        self.write = transport.write
        self.writeSequence = transport.writeSequence

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def getPeer(self) -> IAddress:
        """:returns: the client's address, as the proxy tells it."""
        return self._peer

    def getHost(self) -> IAddress:
        """:returns: the address that the client connected to, as the proxy tells it."""
        return self._host


def behind_proxies(
    factory: IProtocolFactory,
    name: str,
    trusted: TrustedProxies | None,
    timeout: float,
    registry: Registry,
    place: str = "",
    terms: Terms = Terms(),  # noqa: B008 -- immutable
) -> IProtocolFactory:
    """
    :param factory: what would listen.
    :param name: what logs call the address.
    :param trusted: who connects there; None where no header is read.
    :param timeout: seconds for the header.
    :param registry: where connections are accounted for.
    :param place: the address, as the configuration has it.
    :param terms: what connections are held to of which no header was read yet.
    :returns: the factory to listen with.
    """
    if trusted is None:
        return factory
    door = ProxyDoor(name, trusted, cast(Receiving, factory), timeout, place, terms)
    return ProxiedFactory(door, registry)
