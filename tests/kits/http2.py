"""
A client of HTTP/2 that sends frames one by one, well or badly made, and reads what comes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from hpack.hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from mtlsgate.http2.connection import Http2Connection
from mtlsgate.http2.frames import PREFACE
from mtlsgate.testing import Client
from tests.kits.http import Backend
from tests.kits.http_server import Server, Transport

Fields = Sequence[tuple[bytes, bytes]]
AnyFrame = TypeVar("AnyFrame", bound=Frame)

#: A request's pseudo-headers, without its path.
PSEUDO: Fields = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.example")]
GET: Fields = [*PSEUDO, (b":path", b"/")]
POST: Fields = [(b":method", b"POST"), *GET[1:]]
WEBSOCKET: Fields = [(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")]


def raw(kind: int, flags: int, stream: int, payload: bytes = b"", *, size: int = -1) -> bytes:
    """:returns: a frame of these parts, whatever they are; size is what its header says."""
    length = len(payload) if size < 0 else size
    return length.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class FrameClient:
    """
    Makes frames, and reads the server's.

    :ivar frames: everything that came, in order.
    """

    def __init__(self) -> None:
        self.encoder = Encoder()
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 2**32 - 1
        self._buffer = b""
        self._block = b""
        self.frames: list[Frame] = []
        self._heads: list[tuple[int, dict[bytes, bytes]]] = []

    # What it sends.

    @staticmethod
    def hello(settings: dict[int, int] | None = None) -> bytes:
        """:returns: the preface, with settings."""
        return PREFACE + SettingsFrame(0, settings=settings or {}).serialize()

    def headers(
        self,
        stream: int,
        fields: Fields = GET,
        *,
        end: bool = True,
        pieces: int = 1,
        flags: Iterable[str] = (),
    ) -> bytes:
        """:returns: HEADERS, and as many CONTINUATION as make that many pieces."""
        block = self.encoder.encode(fields, huffman=False)
        step = -(-len(block) // pieces) or 1
        parts = [block[place : place + step] for place in range(0, len(block), step)]
        frames: list[Frame] = [HeadersFrame(stream, parts[0], flags=list(flags))]
        frames += [ContinuationFrame(stream, part) for part in parts[1:]]
        frames[-1].flags.add("END_HEADERS")
        if end:
            frames[0].flags.add("END_STREAM")
        return b"".join(frame.serialize() for frame in frames)

    @staticmethod
    def data(stream: int, data: bytes = b"", *, end: bool = False) -> bytes:
        frame = DataFrame(stream, data)
        if end:
            frame.flags.add("END_STREAM")
        return frame.serialize()

    @staticmethod
    def window(stream: int, increment: int) -> bytes:
        return WindowUpdateFrame(stream, window_increment=increment).serialize()

    @staticmethod
    def reset(stream: int, code: int = 8) -> bytes:
        return RstStreamFrame(stream, error_code=code).serialize()

    @staticmethod
    def settings(**settings: int) -> bytes:
        found = {getattr(SettingsFrame, name): value for name, value in settings.items()}
        return SettingsFrame(0, settings=found).serialize()

    @staticmethod
    def ping(data: bytes = b"01234567", *, ack: bool = False) -> bytes:
        frame = PingFrame(0, data)
        if ack:
            frame.flags.add("ACK")
        return frame.serialize()

    # What it reads.

    def read(self, data: bytes) -> list[Frame]:
        """:returns: the frames that are complete with these bytes."""
        self._buffer += data
        came: list[Frame] = []
        while len(self._buffer) >= 9:
            frame, size = Frame.parse_frame_header(memoryview(self._buffer[:9]))
            if len(self._buffer) < 9 + size:
                break
            frame.parse_body(memoryview(self._buffer[9 : 9 + size]))
            self._buffer = self._buffer[9 + size :]
            came.append(frame)
            if isinstance(frame, HeadersFrame | ContinuationFrame):
                self._block += frame.data
                if "END_HEADERS" in frame.flags:
                    fields = self._decoder.decode(self._block, raw=True)
                    self._heads.append((frame.stream_id, {one[0]: one[1] for one in fields}))
                    self._block = b""
        self.frames += came
        return came

    def of(self, kind: type[AnyFrame], stream: int | None = None) -> list[AnyFrame]:
        """:returns: the frames of a kind that came, of one stream or all."""
        return [
            frame
            for frame in self.frames
            if isinstance(frame, kind) and stream in (None, frame.stream_id)
        ]

    def heads(self, stream: int) -> list[dict[bytes, bytes]]:
        """:returns: each head and trailer that came of a stream."""
        return [fields for number, fields in self._heads if number == stream]

    def status(self, stream: int) -> int | None:
        """:returns: of the response; None if it has not begun."""
        found = [int(head[b":status"]) for head in self.heads(stream) if b":status" in head]
        return next((one for one in found if one >= 200), None)

    def body(self, stream: int) -> bytes:
        return b"".join(frame.data for frame in self.of(DataFrame, stream))

    def is_complete(self, stream: int) -> bool:
        """:returns: whether the server ended the stream in good order."""
        frames: list[Any] = [*self.of(HeadersFrame, stream), *self.of(DataFrame, stream)]
        return any("END_STREAM" in frame.flags for frame in frames)

    def reset_code(self, stream: int) -> int | None:
        """:returns: with what the server reset a stream, or None."""
        codes = [frame.error_code for frame in self.of(RstStreamFrame, stream)]
        return codes[0] if codes else None

    @property
    def goaway(self) -> int | None:
        """The code of the last GOAWAY that came, or None."""
        codes = [frame.error_code for frame in self.of(GoAwayFrame)]
        return codes[-1] if codes else None


class Speaker(FrameClient):
    """A client at a server without TLS, whose exchanges record."""

    def __init__(self, server: Server, settings: dict[int, int] | None = None) -> None:
        super().__init__()
        self.server = server
        self.connection = Http2Connection(server, None)
        self.transport = Transport()
        self.connection.makeConnection(self.transport)
        self.send(self.hello(settings))

    def send(self, *data: bytes) -> None:
        """Send, and read what comes back."""
        self.connection.dataReceived(b"".join(data))
        self.receive()

    def receive(self) -> None:
        """Read what came."""
        self.read(self.transport.value())
        self.transport.clear()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and read what came of it."""
        self.server.time.advance(seconds)
        self.receive()

    def pause(self) -> None:
        """Read nothing, until `resume`: its transport tells the connection."""
        self.connection._turns.pauseProducing()

    def resume(self) -> None:
        """Read on."""
        self.connection._turns.resumeProducing()

    @property
    def is_over(self) -> bool:
        """Whether the server ended the connection."""
        return self.transport.disconnecting


