"""
What stands behind a listener while one epoch is in force.

A listener hands each socket that it accepts to its `Entrance`, which makes a
`mtlsgate.gate.connection.Connection` of it.  Several servers share an address by
the names that clients ask for; proxies may stand in front of them.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from mtlsgate.certificates.server_names import first_by_name
from mtlsgate.gate.connection import Connection
from mtlsgate.gate.judging import Judging
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.registry import Registry
from mtlsgate.gate.server import GateServer, Serving
from mtlsgate.gate.terms import Terms
from mtlsgate.tls.stream import StreamReactor

_log = Logger("mtlsgate")


class Trust(Protocol):
    """Which proxies may say for whom they connect."""

    def trusts(self, address: IAddress) -> bool:
        """:returns: whether a proxy is there."""


class Entrance:
    """
    The servers at one listener, and what comes before it is known whose a
    connection is.

    :ivar key: of the listener, as the configuration has it.
    :ivar name: what logs call it while the server is not known.
    :ivar registry: where connections are accounted for.
    :ivar judging: what the configuration in force says; None if there is never another.
    :ivar proxies: who may send a PROXY header; None where none is read.
    :ivar reads_hello: whether the ClientHello is read before TLS, to choose the
        server or to learn what name a resumed session is asked for.
    :ivar terms: what holds where the server is not known yet: no less than any of
        them allows.  The rate is counted when it is known.
    :ivar proxy_terms: what holds for a proxy before its header was read.
    :ivar handshake_timeout: the longest of any server.
    :ivar _early: how many connections have no server yet.
    """

    def __init__(
        self,
        key: str,
        name: str,
        servers: Sequence[tuple[Sequence[str], GateServer]],
        registry: Registry,
        *,
        otherwise: GateServer | None = None,
        judging: Judging | None = None,
        proxies: Trust | None = None,
        reads_hello: bool = False,
    ) -> None:
        """
        :param servers: each with the names that it declares.
        :param otherwise: the server for any other name and for none; None refuses
            these.
        """
        self.key = key
        self.name = name
        self.registry = registry
        self.judging = judging
        self.proxies = proxies
        self.reads_hello = reads_hello
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

    @classmethod
    def of(cls, server: GateServer, registry: Registry, key: str = "") -> Entrance:
        """:returns: the entrance of one server, for whatever name a client asks."""
        return cls(key, server.name, [((), server)], registry, otherwise=server)

    @property
    def first(self) -> tuple[str, Terms]:
        """As whose, and under which terms, a connection arrives."""
        if self.proxies is not None:
            return self.name, self.proxy_terms
        if self.reads_hello or self._otherwise is None:
            return self.name, self.terms
        return self._otherwise.server.name, self._otherwise.server.terms

    def choose(self, server_name: str | None) -> Serving | None:
        """:returns: the server for the name that a client asks for, or None."""
        return self._by_name.find(server_name) or self._otherwise

    def start(self) -> None:
        """Start the applications of all servers, or none if one of them fails to."""
        with ExitStack() as undo:
            for serving in self._servings.values():
                serving.start()
                undo.callback(serving.stop)
            undo.pop_all()

    def stop(self) -> None:
        """No more connections come.  Applications end after their last connection."""
        self._is_stopping = True
        self._stop_if_alone()

    def began(self) -> None:
        """A connection begins, and has no server yet."""
        self._early += 1

    def finished(self) -> None:
        """It has one, or is over."""
        self._early -= 1
        self._stop_if_alone()

    def _stop_if_alone(self) -> None:
        if self._is_stopping and self._early == 0:
            self._is_stopping = False
            for serving in self._servings.values():
                serving.stop()

    def accept(
        self, sock: socket.socket, peer: IAddress, host: IAddress, reactor: StreamReactor
    ) -> Connection | None:
        """
        Take a socket that was accepted.

        :param sock: it belongs to the connection from now on.
        :param peer: the other end's address: the client's, or a proxy's.
        :param host: this end's.
        :param reactor: watches the socket.
        :returns: the connection; None if a limit keeps it out.
        """
        name, terms = self.first
        entry = self.registry.arrive(self.key, name, terms, peer)
        if entry is None:
            sock.close()
            return None
        connection = Connection(sock, reactor, peer, host, self, entry)
        self.registry.attach(entry, connection)
        connection.begin()
        return connection


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def _largest(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return max(known) if len(known) == len(numbers) else None
