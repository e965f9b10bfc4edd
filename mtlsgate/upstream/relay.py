"""
Bytes between a client and a target, until both are done.

A `Relay` has two ends, which are alike: each hands what it reads to the other,
is paused while the other does not get rid of it, and ends the other's writing
when it has read to the end.

What a lost connection means for the other end depends on whether it had read
to its end by then.  If not, the stream was cut off, and the other end is reset,
so that nobody takes what came for all there is.
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

#: For how long, in seconds, an end may take nothing of what is underway to it, nor
#: end its own side, when all else is over.
_LINGER = 30.0
#: When that is first looked at: most ends are gone by then, and asking the system
#: takes longer than all else that ending a relay does.
_GONE = 1.0
#: How often, in seconds, it is looked whether it took it.
_LOOK = 0.05


class StreamTransport(Structure):
    """What an end needs of its transport."""

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
class Limits:
    """
    :ivar idle_timeout: seconds without a byte in either direction after which
        a relay ends; None for no limit.
    :ivar max_lifetime: seconds after which it ends in any case.
    """

    idle_timeout: float | None = None
    max_lifetime: float | None = None


@implementer(IHalfCloseableProtocol, IPushProducer)
class End(Protocol):
    """
    One end of a relay.

    :ivar other: the other end, once there is one.
    :ivar finished: all that will come from here has been read.
    :ivar lost: the connection is.
    :ivar paused: the other end does not get rid of what is read here.
    :ivar _forward: takes what is read: until there is another end, a list does, and
        from then on that end's transport.
    """

    transport: StreamTransport  # type: ignore[assignment]
    other: End | None = None
    finished = False
    lost = False
    paused = False

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._early: list[bytes] = []
        self._forward: Writer = self._early.append

    def connectionMade(self) -> None:
        """Make the transport fit for relaying."""
        transport = self.transport
        if ITCPTransport.providedBy(transport):
            # Nagle's algorithm would wait for what the other end has yet to send.
            transport.setTcpNoDelay(True)
            # An end that vanished without a word is found out.
            transport.setTcpKeepAlive(True)

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        self._forward(data)

    def join(self, other: End) -> None:
        """From now on, what is read here goes there."""
        self.other = other
        other.transport.registerProducer(self, True)
        forward = self.relay.watched(other.writer())
        self._forward = forward
        early, self._early = b"".join(self._early), []
        if early:
            forward(early)

    def writer(self) -> Writer:
        """:returns: what writes to this end, at once if it can."""
        transport = self.transport
        return transport.write_at_once if isinstance(transport, TlsTransport) else transport.write

    def readConnectionLost(self) -> None:
        """Nothing more comes from here."""
        if not self.finished:
            self.finished = True
            self.relay.end_finished(self)

    def writeConnectionLost(self) -> None:
        """The last word was sent here; nothing hangs on it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the relay."""
        self.lost = True
        self._ignore()
        self.relay.end_lost(self)

    def finish_writing(self) -> None:
        """End the stream to this end, after what was written to it."""
        if not self.lost:
            self.transport.unregisterProducer()
            # Not every kind of endpoint has transports that can.
            end = getattr(self.transport, "loseWriteConnection", self.transport.loseConnection)
            end()

    def close(self) -> None:
        """End the connection after what was written to it; what still comes from
        here is read, so that it can end in good order, and goes nowhere."""
        if not self.lost:
            self._ignore()
            self.transport.unregisterProducer()
            self.transport.loseConnection()
            if not (self.finished or self.lost):
                self.transport.resumeProducing()

    def reset(self) -> None:
        """End the connection here and now."""
        if not self.lost:
            self._ignore()
            self.transport.abortConnection()

    def stop_reading(self) -> None:
        """Read no more."""
        self._ignore()
        self.paused = True
        if not self.lost:
            self.transport.pauseProducing()

    def _ignore(self) -> None:
        self._forward = _ignore

    # IPushProducer, for the other end's transport

    def pauseProducing(self) -> None:
        """Read no more: the other end does not take it."""
        self.paused = True
        if not self.lost:
            self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        self.paused = False
        if not (self.finished or self.lost):
            self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The other end is lost, as it says itself."""


def _ignore(data: bytes) -> None:
    """Take what nobody wants any longer."""


def unsent(end: End) -> int:
    """:returns: how many bytes wait here and in the system, and have not reached an end
    yet; as far as its transport tells."""
    transport = end.transport
    if isinstance(transport, SocketStream):
        return transport.unsent + transport.underway
    return 0


class Relay:
    """
    Two ends, and what passes between them.

    :ivar client: the end that was there first.
    :ivar target: the other one, once there is.
    :ivar _timers: what ends it in its time.
    :ivar _seen: when the last bytes came by, where that matters.
    """

    target: End | None = None
    _seen = 0.0

    def __init__(
        self, clock: IReactorTime, limits: Limits, on_limit: Callable[[str], None]
    ) -> None:
        """
        :param on_limit: told which of the limits ends it.
        """
        self.clock = clock
        self._limits = limits
        self._on_limit = on_limit
        self._timers: dict[str, IDelayedCall] = {}

    def join(self, client: End, target: End) -> None:
        """Let bytes pass."""
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

    def give_up(self, client: End) -> None:
        """There is no target: end the client's connection in good order."""
        self.client = client
        self._close()

    def live(self) -> None:
        """Begin to count the lifetime."""
        if self._limits.max_lifetime is not None:
            self._after("max_lifetime", self._limits.max_lifetime, self._end, "max_lifetime")

    def watched(self, forward: Writer) -> Writer:
        """:returns: what passes bytes on, and takes note of it if that matters."""
        if self._limits.idle_timeout is None:
            return forward
        seconds = self.clock.seconds

        def note(data: bytes) -> None:
            self._seen = seconds()
            forward(data)

        return note

    def end_finished(self, end: End) -> None:
        """An end has been read to its end."""
        other = end.other
        if other is None:
            return
        if other.finished:
            self._close()
        else:
            other.finish_writing()

    def end_lost(self, end: End) -> None:
        """The connection of an end is lost."""
        other = end.other
        if other is None or other.lost:
            self._stop_timing()
        elif end.finished and (other.finished or end is self.target):
            self._close()
        else:
            # Cut off, or gone before it had the whole answer: so that the other
            # end does not take it for all right, it is reset.  But first it
            # gets what was sent to it while all was well.
            self._stop_timing()
            other.stop_reading()
            self._after("linger", _GONE, self._linger)
            self._reset_when_delivered(other)

    def _reset_when_delivered(self, end: End) -> None:
        if end.lost:
            return
        if unsent(end):
            self._after("look", _LOOK, self._reset_when_delivered, end)
        else:
            end.reset()

    def _close(self) -> None:
        """End what is left of both in good order, or after a while without."""
        self._stop_timing()
        self._after("linger", _GONE, self._linger)
        for end in self._left():
            end.close()

    def _linger(self, before: int | None = None) -> None:
        """
        Reset what is left, once it has taken nothing for a while.

        :param before: how much was underway when it was last looked.
        """
        underway = sum(map(unsent, self._left()))
        if before is None or underway < before:
            self._after("linger", _LINGER, self._linger, underway)
        else:
            for end in self._left():
                end.reset()

    def _left(self) -> list[End]:
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
        """Set a timer; of each name there is one."""
        timer = self._timers.get(name)
        if timer is not None and timer.active():
            timer.cancel()
        self._timers[name] = self.clock.callLater(seconds, call, *arguments)

    def _stop_timing(self) -> None:
        for timer in self._timers.values():
            if timer.active():
                timer.cancel()
        self._timers.clear()
