"""
Where a gate's rules, certificates and terms come from: Python, or a file.

Both end in `Built`, through the same `ServerBuilder`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Protocol

from attrs import evolve, field, frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory

from mtlsgate.api.reading import BlockReader, PythonReport
from mtlsgate.config import Located, model
from mtlsgate.errors import NOWHERE, Problem, Report
from mtlsgate.load.addresses import HostError
from mtlsgate.load.applications import Application
from mtlsgate.load.authorizers import read_authorizer
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.expiry import expiries_of
from mtlsgate.load.fetches import fetches_of
from mtlsgate.load.files import CertificateFiles
from mtlsgate.load.listen_addresses import Host, parse_host
from mtlsgate.load.loading import load_gate
from mtlsgate.load.registries import RegistryReader
from mtlsgate.load.servers import GateParts, ServerBuilder, serve
from mtlsgate.load.state import KeptDocuments
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.spiffe.agents import Agents
from mtlsgate.text import quoted

#: What messages name, for a gate that no file describes.
PYTHON = "Gate"


@frozen
class Built:
    """
    A gate that is ready for an application.

    :ivar name: what messages name: the file, or that it is Python.
    :ivar parts: its rules, certificates and terms.
    :ivar hosts: where it listens by default.
    :ivar settings: the settings of the service.
    :ivar warnings: probable mistakes.
    :ivar now: returns the time to judge certificates by.
    :ivar agents: what SPIFFE agents have delivered.
    """

    name: str
    parts: GateParts
    hosts: tuple[str, ...]
    settings: model.Settings
    warnings: tuple[Problem, ...]
    now: Callable[[], datetime]
    agents: Agents = field(repr=False)

    def check(self) -> tuple[Problem, ...]:
        """
        :returns: all warnings.
        :raises ConfigError: if OpenSSL refuses the gate.
        """
        return self._served((), Factory()).warnings

    def epoch(self, hosts: tuple[str, ...], application: IProtocolFactory) -> Epoch:
        """
        :param hosts: where to listen.
        :param application: gets the verified connections.
        :raises ConfigError: if the gate cannot listen there.
        """
        report = PythonReport(self.name)
        found = []
        for host in hosts:
            try:
                found.append(parse_host(host))
            except HostError as error:
                report.error(NOWHERE, "", f"{quoted(host)}: {error}")
        server = evolve(self.parts.model, hosts=tuple(Located(host, NOWHERE) for host in hosts))
        for _, text in server.problems():
            report.error(NOWHERE, "", text)
        report.raise_errors()
        other = evolve(self, parts=evolve(self.parts, model=server))
        return other._served(tuple(found), application)  # noqa: SLF001 -- its own class's

    def _served(self, hosts: tuple[Host, ...], application: IProtocolFactory) -> Epoch:
        report = PythonReport(self.name) if self.name == PYTHON else Report(self.name)
        loaded = serve(self.parts, hosts, Application(application), self.now, report)
        report.raise_errors()
        assert loaded is not None
        return Epoch(
            self.name,
            (loaded,),
            self.settings,
            None,
            tuple(sorted({*self.warnings, *report.warnings})),
            tuple(expiries_of(loaded.gate.name, loaded.gate.context.policy, self.now())),
            fetches=fetches_of((loaded,), self.parts.state),
            registries=self.parts.registries,
        )


class Origin(Protocol):
    """The source that a gate is built from, and built again at a reload."""

    def build(self, now: Callable[[], datetime], kept: KeptDocuments, agents: Agents) -> Built:
        """
        :param kept: what was fetched.
        :param agents: what SPIFFE agents have delivered.
        :raises ConfigError: with every error.
        """


@frozen
class FromPython:
    """
    Values in Python.

    :ivar directory: where relative paths start.
    :ivar name: the server's name, for logs.
    :ivar certificate: one pair of certificate and key, or a list of them.
    :ivar rules: the rules for clients.
    :ivar options: further options by name, see `mtlsgate.api.values.GateOptions`.
    """

    directory: Path
    name: str
    certificate: object = field(repr=False)
    rules: object
    options: Mapping[str, object] = field(repr=False)

    def build(self, now: Callable[[], datetime], kept: KeptDocuments, agents: Agents) -> Built:
        """:raises ConfigError: with every error of the values and of the files."""
        report = PythonReport(PYTHON)
        reader = BlockReader(report)
        server = reader.server(self.name, self.certificate, self.rules, self.options)
        report.raise_errors()
        assert server is not None
        files = CertificateFiles(self.directory, report, {})
        settings = model.Settings()
        authorize = self.options.get("authorize")
        given = None if isinstance(authorize, str) else authorize
        authorizer = read_authorizer(server, self.directory, report, given)
        registries = RegistryReader(files, report)
        registries.read(reader.registries.values())
        builder = ServerBuilder(files, report, now, registries, kept, agents=agents)
        parts = builder.gate(server, (), settings, authorizer)
        files.refuse_own_in_directories()
        report.raise_errors()
        assert parts is not None
        return Built(PYTHON, parts, (), settings, tuple(report.warnings), now, agents)


@frozen
class FromFile:
    """
    One server of a configuration.

    :ivar paths: its files and directories, absolute.
    :ivar server: the server's name; None for the only one.
    """

    paths: tuple[str, ...]
    server: str | None

    def build(self, now: Callable[[], datetime], kept: KeptDocuments, agents: Agents) -> Built:
        """:raises ConfigError: with every error of the files and of that server."""
        surroundings = Surroundings(now=now, kept=kept, agents=agents)
        found = load_gate(self.paths, self.server, surroundings)
        hosts = tuple(host.value for host in found.parts.model.hosts)
        name, warnings = ", ".join(self.paths), found.warnings
        return Built(name, found.parts, hosts, found.settings, warnings, now, agents)
