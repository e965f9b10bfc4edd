"""
What RFC 9113 says that an endpoint must do, case by case, against a gate in memory, on each
version of TLS.

Each case is a section, what the client sends, and what has to come of it.  Whatever does not
end the connection is followed by a request that must be answered.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest
from attrs import frozen
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame, PingFrame

from mtlsgate.http2.frames import MAX_FRAME, PREFACE
from mtlsgate.http2.session import MAX_STREAMS
from mtlsgate.http2.versions import versions
from mtlsgate.testing import Authority, Version
from tests.http2.malformed import MALFORMED
from tests.kits.gate import Log, MemoryGate, rule
from tests.kits.http2 import GET, POST, WEBSOCKET, Fields, TlsSpeaker, raw
from tests.kits.http_server import Server

E = ErrorCodes
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITIZED = 1, 1, 4, 8, 0x20
HIGHEST = 2**31 - 1


@frozen
class Ended:
    """The connection ends, with one of these codes."""

    codes: tuple[ErrorCodes, ...]


@frozen
class ResetWith:
    """A stream is reset with one of these codes; the others go on."""

    stream: int
    codes: tuple[ErrorCodes, ...]


@frozen
class AnsweredWith:
    """A stream gets a response; the others go on."""

    stream: int
    status: int


@frozen
class NoMatter:
    """Nothing comes of it."""


Outcome: TypeAlias = Ended | ResetWith | AnsweredWith | NoMatter
Step: TypeAlias = bytes | Callable[[TlsSpeaker], bytes]


def ends(*codes: ErrorCodes) -> Outcome:
    return Ended(codes)


def resets(*codes: ErrorCodes, stream: int = 1) -> Outcome:
    return ResetWith(stream, codes)


def answers(status: int = 200, stream: int = 1) -> Outcome:
    return AnsweredWith(stream, status)


def ask(stream: int = 1, fields: Fields = GET) -> Step:
    """A whole request."""
    return lambda client: client.headers(stream, fields)


def begin(stream: int = 1, fields: Fields = POST) -> Step:
    """A request whose body is to come."""
    return lambda client: client.headers(stream, fields, end=False)


def block(fields: Fields = GET) -> Callable[[TlsSpeaker], bytes]:
    """A header block without a frame around it."""
    return lambda client: client.encoder.encode(fields)


def framed(flags: int, stream: int, before: bytes = b"", after: bytes = b"") -> Step:
    """A request in a HEADERS frame of these parts."""
    return lambda client: raw(HEADERS, flags, stream, before + block()(client) + after)


def in_three(last: int = END_HEADERS, middle: bytes = b"") -> Step:
    """A request in HEADERS and two CONTINUATION, with other frames between."""

    def make(client: TlsSpeaker) -> bytes:
        whole = block()(client)
        frames = raw(HEADERS, END_STREAM, 1, whole[:5]) + middle
        return frames + raw(CONTINUATION, 0, 1, whole[5:9]) + raw(CONTINUATION, last, 1, whole[9:])

    return make


def long_head(client: TlsSpeaker) -> bytes:
    """More than the limit, in several frames."""
    return client.headers(1, [*GET, (b"a", 17000 * b"b")], pieces=2)


def with_smaller_table(client: TlsSpeaker) -> bytes:
    client.encoder.header_table_size = 100
    return client.headers(1)


def setting(name: int, value: int) -> bytes:
    return raw(SETTINGS, 0, 0, name.to_bytes(2, "big") + value.to_bytes(4, "big"))


def window(stream: int, increment: int) -> bytes:
    return raw(WINDOW, 0, stream, increment.to_bytes(4, "big"))


def data(stream: int = 1, content: bytes = b"a", flags: int = 0) -> bytes:
    return raw(DATA, flags, stream, content)


WAIT: Fields = [*GET[:3], (b":path", b"/wait")]
RESET = raw(RST, 0, 1, bytes([0, 0, 0, 8]))


@frozen
class Case:
    """
    :ivar section: of RFC 9113, unless it says another.
    :ivar what: is sent, in words.
    :ivar steps: what is sent, step by step.
    :ivar to: what has to come of it.
    """

    section: str
    what: str
    steps: tuple[Step, ...]
    to: Outcome


def case(section: str, what: str, *steps: Step, to: Outcome) -> Case:
    return Case(section, what, steps, to)


CASES = [
    # 4: frames
    case("4.1", "a frame of an unknown type", raw(0xFA, 0, 0, b"x"), to=NoMatter()),
    case("4.1", "a frame of an unknown type on a stream", begin(), raw(0xFA, 0, 1), to=NoMatter()),
    case("4.1", "flags that PING does not have", raw(PING, 0xFE, 0, bytes(8)), to=NoMatter()),
    case("4.1", "flags that DATA does not have", begin(), data(flags=0x71), to=answers()),
    case("4.1", "the reserved bit of a stream's number", framed(5, 2**31 + 1), to=answers()),
    case(
        "4.1", "the reserved bit of WINDOW_UPDATE", raw(WINDOW, 0, 0, b"\x80\0\0\1"), to=NoMatter()
    ),
    *[
        case(
            "4.2",
            f"a frame of type {kind} that is too long",
            raw(kind, 0, 1, size=MAX_FRAME + 1),
            to=ends(E.FRAME_SIZE_ERROR),
        )
        for kind in (DATA, HEADERS, PRIORITY, RST, SETTINGS, PING, GOAWAY, WINDOW, 0xFA)
    ],
    case("4.2", "the longest DATA", begin(), data(1, bytes(MAX_FRAME), 1), to=answers()),
    case("4.3", "an index of 0", raw(HEADERS, 5, 1, b"\x80"), to=ends(E.COMPRESSION_ERROR)),
    case(
        "4.3",
        "an index beyond the table",
        raw(HEADERS, 5, 1, b"\xbe"),
        to=ends(E.COMPRESSION_ERROR),
    ),
    case(
        "4.3",
        "a string that is cut off",
        raw(HEADERS, 5, 1, b"\0\5ab"),
        to=ends(E.COMPRESSION_ERROR),
    ),
    case(
        "4.3",
        "an integer that is cut off",
        raw(HEADERS, 5, 1, b"\x7f\xff"),
        to=ends(E.COMPRESSION_ERROR),
    ),
    case(
        "4.3",
        "an integer without end",
        raw(HEADERS, 5, 1, 99 * b"\xff"),
        to=ends(E.COMPRESSION_ERROR),
    ),
    case(
        "4.3",
        "a padding of Huffman that is no end",
        raw(HEADERS, 5, 1, b"\0\x81\xff\x81\0"),
        to=ends(E.COMPRESSION_ERROR),
    ),
    case(
        "4.3",
        "a table that is too large",
        raw(HEADERS, 5, 1, b"\x3f\xe2\x1f"),
        to=ends(E.COMPRESSION_ERROR),
    ),
    case(
        "4.3",
        "a table's size after a field",
        framed(5, 1, b"", b"\x20"),
        to=ends(E.COMPRESSION_ERROR),
    ),
    case("4.3", "a table's size before the fields", with_smaller_table, to=answers()),
    case("4.3", "a header block in three frames", in_three(), to=answers()),
    # 5.1: states of streams
    case("5.1", "DATA on an idle stream", data(), to=ends(E.PROTOCOL_ERROR)),
    case("5.1", "RST_STREAM on an idle stream", RESET, to=ends(E.PROTOCOL_ERROR)),
    case("5.1", "WINDOW_UPDATE on an idle stream", window(1, 1), to=ends(E.PROTOCOL_ERROR)),
    case(
        "5.1", "CONTINUATION on an idle stream", raw(CONTINUATION, 4, 1), to=ends(E.PROTOCOL_ERROR)
    ),
    case("5.1", "DATA after END_STREAM", ask(1, WAIT), data(), to=resets(E.STREAM_CLOSED)),
    case("5.1", "HEADERS after END_STREAM", ask(1, WAIT), ask(), to=resets(E.STREAM_CLOSED)),
    case("5.1", "WINDOW_UPDATE after END_STREAM", ask(1, WAIT), window(1, 9), to=NoMatter()),
    case(
        "5.1",
        "PRIORITY after END_STREAM",
        ask(1, WAIT),
        raw(PRIORITY, 0, 1, bytes(5)),
        to=NoMatter(),
    ),
    case("5.1", "RST_STREAM after END_STREAM", ask(1, WAIT), RESET, to=NoMatter()),
    case("5.1", "DATA after RST_STREAM", begin(), RESET, data(), to=resets(E.STREAM_CLOSED)),
    case("5.1", "HEADERS after RST_STREAM", begin(), RESET, ask(), to=resets(E.STREAM_CLOSED)),
    case("5.1", "DATA after both ends", ask(), data(), to=resets(E.STREAM_CLOSED)),
    case("5.1", "HEADERS after both ends", ask(), ask(), to=ends(E.STREAM_CLOSED)),
    case("5.1", "WINDOW_UPDATE after both ends", ask(), window(1, 9), to=answers()),
    case("5.1", "RST_STREAM after both ends", ask(), RESET, to=answers()),
    case("5.1", "PRIORITY after both ends", ask(), raw(PRIORITY, 0, 1, bytes(5)), to=answers()),
    case("5.1.1", "a stream with an even number", framed(5, 2), to=ends(E.PROTOCOL_ERROR)),
    case(
        "5.1.1", "a lower number than before", framed(5, 5), framed(5, 3), to=ends(E.PROTOCOL_ERROR)
    ),
    case("5.1.1", "numbers with gaps", framed(5, 5), framed(5, 11), to=answers(200, 11)),
    case(
        "5.1.2",
        "more streams than allowed",
        *(ask(2 * one + 1, WAIT) for one in range(MAX_STREAMS)),
        RESET,
        to=NoMatter(),
    ),
    case(
        "5.1.2",
        "one stream too many",
        *(ask(2 * one + 1, WAIT) for one in range(MAX_STREAMS + 1)),
        RESET,
        to=resets(E.REFUSED_STREAM, stream=2 * MAX_STREAMS + 1),
    ),
    case(
        "5.5",
        "an unknown frame within a header block",
        in_three(middle=raw(0xFA, 0, 1)),
        to=ends(E.PROTOCOL_ERROR),
    ),
    # 6.1: DATA
    case("6.1", "DATA on stream 0", data(0), to=ends(E.PROTOCOL_ERROR)),
    case("6.1", "a padding that is all of it", begin(), data(1, b"\1a", PADDED), to=NoMatter()),
    case(
        "6.1",
        "a padding longer than the frame",
        begin(),
        data(1, b"\2a", PADDED),
        to=ends(E.PROTOCOL_ERROR),
    ),
    case("6.1", "a padding of 0 bytes", begin(), data(1, b"\0a", PADDED | 1), to=answers()),
    case(
        "6.1",
        "a frame too short for its padding",
        begin(),
        data(1, b"", PADDED),
        to=ends(E.FRAME_SIZE_ERROR),
    ),
    case("6.1", "an end without data", begin(), data(1, b"", 1), to=answers()),
    # 6.2: HEADERS
    case("6.2", "HEADERS on stream 0", framed(5, 0), to=ends(E.PROTOCOL_ERROR)),
    case("6.2", "a padding that fits", framed(5 | PADDED, 1, b"\3", b"abc"), to=answers()),
    case(
        "6.2",
        "a padding longer than the frame",
        raw(HEADERS, 5 | PADDED, 1, b"\2a"),
        to=ends(E.PROTOCOL_ERROR),
    ),
    case("6.2", "a priority", framed(5 | PRIORITIZED, 1, b"\0\0\0\0\x10"), to=answers()),
    case(
        "6.2",
        "a padding and a priority",
        framed(5 | PADDED | PRIORITIZED, 1, b"\1\0\0\0\0\1", b"a"),
        to=answers(),
    ),
    case(
        "6.2",
        "a frame too short for its priority",
        raw(HEADERS, 5 | PRIORITIZED, 1, b"\0"),
        to=ends(E.FRAME_SIZE_ERROR),
    ),
    case("6.2", "DATA within a header block", in_three(middle=data()), to=ends(E.PROTOCOL_ERROR)),
    case(
        "6.2",
        "PING within a header block",
        in_three(middle=raw(PING, 0, 0, bytes(8))),
        to=ends(E.PROTOCOL_ERROR),
    ),
    case(
        "6.2",
        "another stream's HEADERS within a header block",
        in_three(middle=raw(HEADERS, 5, 3, b"\x82")),
        to=ends(E.PROTOCOL_ERROR),
    ),
    # 6.3: PRIORITY
    case("6.3", "PRIORITY on stream 0", raw(PRIORITY, 0, 0, bytes(5)), to=ends(E.PROTOCOL_ERROR)),
    case("6.3", "PRIORITY on an idle stream", raw(PRIORITY, 0, 99, bytes(5)), to=NoMatter()),
    case("6.3", "PRIORITY of 4 bytes", raw(PRIORITY, 0, 1, bytes(4)), to=ends(E.FRAME_SIZE_ERROR)),
    case("6.3", "PRIORITY of 6 bytes", raw(PRIORITY, 0, 1, bytes(6)), to=ends(E.FRAME_SIZE_ERROR)),
    # 6.4: RST_STREAM
    case("6.4", "RST_STREAM on stream 0", raw(RST, 0, 0, bytes(4)), to=ends(E.PROTOCOL_ERROR)),
    case(
        "6.4",
        "RST_STREAM of 3 bytes",
        begin(),
        raw(RST, 0, 1, bytes(3)),
        to=ends(E.FRAME_SIZE_ERROR),
    ),
    case(
        "6.4",
        "RST_STREAM of 5 bytes",
        begin(),
        raw(RST, 0, 1, bytes(5)),
        to=ends(E.FRAME_SIZE_ERROR),
    ),
    case(
        "7",
        "RST_STREAM with an unknown code",
        begin(),
        raw(RST, 0, 1, b"\xff\xff\xff\xff"),
        to=NoMatter(),
    ),
    # 6.5: SETTINGS
    case("6.5", "SETTINGS on a stream", raw(SETTINGS, 0, 1), to=ends(E.PROTOCOL_ERROR)),
    case(
        "6.5",
        "an acknowledgement with settings",
        raw(SETTINGS, ACK, 0, bytes(6)),
        to=ends(E.FRAME_SIZE_ERROR, E.PROTOCOL_ERROR),
    ),
    case("6.5", "SETTINGS of 5 bytes", raw(SETTINGS, 0, 0, bytes(5)), to=ends(E.FRAME_SIZE_ERROR)),
    case("6.5", "SETTINGS without any", raw(SETTINGS, 0, 0), to=NoMatter()),
    case("6.5.2", "an unknown setting", setting(0xFA, 7), to=NoMatter()),
    case("6.5.2", "ENABLE_PUSH that is 2", setting(2, 2), to=ends(E.PROTOCOL_ERROR)),
    case(
        "6.5.2",
        "INITIAL_WINDOW_SIZE that is too large",
        setting(4, 2**31),
        to=ends(E.FLOW_CONTROL_ERROR),
    ),
    case("6.5.2", "MAX_FRAME_SIZE that is too small", setting(5, 16383), to=ends(E.PROTOCOL_ERROR)),
    case("6.5.2", "MAX_FRAME_SIZE that is too large", setting(5, 2**24), to=ends(E.PROTOCOL_ERROR)),
    case("6.5.2", "MAX_FRAME_SIZE that is the largest", setting(5, 2**24 - 1), to=NoMatter()),
    case("6.5.2", "HEADER_TABLE_SIZE that is 0", setting(1, 0), ask(), to=answers()),
    case("6.5.2", "MAX_CONCURRENT_STREAMS that is 0", setting(3, 0), ask(), to=answers()),
    case(
        "RFC 8441, 3", "ENABLE_CONNECT_PROTOCOL that is 2", setting(8, 2), to=ends(E.PROTOCOL_ERROR)
    ),
    # 6.6: PUSH_PROMISE
    case(
        "6.6", "PUSH_PROMISE", begin(), raw(PUSH, 4, 1, b"\0\0\0\2\x82"), to=ends(E.PROTOCOL_ERROR)
    ),
    # 6.7: PING
    case("6.7", "PING on a stream", raw(PING, 0, 1, bytes(8)), to=ends(E.PROTOCOL_ERROR)),
    case("6.7", "PING of 7 bytes", raw(PING, 0, 0, bytes(7)), to=ends(E.FRAME_SIZE_ERROR)),
    case("6.7", "PING of 9 bytes", raw(PING, 0, 0, bytes(9)), to=ends(E.FRAME_SIZE_ERROR)),
    case("6.7", "an answer to no PING", raw(PING, ACK, 0, bytes(8)), to=NoMatter()),
    # 6.8: GOAWAY
    case("6.8", "GOAWAY on a stream", raw(GOAWAY, 0, 1, bytes(8)), to=ends(E.PROTOCOL_ERROR)),
    case("6.8", "GOAWAY of 7 bytes", raw(GOAWAY, 0, 0, bytes(7)), to=ends(E.FRAME_SIZE_ERROR)),
    case("6.8", "GOAWAY", raw(GOAWAY, 0, 0, bytes(8)), to=ends(E.NO_ERROR)),
    case(
        "6.8", "GOAWAY with more to say", raw(GOAWAY, 0, 0, bytes(8) + b"bye"), to=ends(E.NO_ERROR)
    ),
    case(
        "7",
        "GOAWAY with an unknown code",
        raw(GOAWAY, 0, 0, bytes(4) + b"\xff" * 4),
        to=ends(E.NO_ERROR),
    ),
    # 6.9: WINDOW_UPDATE
    case("6.9", "a window that grows by 0", window(0, 0), to=ends(E.PROTOCOL_ERROR)),
    case(
        "6.9", "a stream's window that grows by 0", begin(), window(1, 0), to=ends(E.PROTOCOL_ERROR)
    ),
    case(
        "6.9", "WINDOW_UPDATE of 3 bytes", raw(WINDOW, 0, 0, bytes(3)), to=ends(E.FRAME_SIZE_ERROR)
    ),
    case(
        "6.9",
        "WINDOW_UPDATE of 5 bytes",
        raw(WINDOW, 0, 0, b"\0\0\0\1\1"),
        to=ends(E.FRAME_SIZE_ERROR),
    ),
    case(
        "6.9.1", "a window that grows too large", window(0, HIGHEST), to=ends(E.FLOW_CONTROL_ERROR)
    ),
    case(
        "6.9.1",
        "a stream's window that grows too large",
        begin(),
        window(1, HIGHEST),
        to=resets(E.FLOW_CONTROL_ERROR),
    ),
    case("6.9.2", "a window that is closed", setting(4, 0), ask(), to=NoMatter()),
    case("6.9.2", "a window that opens later", setting(4, 0), ask(), setting(4, 9), to=answers()),
    case("6.9.2", "a window below 0", setting(4, 9), ask(1, GET), to=NoMatter()),
    case(
        "6.9.2",
        "a window that settings make too large",
        begin(),
        window(1, HIGHEST - 65535),
        setting(4, 65536),
        to=ends(E.FLOW_CONTROL_ERROR),
    ),
    # 6.10: CONTINUATION
    case(
        "6.10",
        "CONTINUATION on stream 0",
        raw(HEADERS, 1, 1, b"\x82"),
        raw(CONTINUATION, 4, 0),
        to=ends(E.PROTOCOL_ERROR),
    ),
    case(
        "6.10",
        "CONTINUATION of another stream",
        raw(HEADERS, 1, 1, b"\x82"),
        raw(CONTINUATION, 4, 3),
        to=ends(E.PROTOCOL_ERROR),
    ),
    case(
        "6.10",
        "CONTINUATION after END_HEADERS",
        framed(5, 1),
        raw(CONTINUATION, 4, 1),
        to=ends(E.PROTOCOL_ERROR),
    ),
    case(
        "6.10",
        "CONTINUATION after DATA",
        begin(),
        data(),
        raw(CONTINUATION, 4, 1),
        to=ends(E.PROTOCOL_ERROR),
    ),
    # 8: requests
    case("8.1", "trailers", begin(), ask(1, [(b"x-sum", b"1")]), to=answers()),
    case(
        "8.1",
        "trailers without END_STREAM",
        begin(),
        lambda c: c.headers(1, [(b"a", b"b")], end=False),
        to=ends(E.PROTOCOL_ERROR),
    ),
    case(
        "8.1",
        "a pseudo-header in trailers",
        begin(),
        ask(1, [(b":path", b"/")]),
        to=resets(E.PROTOCOL_ERROR),
    ),
    case(
        "8.1",
        "upper case in trailers",
        begin(),
        ask(1, [(b"X-Sum", b"/")]),
        to=resets(E.PROTOCOL_ERROR),
    ),
    case(
        "8.1.1",
        "a body longer than Content-Length",
        begin(1, [*POST, (b"content-length", b"1")]),
        data(1, b"ab"),
        to=resets(E.PROTOCOL_ERROR),
    ),
    case(
        "8.1.1",
        "a body shorter than Content-Length",
        begin(1, [*POST, (b"content-length", b"3")]),
        data(1, b"ab", 1),
        to=resets(E.PROTOCOL_ERROR),
    ),
    case(
        "8.1.1",
        "no body in place of Content-Length",
        begin(1, [*POST, (b"content-length", b"3")]),
        ask(1, [(b"x", b"y")]),
        to=resets(E.PROTOCOL_ERROR),
    ),
    *[
        case("8.2, 8.3", name, ask(1, fields), to=resets(E.PROTOCOL_ERROR))
        for name, fields in MALFORMED.items()
    ],
    case("8.2.2", "te: trailers", ask(1, [*GET, (b"te", b"trailers")]), to=answers()),
    case(
        "8.2.3",
        "cookies in pieces",
        ask(1, [*GET, (b"cookie", b"a=1"), (b"cookie", b"b=2")]),
        to=answers(),
    ),
    case(
        "8.3.1",
        "OPTIONS *",
        ask(1, [(b":method", b"OPTIONS"), *GET[1:3], (b":path", b"*")]),
        to=answers(),
    ),
    case(
        "8.3.1",
        "Host in place of :authority",
        ask(1, [*GET[:2], GET[3], (b"host", b"a")]),
        to=answers(),
    ),
    case("8.3.1", "neither Host nor :authority", ask(1, [*GET[:2], GET[3]]), to=answers(400)),
    case(
        "8.5",
        "CONNECT",
        ask(1, [(b":method", b"CONNECT"), (b":authority", b"a:1")]),
        to=answers(501),
    ),
    case(
        "RFC 8441, 4",
        "CONNECT for another protocol",
        begin(1, [*WEBSOCKET[:-1], (b":protocol", b"x")]),
        to=answers(501),
    ),
    case(
        "RFC 8441, 4",
        "a WebSocket that ends with its head",
        ask(1, WEBSOCKET),
        to=resets(E.PROTOCOL_ERROR),
    ),
    case("10.5.1", "a head that is too long", long_head, to=answers(400)),
]


@pytest.fixture
def connect(log: Log) -> Callable[[Version], TlsSpeaker]:
    server = Server(versions=versions(["2", "1.1"]), websockets=True)
    server.answers_to = lambda head: not head.target.startswith(b"/wait")
    authority = Authority.create("Client CA")
    gate = MemoryGate(
        [rule("people", authority)], log, application=server, clock=server.time, alpn=(b"h2",)
    )

    def make(version: Version) -> TlsSpeaker:
        client = gate.connect(authority.issue("alice"), alpn=["h2"], max_version=version)
        client.handshake()
        return TlsSpeaker(client)

    return make


def names() -> list[str]:
    return [f"{case.section}: {case.what}" for case in CASES]


def test_the_documentation_has_every_case() -> None:
    """The table in ``docs/standards.md``: a row for each section."""
    text = (Path(__file__).parents[2] / "docs" / "standards.md").read_text()
    for section in dict.fromkeys(case.section for case in CASES):
        cases = [case.what for case in CASES if case.section == section]
        assert f"| {section} | {len(cases)} | {'; '.join(cases)} |" in text
    assert f"{len(CASES)} cases" in text
    assert len(set(names())) == len(CASES) >= 120


@pytest.mark.parametrize("case", CASES, ids=names())
def test_does_what_it_must(
    connect: Callable[[Version], TlsSpeaker], version: Version, case: Case
) -> None:
    client = connect(version)
    for step in case.steps:
        client.send(step if isinstance(step, bytes) else step(client))
    match case.to:
        case Ended(codes):
            assert client.goaway in codes
            assert client.client.close_notified
            return
        case ResetWith(stream, codes):
            assert client.reset_code(stream) in codes
        case AnsweredWith(stream, status):
            assert client.status(stream) == status
            assert client.is_complete(stream)
        case NoMatter():
            assert client.goaway is None
    client.send(client.settings(INITIAL_WINDOW_SIZE=65535), client.window(0, 2**20))
    client.send(client.ping(b"still up"))
    client.send(client.headers(999))
    assert b"still up" in [ping.opaque_data for ping in client.of(PingFrame)]
    assert client.status(999) == 200
    assert client.goaway is None


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", PREFACE[:-2] + b"XX", PREFACE + raw(6, 0, 0)]
)
def test_the_preface_comes_first(log: Log, first: bytes, version: Version) -> None:
    """RFC 9113, 3.4."""
    server = Server(versions=versions(["2", "1.1"]))
    authority = Authority.create("Client CA")
    gate = MemoryGate(
        [rule("people", authority)], log, application=server, clock=server.time, alpn=(b"h2",)
    )
    client = gate.connect(authority.issue("alice"), alpn=["h2"], max_version=version)
    client.handshake()
    client.send(first)
    assert GoAwayFrame(0, error_code=E.PROTOCOL_ERROR).serialize()[-8:] in client.receive()
    assert client.close_notified
