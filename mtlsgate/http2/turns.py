"""
Whose turn it is to write: streams send one frame each, as long as the other end takes them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from mtlsgate.http.deadline import Deadline
from mtlsgate.http.next_turn import nothing
from mtlsgate.http2.timing import PROGRESS
from mtlsgate.http2.wire import Wire


class Writer(Protocol):
    """A stream, as who gives it its turn sees it."""

    @property
    def has_output(self) -> bool:
        """Whether anything is left to be written."""

    @property
    def waits_for_window(self) -> bool:
        """Whether the other end has to open the window of this stream."""

    def write(self) -> bool:
        """
        Send one frame of what waits.

        :returns: whether another could be sent now.
        """

    def wrote(self) -> None:
        """The turn to write is over."""


@implementer(IPushProducer)
class Turns:
    """
    The streams of a connection that have something to write.

    :ivar is_stopped: whether nothing may be written any more.
    :ivar _ready: the streams, in turn.
    :ivar _queued: the same ones, and the one that is writing.
    :ivar _congested: whether the other end's socket takes no more for now.
    :ivar _writing: whether streams are written right now.
    :ivar _stall: the time limit for an end that takes nothing of any stream.
    :ivar _stalled: whether it runs.
    :ivar _sent_before: bytes of bodies that were sent before it began.
    """

    def __init__(
        self,
        session: Wire,
        clock: IReactorTime,
        seconds: float,
        flush: Callable[[], object],
        late: Callable[[], object],
    ) -> None:
        """
        :param seconds: for which the other end may take nothing.
        :param flush: sends what the session has to send.
        :param late: is called when it took nothing for so long.
        """
        self._session = session
        self._seconds = seconds
        self._flush = flush
        self._ready: deque[Writer] = deque()
        self._queued: set[Writer] = set()
        self._congested = self._writing = self._stalled = False
        self._stall = Deadline(clock, late)
        self._sent_before = 0
        self.is_stopped = False

    def add(self, stream: Writer) -> None:
        """A stream has something to write."""
        if stream not in self._queued:
            self._queued.add(stream)
            self._ready.append(stream)

    def window_opened(self, number: int | None, streams: Mapping[int, Writer]) -> None:
        """
        The other end takes more.

        :param number: of which stream; 0 for the connection, None for all streams.
        :param streams: those that are not over.
        """
        if number == 0:
            return
        found = streams.values() if number is None else [streams.get(number)]
        for stream in tuple(found):
            if stream is not None and stream.has_output:
                self.add(stream)

    # The transport's producer: it says when the other end does not read.

    def pauseProducing(self) -> None:
        """The other end's socket takes no more for now."""
        self._congested = True
        self._watch()

    def resumeProducing(self) -> None:
        """It takes bytes again."""
        self._congested = self._stalled = False
        self.write()

    def stopProducing(self) -> None:
        """Do nothing: the connection is lost."""

    # Writing.

    def write(self) -> None:
        """Let streams write as long as that is taken."""
        if self._writing or self.is_stopped:
            return
        self._writing = True
        ready = self._ready
        try:
            while ready and not self._congested and not self.is_stopped:
                stream = ready.popleft()
                more = stream.write()
                self._flush()
                if more:
                    ready.append(stream)
                elif stream.has_output and not stream.waits_for_window:
                    # The window of the connection is closed, for all of them.
                    ready.appendleft(stream)
                    break
                else:
                    self._queued.discard(stream)
                    stream.wrote()
        finally:
            self._writing = False
        self._watch()

    def _watch(self) -> None:
        """Limit the time in which nothing of what waits can be sent."""
        if self.is_stopped:
            return
        stalled = self._congested or bool(self._ready)
        progress = self._session.sent - self._sent_before >= PROGRESS
        if not stalled:
            self._stall.within(None)
        elif progress or not self._stalled:
            self._sent_before = self._session.sent
            self._stall.within(self._seconds)
        self._stalled = stalled

    def stop(self) -> None:
        """Write nothing more, and keep nothing of whose turns they were."""
        self.is_stopped = True
        self._stall.end()
        self._flush = nothing
