"""
Connections by way of a proxy: whose address they have, and who may say so.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from attrs import field, frozen
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol

from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.trusted_proxies import TrustedProxies
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.load.trusted_proxies import read_network
from mtlsgate.peer import address_text
from mtlsgate.proxyprotocol import alpn_tlv, encode_local, encode_v1, encode_v2
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, RecordingFactory, Version
from tests.kits.gate import Log, MemoryGate, admitted, rejected, rule

CA = Authority.create("CA")
ALICE = CA.issue("alice")
STRANGER = Authority.create("Other").issue("stranger")

PROXY = IPv4Address("TCP", "10.1.2.3", 40000)
GATE = IPv4Address("TCP", "10.9.9.9", 8443)
CLIENT, PUBLIC = IPv4Address("TCP", "192.0.2.7", 56324), IPv4Address("TCP", "198.51.100.1", 443)
UDP = IPv4Address("UDP", "192.0.2.8", 443)
CLIENT6, PUBLIC6 = IPv6Address("TCP", "2001:db8::7", 1), IPv6Address("TCP", "2001:db8::1", 443)
TIMEOUT = 7.5

V1, V2 = encode_v1(CLIENT, PUBLIC), encode_v2(CLIENT, PUBLIC)
HEADERS = [
    (V1, CLIENT, PUBLIC),
    (V2, CLIENT, PUBLIC),
    (encode_v1(CLIENT6, PUBLIC6), CLIENT6, PUBLIC6),
    (encode_v2(CLIENT6, PUBLIC6, [alpn_tlv(b"x")], checksum=True), CLIENT6, PUBLIC6),
    (encode_v2(UDP, PUBLIC), UDP, IPv4Address("UDP", PUBLIC.host, PUBLIC.port)),
    # These tell of nobody: the addresses are the connection's own.
    (b"PROXY UNKNOWN\r\n", PROXY, GATE),
    (b"PROXY UNKNOWN 192.0.2.7 198.51.100.1 1 2\r\n", PROXY, GATE),
    (encode_local(), PROXY, GATE),
    (encode_v2(UNIXAddress(None), CLIENT), PROXY, GATE),
]
SHAPES = ["one server", "resumption", "names"]


class Application(RecordingFactory):
    """Notes for whom it built."""

    def __init__(self) -> None:
        super().__init__(echo=True)
        self.addresses: list[IAddress | None] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        self.addresses.append(addr)
        return super().buildProtocol(addr)


def behind_proxies(
    gate: MemoryGate, shape: str = "one server", networks: tuple[str, ...] = ("10.0.0.0/8",)
) -> Entrance:
    names = ["a.example"] if shape == "names" else []
    return Entrance(
        "",
        "door",
        [(names, gate.server)],
        gate.entrance.connections,
        otherwise=None if names else gate.server,
        proxies=TrustedProxies(tuple(map(read_network, networks))),
        reads_hello=shape != "one server",
    )


@frozen(eq=False)
class Site:
    """
    A server that proxies connect to.

    :ivar shape: whether its ClientHello is read before TLS, as where sessions
        resume and where servers have names.
    """

    log: Log
    shape: str = "one server"
    networks: tuple[str, ...] = ("10.0.0.0/8",)
    gate: MemoryGate = field(init=False)
    entrance: Entrance = field(init=False)

    def __attrs_post_init__(self) -> None:
        gate = MemoryGate(
            [rule(ca=CA)],
            self.log,
            Application(),
            handshake_timeout=TIMEOUT,
            session_lifetime=None if self.shape == "one server" else 3600.0,
        )
        object.__setattr__(self, "gate", gate)
        object.__setattr__(self, "entrance", behind_proxies(gate, self.shape, self.networks))

    @property
    def application(self) -> Application:
        assert isinstance(self.gate.application, Application)
        return self.gate.application

    def connect(
        self, header: bytes, version: Version | None = None, credential: Any = ALICE, **options: Any
    ) -> Client:
        """:returns: a client whose header has arrived, and no more."""
        bounds = {} if version is None else {"min_version": version, "max_version": version}
        ends = {"address": PROXY, "host": GATE}
        client = Client(
            self.entrance,
            credential,
            clock=self.gate.clock,
            server_name="a.example",
            **(ends | bounds | options),
        )
        if header:
            client.raw_send(header)
        return client

    def refused(self, client: Client) -> tuple[Reason, str, str]:
        """:returns: why it was turned away, the detail, and from where it came."""
        client.pump()
        self.gate.check_turned_away(client)
        event = self.log.only
        self.log.events.clear()
        assert self.gate.clock.getDelayedCalls() == []
        return Reason(event["reason"]), event["detail"], event["peer_address"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("header", "peer", "host"), HEADERS)
def test_the_address_is_the_clients(
    log: Log, version: Version, shape: str, header: bytes, peer: IAddress, host: IAddress
) -> None:
    """In the log, to the application's factory, in its transport and its peer."""
    site = Site(log, shape)
    client = site.connect(header, version)
    assert site.gate.judge(client) == admitted()
    assert log.only["peer_address"] == address_text(peer)
    assert site.application.addresses == [peer]
    [protocol] = site.application.protocols
    assert protocol.transport is not None
    assert (protocol.transport.getPeer(), protocol.transport.getHost()) == (peer, host)
    assert IVerifiedPeer(protocol.transport).address == peer
    client.close()
    assert protocol.lost is not None
    assert site.gate.clock.getDelayedCalls() == []


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("header", [V1, V2])
def test_every_split(log: Log, shape: str, header: bytes) -> None:
    """Wherever the bytes are cut, in the header, at its end or in the ClientHello."""
    for at in range(1, len(header) + 7):
        site = Site(log, shape)
        client = site.connect(b"")
        data = header + client.take_outgoing()
        client.raw_send(data[:at])
        client.raw_send(data[at:])
        assert site.gate.judge(client) == admitted()
        assert log.only["peer_address"] == "192.0.2.7:56324"
        log.events.clear()


