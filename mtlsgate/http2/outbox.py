"""
What waits to be sent of one message.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from mtlsgate.http.fields import Line
from mtlsgate.http.framing import ResponseFraming
from mtlsgate.http2.heads import trailer_fields
from mtlsgate.http2.wire import Wire


class Outbox:
    """
    A message's head, body and trailers, sent as far as the other end takes them.

    :ivar begun: whether the head was sent.
    :ivar closed: whether all was sent, to its end.
    :ivar sent: bytes of the body that were sent.
    :ivar _framing: counts the body; None where it has no length, as after a switch.
    :ivar _waiting: what is still to be sent of it.
    :ivar _last: the trailers, once the end is known.
    """

    def __init__(self, session: Wire, number: int) -> None:
        """:param number: the stream's."""
        self._session = session
        self._number = number
        self.begun = self.closed = False
        self.sent = 0
        self._framing: ResponseFraming | None = None
        self._waiting: deque[memoryview] = deque()
        self._last: Sequence[Line] | None = None

    def begin(
        self, fields: Sequence[Line], framing: ResponseFraming | None = None, *, end: bool = False
    ) -> None:
        """
        Send the head; it is the end if no body can follow.

        :param end: whether none does.
        """
        self.begun = True
        self._framing = framing
        self.closed = end or (framing is not None and framing.is_complete)
        self._session.headers(self._number, fields, end=self.closed)

    def put(self, data: bytes) -> None:
        """Add a piece of the body."""
        framing = self._framing
        for piece in [data] if framing is None else framing.piece(data):
            if piece:
                self._waiting.append(memoryview(piece))
        if framing is not None and framing.is_complete:
            self._last = ()

    def finish(self, trailers: Iterable[Line]) -> None:
        """The body is complete."""
        self._last = list(trailers)

    def clear(self) -> None:
        """Drop what waits."""
        self._waiting.clear()

    @property
    def is_whole(self) -> bool:
        """Whether as much of the body came as its head said."""
        return self.begun and (self._framing is None or not self._framing.is_short)

    @property
    def has_body(self) -> bool:
        """Whether bytes of the body wait."""
        return bool(self._waiting)

    @property
    def has_output(self) -> bool:
        """Whether anything is left to be sent."""
        return bool(self._waiting) or (self._last is not None and not self.closed)

    @property
    def waits_for_window(self) -> bool:
        """Whether the other end has to open the window of this stream."""
        return bool(self._waiting) and not self._session.has_window(self._number)

    def write(self) -> bool:
        """
        Send one frame of what waits.

        :returns: whether it could be done.
        """
        session, waiting = self._session, self._waiting
        if self.closed or not self.has_output:
            return False
        if not waiting:
            self._write_end()
            return True
        room = session.room(self._number)
        if room <= 0:
            return False
        data = waiting[0]
        if len(data) > room:
            data, waiting[0] = data[:room], data[room:]
        else:
            waiting.popleft()
        self.sent += len(data)
        self.closed = not waiting and self._last is not None and not self._last
        session.data(self._number, data, end=self.closed)
        return True

    def _write_end(self) -> None:
        self.closed = True
        if self._last:
            self._session.headers(self._number, trailer_fields(self._last), end=True)
        else:
            self._session.data(self._number, b"", end=True)
