"""
What came of one message's body, until somebody takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from mtlsgate.http.fields import Line
from mtlsgate.http2.faults import MalformedRequest
from mtlsgate.http2.wire import Wire


class Inbox:
    """
    A message's body, passed on piece by piece, and its trailers.

    The other end may send more as soon as what it sent was passed on, and not paused since.

    :ivar paused: whether nothing is passed on for now.
    :ivar ended: whether all of the message came.
    :ivar arrived: how many bytes came.
    :ivar _held: what was not passed on.
    :ivar _trailers: what came after it, if that was not passed on.
    :ivar _untaken: bytes that were passed on, and for which the window was not opened.
    """

    def __init__(
        self, session: Wire, number: int, length: int | None, *, ended: bool, paused: bool
    ) -> None:
        """
        :param number: the stream's.
        :param length: of the body; None if only its end tells.
        :param ended: whether there is no body.
        """
        self._session = session
        self._number = number
        self._length = length
        self.paused = paused
        self.ended = ended
        self.arrived = self._untaken = 0
        self._held: deque[bytes] = deque()
        self._trailers: Sequence[Line] | None = None

    @property
    def complete(self) -> bool:
        """Whether all of the message was passed on."""
        return self.ended and not self._held and self._trailers is None

    def put(self, data: bytes) -> None:
        """
        A piece came.

        :raises MalformedRequest: if it is more than the length.
        """
        self.arrived += len(data)
        if self._length is not None and self.arrived > self._length:
            raise MalformedRequest("the body is longer than Content-Length")
        self._held.append(data)

    def put_end(self, trailers: Sequence[Line]) -> None:
        """
        The end came.

        :raises MalformedRequest: if it is too early.
        """
        self.ended = True
        if self._length is not None and self.arrived != self._length:
            raise MalformedRequest("the body is shorter than Content-Length")
        self._trailers = trailers

    def end_unread(self) -> None:
        """The end came of a request that nobody reads any more."""
        self.ended = True

    def pause(self) -> None:
        """Pass nothing on for now."""
        self.paused = True

    def resume(self, take: Callable[[bytes], object]) -> None:
        """Pass on what waits, as `pass_on`."""
        self.paused = False
        self.pass_on(take)

    def pass_on(self, take: Callable[[bytes], object]) -> None:
        """:param take: gets each piece, and may pause."""
        while self._held and not self.paused:
            data = self._held.popleft()
            self._untaken += len(data)
            take(data)
        if self._untaken and not (self.paused or self.ended):
            size, self._untaken = self._untaken, 0
            self._session.taken(self._number, size)

    def take_end(self) -> Sequence[Line] | None:
        """:returns: the trailers, once nothing comes before them."""
        if self.paused or self._held:
            return None
        trailers, self._trailers = self._trailers, None
        return trailers

    def clear(self) -> None:
        """Drop what waits; nothing more is taken."""
        self._held.clear()
        self._untaken = 0
