"""
``protocol "proxy"``: the gate in front of any TCP service.

A verified client's bytes go to a target, and the target's to the client.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IProtocolFactory,
    IProtocolNegotiationFactory,
    IReactorTime,
)
from twisted.internet.protocol import Factory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.config import Duration
from mtlsgate.interfaces import (
    IProtocolEnvironment,
    IProtocolPlugin,
    IRetirable,
    IVerifiedPeer,
)
from mtlsgate.peer import address_text
from mtlsgate.protocols.needs import NeedsNothing
from mtlsgate.starttls import DIALECTS, GreetingReader
from mtlsgate.text import printable
from mtlsgate.tls.openssl_errors import TlsError, reasons_of
from mtlsgate.upstream.announce import Announcement, own_header
from mtlsgate.upstream.backends import Backends, Dialled, IHasTargets, Unreachable
from mtlsgate.upstream.checks import ConnectCheck, HealthChecker
from mtlsgate.upstream.configuration import TargetAttributes
from mtlsgate.upstream.greeted import GreetedEnd
from mtlsgate.upstream.relay import Relay, RelayEnd, RelayLimits
from mtlsgate.upstream.state import TargetUse
from mtlsgate.upstream.targets import parse_target, ports_of

_log = Logger("mtlsgate.proxy")


@frozen(kw_only=True)
class ProxyConfiguration(TargetAttributes):
    """
    :ivar idle_timeout: how long nothing may pass in either direction.
    :ivar max_lifetime: how long a connection may last.
    :ivar proxy_protocol: the version of the PROXY header for the target; None for none.
    :ivar proxy_protocol_certificate: whether it contains the client's certificate.
    :ivar alpn: the application protocols that clients may negotiate by ALPN, the
        preferred one first.  If empty, the extension is not answered.
    """

    idle_timeout: Duration | None = None
    max_lifetime: Duration | None = None
    proxy_protocol: Literal["v1", "v2"] | None = None
    proxy_protocol_certificate: bool = False
    alpn: tuple[str, ...] = ()

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for each problem of the whole block."""
        yield from super().problems()
        if self.proxy_protocol_certificate and self.proxy_protocol != "v2":
            yield (
                "proxy_protocol_certificate",
                'proxy_protocol_certificate needs proxy_protocol = "v2": no other header has '
                "room for a certificate",
            )
        if not all(name.isascii() and 0 < len(name) < 256 for name in self.alpn):
            yield "alpn", "alpn: each name must be of 1 to 255 ASCII characters"


@implementer(IProtocolNegotiationFactory, IRetirable, IHasTargets)
class ProxyFactory(Factory):
    """
    The factory of a server's connections to its targets.

    :ivar server: its name, for the log.
    :ivar backends: the targets.
    :ivar checker: checks them, or None.
    """

    noisy = False

    def __init__(
        self,
        server: str,
        backends: Backends,
        clock: IReactorTime,
        limits: RelayLimits,
        announcement: Announcement | None = None,
        alpn: Sequence[str] = (),
        checker: HealthChecker | None = None,
        greeting: Callable[[], GreetingReader] | None = None,
    ) -> None:
        """
        :param announcement: tells the target who connects.
        :param alpn: the application protocols that clients may negotiate.
        :param checker: checks the targets.
        :param greeting: makes a reader of a target's greeting; None if targets do not
            greet, or if their greeting is for the client.
        """
        self.server = server
        self.backends = backends
        self.clock = clock
        self.limits = limits
        self.announcement = announcement
        self.checker = checker
        self.greeting = greeting
        self._alpn = [name.encode("ascii") for name in alpn]

    def startFactory(self) -> None:
        """Check the targets."""
        super().startFactory()
        if self.checker is not None:
            self.checker.start()

    def retire(self) -> None:
        """Check the targets no more (`IRetirable`)."""
        if self.checker is not None:
            self.checker.stop()

    def stopFactory(self) -> None:
        """Check the targets no more."""
        super().stopFactory()
        self.retire()

    def acceptableProtocols(self) -> list[bytes]:
        """:returns: the application protocols that clients may negotiate."""
        return self._alpn

    def buildProtocol(self, addr: IAddress | None) -> ProxyClient:
        """:returns: the client's end of a connection."""
        assert addr is not None
        return ProxyClient(self, addr)


