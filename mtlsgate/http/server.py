"""
The factory of HTTP connections: what all HTTP servers have in common.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from mtlsgate.certificates.server_names import first_by_name
from mtlsgate.http.authority import Asked
from mtlsgate.http.connection import HttpConnection
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.sides import ClientSide, Exchange, HttpClient
from mtlsgate.http.stages import HttpStage
from mtlsgate.interfaces import IProtocolEnvironment, IRetirable

_UNFINISHED = (HttpStage.FIRST, HttpStage.IDLE, HttpStage.HEAD, HttpStage.BODY)


@implementer(IProtocolNegotiationFactory, IRetirable)
class HttpServer(ServerFactory):
    """
    Makes connections, and an exchange of each of their requests.

    :ivar limits: what clients are held to.
    :ivar clock: the reactor.
    :ivar serves: whether a host is one of the server's names; None if it declares none.
    :ivar connections: those there are, the oldest first.
    :ivar retired: no more of them come, so that none should be kept.
    """

    noisy = False

    def __init__(
        self,
        limits: HttpLimits,
        clock: IReactorTime,
        serves: Callable[[str], bool] | None = None,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.serves = serves
        self.connections: dict[HttpConnection, None] = {}
        self.retired = False

    def acceptableProtocols(self) -> list[bytes]:
        """:returns: HTTP/1.1 alone, for reasons that the documentation gives."""
        return [b"http/1.1"]

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

    def buildProtocol(self, addr: IAddress | None) -> HttpConnection | None:
        """:returns: a connection; None if there are too many that are all at work."""
        limit = self.limits.connections
        if limit is not None and len(self.connections) >= limit and not self._make_room():
            return None
        return HttpConnection(self, addr)

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

    def opened(self, connection: HttpConnection) -> None:
        """A connection has come."""
        self.connections[connection] = None

    def closed(self, connection: HttpConnection) -> None:
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
