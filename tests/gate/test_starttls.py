"""
Clients that ask for TLS in plaintext: what a connection goes through before TLS.
"""

from __future__ import annotations

import struct
from functools import partial
from typing import Any

import pytest
from attrs import field, frozen
from twisted.internet.address import IPv4Address

from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.terms import Terms
from mtlsgate.gate.trusted_proxies import TrustedProxies
from mtlsgate.load.trusted_proxies import read_network
from mtlsgate.proxyprotocol import encode_v2
from mtlsgate.reasons import Reason
from mtlsgate.starttls import DIALECTS
from mtlsgate.testing import Authority, Client, Version
from tests.kits.gate import Log, MemoryGate, Verdict, admitted, rejected, rule
from tests.kits.shared_address import ALICE, BOB, CA_A, address

STRANGER = Authority.create("Other").issue("stranger")
TIMEOUT = 7.5
PROXY, SOURCE, GATE = (
    IPv4Address("TCP", host, port)
    for host, port in (("10.1.2.3", 40000), ("192.0.2.7", 56324), ("10.9.9.9", 8443))
)

SSL_REQUEST = struct.pack("!II", 8, 80877103)
#: In each dialect: what a client says before TLS, and the last of what it hears.
DIALOGUES = {
    "postgres": ([SSL_REQUEST], b"S"),
    "smtp": ([b"EHLO x\r\n", b"STARTTLS\r\n"], b"220 2.0.0 begin TLS\r\n"),
    "imap": ([b"a STARTTLS\r\n"], b"a OK begin TLS\r\n"),
}
SHAPES = ["one server", "resumption"]


@frozen(eq=False)
class Site:
    """A server whose clients ask for TLS."""

    log: Log
    dialect: str
    shape: str = "one server"
    networks: tuple[str, ...] = ()
    limits: Limits = Limits()
    gate: MemoryGate = field(init=False)
    entrance: Entrance = field(init=False)

    @gate.default
    def _gate(self) -> MemoryGate:
        return MemoryGate(
            [rule(ca=CA_A)],
            self.log,
            handshake_timeout=TIMEOUT,
            terms=Terms(limits=self.limits),
            session_lifetime=None if self.shape == "one server" else 3600.0,
        )

    @entrance.default
    def _entrance(self) -> Entrance:
        networks = tuple(map(read_network, self.networks))
        return Entrance(
            "",
            "door",
            [((), self.gate.server)],
            self.gate.entrance.connections,
            otherwise=self.gate.server,
            proxies=TrustedProxies(networks) if networks else None,
            negotiate=partial(DIALECTS[self.dialect].negotiate, "mail.example"),
            reads_hello=self.shape != "one server",
        )

    def connect(
        self, version: Version | None = None, credential: Any = ALICE, **options: Any
    ) -> Client:
        """:returns: a client that has said nothing yet."""
        bounds = {} if version is None else {"min_version": version, "max_version": version}
        return Client(self.entrance, credential, clock=self.gate.clock, **(bounds | options))

    def upgrade(self, client: Client) -> None:
        """Say what comes before TLS, and hear the answer."""
        said, last = DIALOGUES[self.dialect]
        heard = b""
        for one in said:
            client.raw_send(one)
            heard += client.transport.take()
        assert heard.endswith(last)

    def judge(self, client: Client) -> Verdict:
        self.upgrade(client)
        return self.gate.judge(client)

    def refused(self, client: Client) -> tuple[Reason, str]:
        """:returns: why it was rejected, and the detail."""
        client.transport.turn()
        self.gate.clock.advance(0)
        self.gate.check_turned_away(client)
        event = self.log.only
        self.log.events.clear()
        assert self.gate.clock.getDelayedCalls() == []
        return Reason(event["reason"]), event["detail"]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", DIALOGUES)
