"""The hand-over: what an application gets, and what it can do to the gate."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from OpenSSL.crypto import X509
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    INegotiated,
    IProtocolFactory,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.gate.connection import Connection
from mtlsgate.gate.entrance import Entrance
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.echo import plugin as echo
from mtlsgate.protocols.whoami import plugin as whoami
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Version
from tests.kits.gate import Log, MemoryGate, rejected, rule

ROOT = Authority.create("Root")
ALICE, BOB = ROOT.issue("alice"), ROOT.issue("bob")
STRANGER = Authority.create("Other").issue("stranger")


class App(Protocol):
    """
    An application's protocol that a test can get hold of.

    :ivar events: what happened to it, in order.
    """

    transport: Connection

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = b""
        self.lost: Failure | None = None
        self.peer_when_lost: object = None

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append("data")
        self.received += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")
        self.lost = reason
        self.peer_when_lost = IVerifiedPeer(self.transport, None)


class Apps(Factory):
    """
    A plain Twisted factory.

    :ivar build: makes the protocols.
    """

    noisy = False

    def __init__(self, build: Callable[[], Protocol | None] = App) -> None:
        self.build = build
        self.built: list[Protocol] = []
        self.addresses: list[IAddress | None] = []
        self.calls: list[str] = []

    def startFactory(self) -> None:
        self.calls.append("start")

    def stopFactory(self) -> None:
        self.calls.append("stop")

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        self.addresses.append(addr)
        protocol = self.build()
        if protocol is not None:
            protocol.factory = self
            self.built.append(protocol)
        return protocol


def door_of(log: Log, application: IProtocolFactory, **options: object) -> MemoryGate:
    return MemoryGate([rule(ca=ROOT, pins=ALICE)], log, application, **options)  # type: ignore[arg-type]


def connected(log: Log, version: Version = "1.3") -> tuple[Client, App]:
    """A client that was let in, and its protocol."""
    apps = Apps()
    client = door_of(log, apps).connect(ALICE, version)
    client.handshake()
    [app] = apps.built
    assert isinstance(app, App)
    return client, app


def test_nothing_before_the_verdict(log: Log, version: Version) -> None:
    """The application's factory is asked once the client is verified, not when it connects."""
    apps = Apps()
    client = door_of(log, apps).connect(ALICE, version)
    while not log.events:
        assert apps.addresses == []
        assert client.step()
    assert len(apps.addresses) == 1


def test_rejected_clients_never_reach_it(log: Log, version: Version) -> None:
    apps = Apps()
    gate = door_of(log, apps)
    for who in (None, BOB, STRANGER):
        client = gate.connect(who, version)
        client.send(b"hello?")
        assert client.disconnected
    assert apps.addresses == []
    assert [event["reason"] for event in log.events][:2] == [
        Reason.NO_CERTIFICATE,
        Reason.LEAF_MISMATCH,
    ]


@pytest.mark.parametrize(
    "address", [IPv4Address("TCP", "192.0.2.1", 5), IPv6Address("TCP", "2001:db8::1", 5)]
)
def test_the_application_gets_the_clients_address(
    log: Log, version: Version, address: IPv4Address | IPv6Address
) -> None:
    """``buildProtocol`` gets the client's address; so do the peer and the log."""
    apps = Apps()
    door_of(log, apps).connect(ALICE, version, address=address).handshake()
    assert apps.addresses == [address]
    [app] = apps.built
    assert app.transport is not None
    assert app.transport.getPeer() == address
    assert IVerifiedPeer(app.transport).address == address
    assert log.only["peer_address"] in ("192.0.2.1:5", "[2001:db8::1]:5")


