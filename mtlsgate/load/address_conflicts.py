"""
Checks which servers may share an address, and which server has which name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from mtlsgate.admission.patterns import dns_pattern
from mtlsgate.certificates.server_names import canonical
from mtlsgate.config import Located, model
from mtlsgate.errors import Position, Report
from mtlsgate.load.addresses import Address, SocketAddress
from mtlsgate.load.listen_addresses import Host
from mtlsgate.text import quoted


def refuse_names(server: model.Server, report: Report) -> None:
    """Report invalid server names, and names that are listed twice."""
    seen: dict[str, Position] = {}
    for name in server.server_names:
        try:
            dns_pattern(name.value)
        except ValueError as error:
            report.error(name.at, server.heading, f"server_names: {quoted(name.value)} {error}")
            continue
        first = seen.setdefault(canonical(name.value), name.at)
        if first != name.at:
            report.error(
                name.at, server.heading, f"server_names: {quoted(name.value)} is listed twice"
            )


def refuse_same_names(configuration: model.Configuration, report: Report) -> None:
    """Report client gates that have the name of a server."""
    names = {server.name for server in configuration.server}
    for client in configuration.client:
        if client.label in names:
            text = "a server has this name: logs and metrics could not tell them apart"
            report.error(client.at, client.heading, text)


@frozen(eq=False)
class Occupant:
    """
    A server or a client gate, as far as addresses are concerned.

    :ivar heading: its block, as messages name it.
    :ivar hosts: where it listens, as written.
    :ivar server_names: the names that it answers to.
    :ivar is_default: whether it answers to every other name.
    :ivar proxies: whether a PROXY header is read, and from whom.
    :ivar starttls: how its clients ask for TLS, or None.
    :ivar is_server: whether it could share an address by names.
    """

    heading: str
    hosts: tuple[Located[str], ...]
    server_names: tuple[Located[str], ...] = ()
    is_default: bool = False
    proxies: tuple[str | None, frozenset[str]] = (None, frozenset())
    starttls: str | None = None
    is_server: bool = True

    @classmethod
    def of_server(cls, server: model.Server) -> Occupant:
        """:returns: the server as an occupant."""
        trusted = frozenset(one.value for one in server.trusted_proxies or ())
        return cls(
            server.heading,
            server.hosts,
            server.server_names,
            server.default_server,
            (server.proxy_protocol, trusted),
            server.starttls,
        )

    @property
    def before_tls(self) -> object:
        """What servers that share an address must agree on."""
        return self.proxies, self.starttls


@frozen
class _Use:
    """
    One address of one server.

    :ivar server: who listens there.
    :ivar host: the entry in ``hosts``.
    :ivar address: one of the addresses that the entry means.
    :ivar at: the position of the entry.
    """

    server: Occupant
    host: Host
    address: Address
    at: Position

    @property
    def group(self) -> int | str:
        """A port or a socket's name.  Only uses with the same group can clash."""
        address = self.address
        return address.port if isinstance(address, SocketAddress) else str(address)

    def clashes(self, other: _Use) -> bool:
        """:returns: whether the two cannot each have a socket."""
        one, two = self.address, other.address
        if isinstance(one, SocketAddress) and isinstance(two, SocketAddress):
            return one.overlaps(two)
        return str(one) == str(two)

    def __str__(self) -> str:
        if isinstance(self.address, SocketAddress):
            return str(self.address)
        return quoted(self.host.text)


