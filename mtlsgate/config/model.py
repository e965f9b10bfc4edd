"""
The blocks of a configuration file, one frozen attrs class each.

What a block's attributes are called, which are required and what they default
to is read off these classes; what no annotation can say is in ``problems``.
No I/O: files are named here and read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import Factory, field, frozen

from mtlsgate.config.fields import Duration, Located, Material, label, position
from mtlsgate.config.tree import Body, heading
from mtlsgate.errors import Position


def _labelled(block: str, label: str | None) -> str:
    return heading(block) if label is None else heading(block, label)


@frozen(kw_only=True)
class ServerCertificate:
    """
    What the gate shows of itself.

    :ivar label: only a label.
    :ivar public_key: the certificate, leaf first, intermediates after it.
    :ivar private_key: its key.
    :ivar private_key_passphrase: for an encrypted key.
    """

    at: Position = position()
    label: str | None = label(default=None)
    public_key: Material = field()
    private_key: Material = field()
    private_key_passphrase: str | None = field(default=None, repr=False)

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return _labelled("server_certificate", self.label)


@frozen(kw_only=True)
class ClientCertificate:
    """
    A rule: who may come in.

    :ivar label: the rule's name in logs and in `VerifiedPeer.rule`.
    :ivar ca_certificate: the CAs, each of them trusted.
    :ivar leaf_certificate: the pins.
    """

    at: Position = position()
    label: str | None = label(default=None)
    ca_certificate: Material | None = None
    leaf_certificate: Material | None = None

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return _labelled("client_certificate", self.label)

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.ca_certificate is None and self.leaf_certificate is None:
            yield (
                None,
                "neither a CA nor a leaf: set ca_certificate(_file), leaf_certificate(_file) "
                "or both",
            )


@frozen(kw_only=True)
class Tls:
    """
    :ivar server_certificate: what the gate shows; none means a self-signed one
        made in memory.
    :ivar client_certificate: the rules, any of which admits.
    :ivar min_version: the oldest TLS version that is spoken.
    :ivar client_authentication: ``none`` only where anyone may come in.
    :ivar verification: ``strict`` holds certificates to the RFC 5280 profile,
        as Python 3.13's ssl does; ``compatible`` turns that one flag off.
    """

    at: Position = position()
    server_certificate: tuple[ServerCertificate, ...] = ()
    client_certificate: tuple[ClientCertificate, ...] = ()
    min_version: Literal["1.2", "1.3"] = "1.2"
    client_authentication: Literal["required", "none"] = "required"
    verification: Literal["strict", "compatible"] = "strict"

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.client_authentication == "required" and not self.client_certificate:
            yield (
                None,
                "no client_certificate block says who may come in: add one, or set "
                'client_authentication = "none" to let in anyone',
            )
        if self.client_authentication == "none" and self.client_certificate:
            yield (
                "client_authentication",
                'client_authentication = "none" lets in anyone, so no client_certificate '
                "block would be heard: remove one or the other",
            )


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
class Server:
    """
    :ivar label: the server's name in logs.
    :ivar hosts: where it listens.
    :ivar protocol: what verified connections are handed to.
    :ivar tls: who is let in.
    """

    at: Position = position()
    label: str | None = label(default=None)
    hosts: tuple[Located[str], ...] = field()
    protocol: Protocol = field()
    tls: Tls = field()

    @property
    def heading(self) -> str:
        """The block as messages name it."""
        return _labelled("server", self.label)

    @property
    def name(self) -> str:
        """The label, or the first host where there is none."""
        # A server without hosts is in error, and still named while that is said.
        return self.label or (self.hosts[0].value if self.hosts else "server")

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if not self.hosts:
            yield "hosts", 'hosts is empty: name at least one address, as in ["*:8443"]'


@frozen
class Settings:
    """
    :ivar handshake_timeout: how long a client may take from connecting to the
        end of its handshake, in seconds.
    """

    handshake_timeout: Duration = 10.0


@frozen(kw_only=True)
class Configuration:
    """
    A whole file.

    :ivar settings: what holds for all servers.
    :ivar server: the servers, in file order.
    """

    settings: Settings = Factory(Settings)
    server: tuple[Server, ...] = field()