def test_the_peer_is_known_from_connection_made_on(log: Log, version: Version) -> None:
    """Who it is, from ``connectionMade`` on, and still after the connection is lost."""
    seen: list[str] = []

    class Curious(App):
        def connectionMade(self) -> None:
            seen.append(IVerifiedPeer(self.transport).sha256)

    apps = Apps(Curious)
    client = door_of(log, apps).connect(ALICE, version)
    client.handshake()
    [app] = apps.built
    assert isinstance(app, App)
    peer = IVerifiedPeer(app.transport)
    assert seen == [ALICE.sha256]
    assert IVerifiedPeer.providedBy(peer)
    client.reset()
    assert app.peer_when_lost is peer
    assert IVerifiedPeer(app.transport) is peer
    assert peer.leaf == ALICE.certificate
    assert peer.path == (ALICE.certificate, ROOT.certificate)


def test_the_application_sees_made_data_lost(log: Log, version: Version) -> None:
    """As with any transport: made, data, lost."""
    client, app = connected(log, version)
    client.send(b"x")
    client.close()
    assert app.events == ["made", "data", "lost"]
    assert app.lost is not None
    assert app.lost.check(ConnectionDone)


def test_an_application_may_decline_a_client(log: Log, version: Version) -> None:
    """``buildProtocol`` may answer None: TLS and the connection end in good order."""
    client = door_of(log, Apps(lambda: None)).connect(ALICE, version)
    client.send(b"nobody reads this")
    assert client.close_notified
    assert client.disconnected
    assert not client.aborted
    admission, declined = log.events
    assert admission["rule"] == "rule"
    assert "declined" in declined["log_format"]


def test_declined_and_stays(log: Log, version: Version) -> None:
    """A client that does not answer the end of TLS is dropped at the handshake timeout;
    one that does leaves nothing behind."""
    gate = door_of(log, Apps(lambda: None), handshake_timeout=3.0)
    client = gate.connect(ALICE, version, answer_close=False)
    client.send(b"x")
    assert client.close_notified
    gate.clock.advance(2.9)
    assert not client.disconnected
    gate.clock.advance(0.1)
    gate.clock.advance(0)
    assert client.disconnected
    gate.connect(ALICE, version).handshake()
    assert not gate.clock.getDelayedCalls()


class Oops(Exception):
    """What an application could raise."""


class Fails(App):
    """Fails where it is told to."""

    where = "connectionMade"

    def makeConnection(self, transport: object) -> None:
        self._fail("makeConnection")
        super().makeConnection(transport)

    def connectionMade(self) -> None:
        super().connectionMade()
        self._fail("connectionMade")

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self._fail("dataReceived")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason
        self._fail("connectionLost")

    def _fail(self, here: str) -> None:
        if here == self.where:
            raise Oops


@implementer(IHandshakeListener)
class FailsListening(Fails):
    where = "handshakeCompleted"

    def handshakeCompleted(self) -> None:
        self._fail("handshakeCompleted")


def test_build_protocol_fails(log: Log, version: Version) -> None:
    """It costs this connection and no other, and is logged."""

    def build() -> Protocol:
        if len(apps.addresses) == 2:
            raise Oops
        return App()

    apps = Apps(build)
    gate = door_of(log, apps)
    clients = [gate.connect(ALICE, version) for _ in range(3)]
    for client in clients:
        client.handshake()
    assert [client.established for client in clients] == [True, False, True]
    assert clients[1].disconnected
    log.expect_failure(Oops)


@pytest.mark.parametrize(
    "where",
    ["makeConnection", "connectionMade", "handshakeCompleted", "dataReceived", "connectionLost"],
)
def test_a_protocol_fails(log: Log, version: Version, where: str) -> None:
    """Wherever it raises, it costs this connection and no other, and is logged."""

    class Here(FailsListening):
        pass

    Here.where = where
    protocols: list[Protocol] = [App(), Here(), App()]
    waiting = iter(protocols)
    gate = door_of(log, Apps(lambda: next(waiting)))
    clients = [gate.connect(ALICE, version) for _ in range(3)]
    for client in clients:
        client.send(b"x")
    if where == "connectionLost":
        clients[1].close()
    assert [client.established for client in clients] == [True, False, True]
    assert clients[1].disconnected
    assert len(log.events) == 3
    log.expect_failure(Oops)
    for client in (clients[0], clients[2]):
        client.close()
    failed = protocols[1]
    assert isinstance(failed, App)
    if where != "makeConnection":
        assert failed.lost is not None


