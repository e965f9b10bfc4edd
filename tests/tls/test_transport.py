"""
Writes that go out at once, and TLS whose directions end one by one.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from zope.interface import implementer, providedBy

from mtlsgate.testing import (
    Authority,
    Client,
    MemoryTransport,
    RecordingProtocol,
    Version,
)
from mtlsgate.tls.half_closing import PromptTransport, prompt
from tests.kits.gate import Log, MemoryGate, rule


class Readiness:
    """
    What a reactor watches, for a transport of a socket.

    :ivar writing: transports that wait to write.
    """

    def __init__(self) -> None:
        self.reading: set[object] = set()
        self.writing: set[object] = set()
        self.changes = 0

    def addReader(self, one: object) -> None:
        self.reading.add(one)

    def removeReader(self, one: object) -> None:
        self.reading.discard(one)

    def addWriter(self, one: object) -> None:
        self.changes += 1
        self.writing.add(one)

    def removeWriter(self, one: object) -> None:
        self.writing.discard(one)


class Pair:
    """A transport of a real socket, and the socket at its other end."""

    def __init__(self) -> None:
        ours, self.other = socket.socketpair()
        self.other.setblocking(False)
        self.reactor = Readiness()
        self.protocol = RecordingProtocol()
        self.transport = Connection(ours, self.protocol, self.reactor)  # type: ignore[arg-type]
        self.transport.connected = 1
        self.prompt = prompt(self.transport)
        self.protocol.makeConnection(self.prompt)

    def received(self) -> bytes:
        taken = bytearray()
        try:
            while data := self.other.recv(2**16):
                taken += data
        except BlockingIOError:
            pass
        return bytes(taken)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.other.close()
    if pair.transport.connected:
        pair.transport.socket.close()


def test_at_once(pair: Pair) -> None:
    """What is written is there, with no turn of the reactor, and nothing to wait for."""
    pair.prompt.write(b"hello")
    assert pair.received() == b"hello"
    pair.prompt.writeSequence([b"a", b"", b"b"])
    assert pair.received() == b"ab"
    pair.prompt.write(b"")
    assert pair.reactor.changes == 0


def test_in_order(pair: Pair) -> None:
    """What the system does not take at once is kept, and nothing overtakes it."""
    sent = bytearray()
    number = 0
    while not pair.reactor.writing:
        number += 1
        piece = number.to_bytes(4, "big") * 10_000
        pair.prompt.write(piece)
        sent += piece
    pair.prompt.write(b"the last")
    sent += b"the last"
    received = bytearray()
    while pair.reactor.writing:
        received += pair.received()
        assert pair.transport.doWrite() is None
    received += pair.received()
    assert received == sent
    pair.prompt.write(b"more")
    assert pair.received() == b"more"


def test_not_past_the_transports_own(pair: Pair) -> None:
    """What was written to the transport itself, and waits there, goes first."""
    pair.transport.write(b"first ")
    pair.prompt.write(b"second")
    assert pair.received() == b""
    pair.transport.doWrite()
    assert pair.received() == b"first second"


def test_a_producer_pauses_when_too_much_waits(pair: Pair) -> None:
    """A producer is paused when more waits than Twisted lets wait, and resumed when that is
    gone, as ever."""
    calls: list[str] = []

    class Producer:
        def pauseProducing(self) -> None:
            calls.append("pause")

        def resumeProducing(self) -> None:
            calls.append("resume")

        def stopProducing(self) -> None:
            calls.append("stop")

    pair.transport.registerProducer(Producer(), True)
    while not calls:
        pair.prompt.write(bytes(100_000))
    while pair.reactor.writing:
        pair.received()
        pair.transport.doWrite()
    assert calls == ["pause", "resume"]


def test_a_lost_connection_is_found_by_the_reactor(pair: Pair) -> None:
    """A connection that is lost is found so by the reactor, and not within a write."""
    pair.other.close()
    pair.prompt.write(b"into the void")
    assert pair.protocol.lost is None
    assert pair.reactor.writing == {pair.transport}
    assert isinstance(pair.transport.doWrite(), ConnectionLost)


def test_a_mute_transport_sends_nothing(pair: Pair) -> None:
    """Once it is mute, nothing goes out, at once or later."""
    assert isinstance(pair.prompt, PromptTransport)
    pair.prompt.mute()
    pair.prompt.write(b"x")
    assert pair.received() == b""
    assert not pair.reactor.writing


def test_only_of_sockets() -> None:
    """A transport that does more than carry bytes to a socket is left as it is: what it does
    must not be passed by."""

    class Wrapped:
        def __init__(self, inner: object) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self.inner, name)

    pair = Pair()
    wrapped = Wrapped(pair.transport)
    assert prompt(wrapped) is wrapped  # type: ignore[arg-type,comparison-overlap]
    assert prompt(pair.prompt) is pair.prompt
    for interface in providedBy(pair.transport):
        assert interface.providedBy(pair.prompt)
    assert ITCPTransport.providedBy(pair.prompt)
    pair.other.close()
    pair.transport.socket.close()


@implementer(IHalfCloseableProtocol)
class Half(RecordingProtocol):
    """:ivar ends: how often it heard that no more would come."""

    ends = 0

    def readConnectionLost(self) -> None:
        self.ends += 1

    def writeConnectionLost(self) -> None:
        raise AssertionError("TLS never says so")


class Seat:
    """A door before one protocol, and its client."""

    def __init__(self, log: Log, protocol: Protocol, version: Version) -> None:
        self.clock = Clock()
        authority = Authority.create()
        factory = Factory()
        factory.buildProtocol = lambda addr: protocol  # type: ignore[method-assign]
        gate = MemoryGate([rule(ca=authority)], log, factory, clock=self.clock)
        self.client: Client = gate.connect(authority.issue("client"), version, answer_close=False)
        self.client.handshake()
        self.protocol = protocol

    def end(self) -> None:
        """The client's close_notify, and no more."""
        self.client.connection.shutdown()
        self.client.pump()