@pytest.mark.parametrize("shape", SHAPES)
def test_byte_by_byte(log: Log, version: Version, shape: str) -> None:
    site = Site(log, shape)
    client = site.connect(V2, version, piece_size=1)
    assert site.gate.judge(client) == admitted()
    assert site.application.addresses == [CLIENT]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("credential", "reason"),
    [(None, Reason.NO_CERTIFICATE), (STRANGER, Reason.UNKNOWN_CA)],
)
def test_the_address_of_who_is_rejected(
    log: Log, version: Version, shape: str, credential: Any, reason: Reason
) -> None:
    """It is the client's, too."""
    site = Site(log, shape)
    client = site.connect(V2, version, credential)
    depth = None if credential is None else 0
    assert site.gate.judge(client) == rejected(reason, depth)
    assert log.only["peer_address"] == "192.0.2.7:56324"


def test_a_session_resumes_from_whatever_address(log: Log, version: Version) -> None:
    """A session resumes whatever proxy and address it comes from, and is judged again."""
    site = Site(log, "resumption")
    earlier = site.connect(V2, version)
    assert site.gate.judge(earlier) == admitted()
    again = site.connect(encode_v1(CLIENT6, PUBLIC6), version, session=earlier.session)
    assert site.gate.judge(again) == admitted()
    assert again.resumed
    assert site.application.addresses == [CLIENT, CLIENT6]


# Who may not.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("header", [V1, V2, b"", encode_local(), b"\x16\x03\x01"])
def test_an_untrusted_proxy_is_not_read_from(log: Log, shape: str, header: bytes) -> None:
    """Who is not trusted is turned away under its own address, whatever it says, and
    before it says anything."""
    site = Site(log, shape, ("10.0.0.0/16", "10.1.2.4", "2001:db8::/32"))
    client = site.connect(header)
    assert site.refused(client) == (
        Reason.UNTRUSTED_PROXY,
        "it is not one of the trusted_proxies",
        "10.1.2.3:40000",
    )
    assert client.aborted


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "what arrived is no PROXY header"),
        (b"PROXY TCP4 192.0.2.7\r\n", "the PROXY line is not two addresses"),
        (V2[:12] + b"\x31", "the PROXY header is of a version other than 1 and 2"),
    ],
)
def test_a_malformed_header_ends_the_connection(log: Log, data: bytes, detail: str) -> None:
    """What is no header ends the connection, with the reason in the log."""
    site = Site(log)
    client = site.connect(data)
    reason, said, address = site.refused(client)
    assert (reason, address) == (Reason.PROXY_PROTOCOL_ERROR, "10.1.2.3:40000")
    assert said.startswith(detail)
    assert client.aborted


