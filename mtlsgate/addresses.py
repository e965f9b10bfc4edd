"""
Which servers may listen where, and which answers to which name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import frozen

from mtlsgate.admission.patterns import dns_pattern
from mtlsgate.config import Located, model
from mtlsgate.errors import Position, Report
from mtlsgate.hosts import Host, SocketAddress
from mtlsgate.names import canonical
from mtlsgate.text import quoted


def refuse_names(server: model.Server, report: Report) -> None:
    """Report what cannot be a server name, and what stands there twice."""
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
                name.at, server.heading, f"server_names: {quoted(name.value)} stands there twice"
            )


@frozen
class _Use:
    """
    One address of one server.

    :ivar server: whose.
    :ivar host: the entry of ``hosts``.
    :ivar address: one of its TCP addresses, or None for an endpoint.
    :ivar at: where the entry stands.
    """

    server: model.Server
    host: Host
    address: SocketAddress | None
    at: Position

    @property
    def group(self) -> int | str:
        """Only uses of one group can clash: a port, or an endpoint."""
        return self.host.text if self.address is None else self.address.port

    def clashes(self, other: _Use) -> bool:
        """:returns: whether both cannot be listened on with a socket each."""
        if self.address is None or other.address is None:
            return self.address is other.address
        return self.address.overlaps(other.address)

    def __str__(self) -> str:
        return quoted(self.host.text) if self.address is None else str(self.address)


def refuse_overlaps(
    servers: Sequence[tuple[model.Server, tuple[Host | None, ...]]], report: Report
) -> None:
    """
    Report addresses that are taken twice, but for servers that share one and
    the same address by their names.

    :param servers: each with what its hosts mean, None where that is in error.
    """
    taken: dict[int | str, list[_Use]] = {}
    for use in _uses(servers):
        others = taken.setdefault(use.group, [])
        problem = next(
            (found for other in others if use.clashes(other) and (found := _problem(use, other))),
            None,
        )
        others.append(use)
        if problem is not None:
            report.error(use.at, use.server.heading, f"hosts: {use} {problem}")


def _uses(
    servers: Sequence[tuple[model.Server, tuple[Host | None, ...]]],
) -> Iterator[_Use]:
    for server, hosts in servers:
        for host, written in zip(hosts, server.hosts, strict=True):
            if host is not None:
                for address in host.addresses or (None,):
                    yield _Use(server, host, address, written.at)


def _problem(use: _Use, other: _Use) -> str | None:
    """:returns: why two servers cannot share what both listen on, or None."""
    there = f"line {other.at.line}, column {other.at.column}"
    mine, theirs = use.server, other.server
    if mine is theirs or use.address != other.address:
        return f"is taken: see {there}"
    if _proxies(mine) != _proxies(theirs):
        return (
            f"is read with another proxy_protocol or other trusted_proxies: see {there}; servers "
            "that share an address must agree on them"
        )
    if not (mine.server_names and theirs.server_names):
        return f"is taken: see {there}; servers that share an address need server_names each"
    if mine.default_server and theirs.default_server:
        return f"has a default_server already: see {there}"
    both = _canonical(mine.server_names) & _canonical(theirs.server_names)
    if both:
        return f"has a server for {quoted(min(both))} already: see {there}"
    return None


def _proxies(server: model.Server) -> tuple[str | None, set[str]]:
    return server.proxy_protocol, {one.value for one in server.trusted_proxies or ()}


def _canonical(names: Sequence[Located[str]]) -> set[str]:
    return {canonical(name.value) for name in names}
