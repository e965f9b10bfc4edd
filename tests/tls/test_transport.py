"""
What a protocol behind the gate sees of TLS: two directions that end one by one,
records that come together, and ends that are told.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from mtlsgate.testing import (
    Authority,
    Client,
    RecordingProtocol,
    Version,
)
from mtlsgate.tls.engine import Engine
from mtlsgate.tls.stream import SocketStream
from mtlsgate.tls.transport import together
from tests.kits.gate import Log, MemoryGate, rule


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


def test_what_is_written_together_goes_out_at_once(
    log: Log, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one, and the reactor is asked for nothing: that would cost a turn.  An end that was
    asked for meanwhile comes after it, and a call that fails changes none of that."""
    protocol = Half()
    seat = Seat(log, protocol, version)
    transport: Any = protocol.transport
    asked: list[object] = []
    pieces: list[int] = []
    encrypt = Engine.write

    def counted(self: Engine, data: bytes) -> None:
        pieces.append(len(data))
        encrypt(self, data)

    monkeypatch.setattr(SocketStream, "startWriting", asked.append)
    monkeypatch.setattr(Engine, "write", counted)

    def call() -> None:
        transport.write(b"one ")
        transport.together(lambda: transport.write(b"two "))
        transport.writeSequence([b"three ", b"four"])

    together(transport, call)
    assert (pieces, asked) == ([len(b"one two three four")], [])
    assert seat.client.receive() == b"one two three four"

    def fail() -> None:
        transport.write(b"five")
        transport.loseWriteConnection()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        together(transport, fail)
    assert seat.client.receive() == b"five"
    assert seat.client.close_notified


def test_other_transports_write_as_they_do() -> None:
    """What is no TLS of the gate's is left alone."""
    transport = StringTransport()
    together(transport, lambda: transport.write(b"x"))
    assert transport.value() == b"x"


def test_a_write_of_no_bytes_changes_nothing(log: Log, version: Version) -> None:
    """It raises, and what is written afterwards goes out."""
    protocol = RecordingProtocol()
    seat = Seat(log, protocol, version)
    transport: Any = protocol.transport
    with pytest.raises(TypeError):
        transport.write_at_once("text")
    transport.write(b"afterwards")
    assert seat.client.receive() == b"afterwards"


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
