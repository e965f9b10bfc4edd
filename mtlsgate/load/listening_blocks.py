"""
Builds everything that listens: the servers and the client gates of one load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from attrs import frozen
from twisted.internet.protocol import Factory

from mtlsgate.config import Located, model
from mtlsgate.config.material import looks_like_material
from mtlsgate.errors import Report
from mtlsgate.load.address_conflicts import Occupant, names_elsewhere, refuse_overlaps
from mtlsgate.load.addresses import HostError
from mtlsgate.load.applications import Application, ApplicationReader
from mtlsgate.load.authorizers import read_authorizer
from mtlsgate.load.clients import ClientReader, LoadedClient, ReadClient
from mtlsgate.load.event_loop import ChooseReactor, reactor_for
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.listen_addresses import Host, parse_host
from mtlsgate.load.reach import Reach, reach_of_client, reach_of_server
from mtlsgate.load.servers import LoadedServer, ServerBuilder, serve
from mtlsgate.text import quoted


@frozen
class ListeningBuilder:
    """
    Builds the servers and the client gates of one load.

    :ivar report: where problems go.
    :ivar files: reads the files that the blocks name.
    :ivar servers: builds the servers.
    :ivar applications: builds the applications behind them.
    :ivar clients: builds the client gates.
    :ivar choose_reactor: as for `mtlsgate.load.loading.load`.
    :ivar now: likewise.
    :ivar offline: likewise.
    :ivar takeover: whether two gates may listen on the same addresses.
    :ivar is_shadow: whether to build neither applications nor authorizers.
    """

    report: Report
    files: CertificateFiles
    servers: ServerBuilder
    applications: ApplicationReader
    clients: ClientReader
    choose_reactor: ChooseReactor
    now: Callable[[], datetime]
    offline: bool
    takeover: bool
    is_shadow: bool = False

    def all(
        self,
        servers: Sequence[model.Server],
        clients: Sequence[model.Client],
        settings: model.Settings,
    ) -> tuple[list[LoadedServer | None], list[LoadedClient | None], list[Reach]]:
        """:returns: servers and client gates, None for one in error; and what they reach."""
        hosts = [self.hosts(server) for server in servers]
        read = self.read_clients(clients)
        if not self.offline:
            occupants = map(Occupant.of_server, servers)
            others = [(one.occupant, one.written) for one in read]
            refuse_overlaps([*zip(occupants, hosts, strict=True), *others], self.report)
        elsewhere = names_elsewhere(list(zip(servers, hosts, strict=True)))
        protocols = [self.applications.read(server.protocol) for server in servers]
        reactor = reactor_for(settings, protocols, self.choose_reactor, self.report)
        build = _no_application if self.is_shadow else self.applications.build_for
        built = [
            self._server(
                server,
                tuple(host for host in found if host is not None),
                settings,
                None if protocol is None else partial(build, server, protocol, reactor, names),
            )
            for server, found, protocol, names in zip(
                servers, hosts, protocols, elsewhere, strict=True
            )
        ]
        reach = [
            reach_of_server(server.model, protocol, self.files.directory)
            for server, protocol in zip(built, protocols, strict=True)
            if server is not None and protocol is not None
        ]
        gates = [self.clients.build(one, settings, reactor) for one in read]
        reach += [reach_of_client(one) for one, gate in zip(read, gates, strict=True) if gate]
        return built, gates, reach

    def read_clients(self, clients: Sequence[model.Client]) -> list[ReadClient]:
        """:returns: the client gates that are not in error so far."""
        read = (self.clients.read(client, self._parse) for client in clients)
        return [one for one in read if one is not None]

    def _server(
        self,
        server: model.Server,
        hosts: tuple[Host, ...],
        settings: model.Settings,
        build: Callable[[], Application | None] | None,
    ) -> LoadedServer | None:
        """
        :param build: builds its application; None if its ``protocol`` is in error.
        """
        errors_before = len(self.report.errors)
        authorizer = None
        if not self.is_shadow:
            authorizer = read_authorizer(server, self.files.directory, self.report)
        gate = self.servers.gate(server, hosts, settings, authorizer)
        application = None if build is None else build()
        if len(self.report.errors) != errors_before or gate is None or application is None:
            return None
        return serve(gate, hosts, application, self.now, self.report)

    def hosts(self, server: model.Server) -> tuple[Host | None, ...]:
        """:returns: where a server listens; None for a wrong entry."""
        return tuple(self.host(host, server.heading) for host in server.hosts)

    def host(self, host: Located[str], where: str) -> Host | None:
        """:returns: an entry of ``hosts``; None if the report says what is wrong."""
        try:
            return self._parse(host.value)
        except HostError as error:
            name = "this" if looks_like_material(host.value) else quoted(host.value)
            self.report.error(host.at, where, f"hosts: {name}: {error}")
            return None

    def _parse(self, text: str, **options: int) -> Host:
        return parse_host(text, offline=self.offline, takeover=self.takeover, **options)


def _no_application(*_: object) -> Application:
    """:returns: what takes the place of an application where no client comes."""
    return Application(Factory())
