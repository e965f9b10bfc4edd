"""
Who talks to whom about one request.

A connection reads requests and makes an `Exchange` of each.  The exchange answers through
its `ClientSide`, which frames the response as the client's version of HTTP has it.  Neither
knows more of the other than is here: an exchange can forward to a target, or run an
application; a client's side can be a connection, or one stream of several on it.

::

    client  ──►  connection  ── data, end, broken, client_slow, lost ──►  exchange
    client  ◄──  connection  ◄── interim, respond, send, finish, … ─────  exchange
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.interfaces import IAddress, IReactorTime, ITransport
from twisted.python.failure import Failure

from mtlsgate.http.authority import Asked
from mtlsgate.http.fields import Line
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.stages import HttpStage
from mtlsgate.interfaces import ITlsFacts, IVerifiedPeer


@frozen(eq=False)
class HttpClient:
    """
    The client of a connection.

    :ivar address: where it connects from.
    :ivar tls: what its handshake agreed on; None without TLS.
    :ivar transport: its connection, for what HTTP has no words for.
    """

    address: IAddress
    tls: ITlsFacts | None
    transport: ITransport

    @property
    def peer(self) -> IVerifiedPeer | None:
        """Who it is now; None where the server asks for no certificate.  The rule that admits
        it, and what a registry knows of it, may change while it is connected."""
        peer: IVerifiedPeer | None = IVerifiedPeer(self.transport, None)
        return peer

    @property
    def server_name(self) -> str | None:
        """The name that its TLS asked for, or None."""
        return None if self.tls is None else self.tls.server_name


def client_of(transport: Any, address: IAddress | None) -> HttpClient:
    """
    :param address: where it connects from; by default what the transport says.
    :returns: the client at the other end of a transport.
    """
    where = transport.getPeer() if address is None else address
    return HttpClient(where, ITlsFacts(transport, None), transport)


class Exchange(Protocol):
    """One request and its response, as the client's side sees it."""

    def start(self) -> None:
        """Begin: from now on the client's side takes a response."""

    def data(self, data: bytes) -> None:
        """A piece of the request's body came; after `ClientSide.switch`, any bytes."""

    def end(self, trailers: Iterable[Line]) -> None:
        """The request is complete."""

    def broken(self, refusal: Refusal) -> None:
        """The rest of the request cannot be read, or does not come.  The exchange answers
        with `ClientSide.refuse`, or ends its response with `ClientSide.abandon`."""

    def client_slow(self, slow: bool) -> None:
        """The client takes no more of the response for now, or does again."""

    def lost(self, cause: str, reason: Failure) -> None:
        """The client is gone, or was given up: nothing can be said any more."""


class ClientSide(Protocol):
    """The client's side of one request, as an exchange sees it."""

    @property
    def client(self) -> HttpClient:
        """Who it is."""

    @property
    def complete(self) -> bool:
        """Whether all of the request was read."""

    def interim(self, status: int, reason: bytes, lines: Iterable[Line]) -> None:
        """Send an interim response, if the client can read one."""

    def respond(
        self,
        status: int,
        reason: bytes,
        lines: Iterable[Line],
        *,
        last: bool = False,
        empty: bool = False,
    ) -> None:
        """
        Begin the final response.

        :param lines: its fields, none of which is of one connection only.  Without
            ``Content-Length`` the body's end is marked by what frames it.
        :param last: whether no other request is wanted on the connection.
        :param empty: whether it is known that neither body nor trailers follow.  gRPC takes
            a head that is the end for another thing than one that an empty body follows.
        :raises Refusal: if it is no answer to such a request; nothing was sent.
        """

    def send(self, data: bytes) -> None:
        """Send a piece of the response's body; after `switch`, any bytes."""

    def finish(self, trailers: Iterable[Line] = ()) -> None:
        """The response is complete."""

    def refuse(self, refusal: Refusal) -> None:
        """Answer in one line, and with that complete the response."""

    def abandon(self) -> None:
        """The response breaks off: let the client see that."""

    def cut(self) -> None:
        """The response breaks off at once, also what waits of it.  The exchange hears
        afterwards that the client is gone."""

    def pause_body(self) -> None:
        """Read no more of the request's body for now."""

    def resume_body(self) -> None:
        """Read on."""

    def switch(self, reason: bytes, lines: Iterable[Line]) -> bytes:
        """
        Answer 101, or what stands for it, and pass all further bytes as they are.

        :returns: what the client sent already.
        :raises Refusal: if the target's answer does not agree to the protocol.
        """


class ClientConnection(Protocol):
    """A client's connection of any version, as its server sees it."""

    client: HttpClient
    stage: HttpStage

    def retire(self) -> None:
        """End as soon as nothing is underway."""

    def cut(self) -> None:
        """End at once."""


class Owner(Protocol):
    """The server that a connection belongs to."""

    limits: HttpLimits
    clock: IReactorTime
    serves: Callable[[str], bool] | None
    retired: bool
    #: Whether clients may ask for WebSockets.
    websockets: bool

    def opened(self, connection: ClientConnection) -> None:
        """A connection has come."""

    def closed(self, connection: ClientConnection) -> None:
        """A connection is over."""

    def exchange(self, head: RequestHead, asked: Asked, side: ClientSide) -> Exchange:
        """
        :returns: what answers the request, once it is started.
        :raises Refusal: if nothing does.
        """

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """A request, or what could not be read as one, was refused before its exchange."""
