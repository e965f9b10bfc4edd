"""
The client's end of a connection, without any I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from h2 import events as h2_events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from mtlsgate.http.fields import Line
from mtlsgate.http2.events import Began, Responded
from mtlsgate.http2.faults import ConnectionFault
from mtlsgate.http2.wire import PER_FIELD, Wire

#: Streams that are underway to one target by one connection, whatever it allows: what they
#: all hold is bounded.
MAX_REQUESTS = 100
#: A connection is given up long before its numbers for streams are used up.
_LAST_STREAM = 2**30


class RequestSession(Wire):
    """
    The client's end of a connection.

    :ivar last: the highest stream that was begun.
    :ivar began: whether the target's settings came.
    """

    def __init__(self, seconds: Callable[[], float], head_size: int) -> None:
        """
        :param seconds: the time, from a clock that only goes forward.
        :param head_size: bytes of a response's head.
        """
        # Nothing is pushed.
        settings = {SettingCodes.ENABLE_PUSH: 0}
        super().__init__(seconds, head_size, settings, client_side=True)
        self.last = -1
        self.began = False

    @property
    def most(self) -> int:
        """How many streams there may be at a time."""
        if self.last >= _LAST_STREAM:
            return 0
        return min(self._streams.remote_settings.max_concurrent_streams, MAX_REQUESTS)

    def fits(self, fields: Sequence[Line]) -> bool:
        """:returns: whether the target takes a head as long as that (RFC 9113, 6.5.2)."""
        most = self._streams.remote_settings.max_header_list_size
        return most is None or most >= sum(
            len(name) + len(value) + PER_FIELD for name, value in fields
        )

    def begin(self) -> int:
        """:returns: the number of a new stream, of which `headers` comes next."""
        self.last += 2
        return self.last

    def ping(self, data: bytes) -> None:
        """:param data: eight bytes, which the answer repeats."""
        self._streams.ping(data)

    def completed(self, number: int) -> None:
        """A response came in full, or nobody waits for the rest of it."""
        self._owed_to.pop(number, None)
        self._budgets.answered()

    def close(self) -> None:
        """Say that nothing more is asked."""
        self.leave(ErrorCodes.NO_ERROR)

    def _translate(self, event: h2_events.Event) -> None:
        match event:
            case h2_events.ResponseReceived():
                self._responded(event.stream_id, ended=event.stream_ended is not None)
            case h2_events.InformationalResponseReceived():
                self._responded(event.stream_id, ended=False)
            case h2_events.RequestReceived():
                # h2 would take it.
                text = "the target begins a stream of its own"
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, text)
            case h2_events.RemoteSettingsChanged() if not self.began:
                self.began = True
                self._events.append(Began())
                super()._translate(event)
            case _:
                super()._translate(event)

    def _responded(self, number: int | None, *, ended: bool) -> None:
        assert number is not None
        # A small answer is useful work, too.
        self._budgets.came()
        self._events.append(Responded(number, self._streams.decoder.fields, ended))
