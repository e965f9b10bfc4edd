"""
Frames out of bytes (RFC 9113, 4), without any I/O, before ``h2`` reads them.

``h2`` keeps a frame until it is whole, and only then looks how long it is; and it joins header
blocks of up to 64 frames.  What is too long ends here, when its first nine bytes have come.
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen
from h2.errors import ErrorCodes

from mtlsgate.http2.faults import ConnectionFault

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: The longest payload: what every client may send, and as much as this server wants.
MAX_FRAME = 16384
#: Frames that continue one header block (CVE-2024-27316).  Even one byte each would not be
#: sent by a client that means well.
MAX_CONTINUATIONS = 32
_HEADER = 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8


class Kind(IntEnum):
    """The types of frames (RFC 9113, 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


_KNOWN = {int(kind): kind for kind in Kind}


@frozen
class Frame:
    """
    One frame as it came.

    :ivar kind: its type; None for one that nobody here knows.
    :ivar stream: the number of its stream, 0 for the connection.
    :ivar octets: all of it.
    """

    kind: Kind | None
    flags: int
    stream: int
    octets: bytes

    @property
    def payload(self) -> bytes:
        """What comes after its header."""
        return self.octets[_HEADER:]

    @property
    def size(self) -> int:
        """How many bytes come after its header."""
        return len(self.octets) - _HEADER

    @property
    def is_only_padding(self) -> bool:
        """Whether a DATA frame carries no data (RFC 9113, 6.1)."""
        return self.size == 0 or (
            bool(self.flags & _PADDED) and self.octets[_HEADER] == self.size - 1
        )

    @property
    def ends_stream(self) -> bool:
        """Whether a DATA or HEADERS frame is its stream's last."""
        return bool(self.flags & _END_STREAM)


class FrameReader:
    """
    Takes frames out of what the other end sends.

    :ivar in_block: whether a header block has begun that is not complete.
    """

    def __init__(self, max_block: int, preface: bytes = PREFACE) -> None:
        """
        :param max_block: bytes of a header block as it is sent, compressed.
        :param preface: what comes before the first frame; a server sends nothing.
        """
        self._max_block = max_block
        self._buffer = bytearray()
        self._preface = preface
        self._first = True
        self._block = self._continuations = 0
        self.in_block = False

    @property
    def waiting(self) -> int:
        """How many bytes are here that are not a whole frame."""
        return len(self._buffer)

    @property
    def begun_data(self) -> int | None:
        """The stream of a DATA frame of which only a part is here, or None."""
        buffer = self._buffer
        if len(buffer) < _HEADER or buffer[3] != Kind.DATA:
            return None
        return int.from_bytes(buffer[5:9], "big") & 0x7FFFFFFF

    def feed(self, data: bytes) -> None:
        """
        :param data: what came.
        :raises ConnectionFault: if it is not HTTP/2.
        """
        if self._preface:
            begin, data = data[: len(self._preface)], data[len(self._preface) :]
            if not self._preface.startswith(begin):
                raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "it does not begin as HTTP/2")
            self._preface = self._preface[len(begin) :]
        self._buffer += data

    def next(self) -> Frame | None:
        """
        :returns: the next frame, or None if it is not here yet.
        :raises ConnectionFault: if it may not come, or is too long.
        """
        buffer = self._buffer
        if len(buffer) < _HEADER:
            return None
        size = int.from_bytes(buffer[:3], "big")
        kind, flags = _KNOWN.get(buffer[3]), buffer[4]
        if size > MAX_FRAME:
            text = f"a frame is longer than {MAX_FRAME} bytes"
            raise ConnectionFault(ErrorCodes.FRAME_SIZE_ERROR, text)
        self._check_order(kind, flags)
        if len(buffer) < _HEADER + size:
            return None
        if kind is Kind.WINDOW_UPDATE and size:
            # RFC 9113, 6.9: the highest bit means nothing; hyperframe takes it for a number's.
            buffer[_HEADER] &= 0x7F
        octets = bytes(buffer[: _HEADER + size])
        del buffer[: _HEADER + size]
        self._first = False
        self._follow_block(kind, flags, size)
        return Frame(kind, flags, int.from_bytes(octets[5:9], "big") & 0x7FFFFFFF, octets)

    def _check_order(self, kind: Kind | None, flags: int) -> None:
        if self._first and (kind is not Kind.SETTINGS or flags & _ACK):
            # RFC 9113, 3.4.
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, "its first frame is not SETTINGS")
        if self.in_block and kind is not Kind.CONTINUATION:
            text = "another frame interrupts a header block"
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, text)
        if not self.in_block and kind is Kind.CONTINUATION:
            text = "a CONTINUATION frame continues nothing"
            raise ConnectionFault(ErrorCodes.PROTOCOL_ERROR, text)

    def _follow_block(self, kind: Kind | None, flags: int, size: int) -> None:
        if kind is Kind.HEADERS:
            self._block, self._continuations = size, 0
        elif kind is Kind.CONTINUATION:
            self._block += size
            self._continuations += 1
        else:
            return
        self.in_block = not flags & _END_HEADERS
        if self._continuations > MAX_CONTINUATIONS or self._block > self._max_block:
            text = f"a header block has more than {MAX_CONTINUATIONS} CONTINUATION frames"
            if self._block > self._max_block:
                text = f"a header block is longer than {self._max_block} bytes"
            raise ConnectionFault(ErrorCodes.ENHANCE_YOUR_CALM, text)