class _Sharers:
    """
    The uses of one address.  Servers with names can share it.

    :ivar first: the first use.
    :ivar _nameless: the first use by a server without names.
    :ivar _default: the first use by a default server.
    :ivar _by_server: the first use by each server, by its identity.
    :ivar _by_name: the first use for each server name, canonical.
    """

    def __init__(self, first: _Use) -> None:
        self.first = first
        self._nameless: _Use | None = None
        self._default: _Use | None = None
        self._by_server: dict[int, _Use] = {}
        self._by_name: dict[str, _Use] = {}

    def add(self, use: _Use) -> None:
        """Add a use; it comes after all others in the file."""
        server = use.server
        if not server.server_names:
            self._nameless = self._nameless or use
        if server.is_default:
            self._default = self._default or use
        self._by_server.setdefault(id(server), use)
        for name in _canonical(server.server_names):
            self._by_name.setdefault(name, use)

    def suspects(self, use: _Use) -> Iterator[_Use]:
        """:returns: for each kind of problem the first use that may cause it."""
        server = use.server
        found = [self._nameless, self._by_server.get(id(server))]
        if not server.server_names or server.before_tls != self.first.server.before_tls:
            found.append(self.first)
        if server.is_default:
            found.append(self._default)
        found += map(self._by_name.get, _canonical(server.server_names))
        return (one for one in found if one is not None)


def refuse_overlaps(
    servers: Sequence[tuple[Occupant, tuple[Host | None, ...]]], report: Report
) -> None:
    """
    Report addresses that are used twice, unless servers share exactly the same address
    by their names.

    :param servers: all that listen, with the addresses of their hosts; None for a wrong
        entry.
    """
    taken: dict[int | str, dict[Address, _Sharers]] = {}
    for use in _uses(servers):
        group = taken.setdefault(use.group, {})
        others = [
            other
            for address, sharers in group.items()
            if use.clashes(sharers.first)
            for other in (sharers.suspects(use) if address == use.address else (sharers.first,))
        ]
        if others:
            problem = _problem(use, min(others, key=lambda one: one.at))
            report.error(use.at, use.server.heading, f"hosts: {use} {problem}")
        group.setdefault(use.address, _Sharers(use)).add(use)


def _uses(
    servers: Sequence[tuple[Occupant, tuple[Host | None, ...]]],
) -> Iterator[_Use]:
    for server, hosts in servers:
        for host, written in zip(hosts, server.hosts, strict=True):
            if host is not None:
                for address in host.addresses:
                    yield _Use(server, host, address, written.at)


def _problem(use: _Use, other: _Use) -> str:
    """:returns: why two servers cannot share an address."""
    there = f"line {other.at.line}, column {other.at.column}"
    mine, theirs = use.server, other.server
    may_share = mine.is_server and theirs.is_server
    if mine is theirs or use.address != other.address or not may_share:
        return f"is taken: see {there}"
    if mine.starttls != theirs.starttls:
        return (
            f"is read with another starttls: see {there}; servers that share an address must "
            "agree on it"
        )
    if mine.proxies != theirs.proxies:
        return (
            f"is read with another proxy_protocol or other trusted_proxies: see {there}; servers "
            "that share an address must agree on them"
        )
    if not (mine.server_names and theirs.server_names):
        return f"is taken: see {there}; servers that share an address need server_names each"
    if mine.is_default and theirs.is_default:
        return f"has a default_server already: see {there}"
    both = _canonical(mine.server_names) & _canonical(theirs.server_names)
    return f"has a server for {quoted(min(both))} already: see {there}"


def names_elsewhere(
    servers: Sequence[tuple[model.Server, tuple[Host | None, ...]]],
) -> list[tuple[str, ...]]:
    """
    :param servers: each server with the addresses of its hosts; None for a wrong entry.
    :returns: for each server the names that one of its wildcards matches, but that
        another server on the same address declares and so gets.
    """
    owners: dict[str, list[tuple[str, int]]] = {}
    places: list[set[str]] = []
    for number, (server, hosts) in enumerate(servers):
        found = [host for host in hosts if host is not None]
        places.append({str(one) for host in found for one in host.addresses})
        for name in _canonical(server.server_names):
            owners.setdefault(name.partition(".")[2], []).append((name, number))
    return [
        tuple(
            sorted(
                name
                for wildcard in _canonical(server.server_names)
                if wildcard.startswith("*.")
                for name, owner in owners[wildcard[2:]]
                if owner != number and places[owner] & places[number]
            )
        )
        for number, (server, _) in enumerate(servers)
    ]


def _canonical(names: Sequence[Located[str]]) -> set[str]:
    return {canonical(name.value) for name in names}