def test_handshake_listener(log: Log, version: Version) -> None:
    """An application that listens for the handshake hears of it, once, when made."""

    @implementer(IHandshakeListener)
    class Listener(App):
        def handshakeCompleted(self) -> None:
            self.events.append("handshake")

    apps = Apps(Listener)
    client = door_of(log, apps).connect(ALICE, version)
    client.send(b"x")
    [app] = apps.built
    assert isinstance(app, Listener)
    assert app.events == ["made", "handshake", "data"]


def test_the_transport_does_what_twisteds_tls_transport_does(log: Log, version: Version) -> None:
    """The transport is a TLS transport of Twisted's, and nothing is in its way."""
    _, app = connected(log, version)
    for interface in (ISSLTransport, INegotiated, ISystemHandle, ITCPTransport):
        assert interface.providedBy(app.transport)
    certificate = app.transport.getPeerCertificate()
    assert isinstance(certificate, X509)
    assert certificate.to_cryptography() == ALICE.certificate
    assert app.transport.negotiatedProtocol is None
    assert app.transport.getTcpNoDelay()


def test_the_negotiated_protocol_is_known(log: Log, version: Version) -> None:
    apps = Apps()
    door_of(log, apps, alpn=(b"x", b"y")).connect(ALICE, version, alpn=["y"]).handshake()
    [app] = apps.built
    assert isinstance(app, App)
    assert app.transport.negotiatedProtocol == b"y"
    assert IVerifiedPeer(app.transport).alpn == "y"


def test_lose_connection(log: Log, version: Version) -> None:
    """What was written arrives, then close_notify, then the end."""
    client, app = connected(log, version)
    app.transport.write(b"bye")
    app.transport.loseConnection()
    assert client.receive() == b"bye"
    assert client.close_notified
    assert not client.aborted
    assert app.lost is not None
    assert app.lost.check(ConnectionDone)


def test_abort_connection(log: Log, version: Version) -> None:
    client, app = connected(log, version)
    app.transport.abortConnection()
    client.pump()
    assert client.aborted
    assert app.lost is not None
    assert app.lost.check(ConnectionLost)


def test_a_client_that_is_gone_is_no_rejection(log: Log, version: Version) -> None:
    """A client that is gone is no rejection."""
    client, app = connected(log, version)
    client.reset()
    assert app.lost is not None
    assert app.lost.check(ConnectionLost)
    assert log.only["rule"] == "rule"


def test_start_and_stop(log: Log) -> None:
    """The application's factory starts and stops with the gate's, once each."""
    apps = Apps()
    gate = door_of(log, apps)
    gate.entrance.start()
    assert apps.calls == ["start"]
    gate.entrance.stop()
    assert apps.calls == ["start", "stop"]
    # Two listeners, one application.
    first, second = (Entrance.of(gate.server, gate.entrance.connections) for _ in range(2))
    first.start()
    second.start()
    first.stop()
    assert apps.calls == ["start", "stop", "start"]
    second.stop()
    assert apps.calls == ["start", "stop"] * 2


class Environment:
    """What plugins are told."""

    server = "door"
    server_names: tuple[str, ...] = ()
    names_elsewhere: tuple[str, ...] = ()
    directory = Path()

    def __init__(self) -> None:
        self.reactor: object = None


def test_every_byte_comes_back(log: Log, version: Version) -> None:
    """Every byte comes back, however many and however cut."""
    application = echo.build(echo.configuration(), Environment())  # type: ignore[arg-type]
    client = door_of(log, application).connect(ALICE, version, piece_size=1000)
    data = bytes(range(256)) * 2000
    for at in range(0, len(data), 100_000):
        client.send(data[at : at + 100_000])
    assert client.receive() == data


