"""
Addresses: which there are, taking them, and what stands at each.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Container, Iterable, Sequence

from attrs import field, frozen
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.certificates.server_names import NameTable, first_by_name
from mtlsgate.errors import GateError
from mtlsgate.gate.behind_proxy import behind_proxies
from mtlsgate.gate.by_server_name import DispatchingFactory, ServerChoice
from mtlsgate.gate.factory import GateFactory
from mtlsgate.gate.judging import Judging
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.registry import Registry
from mtlsgate.gate.terms import Terms
from mtlsgate.load.epoch import Epoch, LoadedServer
from mtlsgate.load.listen_addresses import HostError, SocketAddress, adopt, endpoint_of

_log = Logger("mtlsgate.listening")


class ListenError(GateError):
    """A server that cannot listen where it should, in one line."""


@frozen
class Place:
    """
    One address, or endpoint, of an epoch.

    :ivar key: what it is called in the configuration; of port 0, each has its own.
    :ivar address: where.
    :ivar servers: that listen there; several share it by their names.
    """

    key: str
    address: SocketAddress | str
    servers: tuple[LoadedServer, ...]
    _by_name: NameTable[LoadedServer] = field(init=False, repr=False, eq=False)

    @_by_name.default
    def _names(self) -> NameTable[LoadedServer]:
        return first_by_name(
            ([name.value for name in server.model.server_names], server) for server in self.servers
        )

    @property
    def is_shared(self) -> bool:
        """Whether the name that a client asks for chooses the server."""
        return any(server.model.server_names for server in self.servers)

    @property
    def otherwise(self) -> LoadedServer | None:
        """The server for names that none declares, and for no name."""
        if not self.is_shared:
            return self.servers[0]
        return next((one for one in self.servers if one.model.default_server), None)

    def choose(self, server_name: str | None) -> LoadedServer | None:
        """:returns: the server for a client that asks for that name."""
        return self._by_name.find(server_name) or self.otherwise


def places_of(epoch: Epoch) -> tuple[Place, ...]:
    """:returns: every address and endpoint, with the servers that share it."""
    found: dict[str, tuple[SocketAddress | str, list[LoadedServer]]] = {}
    for server in epoch.servers:
        for host in server.hosts:
            for address in host.addresses or (host.text,):
                key = str(address)
                if isinstance(address, SocketAddress) and address.port == 0:
                    key = f"{address}#{sum(other.startswith(key) for other in found) + 1}"
                found.setdefault(key, (address, []))[1].append(server)
    return tuple(Place(key, address, tuple(servers)) for key, (address, servers) in found.items())


@frozen
class Listener:
    """
    A place that is taken, and ready to listen.

    :ivar place: which.
    :ivar endpoint: listens there.
    """

    place: Place
    endpoint: IStreamServerEndpoint


def bind(epoch: Epoch, reactor: object, but: Container[str] = frozenset()) -> tuple[Listener, ...]:
    """
    Take every address before anything runs, so that one that is taken is a
    plain message to the person who starts the gate.

    :param but: the keys of places that are listened on already.
    :raises ListenError: if an address cannot be had; those that could be are
        given back.
    """
    bound: list[socket.socket] = []
    try:
        places = [place for place in places_of(epoch) if place.key not in but]
        for place in places:
            if isinstance(place.address, SocketAddress):
                bound.append(place.address.bind())
        sockets = iter(bound)
        return tuple(
            Listener(
                place,
                adopt(next(sockets), reactor)
                if isinstance(place.address, SocketAddress)
                else endpoint_of(place.address, reactor),
            )
            for place in places
        )
    except HostError as error:
        for one in bound:
            one.close()
        raise ListenError(f"{epoch.path}: {error}") from error


class Switch(Factory):
    """
    The factory that a port has for as long as it listens; behind it one epoch's
    follows another's.
    """

    noisy = False

    def __init__(
        self, current: IProtocolFactory, on_accept: Callable[[], object] = lambda: None
    ) -> None:
        """:param on_accept: is called for each connection."""
        self._current = current
        self._on_accept = on_accept

    def logPrefix(self) -> str:
        """:returns: what Twisted calls it in logs."""
        return "mtlsgate"

    def turn_to(self, factory: IProtocolFactory) -> None:
        """:param factory: whose connections are from now on; started."""
        before, self._current = self._current, factory
        try:
            before.doStop()
        except Exception:  # noqa: BLE001 -- a protocol's own; the gate goes on without it
            _log.failure("a protocol failed to stop")

    def startFactory(self) -> None:
        """Start what is behind it."""
        self._current.doStart()

    def stopFactory(self) -> None:
        """Stop what is behind it."""
        self._current.doStop()

    def buildProtocol(  # type: ignore[override]  # a factory of any protocol
        self, addr: IAddress | None
    ) -> IProtocol | None:
        """:returns: the protocol for a connection, by the epoch in force."""
        assert addr is not None
        self._on_accept()
        return self._current.buildProtocol(addr)


class Entrance:
    """
    What stands at a place while one epoch is in force.

    :ivar place: where.
    :ivar factory: takes connections there.
    :ivar gates: the factory of each server behind it.
    """

    def __init__(self, place: Place, registry: Registry, judging: Judging | None = None) -> None:
        """
        :param registry: where connections are accounted for.
        :param judging: what the epoch in force says; None if there is never another.
        """
        self.place = place
        self.gates = tuple(
            GateFactory(server.gate, registry.clock, registry, place.key, judging)
            for server in place.servers
        )
        self.factory = self._factory(registry)

    def _factory(self, registry: Registry) -> IProtocolFactory:
        place = self.place
        first, terms = place.servers[0], _terms_of(place.servers)
        name = str(place.address) if place.is_shared else first.gate.name
        timeout = max(server.gate.handshake_timeout for server in place.servers)
        factory: IProtocolFactory = self.gates[0]
        # Of a TLS 1.2 session OpenSSL tells the name that it was begun with, and
        # not the one asked for now, so where sessions resume it is read before.
        if place.is_shared or first.model.tls.resumption is not None:
            gates = dict(zip(map(id, place.servers), self.gates, strict=True))
            choice = ServerChoice(
                name,
                first_by_name(
                    ([one.value for one in server.model.server_names], gates[id(server)])
                    for server in place.servers
                ),
                None if place.otherwise is None else gates[id(place.otherwise)],
                timeout,
                place.key,
                terms,
            )
            factory = DispatchingFactory(choice, registry)
        # Before its header is read a connection is a proxy's, for whoever it may be.
        many = Terms(limits=Limits(max_handshakes=terms.limits.max_handshakes))
        return behind_proxies(factory, name, first.proxies, timeout, registry, place.key, many)


def _terms_of(servers: Sequence[LoadedServer]) -> Terms:
    """:returns: what holds where it is not known yet which of them will: no
    less than any of them allows.  The rate is counted when it is known."""
    limits = [server.gate.terms.limits for server in servers]
    return Terms(
        limits=Limits(
            max_handshakes=_total([one.max_handshakes for one in limits]),
            max_connections_per_ip=_total([one.max_connections_per_ip for one in limits]),
        )
    )


def _total(numbers: Sequence[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if len(known) == len(numbers) else None


def release(listeners: Iterable[Listener]) -> None:
    """
    Give addresses back.

    :param listeners: that do not listen, and will not.
    """
    for listener in listeners:
        descriptor = getattr(listener.endpoint, "fileno", None)
        if isinstance(descriptor, int):
            os.close(descriptor)


def listen(listener: Listener, switch: Switch) -> IListeningPort:
    """
    :returns: the port.
    :raises ListenError: if it cannot be had after all.
    """
    ports: list[IListeningPort] = []
    failures: list[Failure] = []
    listener.endpoint.listen(switch).addCallbacks(ports.append, failures.append)
    match ports, failures:
        case [port], []:
            return port
        case [], [failure]:
            where = listener.place.address
            raise ListenError(f"cannot listen on {where}: {failure.getErrorMessage()}")
        case _:
            raise TypeError(f"the endpoint {listener.place.address} does not listen at once")
