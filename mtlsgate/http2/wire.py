"""
One end of an HTTP/2 connection without any I/O: bytes in, events out; messages in, bytes out.

``h2`` does the framing, the compression of headers and the states of streams.  What it would
make an error of the whole connection, though it is one message's, it does not get to see: the
header fields, which `mtlsgate.http2.heads` reads, and GOAWAY, after which it would send nothing
more.

Flow control (RFC 9113, 5.2): bytes of bodies count against the window of the connection and
that of the stream.  The connection's is opened again as soon as bytes come, so that a stream
that nobody reads takes nothing from the others; the stream's when `Wire.taken` says that
somebody took them.  So a connection holds no more than ``STREAM_WINDOW`` for each stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from h2 import events as h2_events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame

from mtlsgate.http.bodies import MAX_FIELDS
from mtlsgate.http.fields import Line
from mtlsgate.http2.budgets import Budgets, Spent
from mtlsgate.http2.compression import FieldDecoder, FieldEncoder
from mtlsgate.http2.events import Answered, Came, Event, Leaving, Opened, Reset, Trailed
from mtlsgate.http2.faults import ConnectionFault
from mtlsgate.http2.frames import MAX_FRAME, PREFACE, Frame, FrameReader, Kind

#: Bytes of a message's body that may be here, and not taken.  Not below 65,535, which the other
#: end may send before it has read the settings.
STREAM_WINDOW = 128 * 1024
#: Bytes of bodies that may be underway on a connection.
CONNECTION_WINDOW = 1024 * 1024
#: RFC 7541, 4.1: what each field counts besides its bytes.
PER_FIELD = 32
#: RFC 9113, 6.8.
_GOAWAY_SIZE = 8
_COSTS = {
    Kind.WINDOW_UPDATE: Spent.WINDOW,
    Kind.PING: Spent.PING,
    Kind.SETTINGS: Spent.SETTINGS,
    Kind.PRIORITY: Spent.PRIORITY,
    None: Spent.UNKNOWN,
}


class _Streams(H2Connection):
    """What ``h2`` knows of the connection."""

    #: How many streams that are over it remembers, to tell late frames from wrong ones.
    MAX_CLOSED_STREAMS = 1024

    decoder: FieldDecoder
    encoder: FieldEncoder
    #: How many streams there may be before those that are over are looked for.
    _enough = 4

    def __init__(
        self, settings: dict[SettingCodes, int], decoder: FieldDecoder, *, client_side: bool
    ) -> None:
        super().__init__(
            H2Configuration(
                client_side=client_side,
                header_encoding=None,
                # `heads` does all of it.
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self.local_settings = Settings(client=client_side, initial_values=settings)
        self.decoder = decoder
        self.encoder = FieldEncoder()

    @property
    def open_inbound_streams(self) -> int:
        """0: one stream too many is refused alone, not with the connection (RFC 9113, 5.1.2)."""
        self._forget()
        return 0

    @property
    def open_outbound_streams(self) -> int:
        """0: who opens streams counts them."""
        self._forget()
        return 0

    def _forget(self) -> None:
        if len(self.streams) > self._enough:
            # Asking looks at all of them, and forgets those that are over.
            ours = super().open_inbound_streams + super().open_outbound_streams
            self._enough = 2 * ours + 4


class Wire:
    """
    One end of a connection.

    :ivar ended: whether nothing more can be sent or read.
    :ivar sent: bytes of bodies that were sent.
    """

    def __init__(
        self,
        seconds: Callable[[], float],
        head_size: int,
        settings: dict[SettingCodes, int],
        *,
        client_side: bool,
    ) -> None:
        """
        :param seconds: the time, from a clock that only goes forward.
        :param head_size: bytes of a head that comes.
        :param settings: of this end, besides those of every end.
        :param client_side: whether this is the client's end.
        """
        # A head with more than `head_size` is refused alone.  One with more than this ends
        # the connection, because what is not decoded leaves the compression out of step.
        most = 2 * head_size + (MAX_FIELDS + 1) * PER_FIELD
        everywhere = {
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: head_size,
        }
        decoder = FieldDecoder(most, keeps_status=client_side)
        self._streams = _Streams(everywhere | settings, decoder, client_side=client_side)
        self._reader = FrameReader(most, b"" if client_side else PREFACE)
        self._budgets = Budgets(seconds)
        self._events: deque[Event] = deque()
        self._out: list[bytes] = []
        self._owed = 0
        self._owed_to: dict[int, int] = {}
        self.ended = False
        self.sent = 0
        if not client_side:
            # The preface is read here, frame by frame h2 gets the rest.
            self._streams.receive_data(PREFACE)
        self._streams.initiate_connection()
        self._streams.increment_flow_control_window(CONNECTION_WINDOW - 65535)

    @property
    def in_head(self) -> bool:
        """Whether a header block has begun that is not complete."""
        return self._reader.in_block

    @property
    def begun_data(self) -> int | None:
        """The stream of a DATA frame of which only a part is here, or None."""
        return self._reader.begun_data

    # Reading.

    def feed(self, data: bytes) -> None:
        """
        :param data: what came.
        :raises ConnectionFault: if it is not HTTP/2.
        """
        try:
            self._reader.feed(data)
        except ConnectionFault as fault:
            self.leave(fault.code)
            raise

    def next(self) -> Event | None:
        """
        :returns: what comes next, or None if that is not here yet.
        :raises ConnectionFault: if the connection cannot go on; GOAWAY is in `outgoing`.
        """
        events = self._events
        try:
            while not events and not self.ended:
                frame = self._reader.next()
                if frame is None:
                    return None
                self._take(frame)
        except ConnectionFault as fault:
            self.leave(fault.code)
            raise
        except ProtocolError as error:
            # h2 has told the other end.
            self.ended = True
            cause = str(error) or type(error).__name__
            raise ConnectionFault(ErrorCodes(error.error_code), cause) from None
        return events.popleft() if events else None

    def _take(self, frame: Frame) -> None:
        kind = frame.kind
        self._count(frame)
        if kind is Kind.GOAWAY:
            self._take_goaway(frame)
        elif kind is not None:
            for event in self._streams.receive_data(frame.octets):
                self._translate(event)

    def _count(self, frame: Frame) -> None:
        """Charge the other end for a frame that may carry nothing."""
        what = _COSTS.get(frame.kind)
        if what is not None:
            self._budgets.spend(what)
        elif frame.kind is Kind.DATA:
            if not frame.is_only_padding:
                self._budgets.came()
            elif not frame.ends_stream:
                self._budgets.spend(Spent.EMPTY)

    def _take_goaway(self, frame: Frame) -> None:
        if frame.stream:
            text = "a GOAWAY frame is for one stream"
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, text)
        if frame.size < _GOAWAY_SIZE:
            raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, "a GOAWAY frame is too short")
        last = int.from_bytes(frame.payload[:4], "big") & 0x7FFFFFFF
        self._events.append(Leaving(last, int.from_bytes(frame.payload[4:8], "big")))

    def _translate(self, event: h2_events.Event) -> None:
        match event:
            case h2_events.DataReceived():
                self._take_data(event)
            case h2_events.TrailersReceived():
                self._events.append(Trailed(event.stream_id, self._streams.decoder.fields))
            case h2_events.StreamReset():
                number, code = event.stream_id, int(event.error_code)
                self._events.append(Reset(number, code, event.remote_reset))
                self._owed_to.pop(number, None)
            case h2_events.WindowUpdated():
                self._events.append(Opened(event.stream_id))
            case h2_events.RemoteSettingsChanged():
                if SettingCodes.INITIAL_WINDOW_SIZE in event.changed_settings:
                    self._events.append(Opened(None))
            case h2_events.PingAckReceived():
                self._events.append(Answered(event.ping_data))
            case _:
                pass

    def _take_data(self, event: h2_events.DataReceived) -> None:
        number, size = event.stream_id, event.flow_controlled_length
        ended = event.stream_ended is not None
        data = event.data or b""
        self._owed += size
        if self._owed >= CONNECTION_WINDOW // 2:
            owed, self._owed = self._owed, 0
            self._streams.increment_flow_control_window(owed)
        if ended:
            self._owed_to.pop(number, None)
        elif size > len(data):
            # Nobody takes what pads a frame.
            self.taken(number, size - len(data))
        self._events.append(Came(number, data, ended))

    def taken(self, number: int, size: int) -> None:
        """
        Somebody took bytes of a message's body.

        :param number: of a stream whose message is not complete.
        """
        owed = self._owed_to.get(number, 0) + size
        if owed >= STREAM_WINDOW // 2:
            self._streams.increment_flow_control_window(owed, number)
            owed = 0
        self._owed_to[number] = owed

    # Writing.

    def headers(self, number: int, fields: Sequence[Line], *, end: bool) -> None:
        """Send a head, or trailers: names in lower case, pseudo-headers first."""
        self._streams.encoder.stage(fields)
        # h2 looks for the status, or the method, alone.
        self._streams.send_headers(number, fields[:1], end)

    def room(self, number: int) -> int:
        """:returns: how many bytes of a body may be sent in one frame now."""
        window = self._streams.local_flow_control_window(number)
        return min(window, MAX_FRAME, self._streams.max_outbound_frame_size)

    def has_window(self, number: int) -> bool:
        """:returns: whether the other end would take bytes of this stream, were it alone."""
        return self._streams.streams[number].outbound_flow_control_window > 0

    def data(self, number: int, data: bytes | memoryview, *, end: bool) -> None:
        """:param data: of a body, no longer than `room` says."""
        self._streams.send_data(number, data, end)
        self.sent += len(data)
        self._budgets.sent(len(data))

    def reset(self, number: int, code: ErrorCodes) -> None:
        """End a stream before its time, if it has not ended for both sides."""
        self._owed_to.pop(number, None)
        stream = self._streams.streams.get(number)
        if stream is not None and not stream.closed:
            self._streams.reset_stream(number, code)

    def leave(self, code: ErrorCodes) -> None:
        """Say why the connection ends, and that it does."""
        if not self.ended:
            self.ended = True
            self._goaway(self._last(), code)

    def _last(self) -> int:
        """:returns: the highest stream that the other end began."""
        return 0

    def _goaway(self, last: int, code: ErrorCodes) -> None:
        # h2 would let nothing follow it.
        self._out.append(self._streams.data_to_send())
        self._out.append(GoAwayFrame(0, last_stream_id=last, error_code=code).serialize())

    def outgoing(self) -> bytes:
        """:returns: what is to be sent."""
        data = self._streams.data_to_send()
        if self._out:
            data = b"".join([*self._out, data])
            self._out.clear()
        return data
