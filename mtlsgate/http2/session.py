"""
The server's end of a connection, without any I/O.
"""

from __future__ import annotations

from collections.abc import Callable

from h2 import events as h2_events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from mtlsgate.http2.budgets import Spent
from mtlsgate.http2.events import Requested
from mtlsgate.http2.faults import ConnectionFault
from mtlsgate.http2.frames import Frame, Kind
from mtlsgate.http2.wire import Wire

#: Requests that one connection may have underway.
MAX_STREAMS = 100
#: What the PING of `Session.announce` carries.
LAST_CALL = b"last one"
_OF_STREAMS = (Kind.DATA, Kind.HEADERS, Kind.RST_STREAM)
#: GOAWAY with this says: nothing is refused yet, but send no more (RFC 9113, 6.8).
_ANY_STREAM = 2**31 - 1


class Session(Wire):
    """
    The server's end of a connection.

    :ivar last: the highest stream that came.
    """

    def __init__(
        self, seconds: Callable[[], float], head_size: int, *, websockets: bool = False
    ) -> None:
        """
        :param seconds: the time, from a clock that only goes forward.
        :param head_size: bytes of a request's head.
        :param websockets: whether clients may ask for WebSockets (RFC 8441).
        """
        settings = {
            SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
            SettingCodes.ENABLE_CONNECT_PROTOCOL: int(websockets),
        }
        super().__init__(seconds, head_size, settings, client_side=False)
        self.last = 0

    # Reading.

    def _count(self, frame: Frame) -> None:
        super()._count(frame)
        if frame.kind in _OF_STREAMS and frame.stream <= self.last and not self._is_open(frame):
            self._budgets.spend(Spent.STRAY)

    def _is_open(self, frame: Frame) -> bool:
        stream = self._streams.streams.get(frame.stream)
        return stream is not None and not stream.closed

    def _translate(self, event: h2_events.Event) -> None:
        if isinstance(event, h2_events.RequestReceived):
            number = event.stream_id
            self.last = max(self.last, number)
            ended = event.stream_ended is not None
            self._events.append(Requested(number, self._streams.decoder.fields, ended))
            return
        super()._translate(event)
        if isinstance(event, h2_events.StreamReset):
            self._budgets.spend(Spent.RESET)

    # Writing.

    def answered(self, number: int) -> None:
        """A response is complete, and so is its request."""
        self._owed_to.pop(number, None)
        self._budgets.answered()

    def blame(self) -> None:
        """
        A stream was reset because of what the client sent.

        :raises ConnectionFault: if it was not the first time.
        """
        try:
            self._budgets.spend(Spent.RESET)
        except ConnectionFault as fault:
            self.leave(fault.code)
            raise

    def announce(self) -> None:
        """Say that no more requests are wanted; those that come are still answered.  The
        answer to a PING tells when the client knows (RFC 9113, 6.8)."""
        self._goaway(_ANY_STREAM, ErrorCodes.NO_ERROR)
        self._streams.ping(LAST_CALL)

    def close(self) -> None:
        """Say that requests after the last one that came are not answered."""
        self._goaway(self.last, ErrorCodes.NO_ERROR)

    def _last(self) -> int:
        return self.last
