"""
Builds the application behind a server: its protocol's factory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory

from mtlsgate.config import AlreadyReported, Misconfigured, model
from mtlsgate.config.decode import Decoder
from mtlsgate.config.tree import heading
from mtlsgate.interfaces import IGate, IProtocolNeeds, IProtocolPlugin
from mtlsgate.load.files import CertificateFiles
from mtlsgate.protocols import (
    PluginError,
    ProtocolEnvironment,
    find_plugin,
    no_gate,
)
from mtlsgate.spiffe.agents import Agents
from mtlsgate.upstream.state import TargetStates


@frozen
class Application:
    """
    The application that gets verified connections.

    :ivar factory: builds their protocols.
    """

    factory: IProtocolFactory

    @property
    def alpn(self) -> tuple[bytes, ...]:
        """The application protocols that it offers."""
        if IProtocolNegotiationFactory.providedBy(self.factory):
            return tuple(self.factory.acceptableProtocols())
        return ()


@frozen
class ReadProtocol:
    """
    A ``protocol`` block that was read.

    :ivar block: the block.
    :ivar plugin: its plugin.
    :ivar configuration: what the block says, as the plugin has it.
    """

    block: model.Protocol
    plugin: IProtocolPlugin
    configuration: Any

    @property
    def where(self) -> str:
        """The block as messages name it."""
        return heading("protocol", self.block.name)

    @property
    def needs_asyncio(self) -> bool:
        """Whether the gate must run on an asyncio event loop."""
        needs = IProtocolNeeds(self.plugin, None)
        return needs is not None and bool(needs.needs_asyncio(self.configuration))

    @property
    def runs_user_code(self) -> bool:
        """Whether it runs code that is not mtlsgate's in the gate's process."""
        needs = IProtocolNeeds(self.plugin, None)
        return needs is None or bool(needs.runs_user_code(self.configuration))

    @property
    def reads(self) -> tuple[str, ...]:
        """What it opens while it runs, as far as it says so."""
        needs = IProtocolNeeds(self.plugin, None)
        return () if needs is None else tuple(needs.reads(self.configuration))

    @property
    def connects_to(self) -> tuple[int, ...]:
        """The TCP ports that it connects to, as far as it says so."""
        needs = IProtocolNeeds(self.plugin, None)
        return () if needs is None else tuple(needs.connects_to(self.configuration))


class ApplicationReader:
    """
    Builds the applications of the servers of one load.

    :ivar decoder: reads the blocks.
    :ivar files: reads the files.
    :ivar gate: gives protocols the running gate.
    :ivar states: what is known of targets.
    :ivar agents: what SPIFFE agents have delivered.
    """

    def __init__(
        self,
        decoder: Decoder,
        files: CertificateFiles,
        gate: Callable[[], IGate] = no_gate,
        states: TargetStates | None = None,
        agents: Agents | None = None,
    ) -> None:
        self.decoder = decoder
        self.files = files
        self.gate = gate
        self.states = TargetStates() if states is None else states
        self.agents = Agents() if agents is None else agents
        self.report = decoder.report
        # A thousand servers may name the same plugin: find it only once.
        self._find_plugin = cache(find_plugin)

    def read(self, block: model.Protocol) -> ReadProtocol | None:
        """:returns: what a block says; None if the report says what is wrong."""
        where = heading("protocol", block.name)
        errors_before = len(self.report.errors)
        with self._reporting(block):
            plugin = self._find_plugin(block.name)
            configuration = self.decoder.decode(plugin.configuration, block.body, block.at, where)
            # An expression that cannot be read has already been reported.
            unread = any(one.where == where for one in self.report.errors)
            if configuration is None or unread or len(self.report.errors) != errors_before:
                return None
            return ReadProtocol(block, plugin, configuration)
        return None

    def build(
        self,
        protocol: ReadProtocol,
        server: str,
        reactor: Callable[[], object],
        server_names: tuple[str, ...] = (),
        client_authentication: str = "required",
        names_elsewhere: tuple[str, ...] = (),
        starttls: str | None = None,
    ) -> Application | None:
        """
        :param server: the server's name.
        :param reactor: returns the reactor for the plugin.
        :param server_names: the names that it declares.
        :param names_elsewhere: names that its wildcards match, but another server has.
        :param client_authentication: the value in its ``tls`` block.
        :param starttls: how its clients ask for TLS, or None.
        :returns: the application; None if the report says what is wrong.
        """
        environment = ProtocolEnvironment(
            server,
            self.files.directory,
            reactor,
            read_file=self.files.read_file,
            server_names=server_names,
            names_elsewhere=names_elsewhere,
            client_authentication=client_authentication,
            starttls=starttls,
            gate=self.gate,
            target_states=self.states,
            agents=self.agents,
        )
        with self._reporting(protocol.block):
            built = protocol.plugin.build(protocol.configuration, environment)
            if not IProtocolFactory.providedBy(built):
                raise PluginError(f"the plugin built a {type(built).__name__}, not a factory")
            application = Application(built)
            _ = application.alpn  # which may fail, too
            return application
        return None

    def build_for(
        self,
        server: model.Server,
        protocol: ReadProtocol,
        reactor: Callable[[], object],
        names_elsewhere: tuple[str, ...],
    ) -> Application | None:
        """:returns: the application of a server; None if the report says what is wrong."""
        names = tuple(name.value for name in server.server_names)
        asked = server.tls.client_authentication
        return self.build(
            protocol, server.name, reactor, names, asked, names_elsewhere, server.starttls
        )

    @contextmanager
    def _reporting(self, block: model.Protocol) -> Iterator[None]:
        """Report what a plugin raises."""
        where = heading("protocol", block.name)
        try:
            yield
        except AlreadyReported:
            pass
        except Misconfigured as error:
            self.report.error(error.at, where, error.text)
        except (PluginError, ValueError) as error:
            self.report.error(block.at, where, str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- a plugin may raise anything
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.report.error(block.at, where, f"the plugin failed to build: {text}")