def test_who_is_admitted_and_who_is_not(
    log: Log, version: Version, dialect: str, shape: str
) -> None:
    """After STARTTLS the rules decide, as on any connection."""
    site = Site(log, dialect, shape)
    assert site.judge(site.connect(version)) == admitted()
    log.events.clear()
    for credential, reason in ((STRANGER, Reason.UNKNOWN_CA), (None, Reason.NO_CERTIFICATE)):
        verdict = site.judge(site.connect(version, credential))
        assert verdict == rejected(reason, None if credential is None else 0)
        log.events.clear()


@pytest.mark.parametrize("dialect", ["smtp", "imap"])
def test_the_gate_greets_first(log: Log, dialect: str) -> None:
    """The greeting comes before the client says anything, once."""
    site = Site(log, dialect)
    greeting = DIALECTS[dialect].negotiate("mail.example").greeting
    client = site.connect()
    assert client.transport.take() == greeting
    client.raw_send(DIALOGUES[dialect][0][0])
    assert greeting not in client.transport.take()


@pytest.mark.parametrize("shape", SHAPES)
def test_direct_tls_at_the_same_port(log: Log, version: Version, shape: str) -> None:
    """PostgreSQL's clients may begin with TLS at once."""
    site = Site(log, "postgres", shape)
    assert site.gate.judge(site.connect(version)) == admitted()
    log.events.clear()
    assert site.gate.judge(site.connect(version, piece_size=1)) == admitted()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", DIALOGUES)
def test_behind_a_proxy(log: Log, version: Version, dialect: str, shape: str) -> None:
    """The PROXY header comes first, alone or with what follows it."""
    site = Site(log, dialect, shape, ("10.0.0.0/8",))
    header = encode_v2(SOURCE, GATE)
    said, last = DIALOGUES[dialect]
    for pieces in ([header, *said], [header + said[0], *said[1:]]):
        client = site.connect(version, address=PROXY, host=GATE)
        heard = b""
        for piece in pieces:
            client.raw_send(piece)
            heard += client.transport.take()
        assert heard.endswith(last)
        assert site.gate.judge(client) == admitted()
        assert log.only["peer_address"] == "192.0.2.7:56324"
        log.events.clear()


@pytest.mark.parametrize("dialect", DIALOGUES)
def test_the_name_chooses_the_server_after_starttls(
    log: Log, version: Version, dialect: str
) -> None:
    """Servers on one address share the dialect, and the name in TLS chooses."""
    shared = address(log)
    named = Entrance(
        "",
        "shared",
        [(names.split(), gate.server) for names, gate in shared.gates.items()],
        shared.connections,
        negotiate=partial(DIALECTS[dialect].negotiate, "a.example"),
        reads_hello=True,
    )
    for name, credential, expected in (
        ("a.example", ALICE, admitted("A")),
        ("x.w.example", BOB, admitted("B")),
        ("x.w.example", ALICE, rejected(Reason.UNKNOWN_CA)),
        ("other.example", ALICE, rejected(Reason.UNKNOWN_SERVER_NAME, None)),
    ):
        bounds: Any = {"min_version": version, "max_version": version}
        client = Client(named, credential, clock=shared.clock, server_name=name, **bounds)
        for one in DIALOGUES[dialect][0]:
            client.raw_send(one)
            client.transport.take()
        assert shared.judge(client) == expected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", DIALOGUES)
def test_bytes_behind_the_request_refuse_the_client(log: Log, dialect: str, shape: str) -> None:
    """Even a client with a good certificate, and even if they are its ClientHello."""
    site = Site(log, dialect, shape)
    for behind in (b"\0", b"MAIL FROM:<a@b>\r\n"):
        client = site.connect()
        client.raw_send(b"".join(DIALOGUES[dialect][0]) + behind)
        assert site.refused(client)[0] is Reason.STARTTLS_INJECTION
    client = site.connect()
    client.raw_send(b"".join(DIALOGUES[dialect][0]) + client.take_outgoing())
    assert site.refused(client)[0] is Reason.STARTTLS_INJECTION


