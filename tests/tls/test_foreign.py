"""
A server's TLS context is worth nothing without the gate around it.

Whoever takes an OpenSSL context, or any other object of a gate, and uses it with
another TLS implementation gets no connection: neither with a certificate that the
gate admits, nor with a session that the gate resumes.
"""

from __future__ import annotations

import gc
from contextlib import suppress
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.interfaces import (
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.task import Clock
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from zope.interface import implementer

from mtlsgate.testing import Authority, Client, RecordingFactory, Session, Version
from mtlsgate.tls.engine import Engine, Event
from tests.kits.gate import Log, MemoryGate, rule, server_credential

ROOT = Authority.create("Root")
ALICE = ROOT.issue("alice")
LIFETIMES = [None, 3600.0]


@implementer(IOpenSSLServerConnectionCreator)
class Creator:
    """Uses a context as any program does that makes its connections by itself."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def reachable(gate: MemoryGate) -> list[SSL.Context]:
    """:returns: every context that can be had from a gate, whatever it takes."""
    found: dict[int, SSL.Context] = {}
    seen: set[int] = set()
    waiting: list[Any] = [gate.entrance, gate.server]
    while waiting:
        one = waiting.pop()
        # By its type: a proxy object, such as Flask's, fails if it is asked anything.
        if id(one) in seen or issubclass(type(one), type):
            continue
        seen.add(id(one))
        if issubclass(type(one), SSL.Context):
            found[id(one)] = one
        elif type(one).__module__.startswith(("mtlsgate.tls", "mtlsgate.gate", "builtins")):
            waiting += gc.get_referents(one)
    return list(found.values())


@pytest.fixture(params=["verified", "anyone"])
def rules(request: pytest.FixtureRequest) -> list[Any] | None:
    return [rule(ca=ROOT)] if request.param == "verified" else None


@pytest.fixture(params=LIFETIMES)
def lifetime(request: pytest.FixtureRequest) -> float | None:
    chosen: float | None = request.param
    return chosen


@pytest.fixture
def gate(log: Log, rules: list[Any] | None, lifetime: float | None) -> MemoryGate:
    names = server_credential("a.example"), server_credential("b.example")
    return MemoryGate(rules, log, session_lifetime=lifetime, credentials=names)


def foreign(context: SSL.Context, clock: Clock) -> tuple[IProtocolFactory, RecordingFactory]:
    """:returns: a server that is Twisted's own but for the context, and its application."""
    application = RecordingFactory(echo=True)
    return TLSMemoryBIOFactory(Creator(context), False, application, clock), application


def session_of(gate: MemoryGate, version: Version, name: str) -> Session | None:
    client = gate.connect(ALICE, version, server_name=name)
    client.send(b"knock")
    assert client.receive() == b"knock"
    client.close()
    return client.session


@pytest.mark.parametrize("name", ["a.example", "b.example", None])
def test_in_a_factory_of_twisted(gate: MemoryGate, version: Version, name: str | None) -> None:
    """The application is told of nobody, whom the gate would admit or not."""
    contexts = reachable(gate)
    assert len(contexts) >= 2
    for context in contexts:
        for credential in (ALICE, None):
            factory, application = foreign(context, gate.clock)
            client = Client(
                factory,
                credential,
                clock=gate.clock,
                min_version=version,
                max_version=version,
                server_name=name,
            )
            client.send(b"knock")
            assert client.receive() == b""
            assert not client.established
            assert application.protocols[0].received == b""


def test_a_session_of_the_gate(gate: MemoryGate, version: Version) -> None:
    """... is not resumed there: resumption asks for no certificate."""
    session = session_of(gate, version, "b.example")
    assert session is not None
    if gate.session_lifetime is not None:
        again = gate.connect(ALICE, version, session=session, server_name="b.example")
        again.send(b"knock")
        assert again.resumed
    for context in reachable(gate):
        for name in ("b.example", "a.example", None):
            factory, application = foreign(context, gate.clock)
            client = Client(factory, ALICE, clock=gate.clock, session=session, server_name=name)
            client.send(b"knock")
            assert not client.resumed
            assert not client.established
            assert application.protocols[0].received == b""


def test_openssl_alone(gate: MemoryGate, version: Version) -> None:
    """With no Twisted around it, the handshake fails as well."""
    number = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}[version]
    for context in reachable(gate):
        mine = SSL.Context(SSL.TLS_CLIENT_METHOD)
        mine.set_min_proto_version(number)
        mine.set_max_proto_version(number)
        mine.use_certificate(ALICE.certificate)
        mine.use_privatekey(ALICE.private_key)
        client, server = SSL.Connection(mine, None), SSL.Connection(context, None)
        client.set_connect_state()
        server.set_accept_state()
        with pytest.raises(SSL.Error):
            shake(client, server)


def shake(client: SSL.Connection, server: SSL.Connection) -> None:
    for _ in range(10):
        for one, other in ((client, server), (server, client)):
            with suppress(SSL.WantReadError):
                one.do_handshake()
            with suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(2**16))
    server.recv(1)


def test_no_object_of_a_gate_makes_connections(gate: MemoryGate) -> None:
    """Nothing that Twisted's TLS takes provides what it asks for."""
    for one in (gate.entrance, gate.server, gate.server.context):
        assert not IOpenSSLServerConnectionCreator.providedBy(one)
        assert not IOpenSSLClientConnectionCreator.providedBy(one)
        assert not IProtocolFactory.providedBy(one)
        with pytest.raises((AttributeError, Warning)):
            TLSMemoryBIOFactory(one, False, RecordingFactory(), gate.clock)  # type: ignore[arg-type]


def test_an_engine_gives_nothing_before_the_verdict(log: Log, version: Version) -> None:
    """Neither bytes nor OpenSSL's connection, which could be driven past it."""
    gate = MemoryGate([rule(ca=ROOT)], log)
    for credential in (ALICE, None, Authority.create("Other").issue("eve")):
        engine = gate.server.context.accept()
        assert engine.connection is None
        came = through(engine, gate, credential, version)
        assert bool(came) == (credential is ALICE)
        assert set(came) <= {b"early"}
        assert (engine.connection is not None) == (credential is ALICE)


def through(engine: Engine, gate: MemoryGate, credential: Any, version: Version) -> list[bytes]:
    """:returns: what an engine that is driven by hand hands out of a client's bytes."""
    client = gate.connect(credential, version)
    came: list[bytes] = []
    for _ in range(6):
        client.write(b"early")
        try:
            engine.feed(client.take_outgoing())
            while (event := engine.next()) is not Event.NEEDS_BYTES:
                if isinstance(event, bytes):
                    came.append(event)
        except SSL.Error:
            return came
        answer = engine.outgoing()
        if answer:
            client.connection.bio_write(answer)
    return came