def test_close_notify_ends_one_direction(log: Log, version: Version) -> None:
    """A protocol that can tell the directions apart hears of the client's end once, and goes
    on writing; its own end is the connection's."""
    protocol = Half()
    seat = Seat(log, protocol, version)
    seat.end()
    assert (protocol.ends, protocol.lost) == (1, None)
    assert protocol.transport is not None
    protocol.transport.write(b"afterwards")
    assert seat.client.receive() == b"afterwards"
    seat.client.transport.finish()
    seat.client.pump()
    assert (protocol.ends, protocol.lost) == (1, None)
    protocol.transport.write(b"still")
    assert seat.client.receive() == b"still"
    protocol.transport.loseWriteConnection()  # type: ignore[attr-defined]
    seat.client.pump()
    assert seat.client.close_notified
    assert seat.client.disconnected
    assert protocol.lost is not None
    assert protocol.lost.check(ConnectionDone)


def test_own_end_first(log: Log, version: Version) -> None:
    """After its own end it still hears what the client has to say, and then that it is over."""
    protocol = Half()
    seat = Seat(log, protocol, version)
    assert protocol.transport is not None
    protocol.transport.write(b"bye")
    protocol.transport.loseWriteConnection()  # type: ignore[attr-defined]
    assert seat.client.receive() == b"bye"
    assert seat.client.close_notified
    assert not seat.client.disconnected
    seat.client.write(b"one more thing")
    seat.client.pump()
    assert protocol.received == b"one more thing"
    seat.end()
    assert protocol.ends == 1
    assert seat.client.disconnected


def test_cut_off(log: Log, version: Version) -> None:
    """An end of TCP without a close_notify is no end, but a lost connection."""
    protocol = Half()
    seat = Seat(log, protocol, version)
    seat.client.transport.finish()
    seat.client.pump()
    assert protocol.ends == 0
    assert protocol.lost is not None
    assert protocol.lost.check(ConnectionLost)


def test_other_protocols_notice_nothing(log: Log, version: Version) -> None:
    """For a protocol that cannot tell them apart the client's close_notify ends it all."""
    protocol = RecordingProtocol()
    seat = Seat(log, protocol, version)
    seat.end()
    assert protocol.lost is not None
    assert protocol.lost.check(ConnectionDone)
    assert seat.client.disconnected


@pytest.mark.parametrize("size", [0, 1, 16_384, 16_385, 65_536, 1_000_000])
def test_write_at_once(log: Log, version: Version, size: int) -> None:
    """Whatever its size, all of it arrives, after what was written before."""
    protocol = RecordingProtocol()
    seat = Seat(log, protocol, version)
    data = bytes(range(256)) * (size // 256 + 1)
    assert protocol.transport is not None
    protocol.transport.write(b"before")
    protocol.transport.write_at_once(data[:size])  # type: ignore[attr-defined]
    assert seat.client.receive() == b"before" + data[:size]


def test_one_call_for_many_records(log: Log, version: Version) -> None:
    """OpenSSL takes all that is written in one call, as pyOpenSSL's own contexts do not."""
    protocol = RecordingProtocol()
    seat = Seat(log, protocol, version)
    assert protocol.transport is not None
    connection = protocol.transport.getHandle()  # type: ignore[attr-defined]
    assert connection.send(bytes(100_000)) == 100_000
    assert len(connection.bio_read(2**20)) > 100_000
    seat.client.reset()


class Sized(Half):
    """:ivar sizes: of the pieces that came."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def dataReceived(self, data: bytes) -> None:
        self.sizes.append(len(data))
        super().dataReceived(data)


@pytest.mark.parametrize("end", ["nothing", "close_notify", "damage"])
@pytest.mark.parametrize("size", [16_384, 65_535, 65_536, 150_000])
def test_records_are_gathered(log: Log, version: Version, size: int, end: str) -> None:
    """Records that came together are handed on together, up to 256 KiB; what comes behind them
    comes after them, and is not forgotten."""
    protocol = Sized()
    seat = Seat(log, protocol, version)
    data = bytes(range(256)) * (size // 256 + 1)
    seat.client.connection.sendall(data[:size])
    if end == "close_notify":
        seat.client.connection.shutdown()
    sealed = bytearray(seat.client.take_outgoing())
    if end == "damage":
        sealed += b"\x17\x03\x03\x00\x20" + bytes(32)
    seat.client.raw_send(bytes(sealed))
    seat.client.pump()
    assert protocol.received == data[:size]
    assert max(protocol.sizes) == size
    assert protocol.ends == (1 if end == "close_notify" else 0)
    assert (protocol.lost is not None) == (end == "damage")
    if end == "nothing":
        seat.client.send(b"more")
        assert protocol.received == data[:size] + b"more"


def test_abort_says_nothing(log: Log, version: Version) -> None:
    """Aborting sends no close_notify, which would make what came look whole."""
    protocol = RecordingProtocol()
    seat = Seat(log, protocol, version)
    assert protocol.transport is not None
    protocol.transport.abortConnection()  # type: ignore[attr-defined]
    seat.client.pump()
    assert seat.client.aborted
    assert not seat.client.close_notified


def test_memory_and_sockets_agree() -> None:
    """A transport in memory is taken as it is."""
    address = IPv4Address("TCP", "127.0.0.1", 1)
    memory = MemoryTransport(Clock(), address, address)
    assert prompt(memory) is memory