def test_a_plain_session_is_told_why_not(log: Log) -> None:
    """A PostgreSQL client without TLS gets an error that it can show, and a proper end."""
    site = Site(log, "postgres")
    client = site.connect()
    client.raw_send(struct.pack("!II", 14, 196608) + b"user\0\0")
    answer = client.transport.take()
    assert b"requires TLS" in answer
    assert site.refused(client) == (Reason.STARTTLS_REQUIRED, "a StartupMessage without TLS")
    assert not client.aborted


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dialect", DIALOGUES)
@pytest.mark.parametrize("asked", [False, True])
def test_the_time_limit_covers_all_of_it(log: Log, dialect: str, shape: str, asked: bool) -> None:
    """From the connection's arrival, whatever the client says meanwhile."""
    site = Site(log, dialect, shape)
    client = site.connect()
    site.gate.clock.advance(TIMEOUT - 1)
    if asked:
        site.upgrade(client)
    assert log.events == []
    site.gate.clock.advance(1)
    reason, detail = site.refused(client)
    assert reason is Reason.HANDSHAKE_TIMEOUT
    assert ("ask for TLS" in detail) is not asked
    assert "7.5 s" in detail


@pytest.mark.parametrize("dialect", DIALOGUES)
def test_a_client_that_leaves_early_has_a_reason(log: Log, dialect: str) -> None:
    """Before it asks, and after it; it is no health check once it has asked."""
    site = Site(log, dialect)
    client = site.connect()
    client.transport.take()
    client.reset()
    assert site.refused(client) == (
        Reason.PEER_GONE,
        "the client went away before it asked for TLS",
    )
    client = site.connect()
    site.upgrade(client)
    client.reset()
    assert site.refused(client) == (Reason.PEER_GONE, "the client went away in the handshake")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("networks", [(), ("10.0.0.0/8",)])
def test_limits_count_a_connection_once(log: Log, shape: str, networks: tuple[str, ...]) -> None:
    """One handshake takes one of the rate's tokens, and one place of each limit."""
    limits = Limits(handshakes_per_second_per_ip=1.0, max_handshakes=1, max_connections_per_ip=1)
    site = Site(log, "postgres", shape, networks, limits)

    def connect(host: str) -> Client:
        source = IPv4Address("TCP", host, 1)
        client = site.connect(address=PROXY if networks else source, host=GATE)
        if networks:
            client.raw_send(encode_v2(source, GATE))
        return client

    first = connect("192.0.2.1")
    assert site.judge(first) == admitted()
    first.close()
    log.events.clear()
    second = connect("192.0.2.1")
    if shape == "one server":
        second.pump()
        assert second.refused or second.disconnected
    else:
        second.raw_send(SSL_REQUEST)
        second.transport.take()
        second.pump()
        assert second.refused or second.disconnected
    assert log.only["reason"] == Reason.HANDSHAKE_RATE
    log.events.clear()
    assert site.judge(connect("192.0.2.2")) == admitted()


@pytest.mark.parametrize("dialect", ["smtp", "imap"])
def test_plaintext_has_no_end_but_this(log: Log, dialect: str) -> None:
    """Bytes without an end are refused long before handshake_bytes."""
    site = Site(log, dialect)
    client = site.connect()
    client.raw_send(b"x" * 3000)
    assert site.refused(client)[0] is Reason.STARTTLS_ERROR


def test_plaintext_after_the_answer_is_no_tls(log: Log, version: Version) -> None:
    """A client that goes on in plaintext after it was told to begin TLS is rejected."""
    for shape in SHAPES:
        site = Site(log, "postgres", shape)
        client = site.connect(version)
        site.upgrade(client)
        client.raw_send(struct.pack("!II", 14, 196608) + b"user\0\0")
        assert site.refused(client)[0] is Reason.NOT_TLS
