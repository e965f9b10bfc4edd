"""
``protocol "http"``: from its configuration to what serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from zope.interface import implementer

from mtlsgate.config import Misconfigured
from mtlsgate.http.authority import Asked
from mtlsgate.http.fields import Line
from mtlsgate.http.limits import HttpLimits
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal, own_body
from mtlsgate.http.server import HttpServer, Versions, served_names
from mtlsgate.http.sides import ClientConnection, ClientSide, Exchange, HttpClient
from mtlsgate.http2.versions import versions
from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin, IVerifiedPeer
from mtlsgate.protocols.http.access import AccessLog, Record, Who, who
from mtlsgate.protocols.http.capacity import Capacity, CapacityLimits
from mtlsgate.protocols.http.configuration import HttpConfiguration
from mtlsgate.protocols.http.exchange import ForwardedExchange
from mtlsgate.protocols.http.forwarding import reserved
from mtlsgate.protocols.http.identity import IdentityRules
from mtlsgate.protocols.http.outgoing import ForwardingRules, check_method, outgoing
from mtlsgate.protocols.http.pools import pool_of
from mtlsgate.protocols.http.surroundings import Surroundings
from mtlsgate.protocols.needs import NeedsNothing
from mtlsgate.upstream.backends import Backends, IHasTargets
from mtlsgate.upstream.targets import ports_of


@frozen
class _Named:
    """A client, as targets and the log are told of it: worked out once, until the rule that
    admits it changes, or what a registry knows of it."""

    peer: IVerifiedPeer | None
    lines: Sequence[Line]
    who: Who


@implementer(IHasTargets)
class HttpFactory(HttpServer):
    """
    Serves clients' connections.

    :ivar rules: what becomes of requests on their way.
    :ivar capacity: what is underway.
    """

    def __init__(
        self,
        limits: HttpLimits,
        clock: IReactorTime,
        serves: Callable[[str], bool] | None,
        *,
        versions: Versions,
        rules: ForwardingRules,
        capacity: CapacityLimits,
        surroundings: Surroundings,
    ) -> None:
        super().__init__(limits, clock, serves, versions=versions, websockets=rules.websockets)
        self.capacity = Capacity(capacity)
        self.rules = rules
        self._around = surroundings
        self._named: dict[HttpClient, _Named] = {}

    @property
    def backends(self) -> Backends:
        """What connects to the targets."""
        return self._around.pool.backends

    def startFactory(self) -> None:
        """Keep connections, to clients and to targets."""
        super().startFactory()
        self._around.pool.start()

    def retire(self) -> None:
        """Keep none any longer: what is underway ends, and with it its connection
        (`IRetirable`)."""
        super().retire()
        self._around.pool.stop()

    def closed(self, connection: ClientConnection) -> None:
        """A client's connection is over."""
        super().closed(connection)
        self._named.pop(connection.client, None)

    def exchange(self, head: RequestHead, asked: Asked, side: ClientSide) -> Exchange:
        """
        :returns: what forwards the request.
        :raises Refusal: if it is not for a gate, or there is no room for it.
        """
        check_method(head)
        client = side.client
        named = self._name(client)
        sent = outgoing(head, asked, client, self.rules, named.lines)
        seat = self.capacity.enter(client, upgrading=sent.upgrading)
        record = Record(self.clock.seconds(), head.method, head.target)
        return ForwardedExchange(self._around, side, sent, record, named.who, seat)

    def _name(self, client: HttpClient) -> _Named:
        named, peer = self._named.get(client), client.peer
        if named is None or named.peer is not peer:
            named = _Named(peer, self.rules.identity_of(client), who(client))
            self._named[client] = named
        return named

    def refused(self, client: HttpClient, head: RequestHead | None, refusal: Refusal) -> None:
        """Log a request that was refused before its exchange."""
        now = self.clock.seconds()
        record = Record(now, status=refusal.status, first_byte=now, cause=refusal.cause)
        if head is not None:
            record.method, record.target = head.method, head.target
            record.bytes_out = 0 if head.method == b"HEAD" else len(own_body(refusal.status))
        named = self._name(client)
        if refusal.status >= 500 and refusal.status != 501:
            self._around.log.failure(named.who, record)
        self._around.log.request(named.who, record, now)


@implementer(IProtocolPlugin)
@frozen
class HttpPlugin(NeedsNothing):
    """The plugin behind ``protocol "http"``."""

    name: str = "http"
    configuration: type = HttpConfiguration

    def runs_user_code(self, configuration: HttpConfiguration) -> bool:
        """:returns: whether a plugin of somebody else's connects to a target."""
        return any(one.target.target.is_foreign for one in configuration.targets())

    def connects_to(self, configuration: HttpConfiguration) -> tuple[int, ...]:
        """:returns: the targets' ports."""
        return ports_of(one.target.target for one in configuration.targets())

    def build(
        self, configuration: HttpConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """:returns: a factory whose connections are passed on by request."""
        for header, text in configuration.header_problems():
            raise Misconfigured(header.at, f"headers: {text}")
        clock = environment.reactor
        rules = _rules(configuration)
        return HttpFactory(
            _limits(configuration),
            clock,
            served_names(environment),
            versions=versions(configuration.http_versions),
            rules=rules,
            capacity=CapacityLimits(
                requests=configuration.max_requests,
                requests_each=configuration.max_requests_per_client,
                websockets=configuration.max_websockets,
                websockets_each=configuration.max_websockets_per_client,
            ),
            surroundings=Surroundings(
                pool=pool_of(configuration, environment),
                log=AccessLog(environment.server),
                clock=clock,
                reserved=rules.reserved,
                response_timeout=configuration.response_timeout,
                websocket_timeout=configuration.websocket_timeout,
            ),
        )


def _limits(configuration: HttpConfiguration) -> HttpLimits:
    return HttpLimits(
        head_size=configuration.max_header_size,
        body_size=configuration.max_body_size,
        first_timeout=configuration.header_timeout,
        head_timeout=configuration.header_timeout,
        body_timeout=configuration.body_timeout,
        idle_timeout=configuration.keepalive_timeout,
        send_timeout=configuration.body_timeout,
        close_timeout=configuration.body_timeout,
        refused_timeout=configuration.body_timeout,
    )


def _rules(configuration: HttpConfiguration) -> ForwardingRules:
    own = {name.encode("ascii"): text for name, text in configuration.headers.items()}
    return ForwardingRules(
        reserved=reserved(own),
        host=None if configuration.host is None else configuration.host.encode("ascii"),
        default_host=configuration.targets()[0].target.authority,
        identity=IdentityRules(
            configuration.client_cert,
            configuration.client_cert_chain,
            configuration.x_forwarded_client_cert,
            own,
        ),
        append_forwarded={"set": False, "append": True, "off": None}[configuration.forwarded],
        # To HTTP/2 targets a WebSocket would be another kind of request (RFC 8441).
        websockets=configuration.websockets and configuration.http_version == "1.1",
    )


plugin = HttpPlugin()
