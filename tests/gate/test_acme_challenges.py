"""What a CA gets that validates a name of the gate (TLS-ALPN-01), and what nobody gets by it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import field, frozen
from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IAddress

from mtlsgate.acme.challenge import challenge_certificate
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.gate.stages import TRANSITIONS, Stage
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.peer import address_text
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Credential, RecordingFactory, Version
from mtlsgate.tls.challenge import challenge_engine
from tests.kits.gate import VERSIONS, Log, MemoryGate, admitted, rejected, rule

ROOT = Authority.create("Root")
ALICE = ROOT.issue("alice")
ACME = "acme-tls/1"
DIGEST = bytes(range(32))
IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")


@frozen
class Pending:
    """Names that a CA is about to validate."""

    names: Sequence[str] = ("gate.example",)
    told: list[tuple[str, str]] = field(factory=list)

    def find(self, server_name: str) -> ServerCredential | None:
        name = server_name.lower()
        return challenge_certificate(name, DIGEST) if name in self.names else None

    def answered(self, server_name: str, address: IAddress) -> None:
        self.told.append((server_name, address_text(address)))


@frozen(eq=False)
class Challenged:
    """A gate in memory, at whose listener challenges are answered."""

    gate: MemoryGate
    entrance: Entrance
    pending: Pending

    @classmethod
    def of(cls, log: Log, **options: object) -> Challenged:
        gate = MemoryGate([rule(ca=ROOT)], log, alpn=(b"http/1.1",), **options)  # type: ignore[arg-type]
        pending = Pending()
        entrance = Entrance(
            "",
            "door",
            [((), gate.server)],
            Connections(gate.clock, [HumanLog()]),
            otherwise=gate.server,
            challenges=pending,
        )
        return cls(gate, entrance, pending)

    def connect(
        self,
        version: Version,
        alpn: Sequence[str] = (ACME,),
        name: str | None = "gate.example",
        credential: Credential | None = None,
        **options: object,
    ) -> Client:
        return Client(
            self.entrance,
            credential,
            clock=self.gate.clock,
            min_version=version,
            max_version=version,
            alpn=alpn,
            server_name=name,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Version:
    version: Version = request.param
    return version


def test_a_ca_sees_the_certificate_made_for_it_and_the_connection_ends(
    log: Log, version: Version
) -> None:
    """RFC 8737, 3: that name alone, and a critical extension with the digest."""
    here = Challenged.of(log)
    client = here.connect(version, name="GATE.example")
    client.handshake()
    assert client.error is None
    assert client.connection.get_alpn_proto_negotiated() == ACME.encode()
    shown = client.server_certificate
    assert shown is not None
    names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert list(names.value) == [x509.DNSName("gate.example")]
    found = shown.extensions.get_extension_for_oid(IDENTIFIER)
    assert found.critical
    assert isinstance(found.value, x509.UnrecognizedExtension)
    assert found.value.value == b"\x04\x20" + DIGEST
    assert client.disconnected
    assert client.close_notified
    assert here.pending.told == [("GATE.example", "127.0.0.1:50000")]
    assert len(here.entrance.connections) == 0
    assert log.events == []


def test_no_certificate_is_asked_for(log: Log, version: Version) -> None:
    """A CA has none; and one that is not asked for is not looked at."""
    client = Challenged.of(log).connect(version, credential=ALICE)
    client.handshake()
    assert client.requested_ca_names == []
    assert client.error is None


def test_nothing_that_a_client_sends_reaches_the_application(log: Log, version: Version) -> None:
    """Not even what comes in one piece with the end of its handshake; nor does it get a
    byte of an application."""
    for size in (None, 1):
        here = Challenged.of(log)
        client = here.connect(version, credential=ALICE, piece_size=size)
        while not client.connection.get_peer_finished():
            assert client.step()
        client.write(b"GET / HTTP/1.1\r\n\r\n")
        client.pump()
        assert isinstance(here.gate.application, RecordingFactory)
        assert here.gate.recorder.protocols == []
        assert client.receive() == b""
        assert client.disconnected
    assert Stage.APPLICATION not in TRANSITIONS[Stage.CHALLENGE]
    assert Stage.HANDSHAKE not in TRANSITIONS[Stage.CHALLENGE]


@pytest.mark.parametrize(
    ("alpn", "name"),
    [
        ((ACME,), "other.example"),
        ((ACME,), None),
        ((ACME, "http/1.1"), "gate.example"),
        (("http/1.1", ACME), "gate.example"),
        ((ACME, ACME), "gate.example"),
        (("acme-tls/2",), "gate.example"),
        (("ACME-TLS/1",), "gate.example"),
        ((), "gate.example"),
    ],
)
def test_any_other_client_is_judged_as_always(
    log: Log, version: Version, alpn: Sequence[str], name: str | None
) -> None:
    here = Challenged.of(log)
    client = here.connect(version, alpn, name)
    client.send(b"knock")
    assert here.gate.verdict() == rejected(Reason.NO_CERTIFICATE, None)
    assert here.gate.recorder.protocols == []
    client = here.connect(version, alpn, name, ALICE)
    client.send(b"knock")
    assert here.gate.verdict(1) == admitted()
    assert client.receive() == b"knock"
    assert here.pending.told == []


def test_its_session_cannot_be_resumed(log: Log, version: Version) -> None:
    """Neither in another challenge nor, what matters, as a client of the server."""
    here = Challenged.of(log, session_lifetime=3600.0)
    first = here.connect(version)
    first.handshake()
    if first.connection.get_session() is None:
        return
    for alpn in ((ACME,), ("http/1.1",)):
        again = here.connect(version, alpn, session=first.session)
        again.send(b"knock")
        assert not again.resumed
    assert here.gate.verdict() == rejected(Reason.NO_CERTIFICATE, None)
    assert here.gate.recorder.protocols == []


def test_a_session_of_a_client_is_none_in_a_challenge(log: Log, version: Version) -> None:
    here = Challenged.of(log, session_lifetime=3600.0)
    first = here.connect(version, ("http/1.1",), credential=ALICE)
    first.send(b"knock")
    assert here.gate.verdict() == admitted()
    again = here.connect(version, session=first.session)
    again.send(b"knock")
    assert not again.resumed
    assert len(here.gate.recorder.protocols) == 1
    assert here.pending.told == [("gate.example", "127.0.0.1:50000")]


def test_a_server_without_a_certificate_answers_its_ca(log: Log, version: Version) -> None:
    """Or else it would never get its first one."""
    none = MissingCredential("acme", ("gate.example",), "it has not come yet")
    here = Challenged.of(log, credentials=[none])
    client = here.connect(version, ("http/1.1",), credential=ALICE)
    client.send(b"knock")
    assert here.gate.verdict() == rejected(Reason.NO_SERVER_CERTIFICATE, None)
    here.connect(version).handshake()
    assert len(here.pending.told) == 1


def test_one_that_goes_away_or_takes_too_long_is_told_of(log: Log, version: Version) -> None:
    here = Challenged.of(log)
    client = here.connect(version)
    client.transport.deliver(client.take_outgoing())
    client.reset()
    assert log.only["reason"] == Reason.PEER_GONE
    assert "ACME challenge" in log.only["detail"]
    client = here.connect(version)
    client.transport.deliver(client.take_outgoing())
    here.gate.clock.advance(11)
    assert log.events[1]["reason"] == Reason.HANDSHAKE_TIMEOUT
    assert "ACME challenge" in log.events[1]["detail"]
    assert len(here.entrance.connections) == 0
    assert here.pending.told == []


@pytest.mark.parametrize("offer", [[b"acme-tls/1", b"h2"], [b"h2", b"acme-tls/1"], [b"h2"]])
def test_another_offer_than_the_one_that_was_read_ends_the_handshake(offer: list[bytes]) -> None:
    """After a HelloRetryRequest a client sends a second hello, which only OpenSSL reads."""
    engine = challenge_engine(challenge_certificate("gate.example", DIGEST))
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_alpn_protos(offer)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        client.do_handshake()
    engine.feed(client.bio_read(2**16))
    with pytest.raises(SSL.Error):
        engine.next()