def test_no_header(log: Log, version: Version) -> None:
    """TLS without a header before it is refused where one is required."""
    site = Site(log)
    client = site.connect(b"", version)
    assert site.refused(client) == (
        Reason.PROXY_PROTOCOL_ERROR,
        "TLS began without a PROXY header before it",
        "10.1.2.3:40000",
    )


UNEXPECTED = (
    "a PROXY header where TLS should begin: proxy_protocol is not set, or the header came twice"
)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("piece_size", [None, 1])
def test_a_second_header_is_not_tls(
    log: Log, shape: str, header: bytes, piece_size: int | None
) -> None:
    """A second header is not read, and is not TLS."""
    site = Site(log, shape)
    client = site.connect(V2 + header, piece_size=piece_size)
    assert site.refused(client) == (Reason.NOT_TLS, UNEXPECTED, "192.0.2.7:56324")


@pytest.mark.parametrize("header", [V1, V2])
@pytest.mark.parametrize("piece_size", [None, 1])
def test_an_unexpected_header_is_named_in_the_log(
    log: Log, header: bytes, piece_size: int | None
) -> None:
    """Where no header is to come, the log says what came."""
    gate = MemoryGate([rule(ca=CA)], log)
    client = gate.connect(ALICE, piece_size=piece_size)
    client.raw_send(header)
    client.pump()
    gate.check_turned_away(client)
    assert (log.only["reason"], log.only["detail"]) == ("not_tls", UNEXPECTED)


# Time, and going away.


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("part", [b"", V1[:9], V2[:20]])
def test_a_header_that_is_late_times_out(log: Log, shape: str, part: bytes) -> None:
    """A header that does not come, or not whole, ends in a timeout."""
    site = Site(log, shape)
    client = site.connect(part)
    site.gate.clock.advance(TIMEOUT - 0.25)
    assert not client.aborted
    site.gate.clock.advance(0.25)
    assert site.refused(client) == (
        Reason.HANDSHAKE_TIMEOUT,
        "no whole PROXY header after 7.5 s",
        "10.1.2.3:40000",
    )
    assert client.aborted


@pytest.mark.parametrize("shape", SHAPES)
def test_one_timeout_for_all(log: Log, shape: str) -> None:
    """The time for the handshake is counted from the connection, not from the header."""
    site = Site(log, shape)
    client = site.connect(V2[:20])
    site.gate.clock.advance(5)
    client.raw_send(V2[20:])
    site.gate.clock.advance(TIMEOUT - 5 - 0.25)
    hello = client.take_outgoing()
    client.raw_send(hello[:-1])
    assert not client.disconnected
    assert log.events == []
    site.gate.clock.advance(0.25)
    reason, _, address = site.refused(client)
    assert (reason, address) == (Reason.HANDSHAKE_TIMEOUT, "192.0.2.7:56324")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("sent", "address"),
    [
        (b"", "10.1.2.3:40000"),
        (V1[:9], "10.1.2.3:40000"),
        (V1, "192.0.2.7:56324"),
        (encode_local(), "10.1.2.3:40000"),
    ],
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_health_check_that_hangs_up_is_peer_gone(
    log: Log, shape: str, sent: bytes, address: str, how: str
) -> None:
    """A health check that hangs up, with a header or without, is gone, as elsewhere."""
    site = Site(log, shape)
    client = site.connect(sent)
    if how == "close":
        client.transport.finish()
    else:
        client.reset()
    reason, _, found = site.refused(client)
    assert (reason, found) == (Reason.PEER_GONE, address)


def test_nothing_after_a_refusal(log: Log) -> None:
    """What still arrives of who was refused changes nothing."""
    site = Site(log)
    client = site.connect(b"\0")
    client.raw_send(V2)
    assert site.refused(client)[0] is Reason.PROXY_PROTOCOL_ERROR


# What the application's transport still does.


