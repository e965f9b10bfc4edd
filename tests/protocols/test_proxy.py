"""
``protocol "proxy"`` in memory: when it dials, what it says where it cannot,
its limits, the header that it sends, and what its block may hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent, globalLogPublisher
from zope.interface import implementer, provider
from zope.interface.verify import verifyObject

from mtlsgate.interfaces import IProtocolPlugin
from mtlsgate.load.loading import load
from mtlsgate.protocols.proxy import ProxyFactory, plugin
from mtlsgate.proxyprotocol import Header, HeaderReader, SslClient, TlvType, parse_ssl
from mtlsgate.testing import Authority, Client, MemoryTransport, Version, self_signed
from mtlsgate.upstream.announce import CERTIFICATE_TLV, Announcement
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.relay import RelayLimits
from mtlsgate.upstream.state import TargetStates
from mtlsgate.upstream.targets import Listed, parse_target
from mtlsgate.upstream.tls import TlsClient
from tests.kits.gate import Log, MemoryGate, admitted, rule
from tests.kits.http import MemoryReactor
from tests.kits.keystores import keystore
from tests.kits.pki import NOW, Site, pki, site
from tests.kits.pki import server as server_block
from tests.kits.upstream import MemoryServer

GATE = IPv4Address("TCP", "127.0.0.1", 8443)
TARGET = IPv4Address("TCP", "127.0.0.1", 9000)


@implementer(IStreamClientEndpoint)
class Line:
    """
    The line to a target in memory.

    :ivar connections: the gate's ends of what was dialled.
    :ivar refusing: what dialling fails with, or None.
    :ivar hanging: dialling comes to nothing until `answer` is called.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: list[tuple[Deferred[IProtocol], IProtocolFactory]] = []
        self.connections: list[MemoryTransport] = []
        self.refusing: Exception | None = None
        self.hanging = False
        self.calls = 0

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.calls += 1
        if self.refusing is not None:
            return fail(self.refusing)
        if self.hanging:
            waiting: Deferred[IProtocol] = Deferred()
            self._waiting.append((waiting, factory))
            return waiting
        return succeed(self._connected(factory))

    def answer(self) -> None:
        """Let what hangs come about."""
        for waiting, factory in self._waiting:
            waiting.callback(self._connected(factory))

    def _connected(self, factory: IProtocolFactory) -> IProtocol:
        transport = MemoryTransport(self._clock, GATE, TARGET)
        assert transport.accept(factory)
        self.connections.append(transport)
        assert transport.protocol is not None
        return transport.protocol

    @property
    def only(self) -> MemoryTransport:
        [connection] = self.connections
        return connection


@define(eq=False)
class Proxy:
    """A gate with a proxy behind it, all in memory."""

    log: Log
    limits: RelayLimits = field(factory=RelayLimits)
    announcement: Announcement | None = None
    rules: bool = True
    alpn: tuple[bytes, ...] = ()
    clock: Clock = field(factory=Clock)
    line: Line = field(init=False)
    gate: MemoryGate = field(init=False)
    authority: Authority = field(factory=Authority.create)

    def __attrs_post_init__(self) -> None:
        self.line = line = Line(self.clock)
        backends = Backends(
            [Listed(parse_target("127.0.0.1:9000"))],
            MemoryReactorClock(),
            clock=self.clock,
            connect_timeout=5.0,
            endpoint=lambda *_: line,
        )
        application = ProxyFactory("door", backends, self.clock, self.limits, self.announcement)
        self.gate = MemoryGate(
            [rule(ca=self.authority)] if self.rules else None,
            self.log,
            application,
            clock=self.clock,
            alpn=self.alpn,
        )

    def connect(self, version: Version | None = None, **options: Any) -> Client:
        credential = self.authority.issue("press-7")
        return self.gate.connect(credential if self.rules else None, version, **options)


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    """What the proxy logs."""
    found: list[LogEvent] = []

    @provider(ILogObserver)
    def keep(event: LogEvent) -> None:
        if event.get("log_namespace") == "mtlsgate.proxy":
            found.append(event)

    globalLogPublisher.addObserver(keep)
    yield found
    globalLogPublisher.removeObserver(keep)


