"""
The addresses of an epoch: binding them, and choosing the server at each.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Protocol

from attrs import field, frozen
from twisted.logger import Logger

from mtlsgate.acme.challenge import PendingChallenges
from mtlsgate.certificates.server_names import NameTable, first_by_name
from mtlsgate.clientgate.entrance import ClientEntrance
from mtlsgate.clientgate.entrance import Judging as ClientJudging
from mtlsgate.errors import GateError
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.judging import Judging as ServerJudging
from mtlsgate.gate.listener import BoundSocket
from mtlsgate.load.acme import all_wanted
from mtlsgate.load.addresses import Address, HostError, SocketAddress
from mtlsgate.load.clients import LoadedClient
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.listen_addresses import Host
from mtlsgate.load.servers import LoadedServer
from mtlsgate.run.sockets import Sockets, adapt
from mtlsgate.starttls import Negotiation

_log = Logger("mtlsgate.service")


class ListenError(GateError):
    """A server that cannot listen where it should, in one line."""


@frozen
class Place:
    """
    One address of an epoch.

    :ivar key: what it is called in the configuration; of port 0, each has its own.
    :ivar address: where.
    :ivar servers: that listen there; several share it by their names.
    """

    key: str
    address: Address
    servers: tuple[LoadedServer, ...]
    _by_name: NameTable[LoadedServer] = field(init=False, repr=False, eq=False)

    @_by_name.default
    def _names(self) -> NameTable[LoadedServer]:
        return first_by_name(
            ([name.value for name in server.model.server_names], server) for server in self.servers
        )

    @property
    def occupants(self) -> tuple[LoadedServer, ...]:
        """Who listens there."""
        return self.servers

    @property
    def is_shared(self) -> bool:
        """Whether the server depends on the name that a client asks for."""
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


@frozen
class ClientPlace:
    """
    One address of an epoch, with a client gate behind it.

    :ivar key: as for `Place`.
    :ivar address: where.
    :ivar client: the client gate that listens there.
    """

    key: str
    address: Address
    client: LoadedClient

    is_shared = False

    @property
    def occupants(self) -> tuple[LoadedClient, ...]:
        """Who listens there."""
        return (self.client,)


AnyPlace = Place | ClientPlace


def places_of(epoch: Epoch, key_of: Callable[[Address], str] = str) -> tuple[AnyPlace, ...]:
    """
    :param key_of: gives an address its key.
    :returns: every address, with the servers that share it or the client gate.
    """
    found: dict[str, tuple[Address, list[LoadedServer]]] = {}
    clients: dict[str, ClientPlace] = {}
    owners = [one for one in listening_in(epoch) for host in one.hosts for _ in host.addresses]
    for (key, address), owner in zip(keyed(hosts_of(epoch), key_of), owners, strict=True):
        if isinstance(owner, LoadedClient):
            clients[key] = ClientPlace(key, address, owner)
        else:
            found.setdefault(key, (address, []))[1].append(owner)
    return (
        *(Place(key, address, tuple(servers)) for key, (address, servers) in found.items()),
        *clients.values(),
    )


def hosts_of(epoch: Epoch) -> list[Host]:
    """:returns: where servers listen, and then where client gates do."""
    return [host for one in listening_in(epoch) for host in one.hosts]


def listening_in(epoch: Epoch) -> Iterator[LoadedServer | LoadedClient]:
    """:returns: the servers, and then the client gates."""
    yield from epoch.servers
    yield from epoch.clients


def keyed(
    hosts: Iterable[Host], key_of: Callable[[Address], str] = str
) -> list[tuple[str, Address]]:
    """
    :param key_of: gives an address its key.
    :returns: the addresses of the hosts with their keys.  Each port 0 has its own.
    """
    found: list[tuple[str, Address]] = []
    for host in hosts:
        for address in host.addresses:
            key = key_of(address)
            if isinstance(address, SocketAddress) and address.port == 0:
                others = {other for other, _ in found if other.startswith(key)}
                key = f"{address}#{len(others) + 1}"
            found.append((key, address))
    return found


def bind(
    epoch: Epoch, sockets: Sockets, but: Container[str] = frozenset()
) -> dict[str, BoundSocket]:
    """
    Bind every address before anything runs, so that a problem is a plain message to
    whoever starts the gate.

    :param but: the keys of places that already have a listener.
    :returns: the sockets, by the keys of their places.
    :raises ListenError: if an address cannot be bound; the others are then released.
    """
    return bind_all(epoch.path, dict(keyed(hosts_of(epoch), sockets.key_of)), sockets, but)


def bind_all(
    config: str,
    addresses: Mapping[str, Address],
    sockets: Sockets,
    but: Container[str] = frozenset(),
) -> dict[str, BoundSocket]:
    """
    :param config: the configuration, for messages.
    :param addresses: by their keys.
    :param but: the keys of those that already have a listener.
    :returns: the sockets, by the keys of their places.
    :raises ListenError: if an address cannot be bound; the others are then released.
    """
    bound: dict[str, BoundSocket] = {}
    with ExitStack() as undo:
        for key, address in addresses.items():
            if key in but:
                continue
            try:
                bound[key] = taken = sockets.take_keyed(key, address)
            except HostError as error:
                raise ListenError(f"{config}: {error}") from error
            undo.callback(taken.close)
        undo.pop_all()
    return bound


def adapt_all(bound: Mapping[str, BoundSocket], addresses: Mapping[str, Address]) -> None:
    """Let sockets that are listened on already follow what their hosts say now."""
    for key, address in addresses.items():
        try:
            adapt(bound[key], address)
        except OSError as error:
            _log.error(
                "{place} stays as it is: {problem}",
                place=key,
                problem=error.strerror or str(error),
            )


def release(bound: Iterable[BoundSocket]) -> None:
    """Release sockets that nobody will listen on."""
    for one in bound:
        one.close()


def _negotiation(place: Place) -> Callable[[], Negotiation] | None:
    """:returns: begins the exchange before TLS; None if TLS begins at once."""
    dialect = place.servers[0].model.dialect
    if dialect is None:
        return None
    names = [name.value for server in place.servers for name in server.model.server_names]
    # A wildcard is no name to greet with.
    name = next((one for one in names if not one.startswith("*.")), "localhost")
    return partial(dialect.negotiate, name)


class Judging(ServerJudging, ClientJudging, Protocol):
    """Judges the connections of servers and of client gates."""


def entrance_at(
    place: AnyPlace, connections: Connections, judging: Judging | None = None
) -> Entrance | ClientEntrance:
    """
    :param connections: of the service.
    :param judging: judges by the epoch in force; None if the epoch never changes.
    :returns: the entrance at a place while an epoch is in force.
    """
    if isinstance(place, ClientPlace):
        return ClientEntrance(place.key, place.client.gate, connections, judging)
    return entrance_of(place, connections, judging)


def entrance_of(
    place: Place, connections: Connections, judging: ServerJudging | None = None
) -> Entrance:
    """
    :param connections: of the service.
    :param judging: judges by the epoch in force; None if the epoch never changes.
    :returns: the entrance of the servers at a place.
    """
    first, otherwise = place.servers[0], place.otherwise
    wanted = all_wanted(one.gate.context.policy for one in place.servers)
    return Entrance(
        place.key,
        str(place.address) if place.is_shared else first.gate.name,
        [
            ([name.value for name in server.model.server_names], server.gate)
            for server in place.servers
        ],
        connections,
        otherwise=None if otherwise is None else otherwise.gate,
        judging=judging,
        proxies=first.proxies,
        negotiate=_negotiation(place),
        # For a resumed TLS 1.2 session OpenSSL reports the name of its full handshake,
        # not the name asked for now.  So with resumption the hello is read before.
        reads_hello=place.is_shared or first.model.tls.resumption is not None,
        challenges=PendingChallenges.of(wanted) if wanted else None,
    )
