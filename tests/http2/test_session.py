"""
An HTTP/2 connection without I/O: events, flow control, and what ends it.
"""

from __future__ import annotations

from typing import Any

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from mtlsgate.http2.budgets import ALLOWANCES, Spent
from mtlsgate.http2.events import (
    Answered,
    Came,
    Event,
    Leaving,
    Opened,
    Requested,
    Reset,
    Trailed,
)
from mtlsgate.http2.faults import ConnectionFault
from mtlsgate.http2.frames import Kind
from mtlsgate.http2.session import LAST_CALL, MAX_STREAMS, Session
from mtlsgate.http2.wire import CONNECTION_WINDOW, STREAM_WINDOW
from tests.kits.http2 import GET, POST, FrameClient, raw

OK = [(b":status", b"200")]


class Pair:
    """A session and the client at its other end."""

    def __init__(self, **settings: int) -> None:
        self.session = Session(lambda: 0.0, 16384)
        self.client = FrameClient()
        self.send(self.client.hello() + self.client.settings(**settings))

    def send(self, data: bytes) -> list[Event]:
        """:returns: what the session makes of it."""
        self.session.feed(data)
        events: list[Event] = []
        try:
            while (event := self.session.next()) is not None:
                events.append(event)
        finally:
            self.client.read(self.session.outgoing())
        return events

    def fault(self, data: bytes) -> ErrorCodes:
        """:returns: the error that it is; the client was told."""
        with pytest.raises(ConnectionFault) as caught:
            self.send(data)
        assert self.client.goaway == caught.value.code
        assert self.session.ended
        return caught.value.code


def test_tells_its_settings_first() -> None:
    pair = Pair()
    first = pair.client.frames[0]
    assert isinstance(first, SettingsFrame)
    assert first.settings[SettingsFrame.MAX_CONCURRENT_STREAMS] == MAX_STREAMS
    assert first.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
    assert first.settings[SettingsFrame.ENABLE_PUSH] == 0
    [opened] = pair.client.of(WindowUpdateFrame, 0)
    assert opened.window_increment == CONNECTION_WINDOW - 65535


def test_a_request_and_its_body_are_events() -> None:
    pair = Pair()
    client = pair.client
    assert pair.send(client.headers(1, POST, end=False)) == [Requested(1, POST, False)]
    assert pair.send(client.data(1, b"ab")) == [Came(1, b"ab", False)]
    trailers = [(b"x-sum", b"3")]
    assert pair.send(client.headers(1, trailers)) == [Trailed(1, trailers)]


def test_what_a_frame_is_padded_with_is_not_the_body() -> None:
    pair = Pair()
    pair.send(pair.client.headers(1, POST, end=False))
    padded = DataFrame(1, b"ab", pad_length=100, flags=["PADDED"])
    assert pair.send(padded.serialize()) == [Came(1, b"ab", False)]


def test_a_response_is_frames() -> None:
    pair = Pair()
    pair.send(pair.client.headers(1))
    pair.session.headers(1, OK, end=False)
    pair.session.data(1, b"hello", end=False)
    pair.session.headers(1, [(b"x-sum", b"5")], end=True)
    pair.client.read(pair.session.outgoing())
    assert pair.client.status(1) == 200
    assert pair.client.body(1) == b"hello"
    assert pair.client.heads(1)[1] == {b"x-sum": b"5"}
    assert pair.client.is_complete(1)