def test_bytes_pass_both_ways(version: Version, log: Log) -> None:
    """A verified client's bytes go to the target, and the target's to the client."""
    proxy = Proxy(log)
    client = proxy.connect(version)
    client.send(b"question")
    target = proxy.line.only
    assert target.take() == b"question"
    target.deliver(b"answer")
    assert client.receive() == b"answer"
    assert target.getTcpNoDelay()
    assert client.transport.server.getTcpNoDelay()
    assert target.getTcpKeepAlive()


def test_dials_only_for_the_verified(version: Version, log: Log) -> None:
    """No target hears of a client before it is verified, nor of one that is rejected."""
    proxy = Proxy(log)
    stranger = proxy.gate.connect(self_signed("stranger"), version)
    stranger.send(b"knock")
    assert log.only["reason"] == "unknown_ca"
    halfway = proxy.connect(version)
    halfway.step()
    assert proxy.line.calls == 0
    halfway.handshake()
    assert proxy.line.calls == 1
    assert proxy.gate.verdict(1) == admitted()


def test_held_back_while_dialling(version: Version, log: Log) -> None:
    """What a client sends before the target is there is left where it is, but for what was
    read with the handshake, and arrives in order."""
    proxy = Proxy(log)
    proxy.line.hanging = True
    client = proxy.connect(version)
    client.handshake()
    client.send(b"a" * 100_000)
    client.send(b"b" * 100_000)
    assert client.transport.unread > 190_000
    proxy.line.answer()
    client.pump()
    received = b""
    while piece := proxy.line.only.take():
        received += piece
        client.pump()
    assert received == b"a" * 100_000 + b"b" * 100_000


def test_half_close(version: Version, log: Log) -> None:
    """A client's close_notify ends the stream to the target and not the other one; the
    target's end closes both in good order."""
    proxy = Proxy(log)
    client = proxy.connect(version, answer_close=False)
    client.send(b"question")
    client.connection.shutdown()
    client.step()
    target = proxy.line.only
    assert target.take() == b"question"
    assert target.write_ended
    target.deliver(b"answer")
    assert client.receive() == b"answer"
    assert not client.close_notified
    target.finish()
    client.pump()
    assert client.close_notified
    assert client.disconnected
    proxy.clock.advance(0)
    assert not target.connected
    assert proxy.clock.getDelayedCalls() == []


def test_close_while_dialling(version: Version, log: Log) -> None:
    """A client that ends its stream before the target is there has it ended there, too."""
    proxy = Proxy(log)
    proxy.line.hanging = True
    client = proxy.connect(version, answer_close=False)
    client.handshake()
    client.write(b"question")
    client.connection.shutdown()
    client.pump()
    proxy.line.answer()
    client.pump()
    assert proxy.line.only.take() == b"question"
    assert proxy.line.only.write_ended


def test_gone_while_dialling(version: Version, log: Log) -> None:
    """A client that goes away meanwhile leaves no connection to the target behind."""
    proxy = Proxy(log)
    proxy.line.hanging = True
    client = proxy.connect(version)
    client.handshake()
    client.reset()
    assert proxy.line.connections == []
    assert proxy.clock.getDelayedCalls() == []


@pytest.mark.parametrize("ending", ["client", "target", "while dialling"])
def test_a_connection_counts_for_its_target_until_it_is_over(ending: str, log: Log) -> None:
    """From the choice of the target on, and however it ends."""
    proxy = Proxy(log)
    assert isinstance(proxy.gate.application, ProxyFactory)
    [state] = proxy.gate.application.backends.states
    proxy.line.hanging = ending == "while dialling"
    client = proxy.connect()
    client.handshake()
    assert state.in_use == 1
    if ending == "target":
        proxy.line.only.abortConnection()
    else:
        client.reset()
    proxy.clock.advance(0)
    assert state.in_use == 0


def loaded(
    here: Site, text: str, reactor: object, states: TargetStates | None = None
) -> ProxyFactory:
    """:returns: the application of the only server."""
    here.write("gate.hcl", text)
    epoch = load(
        str(here.config), {}, lambda: NOW, reactor=lambda _: lambda: reactor, target_states=states
    )
    [server] = epoch.servers
    assert isinstance(server.gate.application, ProxyFactory)
    return server.gate.application


def test_a_reload_keeps_what_is_known_of_a_target(here: Site) -> None:
    """If it is the same target; whatever else changes."""
    states, reactor = TargetStates(), MemoryReactor()
    first = loaded(here, block('target = ["127.0.0.1:9000", "127.0.0.1:9001"]'), reactor, states)
    first.backends.unreachable(first.backends.states[0], "connection refused")
    text = block('target = ["127.0.0.1:9002", { address = "127.0.0.1:9000", weight = 2 }]')
    second = loaded(here, text, reactor, states)
    assert [one.is_up for one in second.backends.states] == [None, False]
    assert second.backends.states[1].problem == "connection refused"


