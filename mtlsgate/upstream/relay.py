"""
Relays bytes between a client and a target until both are done.

A `Relay` has two ends of the same kind.  Each end passes what it reads to the other
end.  It pauses while the other end cannot write, and when it has read everything it
ends the other's stream.

If a connection is lost before the end of its stream, the stream was cut off.  The
other end is then reset, so that nobody mistakes a part for the whole.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol as Structure

from attrs import frozen
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.tls.stream import SocketStream
from mtlsgate.tls.transport import TlsTransport

Writer = Callable[[bytes], None]

#: When the other end is over: how many seconds an end may take no bytes and not end
#: its own side.
_LINGER = 30.0
#: After how many seconds that is first checked.  Most ends have left by then, and the
#: check is expensive.
_GONE = 1.0
#: The seconds between two checks whether an end has taken its bytes.
_LOOK = 0.05


class StreamTransport(Structure):
    """What an end needs from its transport."""

    def write(self, data: bytes) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def loseConnection(self) -> None: ...
    def loseWriteConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def fileno(self) -> int: ...
    def getHost(self) -> IAddress: ...


@frozen
class RelayLimits:
    """
    The time limits of a relay; None means no limit.

    :ivar idle_timeout: a relay ends after this many seconds without a byte in
        either direction.
    :ivar max_lifetime: a relay ends after this many seconds in any case.
    """

    idle_timeout: float | None = None
    max_lifetime: float | None = None


@implementer(IHalfCloseableProtocol, IPushProducer)
class RelayEnd(Protocol):
    """
    One end of a relay.

    :ivar other: the other end; None until it is known.
    :ivar finished: whether everything from this end has been read.
    :ivar lost: whether the connection is lost.
    :ivar paused: whether this end does not read because the other cannot write.
    :ivar _forward: takes the bytes that are read: first a list, and when there is
        another end, that end's transport.
    """

    transport: StreamTransport  # type: ignore[assignment]
    other: RelayEnd | None = None
    finished = False
    lost = False
    paused = False

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._early: list[bytes] = []
        self._forward: Writer = self._early.append

    def connectionMade(self) -> None:
        """Prepare the transport for relaying."""
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            # Nagle's algorithm would delay data until the other end answers.
            transport.setTcpNoDelay(True)
            # Notice an end that vanished silently.
            transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        """Pass the bytes on."""
        self._forward(data)

    def join(self, other: RelayEnd) -> None:
        """From now on, bytes that are read here go to the other end."""
        self.other = other
        other.transport.registerProducer(self, True)
        forward = self.relay.watched(other.writer())
        self._forward = forward
        early, self._early = b"".join(self._early), []
        if early:
            forward(early)

    def writer(self) -> Writer:
        """:returns: the function that writes to this end, at once if possible."""
        transport = self.transport
        return transport.write_at_once if isinstance(transport, TlsTransport) else transport.write

    def readConnectionLost(self) -> None:
        """Nothing more comes from here."""
        if not self.finished:
            self.finished = True
            self.relay.end_finished(self)

    def writeConnectionLost(self) -> None:
        """The stream to this end was ended.  Nothing needs to be done."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the relay."""
        self.lost = True
        self._ignore()
        self.relay.end_lost(self)

    def finish_writing(self) -> None:
        """End the stream to this end after everything written."""
        if not self.lost:
            self.transport.unregisterProducer()
            # Some endpoints' transports cannot do this.
            end = getattr(self.transport, "loseWriteConnection", self.transport.loseConnection)
            end()

    def close(self) -> None:
        """End the connection after everything written.  What still comes from here is
        read and dropped, so that the connection can end properly."""
        if not self.lost:
            self._ignore()
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            if not (self.finished or self.lost):
                self.transport.resumeProducing()

    def reset(self) -> None:
        """Reset the connection."""
        if not self.lost:
            self._ignore()
            self.transport.abortConnection()

    def stop_reading(self) -> None:
        """Stop reading."""
        self._ignore()
        self.paused = True
        if not self.lost:
            self.transport.pauseProducing()

    def _ignore(self) -> None:
        self._forward = _ignore

    # IPushProducer, for the other end's transport

    def pauseProducing(self) -> None:
        """Stop reading: the other end cannot write."""
        self.paused = True
        if not self.lost:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        self.paused = False
        if not (self.finished or self.lost):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: the other end reports its loss itself."""


def _ignore(data: bytes) -> None:
    """Drop bytes that nobody wants any more."""


def unsent(end: RelayEnd) -> int:
    """:returns: how many bytes, here and in the system, have not reached an end yet; as
    far as its transport knows."""
    transport = end.transport
    if isinstance(transport, SocketStream):
        return transport.unsent + transport.underway
    return 0


class Relay:
    """
    Two ends, and the bytes between them.

    :ivar client: the client's end, which comes first.
    :ivar target: the target's end; None until it is connected.
    :ivar _timers: the timers by name.
    :ivar _seen: when the last bytes passed, if there is an idle timeout.
    """

    target: RelayEnd | None = None
    _seen = 0.0

    def __init__(
        self, clock: IReactorTime, limits: RelayLimits, on_limit: Callable[[str], None]
    ) -> None:
        """
        :param on_limit: called with the name of the limit that ends the relay.
        """
        self.clock = clock
        self._limits = limits
        self._on_limit = on_limit
        self._timers: dict[str, IDelayedCall] = {}

    def join(self, client: RelayEnd, target: RelayEnd) -> None:
        """Connect the two ends."""
        self.client, self.target = client, target
        self._seen = self.clock.seconds()
        limits = self._limits
        if limits.idle_timeout is not None:
            self._after("idle_timeout", limits.idle_timeout, self._look)
        target.join(client)
        client.join(target)
        if client.finished:
            target.finish_writing()
        elif not client.paused:
            client.transport.resumeProducing()

    def give_up(self, client: RelayEnd) -> None:
        """There is no target: end the client's connection properly."""
        self.client = client
        self._close()

    def live(self) -> None:
        """Start the lifetime limit."""
        if self._limits.max_lifetime is not None:
            self._after("max_lifetime", self._limits.max_lifetime, self._end, "max_lifetime")

    def watched(self, forward: Writer) -> Writer:
        """:returns: a function that passes bytes on, and notes the time if needed."""
        if self._limits.idle_timeout is None:
            return forward
        seconds = self.clock.seconds

        def note(data: bytes) -> None:
            self._seen = seconds()
            forward(data)

        return note

    def end_finished(self, end: RelayEnd) -> None:
        """Everything from an end has been read."""
        other = end.other
        if other is None:
            return
        if other.finished:
            self._close()
        else:
            other.finish_writing()

    def end_lost(self, end: RelayEnd) -> None:
        """The connection of an end is lost."""
        other = end.other
        if other is None or other.lost:
            self._stop_timing()
        elif end.finished and (other.finished or end is self.target):
            self._close()
        else:
            # The end was cut off, or left before it had the whole answer.  Reset the
            # other end, so that it notices.  But first deliver what was already sent.
            self._stop_timing()
            other.stop_reading()
            self._after("linger", _GONE, self._linger)
            self._reset_when_delivered(other)

    def _reset_when_delivered(self, end: RelayEnd) -> None:
        if end.lost:
            return
        if unsent(end):
            self._after("look", _LOOK, self._reset_when_delivered, end)
        else:
            end.reset()

    def _close(self) -> None:
        """End the remaining ends properly; if that takes too long, reset them."""
        self._stop_timing()
        self._after("linger", _GONE, self._linger)
        for end in self._left():
            end.close()

    def _linger(self, before: int | None = None) -> None:
        """
        Reset the remaining ends when they have taken nothing for a while.

        :param before: how many bytes were underway at the last check.
        """
        underway = sum(map(unsent, self._left()))
        if before is None or underway < before:
            self._after("linger", _LINGER, self._linger, underway)
        else:
            for end in self._left():
                end.reset()

    def _left(self) -> list[RelayEnd]:
        """:returns: the ends that are still connected."""
        return [one for one in (self.client, self.target) if one is not None and not one.lost]

    def _look(self) -> None:
        limit = self._limits.idle_timeout
        assert limit is not None
        left = self._seen + limit - self.clock.seconds()
        if left > 0:
            self._after("idle_timeout", left, self._look)
        else:
            self._end("idle_timeout")

    def _end(self, limit: str) -> None:
        self._on_limit(limit)
        self._close()

    def _after(
        self, name: str, seconds: float, call: Callable[..., object], *arguments: object
    ) -> None:
        """Set the timer with this name; it replaces an earlier one."""
        timer = self._timers.get(name)
        if timer is not None and timer.active():
            timer.cancel()
        self._timers[name] = self.clock.callLater(seconds, call, *arguments)

    def _stop_timing(self) -> None:
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