def test_the_connection_stays_open_for_others_when_one_body_is_not_taken() -> None:
    """A stalled stream has its own window used up, and nothing of the connection's."""
    pair = Pair()
    client = pair.client
    pair.send(client.headers(1, POST, end=False) + client.headers(3, POST, end=False))
    for _ in range(STREAM_WINDOW // 16384):
        pair.send(client.data(1, 16384 * b"a"))
    for _ in range(2 * CONNECTION_WINDOW // 16384):
        pair.send(client.data(3, 16384 * b"b"))
        pair.session.taken(3, 16384)
    client.read(pair.session.outgoing())
    assert not client.of(WindowUpdateFrame, 1)
    owed = sum(frame.window_increment for frame in client.of(WindowUpdateFrame, 0))
    assert owed >= 2 * CONNECTION_WINDOW
    assert sum(frame.window_increment for frame in client.of(WindowUpdateFrame, 3)) >= (
        2 * CONNECTION_WINDOW - STREAM_WINDOW
    )


def test_more_than_a_window_is_an_error() -> None:
    """RFC 9113, 6.9.1."""
    pair = Pair()
    pair.send(pair.client.headers(1, POST, end=False))
    flood = pair.client.data(1, 16384 * b"a") * (STREAM_WINDOW // 16384 + 1)
    assert pair.fault(flood) is ErrorCodes.FLOW_CONTROL_ERROR


def test_padding_is_taken_by_itself() -> None:
    """Or else it would close the window of a body that is read."""
    pair = Pair()
    pair.send(pair.client.headers(1, POST, end=False))
    padded = DataFrame(1, b"a", pad_length=255, flags=["PADDED"]).serialize()
    for _ in range(STREAM_WINDOW // 257):
        pair.send(padded)
    assert pair.client.of(WindowUpdateFrame, 1)


def test_sends_no_more_than_the_client_allows() -> None:
    pair = Pair(INITIAL_WINDOW_SIZE=10)
    pair.send(pair.client.headers(1))
    pair.session.headers(1, OK, end=False)
    assert pair.session.room(1) == 10
    pair.session.data(1, 10 * b"a", end=False)
    assert (pair.session.room(1), pair.session.has_window(1)) == (0, False)
    assert pair.send(pair.client.window(1, 5)) == [Opened(1)]
    assert pair.session.room(1) == 5
    assert pair.send(pair.client.settings(INITIAL_WINDOW_SIZE=20)) == [Opened(None)]
    assert pair.session.room(1) == 15


def test_a_reset_is_an_event() -> None:
    pair = Pair()
    pair.send(pair.client.headers(1))
    assert pair.send(pair.client.reset(1)) == [Reset(1, 8, True)]


def test_any_number_of_streams_are_left_to_who_asks() -> None:
    """h2 would end the connection for one too many; RFC 9113, 5.1.2, refuses that one."""
    pair = Pair()
    for number in range(1, 2 * MAX_STREAMS + 20, 2):
        assert len(pair.send(pair.client.headers(number))) == 1


def test_streams_that_are_over_are_forgotten() -> None:
    pair = Pair()
    for number in range(1, 4001, 2):
        pair.send(pair.client.headers(number))
        pair.session.headers(number, OK, end=True)
        pair.session.answered(number)
    assert len(pair.session._streams.streams) <= 5
    assert len(pair.session._streams._closed_streams) <= 1024


@pytest.mark.parametrize("size", [0, 100, 2**32 - 1])
def test_responses_leave_nothing_in_a_table(size: int) -> None:
    """However large a table the client allows; and it can read what it gets."""
    pair = Pair(HEADER_TABLE_SIZE=size)
    fields = [*OK, (b"content-type", b"text/plain"), (b"x-long", 100 * b"a"), (b"set-cookie", b"s")]
    for number in (1, 3):
        pair.send(pair.client.headers(number))
        pair.session.headers(number, fields, end=True)
        pair.client.read(pair.session.outgoing())
        assert pair.client.heads(number) == [dict(fields)]
    assert list(pair.session._streams.encoder.header_table.dynamic_entries) == []


def flood_of(what: Spent, client: FrameClient) -> bytes:
    """:returns: one frame that spends this."""
    return {
        Spent.RESET: b"",
        Spent.PING: client.ping(),
        Spent.SETTINGS: client.settings(),
        Spent.PRIORITY: raw(Kind.PRIORITY, 0, 7, bytes(5)),
        Spent.EMPTY: client.data(1),
        Spent.WINDOW: client.window(0, 1),
        Spent.STRAY: client.reset(1),
        Spent.UNKNOWN: raw(0xFA, 0, 0),
    }[what]


@pytest.mark.parametrize("what", [one for one in Spent if one is not Spent.RESET])
def test_a_flood_ends_the_connection(what: Spent) -> None:
    pair = Pair()
    client = pair.client
    pair.send(client.headers(1, POST, end=False))
    if what is Spent.STRAY:
        pair.send(client.reset(1))
    flood = flood_of(what, client)
    pair.send((ALLOWANCES[what].burst - 5) * flood)
    assert pair.fault(10 * flood) is ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("padding", [0, 1, 255])
def test_padding_is_no_data(padding: int) -> None:
    """CVE-2019-9518, with frames that are not empty."""
    pair = Pair()
    pair.send(pair.client.headers(1, POST, end=False))
    frame = raw(Kind.DATA, 0x8, 1, bytes([padding]) + bytes(padding))
    pair.send((ALLOWANCES[Spent.EMPTY].burst - 5) * frame)
    assert pair.fault(10 * frame) is ErrorCodes.ENHANCE_YOUR_CALM


def test_padded_data_is_data() -> None:
    pair = Pair()
    pair.send(pair.client.headers(1, POST, end=False))
    pair.send(2 * ALLOWANCES[Spent.EMPTY].burst * raw(Kind.DATA, 0x8, 1, b"\x01a\0"))
    assert not pair.session.ended


def test_rapid_resets_end_the_connection() -> None:
    """CVE-2023-44487."""
    pair = Pair()
    client, burst = pair.client, ALLOWANCES[Spent.RESET].burst
    numbers = iter(range(1, 9999, 2))
    for _ in range(burst):
        number = next(numbers)
        pair.send(client.headers(number) + client.reset(number))
    number = next(numbers)
    assert pair.fault(client.headers(number) + client.reset(number)) is (
        ErrorCodes.ENHANCE_YOUR_CALM
    )


@pytest.mark.parametrize("how", ["window", "half closed"])
def test_resets_that_a_client_makes_the_server_send_count_the_same(how: str) -> None:
    """CVE-2025-8671."""
    pair = Pair()
    client, burst = pair.client, ALLOWANCES[Spent.RESET].burst

    def bad(number: int) -> bytes:
        second = client.window(number, 2**31 - 1) if how == "window" else client.data(number, b"x")
        return client.headers(number) + second

    for number in range(1, 2 * burst, 2):
        pair.send(bad(number))
    assert len(client.of(RstStreamFrame)) == burst
    assert pair.fault(bad(2 * burst + 1)) is ErrorCodes.ENHANCE_YOUR_CALM


def test_a_small_block_that_becomes_huge_ends_the_connection() -> None:
    """An HPACK bomb: one byte for a field of 4,000 (CVE-2016-6581)."""
    pair = Pair()
    client = pair.client
    pair.send(client.headers(1, [*GET, (b"x-big", 3900 * b"a")]))
    # RFC 7541, 2.3.3: what was added last has this index.
    newest = bytes([0x80 | 62])
    assert pair.fault(raw(Kind.HEADERS, 5, 3, 100 * newest)) is ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize("update", [b"\x20", b"\x3f\x00", b"\x3f\x81\x00"])
def test_a_table_does_not_change_its_size_again_and_again(update: bytes) -> None:
    """Each change costs the server, and is no field that would count against a limit."""
    pair = Pair()
    block = pair.client.encoder.encode(GET)
    assert len(pair.send(raw(Kind.HEADERS, 5, 1, 2 * update + block))) == 1
    assert pair.fault(raw(Kind.HEADERS, 5, 3, 5 * update)) is ErrorCodes.COMPRESSION_ERROR


@pytest.mark.parametrize("block", [b"\x80", b"\xff\xff\xff\xff\xff\xff", b"\x40\x05ab", b"\x3f"])
def test_a_block_that_cannot_be_decoded_ends_the_connection(block: bytes) -> None:
    """RFC 9113, 4.3: with COMPRESSION_ERROR."""
    assert Pair().fault(raw(Kind.HEADERS, 5, 1, block)) is ErrorCodes.COMPRESSION_ERROR


def test_the_same_bytes_mean_what_the_table_says_now() -> None:
    """A block that is remembered is forgotten when the table changes."""
    pair = Pair()
    newest = bytes([0x82, 0x84, 0x80 | 62])
    for number, value in ((1, b"a"), (5, b"b")):
        pair.send(pair.client.headers(number, [*GET, (b"x-some", value)]))
        for again in (number, number + 2):
            if again > number:
                [event] = pair.send(raw(Kind.HEADERS, 5, again, newest))
                assert isinstance(event, Requested)
                assert event.fields[-1] == (b"x-some", value)


def test_what_is_remembered_of_blocks_has_an_end() -> None:
    pair = Pair()
    numbers = iter(range(1, 999, 2))
    for index in range(0x81, 0x81 + 40):
        block = bytes([0x82, index])
        for _ in range(2):
            [event] = pair.send(raw(Kind.HEADERS, 5, next(numbers), block))
            assert isinstance(event, Requested)
            assert len(event.fields) == 2
    assert len(pair.session._streams.decoder._known) <= 16


def test_a_client_that_leaves_still_gets_its_responses() -> None:
    """RFC 9113, 6.8: GOAWAY is about streams that come later."""
    pair = Pair()
    pair.send(pair.client.headers(1))
    assert pair.send(GoAwayFrame(0).serialize()) == [Leaving(0, 0)]
    pair.session.headers(1, OK, end=True)
    pair.client.read(pair.session.outgoing())
    assert pair.client.status(1) == 200


def test_a_server_that_leaves_announces_it_and_answers_what_comes_meanwhile() -> None:
    """RFC 9113, 6.8: first with the highest number, then with the last that came."""
    pair = Pair()
    client = pair.client
    pair.session.announce()
    client.read(pair.session.outgoing())
    [announced] = client.of(GoAwayFrame)
    assert (announced.last_stream_id, announced.error_code) == (2**31 - 1, 0)
    [asked] = [one for one in client.of(PingFrame) if "ACK" not in one.flags]
    assert pair.send(client.headers(1)) == [Requested(1, GET, True)]
    assert pair.send(client.ping(asked.opaque_data, ack=True)) == [Answered(LAST_CALL)]
    pair.session.close()
    pair.session.headers(1, OK, end=True)
    client.read(pair.session.outgoing())
    assert client.of(GoAwayFrame)[-1].last_stream_id == 1
    assert client.status(1) == 200


@pytest.mark.parametrize("cut", [1, 10, 100])
def test_arrives_in_any_pieces(cut: int) -> None:
    session, client = Session(lambda: 0.0, 16384), FrameClient()
    data = client.hello() + client.headers(1, POST, end=False) + client.data(1, b"abc", end=True)
    events: list[Any] = []
    for place in range(0, len(data), cut):
        session.feed(data[place : place + cut])
        while (event := session.next()) is not None:
            events.append(event)
    assert events == [Requested(1, POST, False), Came(1, b"abc", True)]
