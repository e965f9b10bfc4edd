"""
The factory of HTTP connections: what all HTTP servers have in common.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.certificates.server_names import first_by_name
from mtlsgate.http.authority import Asked
from mtlsgate.http.connection import HttpConnection
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.sides import ClientConnection, ClientSide, Exchange, HttpClient, Owner
from mtlsgate.http.stages import HttpStage
from mtlsgate.interfaces import IProtocolEnvironment, IRetirable

_UNFINISHED = (HttpStage.FIRST, HttpStage.IDLE, HttpStage.HEAD, HttpStage.BODY)


#: What makes the connections of each version, by the version's name in ALPN, the preferred
#: first.  A client that names none speaks HTTP/1.1.
Versions = Mapping[bytes, Callable[[Owner, IAddress | None], Protocol]]
HTTP_1 = b"http/1.1"
ONLY_HTTP_1: Versions = MappingProxyType({HTTP_1: HttpConnection})


class _Negotiated(Protocol):
    """
    A connection whose version is known when it is made.

    :ivar _connection: the one that it becomes.
    """

    transport: Any
    _connection: Protocol

    def __init__(self, server: HttpServer, address: IAddress | None) -> None:
        self._server = server
        self._address = address

    def connectionMade(self) -> None:
        """Become what ALPN chose."""
        versions = self._server.versions
        chosen = getattr(self.transport, "negotiatedProtocol", None)
        make = versions.get(chosen or HTTP_1, versions[HTTP_1])
        self._connection = make(self._server, self._address)
        self._connection.makeConnection(self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Pass on what comes."""
        self._connection.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass on that it is over."""
        self._connection.connectionLost(reason)


@implementer(IProtocolNegotiationFactory, IRetirable)
class HttpServer(ServerFactory):
    """
    Makes connections, and an exchange of each of their requests.

    :ivar limits: what clients are held to.
    :ivar clock: the reactor.
    :ivar serves: whether a host is one of the server's names; None if it declares none.
    :ivar connections: those there are, the oldest first.
    :ivar retired: no more of them come, so that none should be kept.
    :ivar versions: of HTTP that clients may choose from.
    :ivar websockets: whether HTTP/2 offers WebSockets.
    """

    noisy = False

    def __init__(
        self,
        limits: HttpLimits,
        clock: IReactorTime,
        serves: Callable[[str], bool] | None = None,
        *,
        versions: Versions = ONLY_HTTP_1,
        websockets: bool = False,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.serves = serves
        self.versions = versions
        self.websockets = websockets
        self.connections: dict[ClientConnection, None] = {}
        self.retired = False

    def acceptableProtocols(self) -> list[bytes]:
        """:returns: the versions."""
        return list(self.versions)

    def startFactory(self) -> None:
        """Keep connections."""
        self.retired = False

    def stopFactory(self) -> None:
        """Keep none any longer."""
        self.retire()

    def retire(self) -> None:
        """End each connection after what is underway on it (`IRetirable`)."""
        self.retired = True
        for connection in tuple(self.connections):
            connection.retire()

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """:returns: a connection; None if there are too many that are all at work."""
        limit = self.limits.connections
        if limit is not None and len(self.connections) >= limit and not self._make_room():
            return None
        if len(self.versions) == 1:
            return self.versions[HTTP_1](self, addr)
        return _Negotiated(self, addr)

    def _make_room(self) -> bool:
        """:returns: whether one could be ended: the oldest whose request is not complete,
        or else whose response is."""
        for stages in (_UNFINISHED, (HttpStage.ENDED,)):
            for connection in tuple(self.connections):
                if connection.stage in stages:
                    del self.connections[connection]
                    connection.cut()
                    return True
        return False

    def opened(self, connection: ClientConnection) -> None:
        """A connection has come."""
        self.connections[connection] = None

    def closed(self, connection: ClientConnection) -> None:
        """A connection is over."""
        self.connections.pop(connection, None)

    @abstractmethod
    def exchange(self, head: RequestHead, asked: Asked, side: ClientSide) -> Exchange:
        """
        :returns: what answers the request, once it is started.
        :raises Refusal: if nothing does.
        """

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """A request was refused before its exchange; log it here."""


def served_names(environment: IProtocolEnvironment) -> Callable[[str], bool] | None:
    """:returns: whether a host is one of the server's names; None if it declares none."""
    names = environment.server_names
    if not names:
        return None
    table = first_by_name([(environment.names_elsewhere, False), (names, True)])
    return lambda name: bool(table.find(name))
