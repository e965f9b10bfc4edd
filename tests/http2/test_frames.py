"""
Frames out of bytes, before h2 sees them.
"""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes

from mtlsgate.http2.faults import ConnectionFault
from mtlsgate.http2.frames import MAX_CONTINUATIONS, MAX_FRAME, PREFACE, FrameReader, Kind
from tests.kits.http2 import FrameClient, raw

SETTINGS = raw(Kind.SETTINGS, 0, 0)


def read(data: bytes, *, max_block: int = 65536, at_once: bool = True) -> FrameReader:
    """:returns: a reader that has read all of it."""
    reader = FrameReader(max_block)
    for piece in [data] if at_once else [data[one : one + 1] for one in range(len(data))]:
        reader.feed(piece)
        while reader.next() is not None:
            pass
    return reader


def fault_of(data: bytes, max_block: int = 65536) -> ErrorCodes:
    with pytest.raises(ConnectionFault) as caught:
        read(PREFACE + SETTINGS + data, max_block=max_block)
    return caught.value.code


@pytest.mark.parametrize("at_once", [True, False])
def test_takes_frames_however_they_arrive(at_once: bool) -> None:
    reader = read(PREFACE + SETTINGS + FrameClient.data(1, b"abc"), at_once=at_once)
    assert reader.waiting == 0


def test_tells_what_a_frame_is() -> None:
    reader = read(PREFACE + SETTINGS)
    reader.feed(FrameClient.data(3, b"abc", end=True))
    frame = reader.next()
    assert frame is not None
    assert (frame.kind, frame.stream, frame.payload) == (Kind.DATA, 3, b"abc")
    assert frame.ends_stream


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", PREFACE.replace(b"SM", b"XX")])
def test_another_protocol_is_an_error(data: bytes) -> None:
    """RFC 9113, 3.4."""
    with pytest.raises(ConnectionFault) as caught:
        read(data)
    assert caught.value.code is ErrorCodes.PROTOCOL_ERROR


@pytest.mark.parametrize("first", [FrameClient.ping(), raw(Kind.SETTINGS, 1, 0), raw(0xB, 0, 0)])
def test_settings_come_first(first: bytes) -> None:
    """RFC 9113, 3.4: any other first frame is an error."""
    with pytest.raises(ConnectionFault) as caught:
        read(PREFACE + first)
    assert caught.value.code is ErrorCodes.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", [*Kind, 0xFA])
def test_a_frame_that_is_too_long_is_an_error_before_it_has_come(kind: int) -> None:
    """RFC 9113, 4.2; otherwise 16 MiB would have to be kept for each connection."""
    header = raw(kind, 0, 1, size=MAX_FRAME + 1)
    assert fault_of(header) is ErrorCodes.FRAME_SIZE_ERROR


def test_a_header_block_is_not_interrupted() -> None:
    """RFC 9113, 6.2."""
    begun = raw(Kind.HEADERS, 0, 1, b"a")
    assert fault_of(begun + FrameClient.ping()) is ErrorCodes.PROTOCOL_ERROR
    assert fault_of(begun + raw(0xFA, 0, 0)) is ErrorCodes.PROTOCOL_ERROR


def test_a_continuation_continues_something() -> None:
    """RFC 9113, 6.10."""
    assert fault_of(raw(Kind.CONTINUATION, 4, 1)) is ErrorCodes.PROTOCOL_ERROR


def test_continuations_do_not_go_on_for_ever() -> None:
    """CVE-2024-27316: not even empty ones."""
    begun = raw(Kind.HEADERS, 0, 1, b"a")
    read(PREFACE + SETTINGS + begun + MAX_CONTINUATIONS * raw(Kind.CONTINUATION, 0, 1))
    flood = (MAX_CONTINUATIONS + 1) * raw(Kind.CONTINUATION, 0, 1)
    assert fault_of(begun + flood) is ErrorCodes.ENHANCE_YOUR_CALM


def test_a_header_block_has_a_limit() -> None:
    block = raw(Kind.HEADERS, 0, 1, 60 * b"a") + raw(Kind.CONTINUATION, 4, 1, 40 * b"a")
    read(PREFACE + SETTINGS + block, max_block=100)
    assert fault_of(block, max_block=99) is ErrorCodes.ENHANCE_YOUR_CALM


def test_knows_whose_body_is_arriving() -> None:
    """So that a client that is slow is not taken for one that is silent."""
    reader = read(PREFACE + SETTINGS)
    reader.feed(FrameClient.data(5, b"abc")[:10])
    assert reader.next() is None
    assert reader.begun_data == 5
    assert not reader.in_block
