"""
What a client's bytes cost: linear in their number, bounded in one go, and forgotten.

Where a cost in the square of a length would hide in a test of a few bytes, these inputs
are long enough for such a test never to end.
"""

from __future__ import annotations

import sys

import pytest

from mtlsgate.http.bodies import CHUNKS_AT_ONCE, HeadFinder, MalformedMessage
from mtlsgate.http.connection import HttpConnection
from mtlsgate.http.fields import folded
from mtlsgate.http.headers import RequestHeaders
from mtlsgate.http.reading import RequestEnd, RequestReader
from mtlsgate.protocols.http.forwarding import Hop, forwarded
from tests.kits.counting import calls
from tests.kits.http_server import Server, Transport

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
#: What a connection handles before others have their turn.
IN_ONE_GO = 16


def feed_bytes(connection: HttpConnection, data: bytes) -> None:
    for byte in data:
        connection.dataReceived(bytes([byte]))


def test_bytes_during_a_request_cost_the_same_each() -> None:
    """However many came before them, one by one: 300,000 of them end, and the calls for
    twice as many are twice as many."""

    def send(size: int) -> int:
        server = Server(answers=False)
        connection, _ = server.connect()
        connection.dataReceived(GET)
        return calls(lambda: feed_bytes(connection, b"x" * size))

    assert send(8000) <= 2.1 * send(4000)
    server = Server(answers=False)
    connection, transport = server.connect()
    connection.dataReceived(GET)
    feed_bytes(connection, b"x" * 300_000)
    # A transport that was told to pause would have brought none of these.
    assert transport.producerState == "paused"


def test_a_head_byte_by_byte() -> None:
    """Each byte is looked at a bounded number of times, whatever the head."""

    class Counting(bytearray):
        pass

    looked: list[int] = []

    class Pattern:
        def search(self, buffer: bytearray, place: int) -> None:
            looked.append(len(buffer) - place)

    finder = HeadFinder(10**6)
    vars(finder)["_end"] = Pattern()
    buffer = Counting()
    for _ in range(20_000):
        buffer += b"x"
        assert finder.take(buffer) is None
    assert sum(looked) <= 4 * 20_000


def test_pipelined_requests_leave_others_their_turn() -> None:
    """A few in one go; the rest in later turns, all of them, in order."""
    server = Server()
    connection, transport = server.connect()
    connection.dataReceived(GET * 5000)
    assert 0 < len(server.exchanges) <= IN_ONE_GO
    assert transport.producerState == "paused"
    before = len(server.exchanges)
    server.time.turn()
    assert 0 < len(server.exchanges) - before <= IN_ONE_GO
    while server.time.getDelayedCalls() and len(server.exchanges) < 5000:
        server.time.turn()
    assert len(server.exchanges) == 5000
    assert transport.value().count(b"HTTP/1.1 200 OK") == 5000
    assert transport.producerState == "producing"


def test_long_heads_leave_others_their_turn() -> None:
    """By their bytes, too."""
    server = Server()
    connection, _ = server.connect()
    long = GET.replace(b"\r\n\r\n", b"\r\nCookie: " + b"a;" * 6000 + b"\r\n\r\n")
    connection.dataReceived(long * 20)
    assert len(server.exchanges) == 2
    server.time.turn()
    assert len(server.exchanges) == 4


