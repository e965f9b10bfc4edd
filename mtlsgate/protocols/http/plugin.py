"""
``protocol "http"``: from its configuration to what serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import Factory, define, frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IAddress,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from mtlsgate.certificates.server_names import first_by_name
from mtlsgate.config import Misconfigured
from mtlsgate.interfaces import (
    IProtocolEnvironment,
    IProtocolPlugin,
    IRetirable,
    IVerifiedPeer,
)
from mtlsgate.protocols.http.access import AccessLog
from mtlsgate.protocols.http.channel import GateChannel
from mtlsgate.protocols.http.configuration import HttpConfiguration
from mtlsgate.protocols.http.fields import Hop, Line, Reserved, forwarded, reserved
from mtlsgate.protocols.http.identity import IdentityRules
from mtlsgate.protocols.http.pool import Pool
from mtlsgate.upstream.backends import Backends


@define(kw_only=True)
class Gate:
    """
    What all connections of a server share.

    :ivar active: how many requests are underway.
    :ivar channels: the clients' connections.
    :ivar stopping: no more of them are accepted, so that none should be kept.
    :ivar shortest_wait: how often to see whether somebody is late.
    """

    clock: IReactorTime
    pool: Pool
    access: AccessLog
    reserved: Reserved
    host: bytes | None
    default_host: bytes
    serves: Callable[[str], bool] | None
    rules: IdentityRules
    append_forwarded: bool | None
    websockets: bool
    max_header_size: int
    max_body_size: int
    max_requests: int
    header_timeout: float
    body_timeout: float
    keepalive_timeout: float
    response_timeout: float
    websocket_timeout: float
    no_reserved: Reserved = Reserved()
    active: int = 0
    channels: set[GateChannel] = Factory(set)
    stopping: bool = False

    @property
    def shortest_wait(self) -> float:
        """Between two looks at whether somebody is late."""
        return min(self.body_timeout, self.response_timeout)

    def host_for(self, authority: bytes) -> bytes:
        """:returns: what ``Host`` is at the target."""
        return self.host or authority or self.default_host

    def forwarded(
        self, client: IAddress, authority: bytes, earlier: dict[bytes, list[bytes]]
    ) -> list[Line]:
        """:returns: the fields about the client's side."""
        if self.append_forwarded is None:
            return []
        hop = Hop(getattr(client, "host", None), authority)
        return forwarded(hop, earlier if self.append_forwarded else None)

    def identity_of(self, peer: IVerifiedPeer | None, connection: SSL.Connection) -> list[Line]:
        """:returns: the fields that name a client."""
        by: Iterable[str] = ()
        if "By" in self.rules.forwarded_client_cert:
            certificate = connection.get_certificate(as_cryptography=True)
            by = () if certificate is None else _uris(certificate)
        return self.rules.fields(peer, tuple(by))


def _uris(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return found.value.get_values_for_type(x509.UniformResourceIdentifier)


@implementer(IProtocolNegotiationFactory, IRetirable)
class HttpFactory(ServerFactory):
    """
    Serves clients' connections.

    :ivar gate: what they share.
    """

    noisy = False

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def acceptableProtocols(self) -> list[bytes]:
        """HTTP/1.1 and, for reasons that the documentation gives, nothing newer."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Keep connections."""
        self.gate.stopping = False
        self.gate.pool.start()

    def stopFactory(self) -> None:
        """Keep none any longer."""
        self.retire()

    def retire(self) -> None:
        """Keep none any longer, neither to targets nor to clients: what is
        underway ends, and with it its connection (`IRetirable`)."""
        self.gate.stopping = True
        for channel in tuple(self.gate.channels):
            channel.retire()
        self.gate.pool.stop()

    def buildProtocol(self, addr: IAddress | None) -> GateChannel:
        """:returns: what serves one client."""
        assert addr is not None
        return GateChannel(self.gate, addr)


@implementer(IProtocolPlugin)
@frozen
class HttpPlugin:
    """The plugin behind ``protocol "http"``."""

    name: str = "http"
    configuration: type = HttpConfiguration

    def build(
        self, configuration: HttpConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """:returns: a factory whose connections are passed on by request."""
        for header, text in configuration.header_problems():
            raise Misconfigured(header.at, f"headers: {text}")
        targets, block = configuration.targets(), configuration.tls
        tls = None if block is None else block.client(environment, alpn=[b"http/1.1"])
        clock = environment.reactor
        try:
            backends = Backends(
                [one.target for one in targets],
                clock,
                tls=tls,
                connect_timeout=configuration.connect_timeout,
                retry_after=configuration.retry_after,
            )
        except ValueError as error:
            raise Misconfigured(configuration.target.at, f"target: {error}") from None
        names = environment.server_names
        table = first_by_name([(environment.names_elsewhere, False), (names, True)])
        own = {name.encode("ascii"): text for name, text in configuration.headers.items()}
        gate = Gate(
            clock=clock,
            pool=Pool(
                backends,
                clock,
                keep=configuration.target_connections,
                keep_for=configuration.target_keepalive,
            ),
            access=AccessLog(environment.server),
            reserved=reserved(own),
            host=None if configuration.host is None else configuration.host.encode("ascii"),
            default_host=targets[0].authority,
            serves=(lambda name: bool(table.find(name))) if names else None,
            rules=IdentityRules(
                configuration.client_cert,
                configuration.client_cert_chain,
                configuration.x_forwarded_client_cert,
                own,
            ),
            append_forwarded={"set": False, "append": True, "off": None}[configuration.forwarded],
            websockets=configuration.websockets,
            max_header_size=configuration.max_header_size,
            max_body_size=configuration.max_body_size,
            max_requests=configuration.max_requests,
            header_timeout=configuration.header_timeout,
            body_timeout=configuration.body_timeout,
            keepalive_timeout=configuration.keepalive_timeout,
            response_timeout=configuration.response_timeout,
            websocket_timeout=configuration.websocket_timeout,
        )
        return HttpFactory(gate)


plugin = HttpPlugin()
