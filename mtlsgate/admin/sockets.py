"""
Binds the sockets of the admin endpoint.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory

from mtlsgate.errors import GateError
from mtlsgate.gate.listener import BoundSocket, Listener
from mtlsgate.load.addresses import BACKLOG, HostError, SocketAddress
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.observe.owner import NOBODY_ELSE, Owner
from mtlsgate.run.sockets import PlainSocket, bind_tcp
from mtlsgate.run.unix_sockets import UnixSocketError, listen_on_unix

#: The mode of the unix socket: only its owner may connect.
MODE = 0o600


class AdminListenError(GateError):
    """The admin endpoint cannot listen; the text says why in one line."""


@frozen(eq=False)
class Taken:
    """
    A bound socket that no reactor serves yet.

    :ivar place: a socket's path, or an address.
    """

    place: Path | SocketAddress
    _bound: BoundSocket = field(repr=False)

    def listen(self, factory: IProtocolFactory, reactor: Any) -> IListeningPort:
        """:returns: the port, which now owns the socket."""
        port = Listener(str(self.place), self._bound, _Site(factory), reactor)
        factory.doStart()
        port.startListening()
        return port

    def give_back(self) -> None:
        """Listen no more."""
        self._bound.close()


def take(
    endpoint: AdminEndpoint | None,
    but: frozenset[object] = frozenset(),
    owner: Owner = NOBODY_ELSE,
) -> tuple[Taken, ...]:
    """
    :param but: places that are bound already.
    :param owner: owns a unix socket's file.
    :returns: a listening socket for each place of the endpoint.
    :raises AdminListenError: if one cannot be had; the others are given back.
    """
    if endpoint is None:
        return ()
    taken: list[Taken] = []
    try:
        for place in endpoint.places:
            if place in but:
                continue
            if isinstance(place, Path):
                bound = listen_on_unix(place, MODE, BACKLOG, owner, takeover=endpoint.takeover)
                taken.append(Taken(place, bound))
            else:
                taken.append(Taken(place, PlainSocket(bind_tcp(place))))
    except (UnixSocketError, HostError) as error:
        for one in taken:
            one.give_back()
        raise AdminListenError(f"admin: {error}") from error
    return tuple(taken)


@frozen(eq=False)
class _Site:
    """
    Takes connections for a factory of Twisted's, on transports of Twisted's.

    :ivar factory: which.
    """

    factory: IProtocolFactory

    def accept(
        self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: Any
    ) -> object | None:
        """Hand a socket to a protocol of the factory, if it wants it."""
        sock.setblocking(False)
        with sock:
            # It gets a copy.
            connection: object = reactor.adoptStreamConnection(
                sock.fileno(), sock.family, self.factory
            )
        return connection

    def stop(self) -> None:
        """No more connections come."""
        self.factory.doStop()