@pytest.mark.parametrize(
    ("proxy_protocol", "header"),
    [
        ("", b""),
        ('proxy_protocol = "v1"', b"PROXY UNKNOWN\r\n"),
        ('proxy_protocol = "v2"', b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ],
)
def test_a_check_says_that_it_has_no_client(proxy_protocol: str, header: bytes, here: Site) -> None:
    """A target that wants a PROXY header gets one (2.1, LOCAL), or it would refuse."""
    reactor = MemoryReactor()
    text = block(f'target = "127.0.0.1:9000"\nhealth_check {{}}\n{proxy_protocol}')
    application = loaded(here, text, reactor)
    application.doStart()
    [backend] = reactor.backends
    assert backend.received() == header
    assert application.backends.states[0].is_up
    application.doStop()
    reactor.advance(60)
    assert len(reactor.backends) == 1


def test_a_reset_on_one_side_is_a_reset_on_the_other(version: Version, log: Log) -> None:
    """What is cut off on one side is reset on the other."""
    proxy = Proxy(log)
    client = proxy.connect(version)
    client.handshake()
    client.reset()
    assert proxy.line.only.aborted
    again = proxy.connect(version)
    again.handshake()
    proxy.line.connections[1].lose(ConnectionResetError())
    again.pump()
    assert again.aborted
    assert not again.close_notified
    assert proxy.clock.getDelayedCalls() == []


def test_target_gone_after_its_answer(version: Version, log: Log) -> None:
    """A target that answered, and is then gone for good, does not cost the client the answer,
    whatever it still sends; one that never leaves is reset after a while."""
    proxy = Proxy(log)
    client = proxy.connect(version, answer_close=False)
    client.handshake()
    target = proxy.line.only
    target.deliver(b"answer")
    target.finish()
    target.lose(ConnectionResetError())
    client.send(b"more that nobody wants")
    assert client.receive() == b"answer"
    assert client.close_notified
    assert not client.disconnected
    proxy.clock.pump([1, 29])
    assert not client.aborted
    proxy.clock.advance(1)
    assert client.aborted


def test_backpressure_works_both_ways(version: Version, log: Log) -> None:
    """While one side does not take what was written to it, the other is not read."""
    proxy = Proxy(log)
    client = proxy.connect(version)
    client.handshake()
    target = proxy.line.only
    client.pause_reading()
    for _ in range(10):
        target.deliver(bytes(100_000))
    assert len(target._to_server) >= 800_000
    client.resume_reading()
    assert len(client.receive()) == 1_000_000
    for _ in range(10):
        client.send(bytes(100_000))
    assert client.transport.unread >= 800_000
    taken = 0
    while piece := target.take():
        taken += len(piece)
        client.pump()
    assert taken == 1_000_000


def test_no_reachable_target_closes_the_client_and_says_why(
    version: Version, log: Log, events: list[LogEvent]
) -> None:
    """Where no target can be reached, the client's connection is closed, and one event says
    which target it was, why, and for whom; without a traceback."""
    proxy = Proxy(log)
    proxy.line.refusing = ConnectionRefusedError()
    client = proxy.connect(version)
    client.send(b"question")
    assert client.close_notified
    assert client.disconnected
    [event] = events
    text = formatEvent(event)
    assert event["log_level"] is LogLevel.warn
    assert "127.0.0.1:9000: connection refused" in text
    assert proxy.gate.log.only["fingerprint"] in text
    assert "127.0.0.1:50000" in text
    assert event["fingerprint"] == log.only["fingerprint"]
    assert event["targets"] == ["127.0.0.1:9000"]
    assert proxy.clock.getDelayedCalls() == []


def test_unreachable_and_stubborn(version: Version, log: Log, events: list[LogEvent]) -> None:
    """A client that does not answer the close_notify is reset after a while."""
    proxy = Proxy(log)
    proxy.line.refusing = ConnectionRefusedError()
    client = proxy.connect(version, answer_close=False)
    client.handshake()
    assert not client.disconnected
    proxy.clock.pump([1, 29])
    assert not client.aborted
    proxy.clock.advance(1)
    assert client.aborted


def test_silent_target(version: Version, log: Log, events: list[LogEvent]) -> None:
    """A target that does not answer in time is said to be so."""
    proxy = Proxy(log)
    proxy.line.hanging = True
    client = proxy.connect(version)
    client.handshake()
    proxy.clock.advance(5)
    client.pump()
    assert client.disconnected
    assert "no answer within 5 s" in formatEvent(events[0])


def test_a_failure_of_ours(log: Log, events: list[LogEvent]) -> None:
    """An error that should not be is logged as one, and costs its connection alone."""
    proxy = Proxy(log)
    proxy.line.refusing = ZeroDivisionError()
    client = proxy.connect()
    client.handshake()
    assert client.aborted
    log.expect_failure(ZeroDivisionError)


def test_idle_timeout(version: Version, log: Log, events: list[LogEvent]) -> None:
    """A connection on which nothing passes for so long is closed on both sides, and not one
    on which something does, in whichever direction."""
    proxy = Proxy(log, RelayLimits(idle_timeout=60.0))
    client = proxy.connect(version)
    client.handshake()
    target = proxy.line.only
    for _ in range(3):
        proxy.clock.advance(59)
        client.send(b"x")
        proxy.clock.advance(59)
        target.deliver(b"y")
        client.pump()
    proxy.clock.advance(59)
    client.pump()
    assert client.established
    proxy.clock.advance(1)
    client.pump()
    assert client.close_notified
    assert client.disconnected
    target.take()
    proxy.clock.advance(0)
    assert not target.connected
    [event] = events
    assert "idle_timeout ends the connection" in formatEvent(event)
    assert proxy.clock.getDelayedCalls() == []


def test_max_lifetime(version: Version, log: Log, events: list[LogEvent]) -> None:
    """A connection ends when its time is over, though bytes pass; who does not go is reset."""
    proxy = Proxy(log, RelayLimits(max_lifetime=100.0))
    client = proxy.connect(version, answer_close=False)
    client.handshake()
    for _ in range(9):
        proxy.clock.advance(11)
        client.send(b"x")
    assert client.established
    proxy.clock.advance(1)
    client.pump()
    assert client.close_notified
    assert not client.disconnected
    proxy.clock.pump([1, 29])
    assert not client.aborted
    proxy.clock.advance(1)
    assert client.aborted
    [event] = events
    assert "max_lifetime ends the connection" in formatEvent(event)


def test_lifetime_ends_while_dialling(log: Log, events: list[LogEvent]) -> None:
    """A lifetime that ends before the target is there ends the wait for it, too."""
    proxy = Proxy(log, RelayLimits(max_lifetime=1.0))
    proxy.line.hanging = True
    client = proxy.connect()
    client.handshake()
    proxy.clock.advance(1)
    client.pump()
    assert client.disconnected
    assert proxy.clock.getDelayedCalls() == []
    [event] = events
    assert event["limit"] == "max_lifetime"


def test_target_that_breaks_off(version: Version, log: Log, events: list[LogEvent]) -> None:
    """A target that does not take the gate for a client says so to the log: in TLS 1.2 there
    is no connection then, in TLS 1.3 one that ends at once."""
    proxy = Proxy(log)
    authority = Authority.create("Backend CA")
    credential = authority.issue("x", dns_names=["x"], usages=["server_auth"])
    target = MemoryServer(credential, proxy.clock, version, demand=True)
    backends = Backends(
        [Listed(parse_target("127.0.0.1:9000"))],
        MemoryReactorClock(),
        clock=proxy.clock,
        tls=TlsClient([authority.certificate], server_name="x"),
        endpoint=lambda *_: target,
    )
    assert isinstance(proxy.gate.application, ProxyFactory)
    proxy.gate.application.backends = backends
    client = proxy.connect()
    client.handshake()
    target.pump()
    assert target.transport is not None
    target.finish()
    client.pump()
    assert client.disconnected
    [event] = events
    text = formatEvent(event)
    assert "127.0.0.1:9000" in text
    assert "alert" in text
    assert event["log_level"] is LogLevel.warn


def header(proxy: Proxy) -> Header:
    """:returns: the header that the target got."""
    found = HeaderReader().feed(proxy.line.only.take())
    assert isinstance(found, Header)
    return found


def test_announces_v1(version: Version, log: Log) -> None:
    """Version 1 tells the client's address and the one that it connected to."""
    proxy = Proxy(log, announcement=Announcement("v1"))
    client = proxy.connect(version)
    client.send(b"question")
    expected = b"PROXY TCP4 127.0.0.1 127.0.0.1 50000 8443\r\nquestion"
    assert proxy.line.only.take() == expected


def test_announces_v2(version: Version, log: Log) -> None:
    """Version 2 tells of TLS, too: the name asked for, the application protocol, and the
    client's certificate."""
    proxy = Proxy(log, announcement=Announcement("v2", certificate=True), alpn=(b"mqtt",))
    client = proxy.connect(version, server_name="gate.example", alpn=["mqtt"])
    client.handshake()
    found = header(proxy)
    assert found.source == IPv4Address("TCP", "127.0.0.1", 50000)
    assert found.destination == GATE
    tlvs = dict(found.tlvs)
    assert tlvs[TlvType.ALPN] == b"mqtt"
    assert tlvs[TlvType.AUTHORITY] == b"gate.example"
    ssl = parse_ssl(tlvs[TlvType.SSL])
    assert ssl.verified
    assert ssl.client == SslClient.SSL | SslClient.CERT_CONN | SslClient.CERT_SESS
    details = dict(ssl.tlvs)
    assert details[TlvType.SSL_CN] == b"press-7"
    assert details[TlvType.SSL_VERSION] == f"TLSv{version}".encode()
    assert client.cipher is not None
    assert details[TlvType.SSL_CIPHER] == client.cipher.encode()
    assert tlvs[CERTIFICATE_TLV].startswith(b"\x30\x82")
    plain = Proxy(log, announcement=Announcement("v2"))
    plain.connect(version).handshake()
    assert {kind for kind, _ in header(plain).tlvs} == {TlvType.SSL}


def test_announces_the_proxied_address(log: Log) -> None:
    """The header's source is the client's address as the gate knows it."""
    proxy = Proxy(log, announcement=Announcement("v2"))
    proxy.connect(address=IPv4Address("TCP", "192.0.2.7", 4711)).handshake()
    assert header(proxy).source == IPv4Address("TCP", "192.0.2.7", 4711)


def test_announces_anyone(log: Log) -> None:
    """Where no certificate is asked for, the header tells of no certificate."""
    proxy = Proxy(log, announcement=Announcement("v2", certificate=True), rules=False)
    proxy.connect().handshake()
    found = header(proxy)
    assert found.source is not None
    kinds = {kind for kind, _ in found.tlvs}
    assert CERTIFICATE_TLV not in kinds


def test_it_is_a_plugin_like_any_other() -> None:
    """It is a plugin like any other."""
    assert verifyObject(IProtocolPlugin, plugin)


def block(attributes: str) -> str:
    """:returns: a configuration whose proxy block is of these attributes, from line 4 on."""
    return server_block(protocol=f'protocol "proxy" {{\n{attributes}\n}}')


def test_alpn_is_offered_to_clients(tmp_path: Path) -> None:
    """``alpn`` names the application protocols that clients may negotiate."""
    epoch = site(tmp_path).load(block('target = "127.0.0.1:80"\nalpn = ["postgresql", "x"]'))
    assert epoch.servers[0].gate.context.policy.alpn == (b"postgresql", b"x")


@pytest.mark.parametrize(
    "attributes",
    [
        'target = "127.0.0.1:80"',
        'target = ["127.0.0.1:80", "[::1]:80", "localhost:80", "unix:/run/x.sock"]',
        'target = "10.0.0.1:80"\nunsafe_target = true',
        'target = "db.example:80"\ntls {\n  server_ca_certificate_file = "root.crt"\n}',
        'target = "unix:/run/x"\ntls {\n  server_ca_certificate_file = "root.crt"\n'
        '  server_name = "x"\n}',
        'target = "127.0.0.1:80"\nretry_after = "1s"\nconnect_timeout = "1s"\n'
        'idle_timeout = "1h"\nmax_lifetime = "24h"',
        'target = "127.0.0.1:80"\nproxy_protocol = "v1"',
        'target = "127.0.0.1:80"\nproxy_protocol = "v2"\nproxy_protocol_certificate = true',
        'target = "tcp:host=127.0.0.1:port=80:timeout=3"',
    ],
)
def test_each_attribute_is_read(attributes: str, tmp_path: Path) -> None:
    """What may be written."""
    epoch = site(tmp_path).load(block(attributes))
    assert isinstance(epoch.servers[0].gate.application, ProxyFactory)


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ("", '3:1: protocol "proxy": target is missing'),
        ("target = 80", "4:10: protocol \"proxy\": target: must be a string, or a list of"),
        ("target = []", "4:10: protocol \"proxy\": target: must be a string, or a list of"),
        ('target = [""]', '4:10: protocol "proxy": target: "": write "host:port"'),
        ('target = ["a:1", 2]', "4:10: protocol \"proxy\": target: must be a string, or a"),
        (
            'target = ["127.0.0.1:80", "127.0.0.1:80"]',
            '4:10: protocol "proxy": target: "127.0.0.1:80" is listed twice',
        ),
        (
            'target = "10.0.0.1:80"',
            '4:10: protocol "proxy": target: "10.0.0.1:80" is not on this machine, and would '
            "be spoken to in plaintext: add a tls block, or set unsafe_target = true",
        ),
        ('target = ["127.0.0.1:80", "db:80"]', '4:10: protocol "proxy": target: "db:80" is not'),
        (
            'target = "unix:/x"\ntls {\n  server_ca_certificate_file = "root.crt"\n}',
            '4:10: protocol "proxy": target: the target has no host name: set server_name',
        ),
        ('target = "db:80"\ntls {\n}', "5:1: tls: no CA to verify the target with"),
        (
            'target = "tcp:127.0.0.1:80:nonsense=1"',
            '4:10: protocol "proxy": target: "tcp:127.0.0.1:80:nonsense=1" is no endpoint',
        ),
        ('target = "127.0.0.1:80"\nproxy_protocol = "v3"', "5:18: protocol \"proxy\": proxy_pro"),
        (
            'target = "127.0.0.1:80"\nproxy_protocol_certificate = true',
            '5:1: protocol "proxy": proxy_protocol_certificate needs proxy_protocol = "v2"',
        ),
        ('target = "127.0.0.1:80"\nalpn = [""]', '5:9: protocol "proxy": alpn: is empty: write a'),
        (
            'target = { address = "127.0.0.1:80", wight = 2 }',
            '4:10: protocol "proxy": target: "127.0.0.1:80": unknown "wight"; did you mean "w',
        ),
        ('target = "127.0.0.1:80"\nbalance = "random"', "5:11: protocol \"proxy\": balance: must"),
        (
            'target = "127.0.0.1:80"\nhealth_check {\n  path = "/"\n}',
            '6:3: health_check: unknown attribute "path"',
        ),
        (
            'target = "127.0.0.1:80"\nretry_after = "1s"\nhealth_check {}',
            '5:1: protocol "proxy": retry_after has no effect with a health_check',
        ),
        ('target = "127.0.0.1:80"\nidle_timeout = "0s"', "5:16: protocol \"proxy\": idle_timeou"),
    ],
)  # fmt: skip
def test_blocks_in_error(attributes: str, problem: str, tmp_path: Path) -> None:
    """What may not be written is refused at its place, with the remedy."""
    [found] = site(tmp_path).problems(block(attributes))
    assert found.startswith(problem)


@pytest.mark.parametrize("protocol", ["proxy", "http"])
def test_certificates_for_targets_that_end_are_warned_of(protocol: str, tmp_path: Path) -> None:
    """A target would say no more than an alert; and one for servers is none for clients."""
    here = site(tmp_path)
    (here.directory / "app.p12").write_bytes(keystore(pki().server))
    tls = (
        'tls {\nserver_ca_certificate_file = "root.crt"\nclient_pkcs12_file = "app.p12"\n'
        'client_pkcs12_passphrase = "secret"\n}'
    )
    target = '"https://db.example"' if protocol == "http" else '"db.example:1"'
    text = server_block(protocol=f'protocol "{protocol}" {{\ntarget = {target}\n{tls}\n}}')
    warnings = [one for one in here.load(text).warnings if one.where == f'protocol "{protocol}"']
    assert [one.at.line for one in warnings] == [3]
    assert "does not include clientAuth" in warnings[0].text
    later = here.load(text, NOW.replace(year=NOW.year + 30)).warnings
    found = [one.text for one in later if one.where == f'protocol "{protocol}"']
    assert any(one.startswith("the client certificate expired on") for one in found)
    assert any(one.startswith("the target's CA expired on") for one in found)
