"""
Builds the application behind a server: its protocol's factory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory, IProtocolNegotiationFactory

from mtlsgate.config import AlreadyReported, Misconfigured, model
from mtlsgate.config.decode import Decoder
from mtlsgate.config.tree import heading
from mtlsgate.interfaces import IGate
from mtlsgate.load.files import CertificateFiles
from mtlsgate.protocols import (
    PluginError,
    ProtocolEnvironment,
    find_plugin,
    installed_reactor,
    no_gate,
)
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


class ApplicationReader:
    """
    Builds the applications of the servers of one load.

    :ivar decoder: reads the blocks.
    :ivar files: reads the files.
    :ivar reactor: the reactor for plugins; None means the installed one.
    :ivar gate: gives protocols the running gate.
    :ivar states: what is known of targets.
    """

    def __init__(
        self,
        decoder: Decoder,
        files: CertificateFiles,
        reactor: object | None = None,
        gate: Callable[[], IGate] = no_gate,
        states: TargetStates | None = None,
    ) -> None:
        self.decoder = decoder
        self.files = files
        self.reactor = reactor
        self.gate = gate
        self.states = TargetStates() if states is None else states
        self.report = decoder.report
        # A thousand servers may name the same plugin: find it only once.
        self._find_plugin = cache(find_plugin)

    def application(
        self,
        block: model.Protocol,
        server: str,
        server_names: tuple[str, ...] = (),
        client_authentication: str = "required",
        names_elsewhere: tuple[str, ...] = (),
    ) -> Application | None:
        """
        :param server: the server's name.
        :param server_names: the names that it declares.
        :param names_elsewhere: names that its wildcards match, but another server has.
        :param client_authentication: the value in its ``tls`` block.
        :returns: the application; None if the report says what is wrong.
        """
        where = heading("protocol", block.name)
        errors_before = len(self.report.errors)
        try:
            plugin = self._find_plugin(block.name)
            configuration = self.decoder.decode(plugin.configuration, block.body, block.at, where)
            # An expression that cannot be read has already been reported.
            unread = any(one.where == where for one in self.report.errors)
            if configuration is None or unread or len(self.report.errors) != errors_before:
                return None
            environment = self._environment(
                server, server_names, client_authentication, names_elsewhere
            )
            built = plugin.build(configuration, environment)
            if not IProtocolFactory.providedBy(built):
                raise PluginError(f"the plugin built a {type(built).__name__}, not a factory")
            application = Application(built)
            _ = application.alpn  # which may fail, too
            return application
        except AlreadyReported:
            return None
        except Misconfigured as error:
            self.report.error(error.at, where, error.text)
        except (PluginError, ValueError) as error:
            self.report.error(block.at, where, str(error))
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- a plugin may raise anything
            text = " ".join(f"{type(error).__name__}: {error}".split())
            self.report.error(block.at, where, f"the plugin failed to build: {text}")
        return None

    def _environment(
        self,
        server: str,
        server_names: tuple[str, ...],
        client_authentication: str,
        names_elsewhere: tuple[str, ...],
    ) -> ProtocolEnvironment:
        reactor = self.reactor
        return ProtocolEnvironment(
            server,
            self.files.directory,
            installed_reactor if reactor is None else lambda: reactor,
            read_file=self.files.read_file,
            server_names=server_names,
            names_elsewhere=names_elsewhere,
            client_authentication=client_authentication,
            gate=self.gate,
            target_states=self.states,
        )
