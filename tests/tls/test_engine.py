"""
TLS without a socket: two engines joined by hand.
"""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from mtlsgate.admission import AdmissionPolicy, Rejection
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.testing import Authority, Credential, Version
from mtlsgate.tls.ca_names import LONGEST_MESSAGE
from mtlsgate.tls.engine import PIECE, Engine, Event
from mtlsgate.tls.handshake import EngineConnection
from mtlsgate.tls.server import GateContext, TlsPolicy
from tests.kits.gate import Log, MemoryGate, admitted, localhost, rule, server_authority

ROOT = Authority.create("Root")
ALICE = ROOT.issue("alice")


class Nobody:
    """Answers no callback: a client's Context has none."""

    def verify(self, *_: object) -> bool:
        return False

    def choose_certificate(self, connection: EngineConnection) -> None:
        raise AssertionError


def client_engine(credential: Credential | None, version: Version) -> Engine:
    number = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[version]
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(number)
    context.set_max_proto_version(number)
    connection = EngineConnection(context, Nobody())
    if credential is not None:
        connection.use_certificate(credential.certificate)
        connection.use_privatekey(credential.private_key)
    connection.set_connect_state()
    return Engine(connection)


class Joined:
    """
    A client's engine and a server's, and what came of them.

    :ivar events: by side, all but that more bytes are needed.
    :ivar flights: the sizes of what the server sent at each step.
    """

    def __init__(self, context: GateContext, credential: Credential | None, version: Version):
        self.client, self.server = client_engine(credential, version), context.accept()
        self.events: dict[str, list[bytes | Event]] = {"client": [], "server": []}
        self.flights: list[int] = []

    def step(self) -> bool:
        """:returns: whether anything moved."""
        self._drain("client", self.client)
        sent = self.client.outgoing()
        self.server.feed(sent)
        self._drain("server", self.server)
        answer = self.server.outgoing()
        if answer:
            self.flights.append(len(answer))
        self.client.feed(answer)
        return bool(sent or answer)

    def _drain(self, side: str, engine: Engine) -> None:
        while (event := engine.next()) is not Event.NEEDS_BYTES:
            self.events[side].append(event)

    def join(self) -> Joined:
        while self.step():
            pass
        return self


def context_of(
    rules: list[object] | None, credential: ServerCredential | None = None
) -> GateContext:
    admission = None if rules is None else AdmissionPolicy(tuple(rules))  # type: ignore[arg-type]
    return GateContext(TlsPolicy((credential or localhost(),), admission))


def test_both_ways(version: Version) -> None:
    """Handshake, bytes, and the end, in one direction and then the other."""
    both = Joined(context_of([rule(ca=ROOT)]), ALICE, version).join()
    assert both.events == {"client": [Event.HANDSHAKEN], "server": [Event.HANDSHAKEN]}
    assert both.server.version == f"TLSv{version}"
    both.client.write(b"question")
    both.join()
    both.server.write(b"answer")
    both.join()
    both.client.close()
    both.join()
    both.server.write(b"and more")
    both.join()
    both.server.close()
    both.join()
    assert both.events["server"][1:] == [b"question", Event.ENDED]
    assert both.events["client"][1:] == [b"answer", b"and more", Event.ENDED]
    assert (both.server.received, both.server.sent) == (8, 14)


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 100_000, PIECE, PIECE + 1, 1_000_000])
def test_what_came_together_is_handed_on_together_up_to_a_bound(
    version: Version, size: int
) -> None:
    """Records that came together are handed on together, up to a bound."""
    both = Joined(context_of([rule(ca=ROOT)]), ALICE, version).join()
    data = bytes(range(256)) * (size // 256 + 1)
    both.client.write(data[:size])
    both.join()
    pieces = [one for one in both.events["server"] if isinstance(one, bytes)]
    assert b"".join(pieces) == data[:size]
    assert max(map(len, pieces)) < PIECE + 2**14
    assert len(pieces) <= size // PIECE + 1


@pytest.mark.parametrize("who", ["nobody", "stranger", "not pinned"])
def test_nothing_for_who_is_rejected(version: Version, who: str) -> None:
    """Neither an event, nor a byte, nor OpenSSL's connection."""
    credential = {
        "nobody": None,
        "stranger": Authority.create("Other").issue("x"),
        "not pinned": ROOT.issue("bob"),
    }[who]
    both = Joined(context_of([rule(ca=ROOT, pins=ALICE)]), credential, version)
    with pytest.raises(SSL.Error):
        push(both)
    assert both.events["server"] == []
    assert both.server.connection is None


def push(both: Joined) -> None:
    for _ in range(5):
        both.client.write(b"early")
        both.step()


def long_chain(size: int) -> ServerCredential:
    """:returns: a certificate for localhost with intermediates of that size in all."""
    leaf = server_authority().issue("localhost", dns_names=["localhost"], usages=["server_auth"])
    names = [f"{number:060}.example" for number in range(400)]
    bulky = ROOT.issue("bulky", dns_names=names).certificate
    count = size // len(bulky.tbs_certificate_bytes) + 1
    return ServerCredential((leaf.certificate, *[bulky] * count), leaf.private_key)


@pytest.mark.parametrize("size", [10_000, 40_000, 60_000])
def test_a_long_chain_of_the_server(log: Log, version: Version, size: int) -> None:
    """A flight of any size leaves: all that OpenSSL puts out is sent at each step."""
    gate = MemoryGate([rule(ca=ROOT)], log, credentials=(long_chain(size),))
    assert gate.try_in(ALICE, version) == admitted()


@pytest.mark.parametrize("size", [40_000, 90_000])
def test_a_flight_is_drained(version: Version, size: int) -> None:
    context = context_of([rule(ca=ROOT)], long_chain(size))
    both = Joined(context, ALICE, version)
    both.step()
    assert both.flights[0] > size


def named(count: int, length: int) -> list[Authority]:
    """:returns: CAs with names of that length."""
    return [
        Authority.create(
            subject=x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"{number:060}"),
                    x509.NameAttribute(NameOID.COMMON_NAME, "x" * length),
                ]
            )
        )
        for number in range(count)
    ]