class TlsSpeaker(FrameClient):
    """A client at a gate in memory."""

    def __init__(self, client: Client, settings: dict[int, int] | None = None) -> None:
        super().__init__()
        assert client.negotiated_alpn == "h2"
        self.client = client
        self.send(self.hello(settings))

    def send(self, *data: bytes) -> None:
        """Send, and read what comes back."""
        self.client.send(b"".join(data))
        self.receive()

    def receive(self) -> None:
        """Read what came."""
        self.read(self.client.receive())


class FrameTarget(FrameClient):
    """
    A target of HTTP/2 that sends frames one by one, and reads the gate's.

    :ivar backend: the connection.
    """

    def __init__(self, backend: Backend, settings: dict[int, int] | None = None) -> None:
        super().__init__()
        self.backend = backend
        hello = backend.transport.take()
        assert hello.startswith(PREFACE)
        self.read(hello[len(PREFACE) :])
        self.send(SettingsFrame(0, settings=settings or {}).serialize())

    def send(self, *data: bytes) -> None:
        """Send, and read what comes back."""
        self.backend.send(b"".join(data))
        self.receive()

    def receive(self) -> None:
        """Read what came."""
        self.read(self.backend.transport.take())

    @property
    def asked(self) -> list[int]:
        """The streams that the gate has begun."""
        self.receive()
        return list(dict.fromkeys(number for number, _ in self._heads))

    def answer(self, stream: int, body: bytes = b"ok", status: bytes = b"200") -> None:
        """Answer a request, and end its stream."""
        head = self.headers(stream, [(b":status", status)], end=False)
        self.send(head, self.data(stream, body, end=True))
