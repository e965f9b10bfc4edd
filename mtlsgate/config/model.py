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
    DurationOrZero,
    FileName,
    Located,
    Material,
    label,
    position,
)
from mtlsgate.config.tls import (
    ClientCertificate,
    ConditionBlock,
    PinBlock,
    ServerCertificate,
    Tls,
    Values,
)
from mtlsgate.config.tree import Body, labelled
from mtlsgate.errors import Position

__all__ = [
    "Admin",
    "Audit",
    "ClientCertificate",
    "ConditionBlock",
    "Configuration",
    "Defaults",
    "PinBlock",
    "Protocol",
    "Server",
    "ServerCertificate",
    "Settings",
    "Tls",
    "Values",
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


#: An attribute of both ``settings``, for all servers, and ``server``.
Number = int | None


@frozen(kw_only=True)
class Defaults:
    """
    What may stand in ``settings``, for all servers, and in a ``server``, for itself;
    None if it is not set.

    :ivar handshake_timeout: how long a client may take from connecting to the
        end of its handshake, in seconds.
    :ivar idle_timeout: how long a connection may be without a byte, in seconds.
    :ivar max_connections: clients at a time.
    :ivar max_connections_per_ip: connections at a time of one address.
    :ivar max_connections_per_identity: connections at a time with one leaf.
    :ivar max_handshakes: handshakes at a time.
    :ivar handshakes_per_second_per_ip: of one address, in the long run.
    :ivar handshake_bytes: what a client may send in its handshake.
    :ivar close_on_expiry: whether a connection ends with its client's
        certificate, or with its pin.
    :ivar on_reload: whether connections are judged again by a new
        configuration.
    :ivar revoke_grace: how long clients that it rejects may stay, in seconds.
    """

    handshake_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    max_connections: Number = None
    max_connections_per_ip: Number = None
    max_connections_per_identity: Number = None
    max_handshakes: Number = None
    handshakes_per_second_per_ip: float | None = None
    handshake_bytes: Number = None
    close_on_expiry: bool | None = None
    on_reload: Literal["judge", "keep"] | None = None
    revoke_grace: DurationOrZero | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        for name in _COUNTED:
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield name, f"{name} must be more than 0; leave it out for no limit"
        if self.handshake_bytes is not None and 0 < self.handshake_bytes < _LEAST_HANDSHAKE:
            yield (
                "handshake_bytes",
                f"handshake_bytes must be at least {_LEAST_HANDSHAKE}: a ClientHello and a "
                "short chain take as much",
            )


_COUNTED = (
    "max_connections",
    "max_connections_per_ip",
    "max_connections_per_identity",
    "max_handshakes",
    "handshakes_per_second_per_ip",
    "handshake_bytes",
)
#: In bytes.
_LEAST_HANDSHAKE = 4096


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
class Audit:
    """
    A file with one line for each event.

    :ivar file: which, relative to the configuration's directory.
    :ivar format: of its lines.
    """

    at: Position = position()
    file: Located[FileName] = field()
    format: Literal["json"] = "json"


@frozen(kw_only=True)
class Settings(Defaults):
    """
    :ivar environment: which ``environment`` blocks count, unless the environment
        variable MTLSGATE_ENVIRONMENT names another.
    :ivar watch: whether to load anew when a file changes that was read.
    :ivar drain_timeout: how long connections may go on when the gate is
        stopped, in seconds.
    :ivar quiet: whether the log says nothing of connections that come and go
        without a byte.
    :ivar audit: where to keep an audit log.
    """

    environment: str | None = None
    watch: bool = False
    drain_timeout: DurationOrZero = 10.0
    quiet: bool = False
    audit: Audit | None = None


@frozen(kw_only=True)
class Admin:
    """
    Where the gate can be asked how it is, and told what to do.

    :ivar listen: ``unix:/path``, or a loopback address with a port.
    :ivar token: what a client must present to come in over TCP.
    """

    at: Position = position()
    listen: Located[str] = field()
    token: Material | None = field(default=None, repr=False)


@frozen(kw_only=True)
class VariableDefaults:
    """
    :ivar environment_variables: what those are that are not set.
    """

    at: Position = position()
    environment_variables: dict[str, str] = Factory(dict)


@frozen(kw_only=True)
class Configuration:
    """
    A whole file.

    :ivar settings: what holds for all servers.
    :ivar defaults: what is assumed of the environment.
    :ivar admin: how the gate can be asked and told.
    :ivar server: the servers, in file order.
    """

    settings: Settings = Factory(Settings)
    defaults: VariableDefaults | None = None
    admin: Admin | None = None
    server: tuple[Server, ...] = field()
