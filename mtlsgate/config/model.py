"""
The blocks of a configuration file, one frozen attrs class each.

The fields of a class are the attributes and blocks of its block: their names, types
and defaults.  ``problems`` checks what no annotation can say.  No I/O: files are named
here and read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import Factory, field, frozen

from mtlsgate.config.fields import (
    Duration,
    Located,
    label,
    position,
)
from mtlsgate.config.own_certificate import Acme, ServerCertificate, Values
from mtlsgate.config.registry import Registry
from mtlsgate.config.settings import Admin, Audit, Defaults, Log, Settings, VariableDefaults
from mtlsgate.config.tls import (
    ClientCertificate,
    ConditionBlock,
    DenyBlock,
    PinBlock,
    Tls,
)
from mtlsgate.config.tree import Body, labelled
from mtlsgate.errors import Position
from mtlsgate.starttls import DIALECTS, Dialect

__all__ = [
    "Acme",
    "Admin",
    "Audit",
    "Client",
    "ClientCertificate",
    "ConditionBlock",
    "Configuration",
    "Defaults",
    "DenyBlock",
    "Log",
    "PinBlock",
    "Protocol",
    "Registry",
    "Server",
    "ServerCertificate",
    "Settings",
    "Tls",
    "Values",
    "VariableDefaults",
]


@frozen(kw_only=True)
class Protocol:
    """
    :ivar name: which protocol plugin.
    :ivar body: its attributes, which only the plugin can judge.
    """

    name: str = label()
    at: Position = position()
    body: Body = field()


@frozen(kw_only=True)
class Server(Defaults):
    """
    :ivar label: the server's name in logs.
    :ivar hosts: where it listens.
    :ivar protocol: what verified connections are handed to.
    :ivar tls: who is let in.
    :ivar server_names: the names (SNI) that it answers to where servers share
        an address; ``*.`` in front stands for one label.
    :ivar default_server: whether it answers to every other name, and to none.
    :ivar authorize: what else decides on clients that the rules admit:
        ``package.module:attribute``, or the name of an entry point.
    :ivar authorize_timeout: how long an answer may take, in seconds.
    :ivar proxy_protocol: ``required`` if every connection begins with a PROXY header.
    :ivar trusted_proxies: the addresses and networks of the proxies.
    :ivar starttls: the protocol in which clients ask for TLS in plaintext first.
    """

    at: Position = position()
    label: str | None = label(default=None)
    hosts: tuple[Located[str], ...] = field()
    protocol: Protocol = field()
    tls: Tls = field()
    server_names: tuple[Located[str], ...] = ()
    default_server: bool = False
    authorize: Located[str] | None = None
    authorize_timeout: Duration | None = None
    proxy_protocol: Literal["required"] | None = None
    trusted_proxies: Values | None = None
    starttls: Literal["postgres", "smtp", "imap"] | None = None

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return labelled("server", self.label)

    @property
    def name(self) -> str:
        """The label, or else the first name or host."""
        # A server without either is in error, and still named while that is said.
        named = (*self.server_names, *self.hosts)
        return self.label or (named[0].value if named else "server")

    @property
    def dialect(self) -> Dialect | None:
        """How clients ask for TLS; None if it begins at once."""
        return None if self.starttls is None else DIALECTS[self.starttls]

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        yield from super().problems()
        if self.authorize_timeout is not None and self.authorize is None:
            yield "authorize_timeout", "authorize_timeout has no effect without authorize"
        if self.authorize is not None and self.tls.client_authentication == "none":
            yield (
                "authorize",
                'authorize is asked about verified clients: client_authentication = "none" '
                "has none",
            )
        if not self.hosts:
            yield "hosts", 'hosts is empty: name at least one address, as in ["*:8443"]'
        yield from self._proxy_problems()

    def _proxy_problems(self) -> Iterator[tuple[str | None, str]]:
        if self.proxy_protocol is None:
            if self.trusted_proxies is not None:
                yield (
                    "trusted_proxies",
                    'trusted_proxies has no effect without proxy_protocol = "required"',
                )
            return
        # Who connects to a unix socket is trusted.
        if not self.trusted_proxies and not all(
            host.value.startswith("unix:") for host in self.hosts
        ):
            yield (
                "proxy_protocol",
                "proxy_protocol needs trusted_proxies: name the addresses or networks of the "
                'proxies, as in ["10.0.0.0/8"]',
            )
        for host in self.hosts:
            if host.value.startswith("haproxy:"):
                yield (
                    "proxy_protocol",
                    "a haproxy: endpoint takes a PROXY header from anybody: listen without it",
                )


@frozen(kw_only=True)
class Client:
    """
    :ivar label: the client gate's name in logs.
    :ivar body: its attributes and blocks, which `mtlsgate.clientgate` reads.
    """

    at: Position = position()
    label: str = label()
    body: Body = field()

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return labelled("client", self.label)


@frozen(kw_only=True)
class Configuration:
    """
    A whole file.

    :ivar settings: what holds for all servers.
    :ivar defaults: what is assumed of the environment.
    :ivar admin: how the gate can be asked and told.
    :ivar registry: the stores of devices, in file order.
    :ivar server: the servers, in file order.
    :ivar client: the client gates, in file order.
    """

    settings: Settings = Factory(Settings)
    defaults: VariableDefaults | None = None
    admin: Admin | None = None
    registry: tuple[Registry, ...] = ()
    server: tuple[Server, ...] = ()
    client: tuple[Client, ...] = ()

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the file as a whole."""
        if not self.server and not self.client:
            yield None, "no server block, and no client block"
