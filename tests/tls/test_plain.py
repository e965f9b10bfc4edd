"""
A plain connection on a socket, and what both kinds of streams have in common.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.task import Clock
from zope.interface import implementer

from mtlsgate.testing import RecordingProtocol
from mtlsgate.tls.memory_reactor import MemoryReactor
from mtlsgate.tls.plain import PlainTransport

ADDRESS = IPv4Address("TCP", "127.0.0.1", 9000)


class Ends:
    """
    A transport, and the other end of its socket.

    :ivar protocol: gets what comes.
    """

    def __init__(self, protocol: RecordingProtocol) -> None:
        ours, self.other = socket.socketpair()
        for one in (ours, self.other):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**15)
        self.other.setblocking(False)
        self.clock = Clock()
        self.reactor = MemoryReactor(self.clock)
        self.protocol = protocol
        self.transport = PlainTransport(ours, self.reactor, ADDRESS, ADDRESS)
        self.transport.begin(protocol)

    def turn(self) -> None:
        """Let the transport do what it can do now."""
        for _ in range(100):
            self.clock.advance(0)
            if not self.reactor.turn():
                return
        raise AssertionError("it never falls quiet")

    def read(self) -> bytes:
        """:returns: what the other end has got."""
        found = b""
        while True:
            self.turn()
            try:
                data = self.other.recv(2**20)
            except BlockingIOError:
                return found
            if not data:
                return found
            found += data


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends(RecordingProtocol())
    yield made
    made.other.close()
    made.transport.abortConnection()
    made.clock.advance(0)


@implementer(IHalfCloseableProtocol)
class Half(RecordingProtocol):
    """Tells the two directions apart."""

    read_ended = write_ended = False

    def readConnectionLost(self) -> None:
        self.read_ended = True

    def writeConnectionLost(self) -> None:
        self.write_ended = True


def test_what_is_written_goes_out_at_once(ends: Ends) -> None:
    """No turn of the reactor is needed."""
    ends.transport.write(b"a")
    ends.transport.writeSequence([b"b", b"c"])
    assert ends.other.recv(9) == b"abc"


def test_what_the_kernel_does_not_take_follows_in_order(ends: Ends) -> None:
    pieces = [bytes([n]) * 50_000 for n in range(8)]
    for piece in pieces:
        ends.transport.write(piece)
    assert ends.transport.unsent > 0
    assert ends.read() == b"".join(pieces)


def test_what_came_before_a_failed_write_is_delivered(ends: Ends) -> None:
    """The other side answers early and closes, while there is still much to be sent."""
    ends.transport.write(bytes(2**20))
    ends.other.sendall(b"no, thanks")
    ends.other.close()
    # The write fails first, whatever a reactor asks for first.
    assert isinstance(ends.transport.doWrite(), ConnectionLost)
    assert ends.protocol.received == b"no, thanks"


def test_closing_sends_everything_first(ends: Ends) -> None:
    ends.transport.write(bytes(300_000))
    ends.transport.loseConnection()
    ends.transport.write(b"never")
    assert len(ends.read()) == 300_000
    assert ends.other.recv(1) == b""
    assert ends.protocol.lost is not None
    assert ends.protocol.lost.check(ConnectionDone)


def test_the_two_directions_end_one_by_one() -> None:
    """For a protocol that can tell them apart."""
    half = Half()
    ends = Ends(half)
    ends.transport.write(bytes(100_000))
    ends.transport.loseWriteConnection()
    assert len(ends.read()) == 100_000
    assert ends.other.recv(1) == b""
    assert half.write_ended
    ends.other.sendall(b"still here")
    ends.other.shutdown(socket.SHUT_WR)
    ends.turn()
    assert half.received == b"still here"
    assert half.read_ended
    assert half.lost is None
    ends.transport.loseConnection()
    ends.turn()
    assert half.lost is not None
    ends.other.close()


def test_the_end_of_the_other_side_ends_it_for_any_other_protocol(ends: Ends) -> None:
    ends.other.shutdown(socket.SHUT_WR)
    ends.turn()
    assert ends.protocol.lost is not None
    assert ends.protocol.lost.check(ConnectionDone)


def test_nothing_is_delivered_while_it_is_paused(ends: Ends) -> None:
    ends.transport.pauseProducing()
    ends.other.sendall(b"later")
    ends.turn()
    assert ends.protocol.received == b""
    ends.transport.resumeProducing()
    ends.turn()
    assert ends.protocol.received == b"later"


@implementer(IPushProducer)
class Producer:
    """Counts what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


def test_a_producer_is_paused_and_resumed(ends: Ends) -> None:
    """And the connection is not closed before it is done."""
    producer = Producer()
    ends.transport.registerProducer(producer, True)
    ends.transport.write(bytes(500_000))
    assert producer.told == ["pause"]
    ends.transport.loseConnection()
    assert len(ends.read()) == 500_000
    assert producer.told == ["pause", "resume"]
    assert ends.protocol.lost is None
    ends.transport.unregisterProducer()
    ends.turn()
    assert ends.protocol.lost is not None


def test_a_reset_drops_what_was_not_sent(ends: Ends) -> None:
    ends.transport.write(bytes(500_000))
    ends.transport.abortConnection()
    ends.turn()
    assert ends.protocol.lost is not None
    assert ends.transport.fileno() == -1


def test_a_socket_that_is_given_away_is_left_alone(ends: Ends) -> None:
    """It stays open, and the protocol hears of nothing any more."""
    sock, unsent = ends.transport.detach()
    assert unsent == b""
    assert ends.reactor.getReaders() == []
    with sock:
        sock.send(b"mine")
        assert ends.other.recv(9) == b"mine"
        ends.transport.connectionLost(None)  # type: ignore[arg-type]
        assert ends.protocol.lost is None
        assert sock.fileno() != -1
