"""
Loads a configuration file into an epoch.

`load` is the loader of both ``mtlsgate check`` and ``twistd mtlsgate``.  After an error
it goes on as far as possible, so that one run reports all problems.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import reduce
from operator import or_
from pathlib import Path

from attrs import frozen

from mtlsgate.clock import utc_now
from mtlsgate.config import model
from mtlsgate.config.assembly import Assembled, assemble
from mtlsgate.config.decode import Decoder
from mtlsgate.config.scope import Scope
from mtlsgate.errors import START, Problem, Report
from mtlsgate.interfaces import IGate
from mtlsgate.load.acme import all_wanted
from mtlsgate.load.address_conflicts import refuse_same_names
from mtlsgate.load.addresses import Address
from mtlsgate.load.admin_endpoint import AdminEndpoint, read_admin
from mtlsgate.load.applications import ApplicationReader
from mtlsgate.load.authorizers import read_authorizer
from mtlsgate.load.clients import ClientReader, LoadedClient, expiries_of_client
from mtlsgate.load.disk import DISK, FileSource
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.event_loop import ChooseReactor, any_reactor
from mtlsgate.load.expiry import Expiry, expiries_of
from mtlsgate.load.fetches import fetches_of
from mtlsgate.load.file_state import Stamp
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.further_problems import report_further_problems
from mtlsgate.load.listening_blocks import ListeningBuilder
from mtlsgate.load.outline import Outline
from mtlsgate.load.outputs import refuse_outputs
from mtlsgate.load.progress import note_if_slow
from mtlsgate.load.reach import (
    reach_of_acme,
    reach_of_fetches,
    reach_of_gate,
    reach_of_registries,
)
from mtlsgate.load.readiness import warn_of_readiness, warn_of_target_certificates
from mtlsgate.load.registries import RegistryReader
from mtlsgate.load.servers import GateParts, LoadedServer, ServerBuilder
from mtlsgate.load.sources import ConfigPaths, base_directory, names_of, read_sources
from mtlsgate.load.state import KeptDocuments
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.protocols import no_gate
from mtlsgate.spiffe.agents import Agents
from mtlsgate.text import quoted
from mtlsgate.upstream.state import TargetStates


def load(
    paths: ConfigPaths,
    environ: Mapping[str, str] = os.environ,
    now: Callable[[], datetime] = utc_now,
    *,
    offline: bool = False,
    say: Callable[[str], object] | None = None,
    seen: dict[Path, Stamp] | None = None,
    reactor: ChooseReactor = any_reactor,
    gate: Callable[[], IGate] = no_gate,
    source: FileSource = DISK,
    target_states: TargetStates | None = None,
    kept: KeptDocuments | None = None,
    agents: Agents | None = None,
) -> Epoch:
    """
    :param paths: the configuration files or directories of such files; relative paths
        in a file start at its directory.
    :param environ: the values of ``env.NAME``.
    :param now: returns the time to judge certificates by, here and in every handshake.
    :param offline: whether to look up no host names and open no sockets; the result
        cannot listen.
    :param say: prints a line of progress while many certificates are read; called from
        another thread.
    :param seen: gets the files and directories that were read or searched for, with
        their state at that time; also if the load fails.
    :param reactor: chooses the reactor that protocol plugins get; raises ValueError if
        the configuration wants an event loop that it cannot have.
    :param gate: gives protocols the running gate.
    :param source: has the files.
    :param target_states: what is known of targets; by default nothing is.
    :param kept: what was fetched; by default what is on disk.
    :param agents: what SPIFFE agents have delivered; by default nothing.
    :returns: everything that is needed to listen.
    :raises ConfigError: with every error in the configuration.
    """
    surroundings = Surroundings(
        environ=environ,
        now=now,
        source=source,
        reactor=reactor,
        gate=gate,
        target_states=TargetStates() if target_states is None else target_states,
        kept=kept,
        agents=Agents() if agents is None else agents,
    )
    with no_collection():
        return Loading(paths, surroundings, offline=offline, say=say, seen=seen).epoch()


@frozen
class LoadedGate:
    """
    The gate of one server, for an application in Python.

    :ivar parts: its rules, certificates and terms.
    :ivar settings: the settings for all servers of the file.
    :ivar warnings: probable mistakes; sorted by position.
    """

    parts: GateParts
    settings: model.Settings
    warnings: tuple[Problem, ...]


def load_gate(
    paths: ConfigPaths,
    server: str | None,
    surroundings: Surroundings,
) -> LoadedGate:
    """
    Load one server of a configuration, without its ``protocol`` and without the files
    of other servers.

    :param server: the server's name; None means the only server.
    :raises ConfigError: with every error in the file and of that server.
    """
    with no_collection():
        return Loading(paths, surroundings).gate(server)


@contextmanager
def no_collection() -> Iterator[None]:
    """Switch the garbage collector off while everything only grows.  With a hundred
    thousand pins it takes a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Loading:
    """
    One load of one configuration, in two steps: its text, and everything else.

    :ivar configuration: its text, decoded; None if that failed.
    :ivar report: where problems go.
    :ivar directory: where relative paths start.
    :ivar files: reads the files that the configuration names.
    :ivar listening: builds the servers and the client gates.
    """

    def __init__(
        self,
        paths: ConfigPaths,
        surroundings: Surroundings,
        *,
        offline: bool = False,
        say: Callable[[str], object] | None = None,
        seen: dict[Path, Stamp] | None = None,
        is_shadow: bool = False,
    ) -> None:
        """
        Read and decode the text.  The other parameters are those of `load`.

        :param is_shadow: whether to build neither applications nor authorizers, so that
            no code of a user's runs.
        """
        names = names_of(paths)
        seen = {} if seen is None else seen
        environ, now, agents = surroundings.environ, surroundings.now, surroundings.agents
        self.report = Report(", ".join(names))
        self.directory = base_directory(names[0], surroundings.source)
        self.files = CertificateFiles(self.directory, self.report, seen, surroundings.source)
        # Do not capture `self`: it would keep all files in memory until the next
        # garbage collection.
        directory, files = self.directory, self.files
        scope = Scope(environ, lambda name: files.read_file(directory / name))
        self._assembled = self._assemble(names, scope)
        if self._assembled is not None:
            scope = self._assembled.scope
        self._decoder = Decoder(scope, self.report)
        # Before anything of it is used: what comes meanwhile is newer.
        self._delivered = agents.version
        self._now = now
        self._say = say
        self.configuration = self._decode()
        self._registries = RegistryReader(self.files, self.report)
        self.listening = ListeningBuilder(
            self.report,
            self.files,
            ServerBuilder(
                self.files,
                self.report,
                now,
                self._registries,
                surroundings.kept,
                environ,
                agents,
            ),
            ApplicationReader(
                self._decoder, self.files, surroundings.gate, surroundings.target_states, agents
            ),
            ClientReader(self._decoder, self.files, now, surroundings.target_states, agents),
            surroundings.reactor,
            now,
            offline,
            self.configuration is not None and self.configuration.settings.takeover,
            is_shadow,
        )

    def _assemble(self, names: Sequence[str], scope: Scope) -> Assembled | None:
        """:returns: the files' content; None if the report says what is wrong."""
        sources = read_sources(names, self.files, self.report)
        if self.report.errors:
            return None
        return assemble(sources, scope, self.report)

    def epoch(self) -> Epoch:
        """:raises ConfigError: with every error in the configuration."""
        if self.configuration is None:
            self._report_further_problems()
        epoch = None if self.configuration is None else self._built(self.configuration)
        self.report.raise_errors()
        assert epoch is not None
        return epoch

    def gate(self, name: str | None) -> LoadedGate:
        """:raises ConfigError: with every error in the file and of that server."""
        decoded = self.configuration
        if decoded is None:
            self._report_further_problems()
        self.report.raise_errors()
        assert decoded is not None
        server = self._chosen(decoded.server, name)
        self.report.raise_errors()
        assert server is not None
        self.listening.servers.credentials.acme.refuse_in_python(server)
        hosts = self.listening.hosts(server)
        self._registries.read(decoded.registry)
        authorizer = read_authorizer(server, self.directory, self.report)
        found = tuple(host for host in hosts if host is not None)
        parts = self.listening.servers.gate(server, found, decoded.settings, authorizer)
        self.files.refuse_own_in_directories()
        self.report.raise_errors()
        assert parts is not None
        return LoadedGate(parts, decoded.settings, tuple(sorted(set(self.report.warnings))))

    def _chosen(self, servers: Sequence[model.Server], name: str | None) -> model.Server | None:
        found = [one for one in servers if name is None or one.name == name]
        if len(found) == 1:
            return found[0]
        names = ", ".join(quoted(one.name) for one in servers)
        text = "several servers" if name is None else f"no server {quoted(name)}"
        text = f"{text}: name one of {names}" if servers else "no server block"
        self.report.error(START, "configuration", text)
        return None

    def outline(self) -> Outline:
        """
        :returns: where to listen, and the settings.
        :raises ConfigError: with the errors of these and of the text.
        """
        decoded = self.configuration
        self.report.raise_errors()
        assert decoded is not None
        hosts = [host for one in decoded.server for host in self.listening.hosts(one)]
        for client in self.listening.read_clients(decoded.client):
            hosts += client.written
        found = tuple(host for host in hosts if host is not None)
        taken = [address for host in found for address in host.addresses]
        admin = None
        if decoded.admin is not None:
            admin = self._read_admin(decoded.admin, taken)
        self.report.raise_errors()
        return Outline(self.report.path, found, decoded.settings, admin)

    def _decode(self) -> model.Configuration | None:
        if self._assembled is None:
            return None
        body = self._assembled.body
        return self._decoder.decode(model.Configuration, body, START, "configuration")

    def _built(self, decoded: model.Configuration) -> Epoch:
        self._registries.read(decoded.registry)
        with note_if_slow(self._say, self.report.path):
            found = self.listening.all(decoded.server, decoded.client, decoded.settings)
        self._registries.warn_of_unused(decoded.registry)
        servers = tuple(server for server in found[0] if server is not None)
        clients = tuple(client for client in found[1] if client is not None)
        warn_of_readiness(decoded.settings, servers, clients, self.report)
        warn_of_target_certificates(servers, self._now(), self.report)
        refuse_same_names(decoded, self.report)
        self.files.refuse_own_in_directories()
        refuse_outputs(decoded.settings, self.files, self.report)
        admin = self._admin(decoded.admin, (*servers, *clients))
        listening: tuple[LoadedServer | LoadedClient, ...] = (*servers, *clients)
        hosts = (host for one in listening for host in one.hosts)
        fetches = fetches_of(servers, self.listening.servers.state(decoded.settings))
        wanted = all_wanted(one.gate.context.policy for one in servers)
        reach = reach_of_gate(decoded.settings, hosts, admin, self.directory)
        reach |= reach_of_registries(self._registries.found.values())
        return Epoch(
            self.report.path,
            servers,
            decoded.settings,
            admin,
            tuple(sorted(set(self.report.warnings))),
            tuple(self._expiries(servers, clients)),
            clients,
            fetches,
            reduce(or_, found[2], reach | reach_of_fetches(fetches) | reach_of_acme(wanted)),
            self._delivered,
            registries=tuple(self._registries.found.values()),
            wanted=wanted,
        )

    def _expiries(
        self, servers: Iterable[LoadedServer], clients: Iterable[LoadedClient]
    ) -> Iterator[Expiry]:
        for server in servers:
            yield from expiries_of(server.gate.name, server.gate.context.policy, self._now())
        for client in clients:
            yield from expiries_of_client(client)

    def _admin(
        self, block: model.Admin | None, listening: Iterable[LoadedServer | LoadedClient]
    ) -> AdminEndpoint | None:
        if block is None:
            return None
        hosts = [host for one in listening for host in one.hosts]
        taken = [address for host in hosts for address in host.addresses]
        return self._read_admin(block, taken)

    def _read_admin(self, block: model.Admin, taken: Iterable[Address]) -> AdminEndpoint | None:
        offline, takeover = self.listening.offline, self.listening.takeover
        return read_admin(block, self.files, self.report, taken, offline=offline, takeover=takeover)

    def _report_further_problems(self) -> None:
        if self._assembled is not None:
            report_further_problems(
                self._decoder.unplaced, self.listening, lambda block: self._admin(block, ())
            )