def certificate_request(context: GateContext) -> int:
    """:returns: the length of the message, as TLS 1.2 has it in the clear."""
    both = Joined(context, ALICE, "1.2")
    both._drain("client", both.client)
    both.server.feed(both.client.outgoing())
    both._drain("server", both.server)
    flight, messages = both.server.outgoing(), bytearray()
    while flight:
        length = int.from_bytes(flight[3:5], "big")
        messages += flight[5 : 5 + length]
        flight = flight[5 + length :]
    while messages:
        length = 4 + int.from_bytes(messages[1:4], "big")
        if messages[0] == 13:
            return length
        del messages[:length]
    raise AssertionError("no CertificateRequest")


def test_ca_names_that_fit() -> None:
    """They are sent as long as the message is no longer than clients take."""
    authorities = named(230, 50)
    rules = [rule("all", authorities)]
    length = certificate_request(context_of(list(rules)))
    assert LONGEST_MESSAGE - 2000 < length <= LONGEST_MESSAGE


def test_ca_names_that_do_not_fit(log: Log, version: Version) -> None:
    """None is sent, and clients come in all the same."""
    authorities = named(250, 50)
    rules = [rule("all", authorities)]
    client = MemoryGate(rules, log).connect(authorities[-1].issue("x"), version)
    client.send(b"knock")
    assert client.established
    assert client.requested_ca_names == []


def test_a_freed_engine_does_nothing(version: Version) -> None:
    """After it, nothing is known and nothing fails."""
    both = Joined(context_of([rule(ca=ROOT)]), ALICE, version).join()
    both.server.free()
    both.server.feed(b"x")
    both.server.write(b"x")
    both.server.close()
    assert both.server.next() is Event.NEEDS_BYTES
    assert both.server.outgoing() == b""
    assert (both.server.certificate, both.server.alpn, both.server.group) == (None, None, None)
    assert not isinstance(both.server.verdict, Rejection)


def test_openssls_memory_stays_small(version: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever comes and goes at once: its buffers never shrink again."""
    most = {"in": 0, "out": 0}
    write, send = EngineConnection.bio_write, EngineConnection.send

    def fed(self: EngineConnection, data: bytes) -> int:
        most["in"] = max(most["in"], len(data))
        return write(self, data)

    def sent(self: EngineConnection, data: bytes, flags: int = 0) -> int:
        most["out"] = max(most["out"], len(data))
        return send(self, data, flags)

    both = Joined(context_of([rule(ca=ROOT)]), ALICE, version).join()
    monkeypatch.setattr(EngineConnection, "bio_write", fed)
    monkeypatch.setattr(EngineConnection, "send", sent)
    data = bytes(range(256)) * 8000
    both.client.write(data)
    both.join()
    assert b"".join(one for one in both.events["server"] if isinstance(one, bytes)) == data
    assert most == {"in": 2**15, "out": 2**15}


def drained(engine: Engine) -> bytes:
    """:returns: the bytes that an engine has for the application now."""
    pieces = []
    while (event := engine.next()) is not Event.NEEDS_BYTES:
        assert isinstance(event, bytes)
        pieces.append(event)
    return b"".join(pieces)


@pytest.mark.parametrize("split", [1, 2, 4, 5, 6, 7, 24, 25, 26, 27, 32, 33, 51, 63])
def test_what_came_whole_comes_out_at_once(split: int, version: Version) -> None:
    """Wherever records are cut on their way, alone or several together: what has come is
    returned, and nothing is left behind."""
    both = Joined(context_of([rule(ca=ROOT)]), ALICE, version).join()
    both.client.write(b"one")
    first = both.client.outgoing()
    both.client.write(b"two")
    both.client.write(b"three")
    second = both.client.outgoing()
    stream, received, fed = first + second, b"", 0
    while fed < len(stream):
        both.server.feed(stream[fed : fed + split])
        fed += split
        received += drained(both.server)
        if fed >= len(first):
            assert received.startswith(b"one")
    assert received == b"onetwothree"
    both.client.write(b"four")
    both.server.feed(both.client.outgoing())
    assert drained(both.server) == b"four"


def test_records_that_nobody_has_read_yet_are_not_forgotten(version: Version) -> None:
    """As while an application has paused: each came alone."""
    both = Joined(context_of([rule(ca=ROOT)]), ALICE, version).join()
    for text in (b"one", b"two", b"three"):
        both.client.write(text)
        both.server.feed(both.client.outgoing())
    assert drained(both.server) == b"onetwothree"


def test_a_record_that_came_alone_costs_one_call(
    version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSSL is asked neither for more nor for an answer of its own: each "no" is an
    exception, and a question and its answer are most of what connections carry."""
    both = Joined(context_of([rule(ca=ROOT)]), ALICE, version).join()
    drained(both.server)
    calls: list[str] = []
    for name in ("recv", "bio_read"):
        original = getattr(EngineConnection, name)

        def counted(
            self: EngineConnection, size: int, *, name: str = name, original: object = original
        ) -> bytes:
            if self is both.server.connection:
                calls.append(name)
            return original(self, size)  # type: ignore[operator, no-any-return]

        monkeypatch.setattr(EngineConnection, name, counted)
    both.client.write(b"question")
    both.server.feed(both.client.outgoing())
    assert drained(both.server) == b"question"
    assert not both.server.may_answer
    assert calls == ["recv"]
