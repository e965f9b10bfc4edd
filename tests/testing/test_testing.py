"""The in-memory client, against a plain Twisted TLS server."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mtlsgate.testing import (
    Authority,
    Client,
    MemoryTransport,
    RecordingFactory,
    RecordingProtocol,
    Version,
    gate,
    self_signed,
)
from tests.kits.forgery import sha1_signed

Verify = Callable[[SSL.Connection, X509, int, int, int], bool]


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """A context, as a raw Twisted server has it."""

    def __init__(self, context: SSL.Context) -> None:
        self.context = context

    def serverConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self.context, None)


class Server:
    """A clock, a CA, and a TLS server that asks for certificates of that CA."""

    def __init__(self, version: Version = "1.3") -> None:
        self.clock = Clock()
        self.authority = Authority.create()
        self.credential = self.authority.issue(
            "server", dns_names=["server"], usages=["server_auth"]
        )
        self.alice = self.authority.intermediate().issue("alice")
        self.context = context = SSL.Context(SSL.TLS_SERVER_METHOD)
        number = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[version]
        context.set_min_proto_version(number)
        context.set_max_proto_version(number)
        context.use_certificate(self.credential.certificate)
        context.use_privatekey(self.credential.private_key)
        context.set_session_id(b"test")
        store = context.get_cert_store()
        assert store is not None
        store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
        store.add_cert(X509.from_cryptography(self.authority.certificate))
        context.add_client_ca(self.authority.certificate)
        self.verify()

    def verify(self, callback: Verify | None = None, required: bool = True) -> None:
        mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if required else 0)
        self.context.set_verify(mode, callback)

    def factory(self, wrapped: IProtocolFactory) -> TLSMemoryBIOFactory:
        return TLSMemoryBIOFactory(Creator(self.context), False, wrapped, clock=self.clock)


@pytest.fixture(params=["1.2", "1.3"])
def server(request: pytest.FixtureRequest) -> Server:
    version: Version = request.param
    return Server(version)


@pytest.fixture
def logged() -> Iterator[list[type[BaseException]]]:
    """The types of the errors that were logged."""
    found: list[type[BaseException]] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "log_failure" in event:
            found.append(event["log_failure"].type)

    globalLogPublisher.addObserver(observe)
    yield found
    globalLogPublisher.removeObserver(observe)


def wrap(protocol: type[Protocol]) -> IProtocolFactory:
    class Wrapped(Factory):
        noisy = False

        def buildProtocol(self, addr: object) -> Protocol:
            return protocol()

    return Wrapped()


def only(factory: RecordingFactory) -> RecordingProtocol:
    [protocol] = factory.protocols
    return protocol


def why(protocol: RecordingProtocol) -> type[BaseException]:
    assert protocol.lost is not None
    assert protocol.lost.value is not None
    return type(protocol.lost.value)


class TestFlow:
    """What clients and servers mostly do."""

    def test_the_flow_of_the_docstring_works(self, server: Server) -> None:
        """The flow that the module's docstring shows."""
        app = RecordingFactory(echo=True)
        client = Client(server.factory(app), server.alice, clock=server.clock)
        assert not client.established
        client.handshake()
        assert client.established
        client.send(b"hi")
        assert client.receive() == b"hi"
        assert client.receive() == b""
        assert only(app).received == b"hi"

    def test_what_was_negotiated_can_be_asked_for(self, server: Server) -> None:
        """What was negotiated can be asked for."""
        client = Client(
            server.factory(RecordingFactory()),
            server.alice,
            clock=server.clock,
            trust=[server.authority.certificate],
            server_name="server",
        )
        client.handshake()
        assert client.established
        assert client.tls_version in ("TLSv1.2", "TLSv1.3")
        assert client.cipher is not None
        assert client.server_certificate == server.credential.certificate
        assert client.requested_ca_names == [server.authority.certificate.subject]
        assert client.negotiated_alpn is None
        assert client.alert is None

    def test_server_name(self, server: Server) -> None:
        """The server hears the name that was asked for."""
        names: list[bytes | None] = []
        server.context.set_tlsext_servername_callback(lambda c: names.append(c.get_servername()))
        factory = server.factory(RecordingFactory())
        Client(factory, server.alice, clock=server.clock, server_name="a.example").handshake()
        Client(factory, server.alice, clock=server.clock).handshake()
        assert names == [b"a.example", None]

    def test_no_certificate(self, server: Server) -> None:
        """A client may have no certificate, where the server lets it."""
        server.verify(required=False)
        app = RecordingFactory(echo=True)
        client = Client(server.factory(app), clock=server.clock)
        client.send(b"hi")
        assert client.receive() == b"hi"

    def test_the_client_sends_its_chain_or_another(self, server: Server) -> None:
        """The client sends its intermediates, or what it is told to instead."""
        seen: list[list[str]] = []
        stranger = self_signed("stranger").certificate

        class App(Protocol):
            def dataReceived(self, data: bytes) -> None:
                assert isinstance(self.transport, TLSMemoryBIOProtocol)
                chain = self.transport.getHandle().get_peer_cert_chain(as_cryptography=True)
                seen.append([each.subject.rfc4514_string() for each in chain])

        factory = server.factory(wrap(App))
        direct = server.authority.issue("bob")
        Client(factory, server.alice, clock=server.clock).send(b".")
        Client(factory, direct, clock=server.clock, chain=[stranger]).send(b".")
        # With the issuer at hand: OpenSSL would add it by itself.
        trust = [server.authority.certificate]
        Client(factory, direct, clock=server.clock, trust=trust).send(b".")
        assert seen == [["CN=Test Intermediate CA"], ["CN=stranger"], []]

    def test_missing_intermediate(self, server: Server) -> None:
        """Without its intermediate the client is a stranger."""
        factory = server.factory(RecordingFactory())
        client = Client(factory, server.alice, clock=server.clock, chain=[])
        client.handshake()
        assert not client.established
        assert client.alert is not None
        assert "unknown ca" in client.alert

    def test_the_clients_version_bounds_hold(self, server: Server) -> None:
        """The client's own bounds hold."""
        factory = server.factory(RecordingFactory())
        versions: tuple[Version, ...] = ("1.2", "1.3")
        outcome = {}
        for version in versions:
            client = Client(
                factory,
                server.alice,
                clock=server.clock,
                min_version=version,
                max_version=version,
            )
            client.handshake()
            outcome[version] = client.established
            if not client.established:
                assert client.alert is not None
                assert "protocol version" in client.alert
        assert sorted(outcome.values()) == [False, True]

    def test_old_version(self) -> None:
        """A client can be older than the server allows."""
        server = Server()
        client = Client(
            server.factory(RecordingFactory()),
            server.alice,
            clock=server.clock,
            min_version="1.0",
            max_version="1.1",
        )
        client.handshake()
        assert client.alert is not None
        assert "protocol version" in client.alert

    def test_alpn_is_offered_in_order(self, server: Server) -> None:
        """The client offers protocols in order and knows which was chosen."""
        offers: list[list[bytes]] = []

        def choose(connection: SSL.Connection, offered: list[bytes]) -> bytes:
            offers.append(offered)
            return offered[-1]

        server.context.set_alpn_select_callback(choose)
        client = Client(
            server.factory(RecordingFactory()),
            server.alice,
            clock=server.clock,
            alpn=["h2", "http/1.1"],
        )
        client.handshake()
        assert offers == [[b"h2", b"http/1.1"]]
        assert client.negotiated_alpn == "http/1.1"

    def test_the_server_sees_the_addresses_it_is_told(self, server: Server) -> None:
        """The server sees the addresses that it is told."""
        app = RecordingFactory()
        client = IPv6Address("TCP", "2001:db8::1", 1)
        host = IPv4Address("TCP", "192.0.2.1", 443)
        Client(server.factory(app), clock=server.clock, address=client, host=host)
        transport = only(app).transport
        assert transport is not None
        assert transport.getPeer() == client
        assert transport.getHost() == host

    def test_no_protocol_refuses_the_connection(self) -> None:
        """A factory that builds no protocol refuses the connection."""

        class Full(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        client = Client(Full(), clock=Clock())
        assert client.refused
        assert client.disconnected
        client.send(b"hi")
        client.close()
        client.reset()
        assert client.receive() == b""
        assert not client.established


class TestRejection:
    """The server's verdict, as its client gets to know it."""

    def test_no_certificate(self, server: Server) -> None:
        """A client that has no certificate and needs one."""
        app = RecordingFactory()
        client = Client(server.factory(app), clock=server.clock)
        client.handshake()
        assert not client.established
        assert client.disconnected
        # OpenSSL says handshake_failure in 1.2, which has no alert for this.
        assert client.alert is not None
        assert "certificate required" in client.alert or "handshake failure" in client.alert
        assert why(only(app)) is SSL.Error

    def test_verdict_comes_late(self) -> None:
        """In TLS 1.3 the client is done before the server has judged."""
        server = Server("1.3")
        server.verify(lambda *_: False)
        app = RecordingFactory(echo=True)
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.step()
        client.step()
        assert client.connection.get_finished() is not None
        assert client.alert is None
        client.pump()
        assert not client.established
        assert client.alert is not None

    def test_a_refusal_by_callback_is_seen_on_reading(self, server: Server) -> None:
        """A callback's refusal; what is sent all the same never arrives."""
        server.verify(lambda *_: False)
        app = RecordingFactory(echo=True)
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.send(b"hi")
        assert client.receive() == b""
        assert not client.established
        assert client.disconnected
        assert only(app).received == b""

    def test_early_data(self) -> None:
        """Bytes that travel with the last flight reach only who admits their sender."""
        for verdict in (True, False):
            server = Server("1.3")
            server.verify(lambda *_, verdict=verdict: verdict)
            app = RecordingFactory()
            client = Client(server.factory(app), server.alice, clock=server.clock)
            client.step()
            client.step()
            client.write(b"early")
            client.pump()
            assert only(app).received == (b"early" if verdict else b"")

    def test_another_cas_certificate_is_rejected(self, server: Server) -> None:
        """A certificate of some other CA."""
        client = Client(
            server.factory(RecordingFactory()),
            Authority.create("Other").issue("alice"),
            clock=server.clock,
        )
        client.handshake()
        assert not client.established

    def test_expired_certificate(self, server: Server) -> None:
        """An authority's past leaf is past for OpenSSL, too."""
        past = datetime.now(UTC) - timedelta(days=1)
        credential = server.authority.issue("alice", not_after=past)
        client = Client(server.factory(RecordingFactory()), credential, clock=server.clock)
        client.handshake()
        assert client.alert is not None
        assert "certificate expired" in client.alert

    def test_weak_certificates_are_sent(self, server: Server) -> None:
        """RSA-1024 and SHA-1 get as far as the server, which says no."""
        seen: list[X509] = []

        def verify(connection: SSL.Connection, certificate: X509, *_: int) -> bool:
            seen.append(certificate)
            return False

        key = rsa.generate_private_key(65537, 1024)
        rsa_root = Authority.create(key=rsa.generate_private_key(65537, 2048))
        sha1 = sha1_signed(rsa_root, rsa_root.issue("b"))
        server.verify(verify)
        factory = server.factory(RecordingFactory())
        for weak in (server.authority.issue("a", key=key), sha1):
            before = len(seen)
            Client(factory, weak, clock=server.clock).handshake()
            assert len(seen) > before

    def test_server_not_trusted(self, server: Server) -> None:
        """The client may be the one that objects."""
        app = RecordingFactory()
        client = Client(
            server.factory(app),
            server.alice,
            clock=server.clock,
            trust=[Authority.create("Other").certificate],
        )
        client.handshake()
        assert not client.established
        assert client.error == "certificate verify failed"
        assert client.alert is None
        assert why(only(app)) is SSL.Error


class TestEnding:
    """Every way for a connection to end."""

    def test_client_closes(self, server: Server) -> None:
        """close_notify and FIN: a clean end for the server."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.handshake()
        client.close()
        assert client.disconnected
        assert why(only(app)) is ConnectionDone

    def test_client_closes_before_handshake(self, server: Server) -> None:
        """FIN, and nothing before it."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.close()
        assert client.disconnected
        assert only(app).lost is not None

    def test_server_closes(self, server: Server) -> None:
        """The server's close_notify is answered, after its last bytes."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.handshake()
        transport = only(app).transport
        assert transport is not None
        transport.write(b"bye")
        transport.loseConnection()
        assert client.receive() == b"bye"
        assert client.close_notified
        assert client.disconnected
        assert not client.established
        assert why(only(app)) is ConnectionDone

    def test_unanswered_close(self, server: Server) -> None:
        """A client that does not answer keeps Twisted's TLS waiting."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock, answer_close=False)
        client.handshake()
        transport = only(app).transport
        assert transport is not None
        transport.loseConnection()
        client.pump()
        assert client.close_notified
        assert not client.disconnected
        client.reset()
        assert client.disconnected

    def test_server_aborts(self, server: Server) -> None:
        """An abort discards what was written, and is not reentrant."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.handshake()
        protocol = only(app)
        assert isinstance(protocol.transport, TLSMemoryBIOProtocol)
        protocol.transport.write(b"lost")
        protocol.transport.abortConnection()
        assert client.aborted
        assert protocol.lost is None
        server.clock.advance(0)
        # Twisted's TLS makes this of every end that is not clean.
        assert why(protocol) is ConnectionLost
        assert client.receive() == b""
        assert not client.established

    def test_clock_ends_it(self, server: Server) -> None:
        """A server's timeout needs only the clock."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        transport = only(app).transport
        assert isinstance(transport, TLSMemoryBIOProtocol)
        server.clock.callLater(10, transport.abortConnection)
        client.step()
        server.clock.advance(9)
        assert not client.disconnected
        server.clock.advance(1)
        assert client.disconnected
        assert only(app).lost is not None

    def test_reset_at_each_step(self, server: Server) -> None:
        """Reset after every flight: the server hears of it once, whatever it was at."""
        app = RecordingFactory()
        factory = server.factory(app)
        flights = 0
        complete = False
        while not complete:
            client = Client(factory, server.alice, clock=server.clock)
            moved = [client.step() for _ in range(flights)]
            complete = 0 in moved
            client.reset()
            assert client.disconnected
            assert why(app.protocols[-1]) is ConnectionLost
            assert app.protocols[-1].received == b""
            flights += 1
        assert 4 <= flights <= 7
        gc.collect()

    def test_reset_keeps_nothing(self, server: Server) -> None:
        """After a reset nothing more is delivered."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.handshake()
        client.reset()
        client.send(b"late")
        assert only(app).received == b""


class TestHostile:
    """Doing by hand what the pump does."""

    @pytest.mark.parametrize("size", [1, 7, 1000])
    def test_bytes_may_arrive_in_any_pieces(self, server: Server, size: int) -> None:
        """The server takes its bytes in any portions."""
        app = RecordingFactory(echo=True)
        client = Client(server.factory(app), server.alice, clock=server.clock, piece_size=size)
        client.send(b"hello" * 100)
        assert client.receive() == b"hello" * 100

    def test_a_client_may_speak_plaintext(self, server: Server) -> None:
        """A client that does not speak TLS."""
        app = RecordingFactory()
        client = Client(server.factory(app), clock=server.clock)
        client.raw_send(b"GET / HTTP/1.1\r\n\r\n")
        client.pump()
        assert client.disconnected
        assert only(app).received == b""

    def test_mutated_hello(self, server: Server) -> None:
        """The client's bytes can be taken, changed and sent by hand."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        hello = bytearray(client.take_outgoing())
        assert hello[:2] == b"\x16\x03"
        assert client.take_outgoing() == b""
        hello[5] = 0xFF
        client.raw_send(bytes(hello))
        client.pump()
        assert not client.established
        assert client.alert is not None
        assert "unexpected message" in client.alert

    def test_bytes_can_go_before_the_handshake(self, server: Server) -> None:
        """Bytes can go before the handshake, as a PROXY header does."""

        class Stripping(Protocol):
            """Takes one line off the start."""

            def __init__(self, inner: Protocol) -> None:
                self.inner = inner
                self.head: bytes | None = b""

            def connectionMade(self) -> None:
                assert self.transport is not None
                self.inner.makeConnection(self.transport)

            def dataReceived(self, data: bytes) -> None:
                if self.head is not None:
                    self.head, end, data = (self.head + data).partition(b"\r\n")
                    if not end:
                        return
                    header.append(self.head)
                    self.head = None
                if data:
                    self.inner.dataReceived(data)

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                self.inner.connectionLost(reason)

        class Outer(Factory):
            def buildProtocol(self, addr: object) -> Protocol:
                inner = server.factory(app).buildProtocol(addr)  # type: ignore[arg-type]
                assert isinstance(inner, Protocol)
                return Stripping(inner)

        header: list[bytes] = []
        app = RecordingFactory(echo=True)
        client = Client(Outer(), server.alice, clock=server.clock)
        client.raw_send(b"PROXY UNKNOWN\r\n")
        client.send(b"hi")
        assert client.receive() == b"hi"
        assert header == [b"PROXY UNKNOWN"]

    def test_write_before_handshake(self, server: Server) -> None:
        """There is nothing to encrypt with before the handshake."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.write(b"too early")
        client.handshake()
        assert client.established
        assert only(app).received == b""

    def test_never_quiet(self) -> None:
        """A server that never ends is an error and not a hang."""

        class Endless(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                # A pull producer on bare TCP: asked again after each portion.
                consumer = IConsumer(self.transport)
                consumer.registerProducer(self, False)  # type: ignore[arg-type]

            def resumeProducing(self) -> None:
                assert self.transport is not None
                self.transport.write(b"\0")

            def stopProducing(self) -> None:
                pass

        client = Client(wrap(Endless), clock=Clock(), answer_close=False)
        # What it writes is no TLS, and the client goes on reading.
        with pytest.raises(RuntimeError, match="quiet"):
            client.pump()


class TestSessions:
    """Offering an earlier session."""

    def test_a_resumed_session_is_told(self, server: Server) -> None:
        """A server that resumes, resumes; the client can tell."""
        factory = server.factory(RecordingFactory(echo=True))
        first = Client(factory, server.alice, clock=server.clock)
        first.send(b"hi")
        assert not first.resumed
        assert first.session is not None
        first.close()
        second = Client(factory, server.alice, clock=server.clock, session=first.session)
        second.send(b"again")
        assert second.receive() == b"again"
        assert second.resumed

    def test_other_credential(self, server: Server) -> None:
        """A session can be offered by who has no certificate at all."""
        factory = server.factory(RecordingFactory(echo=True))
        first = Client(factory, server.alice, clock=server.clock)
        first.handshake()
        first.close()
        thief = Client(factory, clock=server.clock, session=first.session)
        thief.send(b"again")
        assert thief.resumed
        assert thief.receive() == b"again"

    def test_no_resumption(self, server: Server) -> None:
        """A server that does not resume does a handshake in full."""
        server.context.set_options(SSL.OP_NO_TICKET)
        server.context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        factory = server.factory(RecordingFactory())
        first = Client(factory, server.alice, clock=server.clock)
        first.handshake()
        first.close()
        second = Client(factory, server.alice, clock=server.clock, session=first.session)
        second.handshake()
        assert second.established
        assert not second.resumed
        assert second.server_certificate == server.credential.certificate

    def test_before_the_handshake_there_is_no_session(self) -> None:
        """A client that has not spoken has no session."""
        server = Server()
        client = Client(server.factory(RecordingFactory()), clock=server.clock)
        assert client.session is None


@implementer(IPushProducer)
class Pouring(Protocol):
    """Writes and writes, for as long as it may."""

    instances: list[Pouring]

    def connectionMade(self) -> None:
        self.instances.append(self)
        self.events: list[str] = []
        self.left = 100
        self.going = False

    def dataReceived(self, data: bytes) -> None:
        IConsumer(self.transport).registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self.events.append("resume")
        self.going = True
        while self.going and self.left:
            self.left -= 1
            assert self.transport is not None
            self.transport.write(b"." * 10_000)
        if not self.left:
            IConsumer(self.transport).unregisterProducer()

    def pauseProducing(self) -> None:
        self.events.append("pause")
        self.going = False

    def stopProducing(self) -> None:
        self.events.append("stop")
        self.going = False


class TestBackpressure:
    """Neither side buffers without end."""

    def pouring(self, server: Server) -> tuple[Client, Pouring]:
        app = type("App", (Pouring,), {"instances": []})
        client = Client(server.factory(wrap(app)), server.alice, clock=server.clock)
        client.handshake()
        [protocol] = app.instances  # type: ignore[attr-defined]
        return client, protocol

    def test_server_is_paused(self, server: Server) -> None:
        """A client that does not read pauses the server's producer; reading resumes it."""
        client, protocol = self.pouring(server)
        client.pause_reading()
        client.send(b"go")
        assert protocol.events == ["resume", "pause"]
        assert protocol.left > 0
        assert client.receive() == b""
        client.resume_reading()
        assert protocol.left == 0
        assert len(client.receive()) == 1_000_000
        assert protocol.events.count("pause") == protocol.events.count("resume") - 1

    def test_reset_stops_the_producer(self, server: Server) -> None:
        """When the connection is lost the producer is told."""
        client, protocol = self.pouring(server)
        client.pause_reading()
        client.send(b"go")
        client.reset()
        assert protocol.events == ["resume", "pause", "stop"]

    def test_client_is_held_back(self, server: Server) -> None:
        """A server that does not read gets nothing until it does, a FIN included."""
        app = RecordingFactory()
        client = Client(server.factory(app), server.alice, clock=server.clock)
        client.handshake()
        producer = IPushProducer(only(app).transport)
        producer.pauseProducing()
        client.send(b"hi")
        client.close()
        assert only(app).received == b""
        assert not client.disconnected
        producer.resumeProducing()
        assert only(app).received == b""
        server.clock.advance(0)
        assert only(app).received == b"hi"
        client.pump()
        assert why(only(app)) is ConnectionDone


class TestExceptions:
    """What an application raises is logged, as under a reactor, and ends its connection."""

    def test_data_received(self, server: Server, logged: list[type[BaseException]]) -> None:
        """The exception ends the connection."""

        class App(Protocol):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        client = Client(server.factory(wrap(App)), server.alice, clock=server.clock)
        client.handshake()
        assert client.established
        client.send(b"hi")
        assert client.disconnected
        assert not client.established
        assert logged == [ZeroDivisionError]

    def test_without_tls_the_protocol_hears_its_own_exception(
        self, logged: list[type[BaseException]]
    ) -> None:
        """Without TLS between, the protocol hears of its own exception."""

        class Raising(RecordingProtocol):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        protocol = Raising()

        class App(Factory):
            def buildProtocol(self, addr: object) -> Protocol:
                return protocol

        client = Client(App(), clock=Clock())
        client.raw_send(b"hi")
        assert logged == [ZeroDivisionError]
        assert why(protocol) is ZeroDivisionError

    def test_connection_lost(self, server: Server, logged: list[type[BaseException]]) -> None:
        """A connection that is lost already stays so."""

        class App(Protocol):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                raise ZeroDivisionError

        client = Client(server.factory(wrap(App)), server.alice, clock=server.clock)
        client.handshake()
        client.reset()
        assert logged == [ZeroDivisionError]

    def test_delayed_call(self, server: Server, logged: list[type[BaseException]]) -> None:
        """Nothing but the log tells of a delayed call that raises."""

        def explode() -> None:
            raise ZeroDivisionError

        class App(RecordingProtocol):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                server.clock.callLater(0, explode)

        client = Client(server.factory(wrap(App)), server.alice, clock=server.clock)
        client.send(b"hi")
        assert logged == [ZeroDivisionError]
        assert client.established

    def test_build_protocol(self, logged: list[type[BaseException]]) -> None:
        """No protocol, no connection."""

        class App(Factory):
            def buildProtocol(self, addr: object) -> Protocol:
                raise ZeroDivisionError

        assert Client(App(), clock=Clock()).refused
        assert logged == [ZeroDivisionError]

    def test_connection_made(self, logged: list[type[BaseException]]) -> None:
        """As under a reactor, nobody closes what failed to start."""

        class App(Protocol):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        client = Client(wrap(App), clock=Clock())
        assert logged == [ZeroDivisionError]
        assert not client.refused
        assert not client.disconnected

    def test_verify_callback(self, server: Server, logged: list[type[BaseException]]) -> None:
        """pyOpenSSL re-raises what a verify callback raises; no alert is sent."""

        def verify(*_: object) -> bool:
            raise ZeroDivisionError

        server.verify(verify)
        client = Client(server.factory(RecordingFactory()), server.alice, clock=server.clock)
        client.handshake()
        assert logged == [ZeroDivisionError]
        assert client.disconnected
        assert client.alert is None


class TestTransport:
    """The server's end, without TLS."""

    def transport(self, app: IProtocolFactory) -> tuple[Clock, MemoryTransport]:
        clock = Clock()
        address = IPv4Address("TCP", "127.0.0.1", 1)
        transport = MemoryTransport(clock, address, address)
        transport.accept(app)
        return clock, transport

    def test_it_provides_what_tcp_provides(self) -> None:
        """It is what a protocol takes for TCP."""
        _, transport = self.transport(RecordingFactory())
        for interface in (ITCPTransport, IConsumer, IPushProducer):
            verifyObject(interface, transport)

    def test_socket_options_are_remembered(self) -> None:
        """Socket options are remembered."""
        _, transport = self.transport(RecordingFactory())
        assert not transport.getTcpNoDelay()
        assert not transport.getTcpKeepAlive()
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
        assert transport.getTcpNoDelay()
        assert transport.getTcpKeepAlive()

    def test_lose_connection(self) -> None:
        """What was written goes out first; nothing more comes in."""
        app = RecordingFactory()
        clock, transport = self.transport(app)
        transport.writeSequence([b"a", b"b"])
        transport.loseConnection()
        clock.advance(0)
        transport.deliver(b"late")
        assert only(app).lost is None
        assert transport.take() == b"ab"
        assert why(only(app)) is ConnectionDone
        assert only(app).received == b""

    def test_lose_connection_with_nothing_written(self) -> None:
        """The connection is lost, but not from within the call."""
        app = RecordingFactory()
        clock, transport = self.transport(app)
        transport.stopProducing()
        assert only(app).lost is None
        clock.advance(0)
        assert why(only(app)) is ConnectionDone
        transport.write(b"ignored")
        transport.abortConnection()
        clock.advance(0)
        assert transport.take() == b""
        assert not transport.aborted

    def test_abort_after_close(self) -> None:
        """A close that takes too long can still be cut short."""
        app = RecordingFactory()
        clock, transport = self.transport(app)
        transport.write(b"a")
        transport.loseConnection()
        clock.advance(0)
        transport.abortConnection()
        clock.advance(0)
        assert why(only(app)) is ConnectionAborted

    def test_only_bytes(self) -> None:
        """Text is not bytes."""
        _, transport = self.transport(RecordingFactory())
        with pytest.raises(TypeError, match="not str"):
            transport.write("text")  # type: ignore[arg-type]

    def test_there_is_one_producer_at_a_time(self) -> None:
        """One producer at a time, and none on a lost connection."""
        app = RecordingFactory()
        _, transport = self.transport(app)
        producer = Pouring()
        producer.events = []
        transport.registerProducer(producer, True)
        with pytest.raises(RuntimeError, match="already"):
            transport.registerProducer(producer, True)
        transport.lose(ConnectionLost())
        transport.registerProducer(producer, True)
        assert producer.events == ["stop", "stop"]
        assert transport.producer is None

    def test_producer_before_close(self) -> None:
        """A connection that is to be closed waits for a paused producer to finish."""
        app = RecordingFactory()
        clock, transport = self.transport(app)
        producer = Pouring()
        producer.events = []
        transport.registerProducer(producer, True)
        producer.transport, producer.left = transport, 10
        producer.resumeProducing()
        assert producer.events == ["resume", "pause"]
        transport.loseConnection()
        clock.advance(0)
        taken = transport.take()
        assert only(app).lost is None
        assert len(taken + transport.take()) == 10 * 10_000
        clock.advance(0)
        assert why(only(app)) is ConnectionDone

    def test_half_close(self) -> None:
        """Either direction can end by itself, for a protocol that can tell them apart."""

        @implementer(IHalfCloseableProtocol)
        class Half(RecordingProtocol):
            ends = 0

            def readConnectionLost(self) -> None:
                self.ends += 1

            def writeConnectionLost(self) -> None:
                pass

        protocol = Half()
        factory = RecordingFactory()
        factory.buildProtocol = lambda addr: protocol  # type: ignore[method-assign]
        clock, transport = self.transport(factory)
        transport.finish()
        transport.resumeProducing()
        clock.advance(0)
        assert (protocol.ends, protocol.lost) == (1, None)
        transport.loseWriteConnection()
        assert transport.write_ended
        assert transport.connected


class TestRecording:
    """The recording factory."""

    def test_everything_that_happens_is_recorded(self) -> None:
        """Everything that happens to a protocol is there to look at."""
        app = RecordingFactory()
        client = Client(app, clock=Clock())
        protocol = only(app)
        assert protocol.made
        assert protocol.peer is None
        assert protocol.lost is None
        client.raw_send(b"hi")
        assert protocol.received == b"hi"
        client.reset()
        assert why(protocol) is ConnectionLost

    def test_its_protocols_know_their_factory(self) -> None:
        """It is a protocol factory, and its protocols know it."""
        app = RecordingFactory()
        verifyObject(IProtocolFactory, app)
        assert app.buildProtocol(None).factory is app


def test_no_reactor() -> None:
    """Importing all of it installs no reactor."""
    code = "import sys, mtlsgate.testing; sys.exit('twisted.internet.reactor' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# A gate


TWO = """
server "one" {
  hosts = ["127.0.0.1:0"]
  protocol "echo" {}
  tls {
    client_certificate { ca_certificate_file = "ca.crt" }
  }
}
server "two" {
  hosts = ["127.0.0.1:0"]
  protocol "whoami" {}
  tls {
    client_certificate { ca_certificate_file = "ca.crt" }
  }
}
"""


def test_a_gate_is_what_a_configuration_says(tmp_path: Path) -> None:
    """The server that is named, its rules and its protocol, whose reactor is the clock."""
    authority = Authority.create()
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "gate.hcl").write_text(TWO)
    clock = Clock()
    one, two = (gate(tmp_path / "gate.hcl", clock, name) for name in ("one", "two"))
    client = Client(one, authority.issue("alice"), clock=clock)
    client.send(b"hi")
    assert client.receive() == b"hi"
    client = Client(two, authority.issue("alice"), clock=clock)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b'"common_name": "alice"' in client.receive()
    # The site's, of connections that are kept alive.
    assert clock.getDelayedCalls() != []
    mallory = Client(one, Authority.create().issue("mallory"), clock=clock)
    mallory.handshake()
    assert not mallory.established


def test_a_gate_judges_at_the_time_that_it_is_told(tmp_path: Path) -> None:
    authority = Authority.create()
    alice = authority.issue("alice")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "gate.hcl").write_text(TWO)
    now = alice.certificate.not_valid_after_utc
    clock = Clock()
    factory = gate(tmp_path / "gate.hcl", clock, "one", now=lambda: now)
    for later, admitted in ((timedelta(minutes=-5), True), (timedelta(minutes=5), False)):
        now = alice.certificate.not_valid_after_utc + later
        client = Client(factory, alice, clock=clock)
        client.send(b"hi")
        assert (client.receive() == b"hi") is admitted


@pytest.mark.parametrize("server", [None, "three"])
def test_a_gate_has_one_server(tmp_path: Path, server: str | None) -> None:
    """Which of several is meant must be said."""
    (tmp_path / "ca.crt").write_bytes(Authority.create().pem)
    (tmp_path / "gate.hcl").write_text(TWO)
    with pytest.raises(ValueError, match="which of these servers is meant: one, two"):
        gate(tmp_path / "gate.hcl", Clock(), server)
