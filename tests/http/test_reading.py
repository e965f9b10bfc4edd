"""
Requests out of bytes: the same events, however the bytes are cut.
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtlsgate.http.bodies import MAX_FIELDS, ChunkedBody, MalformedMessage
from mtlsgate.http.reading import Event, RequestEnd, RequestHead, RequestReader

HOST = b"Host: a\r\n"


def read(raw: bytes, *cuts: int) -> list[Event]:
    """:returns: all events, those of a body's pieces as one."""
    reader = RequestReader(16 * 1024)
    events: list[Event] = []
    places = [0, *sorted(cuts), len(raw)]
    for begin, end in pairwise(places):
        reader.feed(raw[begin:end])
        while (event := reader.next()) is not None:
            if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
                event = events.pop() + event  # type: ignore[operator]
            events.append(event)
            if isinstance(event, RequestEnd) or getattr(event, "length", 1) == 0:
                reader.proceed()
    return events


PIPELINE = (
    b"GET /a HTTP/1.1\r\n" + HOST + b"X-A:  b \r\n\r\n"
    b"\r\nPOST /b HTTP/1.0\r\n" + HOST + b"Content-Length: 5\r\n\r\nhello"
    b"PUT /c HTTP/1.1\r\n" + HOST + b"transfer-encoding: Chunked\r\n\r\n"
    b'3;x="a\\"b"\r\nabc\r\n0A;y\r\n0123456789\r\n000\r\nSum: 1\r\n\r\n'
    b"DELETE /d HTTP/1.1\r\n\r\n"
)
EVENTS = [
    RequestHead(b"GET", b"/a", b"HTTP/1.1", [(b"Host", b"a"), (b"X-A", b"b")], 0),
    RequestHead(b"POST", b"/b", b"HTTP/1.0", [(b"Host", b"a"), (b"Content-Length", b"5")], 5),
    b"hello",
    RequestEnd(),
    RequestHead(
        b"PUT", b"/c", b"HTTP/1.1", [(b"Host", b"a"), (b"transfer-encoding", b"Chunked")], None
    ),
    b"abc0123456789",
    RequestEnd([(b"Sum", b"1")]),
    RequestHead(b"DELETE", b"/d", b"HTTP/1.1", [], 0),
]


def test_requests_one_after_the_other() -> None:
    """Names keep their case; a chunk's extension, a quoted backslash in it, means nothing."""
    assert read(PIPELINE) == EVENTS


@given(st.lists(st.integers(0, len(PIPELINE))))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    assert read(PIPELINE, *cuts) == EVENTS


def test_byte_by_byte() -> None:
    assert read(PIPELINE, *range(len(PIPELINE))) == EVENTS


@given(st.binary(max_size=200), st.sampled_from([b"", PIPELINE[:40], PIPELINE[60:150]]))
def test_whatever_comes_is_events_or_malformed(junk: bytes, before: bytes) -> None:
    """Nothing else is ever raised, and whole or in pieces the verdict is the same."""
    raw = before + junk + b"\r\n\r\n"

    def verdict(*cuts: int) -> list[Event] | None:
        try:
            return read(raw, *cuts)
        except MalformedMessage:
            return None

    assert (verdict() is None) == (verdict(*range(len(raw))) is None)


def test_the_next_request_waits() -> None:
    """Until the one before it is answered."""
    reader = RequestReader(1024)
    reader.feed(b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n")
    assert isinstance(reader.next(), RequestHead)
    assert reader.next() is None
    assert reader.waiting == len(b"GET /2 HTTP/1.1\r\n\r\n")
    reader.proceed()
    event = reader.next()
    assert isinstance(event, RequestHead)
    assert event.target == b"/2"


def test_another_protocol_is_known_at_once() -> None:
    """By its first byte, or its first line, and not when a head should have ended."""
    for data in (b"\x16", b"\x80", b"NO\r\n", b"SSH-2.0-x\r\n", b"\n", b"\r\x00"):
        reader = RequestReader(1024)
        reader.feed(data)
        with pytest.raises(MalformedMessage):
            reader.next()


def test_as_many_fields_as_allowed() -> None:
    head = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * MAX_FIELDS
    [event] = read(head + b"\r\n")
    assert isinstance(event, RequestHead)
    assert len(event.lines) == MAX_FIELDS
    with pytest.raises(MalformedMessage, match="more than 500 fields"):
        read(head + b"A: b\r\n\r\n")


LENIENT = b" 5 ;x\r\nhello\n 6\t\n world\r\n0\nSum: 1\n\n"


@given(st.lists(st.integers(0, len(LENIENT))))
def test_chunks_of_old_servers(cuts: list[int]) -> None:
    """Padded sizes, and lines that end in LF alone, where that is asked for."""
    body, buffer, data = ChunkedBody(1024, lenient=True), bytearray(), b""
    places = [0, *sorted(cuts), len(LENIENT)]
    for begin, end in pairwise(places):
        buffer += LENIENT[begin:end]
        data += body.read(buffer)
    assert (data, body.ended, body.trailers) == (b"hello world", True, [(b"Sum", b"1")])
    with pytest.raises(MalformedMessage):
        ChunkedBody(1024).read(bytearray(LENIENT))
