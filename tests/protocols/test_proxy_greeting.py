"""
``protocol "proxy"`` behind STARTTLS: the target's greeting, which the client has had.
"""

from __future__ import annotations

import pytest
from attrs import field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from mtlsgate.protocols.proxy import ProxyFactory
from mtlsgate.starttls import DIALECTS
from mtlsgate.starttls.greetings import MAX_GREETING
from mtlsgate.testing import Authority, Client, MemoryTransport, Version
from mtlsgate.upstream.announce import Announcement
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.relay import RelayLimits
from mtlsgate.upstream.targets import Listed, parse_target
from tests.kits.gate import Log, MemoryGate, rule

CA = Authority.create()
ALICE = CA.issue("alice")
GATE, TARGET = IPv4Address("TCP", "127.0.0.1", 8443), IPv4Address("TCP", "127.0.0.1", 9000)


@implementer(IStreamClientEndpoint)
@frozen
class Place:
    """Where a target is; the gate's ends of its connections."""

    clock: Clock
    connections: list[MemoryTransport] = field(factory=list)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        transport = MemoryTransport(self.clock, GATE, TARGET)
        assert transport.accept(factory)
        self.connections.append(transport)
        assert transport.protocol is not None
        return succeed(transport.protocol)


@frozen(eq=False)
class Mail:
    """A gate before two SMTP servers, in memory."""

    log: Log
    announcement: Announcement | None = None
    clock: Clock = field(factory=Clock)
    places: dict[str, Place] = field(init=False)
    gate: MemoryGate = field(init=False)

    @places.default
    def _places(self) -> dict[str, Place]:
        return {name: Place(self.clock) for name in ("127.0.0.1:1", "127.0.0.1:2")}

    @gate.default
    def _gate(self) -> MemoryGate:
        backends = Backends(
            [Listed(parse_target(name)) for name in self.places],
            MemoryReactorClock(),
            clock=self.clock,
            connect_timeout=5.0,
            endpoint=lambda target, *_: self.places[target.text],
        )
        factory = ProxyFactory(
            "door",
            backends,
            self.clock,
            RelayLimits(),
            self.announcement,
            greeting=DIALECTS["smtp"].target_greeting,
        )
        return MemoryGate([rule(ca=CA)], self.log, factory, clock=self.clock)

    def client(self, version: Version) -> Client:
        """:returns: a client that is admitted and has sent EHLO."""
        client = self.gate.connect(ALICE, version)
        client.send(b"EHLO x\r\n")
        return client

    def target(self, name: str = "127.0.0.1:1") -> MemoryTransport:
        [connection] = self.places[name].connections
        return connection


def test_the_greeting_is_not_for_the_client(log: Log, version: Version) -> None:
    """The target hears nothing before it has greeted, and the client hears only what comes
    after the greeting."""
    mail = Mail(log)
    client = mail.client(version)
    target = mail.target()
    target.deliver(b"220-mail.example\r\n22")
    client.pump()
    assert target.take() == b""
    target.deliver(b"0 hello\r\n250 first\r\n")
    client.pump()
    assert target.take() == b"EHLO x\r\n"
    assert client.receive() == b"250 first\r\n"
    target.deliver(b"220 no greeting\r\n")
    assert client.receive() == b"220 no greeting\r\n"


def test_the_header_comes_before_the_greeting(log: Log, version: Version) -> None:
    """A target that wants a PROXY header does not greet without it."""
    mail = Mail(log, Announcement("v1"))
    client = mail.client(version)
    assert mail.target().take().startswith(b"PROXY TCP4 ")
    mail.target().deliver(b"220 hello\r\n")
    client.pump()
    assert mail.target().take() == b"EHLO x\r\n"


def test_a_target_that_is_busy_says_so_to_the_client(log: Log, version: Version) -> None:
    mail = Mail(log)
    client = mail.client(version)
    mail.target().deliver(b"421 busy\r\n")
    mail.target().finish()
    assert client.receive() == b"421 busy\r\n"
    assert client.close_notified


@pytest.mark.parametrize("how", ["silent", "gone", "endless"])
def test_a_target_that_does_not_greet_is_skipped(log: Log, version: Version, how: str) -> None:
    """The next one is tried, and gets what the client has sent."""
    mail = Mail(log)
    client = mail.client(version)
    if how == "silent":
        mail.target().deliver(b"220-so far\r\n")
        mail.clock.advance(5)
    elif how == "gone":
        mail.target().finish()
    else:
        mail.target().deliver(b"x" * MAX_GREETING)
    client.pump()
    assert not mail.target().connected
    mail.target("127.0.0.1:2").deliver(b"220 hello\r\n250 ok\r\n")
    assert client.receive() == b"250 ok\r\n"
    assert mail.target("127.0.0.1:2").take() == b"EHLO x\r\n"


def test_a_client_that_leaves_takes_the_target_with_it(log: Log, version: Version) -> None:
    """Also while the greeting is waited for, and nothing is left waiting."""
    mail = Mail(log)
    client = mail.client(version)
    client.reset()
    client.pump()
    mail.clock.advance(0)
    assert not mail.target().connected
    assert mail.places["127.0.0.1:2"].connections == []
    assert mail.clock.getDelayedCalls() == []