def test_echo_backpressure(log: Log, version: Version) -> None:
    """A client that does not read is not read from: what the gate holds is bounded."""
    application = echo.build(echo.configuration(), Environment())  # type: ignore[arg-type]
    client = door_of(log, application).connect(ALICE, version)
    client.handshake()
    client.pause_reading()
    sent = 0
    for _ in range(200):
        client.send(b"x" * 16_384)
        sent += 16_384
    assert client.transport.untaken < 2**18
    assert client.transport.unread > 2**20
    client.resume_reading()
    assert len(client.receive()) == sent
    assert client.transport.unread == 0


def test_echo_close(log: Log, version: Version) -> None:
    """It ends with its client, in good order."""
    application = echo.build(echo.configuration(), Environment())  # type: ignore[arg-type]
    client = door_of(log, application).connect(ALICE, version)
    client.send(b"x")
    client.close()
    assert client.disconnected
    assert client.receive() == b"x"


def http(
    log: Log, version: Version, request: bytes, gate: MemoryGate | None = None
) -> tuple[bytes, bytes]:
    """:returns: the head and the body of the answer."""
    environment = Environment()
    if gate is None:
        gate = MemoryGate([rule("IOT", ca=ROOT)], log, whoami_site(environment))
    environment.reactor = gate.clock
    client = gate.connect(ALICE if gate.rules else None, version)
    client.send(request.replace(b"\n", b"\r\n"))
    head, _, body = client.receive().partition(b"\r\n\r\n")
    client.close()
    gate.clock.advance(1)
    return head, body


def whoami_site(environment: Environment) -> IProtocolFactory:
    from twisted.internet.task import Clock

    environment.reactor = Clock()
    return whoami.build(whoami.configuration(), environment)  # type: ignore[arg-type]


def test_whoami_tells_clients_who_they_are(log: Log, version: Version) -> None:
    """``GET /`` tells clients who the gate takes them for, as JSON."""
    head, body = http(log, version, b"GET / HTTP/1.1\nHost: x\nConnection: close\n\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"application/json" in head
    known = json.loads(body)
    assert known["rule"] == "IOT"
    assert known["fingerprint_sha256"] == ALICE.sha256
    assert known["tls_version"] == f"TLSv{version}"


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"HEAD / HTTP/1.1", b"200"),
        (b"POST / HTTP/1.1\nContent-Length: 0", b"405"),
        (b"PUT / HTTP/1.1\nContent-Length: 0", b"405"),
        (b"DELETE / HTTP/1.1", b"405"),
        (b"GET /x HTTP/1.1", b"404"),
        (b"GET /x/y HTTP/1.1", b"404"),
        (b"GET //x HTTP/1.1", b"404"),
        (b"GET /?a=b HTTP/1.1", b"200"),
    ],
)
def test_whoami_status(log: Log, version: Version, request_line: bytes, status: bytes) -> None:
    """Anything else is 404 or 405."""
    head, body = http(log, version, request_line + b"\nHost: x\nConnection: close\n\n")
    assert head.split()[1] == status
    if request_line.startswith(b"HEAD"):
        assert body == b""


def test_whoami_nobody(log: Log, version: Version) -> None:
    """Where nobody is asked, nobody is known."""
    gate = MemoryGate(None, log, whoami_site(Environment()))
    _, body = http(log, version, b"GET / HTTP/1.1\nHost: x\nConnection: close\n\n", gate)
    assert json.loads(body) is None


def test_not_judged(log: Log) -> None:
    """A handshake that was completed and not judged is turned away: nothing is
    known to lead here."""
    gate = MemoryGate([rule(ca=ROOT)], log)
    context = gate.server.context._contexts[0]
    context.set_verify(0, lambda *_: True)
    assert gate.try_in(ALICE) == rejected(Reason.INTERNAL_ERROR, None)


def test_a_failure_while_admitting_lets_nobody_in(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is: a rejection with a reason, and a connection that is over."""
    apps = Apps()
    gate = door_of(log, apps)

    def fail(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(gate.entrance.connections, "admit", fail)
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    log.expect_failure(RuntimeError)
    assert gate.verdict() == rejected(Reason.INTERNAL_ERROR, None)
    assert apps.built == []
    assert client.disconnected
    assert len(gate.entrance.connections) == 0
