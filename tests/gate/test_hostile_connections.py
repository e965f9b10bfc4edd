"""
What a client does with an open connection, and what its application does in the
middle of it, costs neither the gate nor anybody else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Version
from mtlsgate.tls import memory_client
from mtlsgate.tls.server import GateContext
from tests.kits.gate import Log, MemoryGate, rejected, rule, server_authority
from tests.kits.key_updates import KeyUpdates

CA = Authority.create("Root")
ALICE = CA.issue("alice")


class Oops(Exception):
    """What an application could raise."""


class Application(Protocol):
    """
    Does something with the first bytes that come.

    :ivar received: all of them.
    :ivar lost: how it ended.
    """

    transport: Any

    def __init__(self, first: Callable[[Application], object] = lambda _: None) -> None:
        self.first = first
        self.received: list[bytes] = []
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        if len(self.received) == 1:
            self.first(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


def pauses(application: Application) -> None:
    application.transport.pauseProducing()


def connected(log: Log, version: Version, application: Application) -> Client:
    """:returns: an admitted client of that application."""
    gate = MemoryGate([rule(ca=CA)], log, _Only(application))
    client = gate.connect(ALICE, version)
    client.handshake()
    assert client.established
    return client


class _Only(Factory):
    noisy = False

    def __init__(self, application: Application) -> None:
        self.application = application

    def buildProtocol(self, addr: object) -> Application:
        return self.application


# New keys.


#: From an application to an admitted client of it, and how that asks for new keys.
Updating = Callable[[Application], tuple[Client, KeyUpdates]]


@pytest.fixture
def updating(log: Log, monkeypatch: pytest.MonkeyPatch) -> Updating:
    lines: list[bytes] = []
    make = memory_client._context

    def logged(*arguments: Any) -> SSL.Context:
        context = make(*arguments)
        context.set_keylog_callback(lambda _, line: lines.append(line))
        return context

    def connect(application: Application) -> tuple[Client, KeyUpdates]:
        monkeypatch.setattr(memory_client, "_context", logged)
        client = connected(log, "1.3", application)
        assert client.cipher == "TLS_AES_256_GCM_SHA384"
        return client, KeyUpdates(b"\n".join(lines))

    return connect


def test_new_keys_may_be_asked_for(updating: Updating) -> None:
    """However often, as long as something is said as well."""
    application = Application()
    client, updates = updating(application)
    for number in range(2000):
        client.raw_send(updates.key_update() + updates.data(b"%d" % number * 20))
        client.pump()
    assert client.established
    assert b"".join(application.received).endswith(b"1999" * 20)


def test_nothing_but_new_keys(updating: Updating) -> None:
    """A client that asks for nothing else is gone before that costs anything: each
    request takes longer to answer than to make."""
    application = Application()
    client, updates = updating(application)
    client.raw_send(b"".join(updates.key_update() for _ in range(8000)))
    client.pump()
    assert client.disconnected
    assert application.lost is not None
    assert application.lost.check(SSL.Error)


def test_answers_that_nobody_reads(updating: Updating) -> None:
    """What waits for a client that does not read is bounded."""
    application = Application()
    client, updates = updating(application)
    client.pause_reading()
    waiting = 0
    for _ in range(2000):
        client.raw_send(b"".join(updates.key_update() for _ in range(10)))
        client.pump()
        if client.disconnected:
            break
        waiting = max(waiting, client.transport.untaken)
    assert client.disconnected
    assert waiting < 2**17 + 2**16
    assert application.lost is not None
    assert application.lost.check(ConnectionLost)


# An application that pauses.


def test_the_end_that_came_while_paused(log: Log, version: Version) -> None:
    """An application that ends the connection while it is paused does not wait for the
    client's end, which was received long ago."""
    application = Application(pauses)
    client = connected(log, version, application)
    client.write(b"x")
    client.connection.shutdown()
    client.pump()
    application.transport.loseConnection()
    client.pump()
    assert application.received == [b"x"]
    assert application.lost is not None
    assert application.lost.check(ConnectionDone)


def test_bytes_before_the_end(log: Log, version: Version) -> None:
    """What came with the handshake, and waited for the authorizer, is delivered before
    it is told that nothing more comes, even if the kernel says so first."""
    application, answer = Application(), Deferred[bool]()
    gate = MemoryGate(
        [rule(ca=CA)], log, _Only(application), authorizer=Authorizer("ask", lambda _: answer, 5)
    )
    client = gate.connect(ALICE, version)
    while not client.established:
        client.step()
    client.write(b"before the end")
    client.connection.shutdown()
    client.raw_send(client.take_outgoing())
    client.transport.finish()
    answer.callback(True)
    # The reactor looks at the socket before it calls what is due.
    client.transport.turn()
    client.pump()
    assert application.received == [b"before the end"]
    assert application.lost is not None
    assert application.lost.check(ConnectionDone)


# An application that fails.


@pytest.mark.parametrize("kind", [Oops, SSL.Error])
@pytest.mark.parametrize("when", ["at once", "resumed"])
def test_an_application_that_fails_to_take_bytes(
    log: Log, version: Version, kind: type[Exception], when: str
) -> None:
    """It is logged, and ends the connection, whatever it raises and whoever called."""

    class Fails(Application):
        def dataReceived(self, data: bytes) -> None:
            super().dataReceived(data)
            if len(self.received) == 2 or when == "at once":
                raise kind

    application = Fails(pauses)
    client = connected(log, version, application)
    client.send(bytes(2**19))
    if when == "resumed":
        assert application.lost is None
        application.transport.resumeProducing()
        client.pump()
    log.expect_failure(kind)
    assert client.disconnected
    assert application.lost is not None
    assert application.lost.check(kind)


def test_an_alert_that_nobody_reads(log: Log, version: Version) -> None:
    """A client that is turned away, and takes nothing of what was sent to it before,
    keeps its place for no longer than a handshake may take."""
    made = server_authority().issue("localhost", dns_names=["localhost"], usages=["server_auth"])
    bulk = [CA.issue(str(one), dns_names=[f"{one:060}.example"] * 400) for one in range(6)]
    chain = (made.certificate, *(one.certificate for one in bulk))
    gate = MemoryGate([rule(ca=CA)], log, credentials=(ServerCredential(chain, made.private_key),))
    client = gate.connect(ALICE, version)
    client.pause_reading()
    client.pump()
    client.raw_send(b"junk")
    client.raw_send(bytes(100))
    assert log.only["reason"] in (Reason.PROTOCOL_ERROR, Reason.NOT_TLS)
    assert not client.disconnected
    gate.clock.advance(gate.handshake_timeout)
    client.pump()
    assert client.disconnected
    assert len(gate.entrance.connections) == 0


def test_a_connection_that_fails_as_it_comes(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is turned away, and counted no more."""

    def fail(_: object) -> None:
        raise Oops

    gate = MemoryGate([rule(ca=CA)], log)
    with monkeypatch.context() as patched:
        patched.setattr(GateContext, "accept", fail)
        client = gate.connect(ALICE, version)
        client.handshake()
    log.expect_failure(Oops)
    assert gate.verdict() == rejected(Reason.INTERNAL_ERROR, None)
    assert client.disconnected
    assert len(gate.entrance.connections) == 0