def test_tiny_chunks_leave_others_their_turn() -> None:
    """So many in one go, and what they bring is handed on together."""
    server = Server()
    connection, transport = server.connect()
    count = 400_000
    connection.dataReceived(POST + b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    [exchange] = server.exchanges
    assert 0 < exchange.received <= IN_ONE_GO * CHUNKS_AT_ONCE
    assert exchange.pieces <= IN_ONE_GO
    assert transport.producerState == "paused"
    turns = 0
    while exchange.received < count:
        before = exchange.received
        server.time.turn()
        assert 0 < exchange.received - before <= IN_ONE_GO * CHUNKS_AT_ONCE
        turns += 1
    server.time.turn()
    assert exchange.told[-1] == ("end", [])
    assert exchange.pieces <= count / CHUNKS_AT_ONCE + turns + 2


def test_a_chunked_body_byte_by_byte() -> None:
    """The calls for twice as many bytes are twice as many."""

    def read(count: int) -> int:
        reader = RequestReader(16384)
        reader.feed(POST)
        reader.next()
        data = b"1;abc=def\r\nx\r\n" * count + b"0\r\n\r\n"
        return calls(lambda: read_bytes(reader, data))

    assert read(400) <= 2.1 * read(200)


def read_bytes(reader: RequestReader, data: bytes) -> None:
    for byte in data:
        reader.feed(bytes([byte]))
        while isinstance(event := reader.next(), bytes):
            pass
    assert event == RequestEnd()


def test_empty_lines_before_a_request_are_not_kept() -> None:
    """However many of them come."""
    reader = RequestReader(1024)
    for _ in range(10_000):
        reader.feed(b"\r\n" * 10)
        assert reader.next() is None
        assert reader.waiting == 0


@pytest.mark.parametrize("piece", [1, 1000])
def test_what_has_no_end_is_bounded(piece: int) -> None:
    """A head, a chunk's size, trailers: no more is kept of them than may come."""
    for begin, fill in ((b"GET /", b"x"), (POST + b"1;", b"x"), (POST + b"0\r\nX: ", b"x")):
        reader = RequestReader(4096)
        reader.feed(begin)
        with pytest.raises(MalformedMessage):
            read_on(reader, fill * piece, 8192 + piece)


def read_on(reader: RequestReader, data: bytes, bound: int) -> None:
    for _ in range(20_000):
        while reader.next() is not None:
            pass
        reader.feed(data)
        assert reader.waiting < bound


@pytest.mark.parametrize(
    "value",
    [
        b'"' + b"\\a" * 2_000_000,
        b'"' * 2_000_001,
        b'""' * 1_000_000 + b'"',
        b'a"\\"' * 1_000_000,
        b"a," * 2_000_000 + b'"',
    ],
)
def test_forwarded_is_read_once(value: bytes) -> None:
    """4 MB of it end, whatever the quotes."""
    lines = dict(forwarded(Hop("192.0.2.1", b"a"), {b"forwarded": [value]}))
    assert lines[b"Forwarded"] == b"for=192.0.2.1;proto=https;host=a"


def test_names_of_fields_are_forgotten() -> None:
    """Nothing that outlives the request holds the names that clients make up."""
    from twisted.web.http_headers import Headers

    known = b"x-known-to-twisted"
    Headers().addRawHeader(known, b"1")
    names = [b"X-%d-" % number + b"n" * 30_000 for number in range(50)]
    held = [sys.getrefcount(name) for name in names]
    headers = RequestHeaders([(name, b"v") for name in names])
    for name in names:
        assert headers.getRawHeaders(name) == [b"v"]
        assert headers.hasHeader(name)
        folded(name)
    del headers, name
    assert [sys.getrefcount(name) for name in names] == held


def test_a_full_house_of_connections_costs_no_timer_a_request() -> None:
    """Requests put a time limit off without making a timer."""
    server = Server()
    connection, _ = server.connect()
    for _ in range(100):
        connection.dataReceived(GET)
        assert len(server.time.getDelayedCalls()) <= 1
    connection.connectionLost()
    assert server.time.getDelayedCalls() == []


def test_a_paused_transport_is_read_on() -> None:
    """When what was kept has been read, more is."""
    server = Server(answers=False)
    connection, transport = server.connect()
    connection.dataReceived(GET + GET * 1000)
    assert transport.producerState == "paused"
    assert isinstance(transport, Transport)
    for _ in range(1001):
        server.exchanges[-1].answer()
        server.time.turn()
    assert transport.producerState == "producing"
    assert len(server.exchanges) == 1001