@pytest.mark.parametrize("by", ["client", "server", "abort", "reset"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_end_of_a_connection_passes_through(
    log: Log, version: Version, shape: str, by: str
) -> None:
    """The end of a connection passes through, from either side."""
    site = Site(log, shape)
    client = site.connect(V2, version)
    assert site.gate.judge(client) == admitted()
    [protocol] = site.application.protocols
    transport = protocol.transport
    assert transport is not None
    if by == "client":
        client.close()
    elif by == "server":
        transport.write(b"bye")
        transport.loseConnection()
        assert client.receive() == b"bye"
        assert client.close_notified
    elif by == "abort":
        transport.abortConnection()  # type: ignore[attr-defined]
    else:
        client.reset()
    client.pump()
    assert client.disconnected
    assert protocol.lost is not None
    assert IVerifiedPeer(transport).address == CLIENT
    assert len(log.events) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_backpressure_works_both_ways(log: Log, version: Version, shape: str) -> None:
    """A producer behind the gate is paused when its client does not read, and the
    application can stop reading."""
    site = Site(log, shape)
    client = site.connect(V2, version)
    assert site.gate.judge(client) == admitted()
    [protocol] = site.application.protocols
    calls: list[str] = []

    class Producer:
        def __getattr__(self, name: str) -> Callable[[], None]:
            return lambda: calls.append(name)

    transport: Any = protocol.transport
    transport.registerProducer(Producer(), True)
    client.pause_reading()
    for _ in range(20):
        transport.write(bytes(16384))
        client.step()
    assert "pauseProducing" in calls
    client.resume_reading()
    assert len(client.receive()) == 20 * 16384
    assert "resumeProducing" in calls
    transport.unregisterProducer()
    transport.pauseProducing()
    client.send(b"wait")
    assert client.receive() == b""
    transport.resumeProducing()
    assert client.receive() == b"wait"


def test_no_delay(log: Log, version: Version) -> None:
    """Nagle's algorithm is off, as without a proxy."""
    site = Site(log)
    client = site.connect(V2, version)
    assert site.gate.judge(client) == admitted()
    [protocol] = site.application.protocols
    transport: Any = protocol.transport
    assert transport.getTcpNoDelay()


def test_a_unix_name_cannot_forge_a_line(log: Log) -> None:
    """What a proxy calls its client is printable in the log."""
    site = Site(log)
    name = UNIXAddress(b"/run/a\n2026 admitted \xff")
    client = site.connect(encode_v2(name, UNIXAddress(b"/run/b")))
    assert site.gate.judge(client) == admitted()
    assert log.only["peer_address"] == "unix:/run/a\\n2026 admitted \ufffd"
    assert site.application.addresses == [name]


def test_start_and_stop(log: Log) -> None:
    """The application starts and stops with the port."""
    calls: list[str] = []

    class Counting(RecordingFactory):
        def startFactory(self) -> None:
            calls.append("start")

        def stopFactory(self) -> None:
            calls.append("stop")

    gate = MemoryGate([rule(ca=CA)], log, Counting())
    entrance = behind_proxies(gate)
    entrance.start()
    entrance.stop()
    assert calls == ["start", "stop"]


def test_a_failing_application_costs_its_connection_alone(log: Log) -> None:
    """An exception behind the header is logged, and ends the connection."""

    class Failing(Protocol):
        def dataReceived(self, data: bytes) -> None:
            raise ZeroDivisionError

    class Application(RecordingFactory):
        def buildProtocol(self, addr: IAddress | None) -> Any:
            return Failing()

    gate = MemoryGate([rule(ca=CA)], log, Application())
    client = Client(behind_proxies(gate), ALICE, clock=gate.clock, address=PROXY, host=GATE)
    client.raw_send(V2)
    client.send(b"x")
    assert client.disconnected
    log.expect_failure(ZeroDivisionError)


@pytest.mark.slow
def test_noise_admits_nobody_and_raises_nothing(log: Log) -> None:
    """Whatever comes, in whatever pieces: no exception, and nobody in who is not by rights."""
    choose = random.Random(7)
    reasons = set()
    for _ in range(400):
        site = Site(log, choose.choice(SHAPES))
        client = site.connect(b"", credential=None)
        data = bytearray(choose.choice([V1, V2, encode_local()]) + client.take_outgoing()[:40])
        for _ in range(choose.randrange(1, 4)):
            at = choose.randrange(len(data))
            data[at : at + choose.randrange(2)] = choose.randbytes(choose.randrange(3))
        while data and not client.disconnected:
            size = choose.randrange(1, 60)
            client.raw_send(bytes(data[:size]))
            del data[:size]
        site.gate.clock.advance(TIMEOUT)
        reasons.add(site.refused(client)[0])
    assert reasons >= {
        Reason.PROXY_PROTOCOL_ERROR,
        Reason.HANDSHAKE_TIMEOUT,
        Reason.NOT_TLS,
        Reason.PROTOCOL_ERROR,
    }
