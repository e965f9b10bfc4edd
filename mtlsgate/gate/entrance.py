"""
An entrance: one epoch's servers behind a listener.

A listener passes each accepted socket to its `Entrance`, which makes a
`mtlsgate.gate.connection.Connection` from it.  Several servers can share an address;
the name that a client asks for decides.  Proxies may stand in front of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from typing import Protocol

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from mtlsgate.certificates.server_names import first_by_name
from mtlsgate.gate.arriving import Challenges
from mtlsgate.gate.connection import Connection
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.judging import Judging
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.server import GateServer, Serving
from mtlsgate.gate.terms import Terms
from mtlsgate.starttls import Negotiation
from mtlsgate.tls.stream import StreamReactor

_log = Logger("mtlsgate")


class Trust(Protocol):
    """Knows which proxies are trusted."""

    def trusts(self, address: IAddress) -> bool:
        """:returns: whether this is a trusted proxy's address."""


class Entrance:
    """
    The servers of one listener, and the terms of connections whose server is not
    known yet.

    :ivar key: the listener's key: the address as written in the configuration.
    :ivar name: its name in logs while the server is not known.
    :ivar connections: of the service.
    :ivar judging: judges by the configuration in force; None if that never changes.
    :ivar proxies: the proxies that may send a PROXY header; None if no header is
        read.
    :ivar negotiate: begins the exchange in which a client asks for TLS; None if TLS
        begins at once.
    :ivar reads_hello: whether the ClientHello is read before TLS, to choose the
        server or to learn the name that a resumed session asks for.
    :ivar challenges: the names that a CA is about to validate; None if it never does.
    :ivar terms: the terms while the server is not known.  They are at least as
        wide as each server's.  The handshake rate is counted later.
    :ivar proxy_terms: the terms of a proxy whose header has not been read yet.
    :ivar handshake_timeout: the longest one of all servers.
    :ivar _early: how many connections have no server yet.
    :ivar _staying: the servers, by their `id`, whose applications another epoch goes on
        with.
    """

    def __init__(
        self,
        key: str,
        name: str,
        servers: Sequence[tuple[Sequence[str], GateServer]],
        connections: Connections,
        *,
        otherwise: GateServer | None = None,
        judging: Judging | None = None,
        proxies: Trust | None = None,
        negotiate: Callable[[], Negotiation] | None = None,
        reads_hello: bool = False,
        challenges: Challenges | None = None,
    ) -> None:
        """
        :param servers: each server with the names that it declares.
        :param otherwise: the server for any other name or no name; None refuses
            such clients.
        """
        self.key = key
        self.name = name
        self.connections = connections
        self.judging = judging
        self.proxies = proxies
        self.negotiate = negotiate
        self.reads_hello = reads_hello or challenges is not None
        self.challenges = challenges
        self.servers = tuple(server for _, server in servers)
        limits = [server.terms.limits for server in self.servers]
        most = _total([one.max_handshakes for one in limits])
        self.terms = Terms(
            limits=Limits(
                max_handshakes=most,
                max_connections_per_ip=_total([one.max_connections_per_ip for one in limits]),
                handshake_bytes=_largest([one.handshake_bytes for one in limits]),
            )
        )
        self.proxy_terms = Terms(limits=Limits(max_handshakes=most))
        self.handshake_timeout = max(server.handshake_timeout for server in self.servers)
        self._servings = {id(server): Serving(server) for server in self.servers}
        self._by_name = first_by_name(
            (names, self._servings[id(server)]) for names, server in servers
        )
        self._otherwise = None if otherwise is None else self._servings[id(otherwise)]
        self._early = 0
        self._is_stopping = False
        self._staying: frozenset[int] = frozenset()

    @classmethod
    def of(cls, server: GateServer, connections: Connections, key: str = "") -> Entrance:
        """:returns: an entrance with one server for all names."""
        return cls(key, server.name, [((), server)], connections, otherwise=server)

    @property
    def first(self) -> tuple[str, Terms]:
        """The server name and terms that a new connection starts with."""
        return self.known if self.proxies is None else (self.name, self.proxy_terms)

    @property
    def known(self) -> tuple[str, Terms]:
        """The server name and terms of a connection before its ClientHello, if its
        client's address is known."""
        if self.reads_hello or self._otherwise is None:
            return self.name, self.terms
        return self._otherwise.server.name, self._otherwise.server.terms

    def choose(self, server_name: str | None) -> Serving | None:
        """:returns: the server for the name that a client asks for, or None."""
        return self._by_name.find(server_name) or self._otherwise

    def start(self) -> None:
        """Start the applications of all servers; if one fails, start none."""
        with ExitStack() as undo:
            for serving in self._servings.values():
                serving.start()
                undo.callback(serving.stop)
            undo.pop_all()

    def stop(self, staying: Collection[object] = ()) -> None:
        """
        No more connections come.  Applications stop after their last connection.

        :param staying: the applications that another epoch goes on with.
        """
        self._staying = frozenset(
            id(server)
            for server in self.servers
            if any(server.application is one for one in staying)
        )
        self._is_stopping = True
        self._stop_if_alone()

    def began(self) -> None:
        """A connection without a server begins."""
        self._early += 1

    def finished(self) -> None:
        """A connection has got its server, or is over."""
        self._early -= 1
        self._stop_if_alone()

    def _stop_if_alone(self) -> None:
        if self._is_stopping and self._early == 0:
            self._is_stopping = False
            for key, serving in self._servings.items():
                serving.stop(is_staying=key in self._staying)

    def accept(
        self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: StreamReactor
    ) -> Connection | None:
        """
        Make a connection from an accepted socket.

        :param sock: the socket; it belongs to the connection from now on.
        :param peer: the address of the client or the proxy.
        :param host: this end's address.
        :param reactor: watches the socket.
        :returns: the connection; None if a limit keeps it out.
        """
        name, terms = self.first
        entry = self.connections.arrive(self.key, name, terms, peer)
        if entry is None:
            sock.close()
            return None
        connection = Connection(sock, reactor, peer, host, self, entry)
        self.connections.attach(entry, connection)
        connection.begin()
        return connection


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _largest(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return max(known) if len(known) == len(numbers) else None