class ProxyClient(RelayEnd):
    """
    The client's end.  It connects to a target, and waits for that.

    :ivar _dialling: the pending connection attempt, or None.
    """

    _dialling: Deferred[None] | None = None

    def __init__(self, factory: ProxyFactory, address: IAddress) -> None:
        super().__init__(Relay(factory.clock, factory.limits, self._on_limit))
        self._factory = factory
        self._address = address

    def connectionMade(self) -> None:
        """Dial; what the client sends meanwhile is left in its socket."""
        super().connectionMade()
        self.transport.pauseProducing()
        self.relay.client = self
        self.relay.live()
        factory = self._factory
        try:
            preface = self._preface()
        except ValueError as error:
            self._give_up(str(error))
            return
        ends = _TargetFactory(self, factory.greeting)
        dialling = factory.backends.dial(ends, preface).addCallback(self._reached)
        self._dialling = dialling.addErrback(self._not_reached)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Give up the target's connection, too."""
        super().connectionLost(reason)
        if self._dialling is not None:
            self._dialling.cancel()

    def _preface(self) -> bytes:
        announcement = self._factory.announcement
        if announcement is None:
            return b""
        peer = IVerifiedPeer(self.transport, None)
        host = self.transport.getHost()
        return announcement.header(peer, self._address, host)

    def _reached(self, dialled: Dialled) -> None:
        self._dialling = None
        target = dialled.protocol
        assert isinstance(target, ProxyTarget)
        target.reached(dialled)
        if self.lost:
            target.reset()
        else:
            self.relay.join(self, target)

    def _not_reached(self, failure: Failure) -> None:
        self._dialling = None
        if failure.check(CancelledError):
            return
        if isinstance(failure.value, Unreachable):
            targets = [printable(one.target.text) for one in failure.value.attempts]
            self._give_up(str(failure.value), targets)
        else:
            self._log(_log.failure, "dialling a target failed", failure=failure)
            self.reset()

    def _give_up(self, problem: str, targets: Sequence[str] = ()) -> None:
        self._log(
            _log.warn, "no target could be reached: {problem}", problem=problem, targets=targets
        )
        self.relay.give_up(self)

    def _on_limit(self, limit: str) -> None:
        self._log(_log.info, "{limit} ends the connection", limit=limit)
        if self._dialling is not None:
            self._dialling.cancel()

    def target_refused(self, target: str, problem: str) -> None:
        """Log that a target ended TLS with an error, as it does in TLS 1.3 if it does not
        take the gate's certificate."""
        self._log(
            _log.warn,
            "{target} broke off: {problem}",
            target=printable(target),
            problem=printable(problem),
        )

    def _log(self, emit: Any, text: str, **values: object) -> None:
        peer = IVerifiedPeer(self.transport, None)
        emit(
            "{server}: {peer_address} [sha256={fingerprint}]: " + text,
            server=self._factory.server,
            peer_address=address_text(self._address),
            fingerprint=None if peer is None else peer.sha256,
            **values,
        )


class ProxyTarget(GreetedEnd):
    """
    The target's end.

    :ivar name: the target, as it was written.
    :ivar _use: counts the connection, once the target is known.
    """

    name = ""
    _use: TargetUse | None = None

    def __init__(self, client: ProxyClient, greeting: GreetingReader | None) -> None:
        super().__init__(client.relay, greeting)
        self._client = client

    def reached(self, dialled: Dialled) -> None:
        """:param dialled: this connection."""
        self.name, self._use = dialled.target.text, dialled.use
        if self.lost:
            dialled.use.end()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Log why the target ended the connection, if it said why."""
        if self._use is not None:
            self._use.end()
        if isinstance(reason.value, TlsError):
            self._client.target_refused(self.name, reasons_of(reason.value))
        super().connectionLost(reason)


@implementer(IProtocolFactory)
@frozen
class _TargetFactory:
    """Builds the target's end for one client."""

    _client: ProxyClient
    _greeting: Callable[[], GreetingReader] | None

    def buildProtocol(self, addr: IAddress) -> ProxyTarget:
        return ProxyTarget(self._client, None if self._greeting is None else self._greeting())

    def doStart(self) -> None:
        pass

    def doStop(self) -> None:
        pass


@implementer(IProtocolPlugin)
@frozen
class ProxyPlugin(NeedsNothing):
    """The plugin behind ``protocol "proxy"``."""

    name: str = "proxy"
    configuration: type = ProxyConfiguration

    def runs_user_code(self, configuration: ProxyConfiguration) -> bool:
        """:returns: whether a plugin of somebody else's connects to a target."""
        return any(one.target.is_foreign for one in configuration.parsed(parse_target))

    def connects_to(self, configuration: ProxyConfiguration) -> tuple[int, ...]:
        """:returns: the targets' ports."""
        return ports_of(one.target for one in configuration.parsed(parse_target))

    def build(
        self, configuration: ProxyConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """
        :returns: a factory of connections to the targets.
        :raises Misconfigured: if the targets cannot be had.
        """
        version, clock = configuration.proxy_protocol, environment.reactor
        targets = configuration.listed(parse_target, lambda target: target)
        backends = configuration.backends(targets, environment)
        checker, terms = None, configuration.health_check
        if terms is not None:
            preface = b"" if version is None else own_header(version)
            check = ConnectCheck(backends, clock, preface)
            checker = HealthChecker(backends, check, terms, clock)
        dialect = None if environment.starttls is None else DIALECTS[environment.starttls]
        return ProxyFactory(
            environment.server,
            backends,
            clock,
            RelayLimits(configuration.idle_timeout, configuration.max_lifetime),
            None
            if version is None
            else Announcement(version, configuration.proxy_protocol_certificate),
            configuration.alpn,
            checker,
            None if dialect is None else dialect.target_greeting,
        )


plugin = ProxyPlugin()
