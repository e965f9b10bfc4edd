"""
HTTP/2 to targets: requests share connections, and do not stand in each other's way.
"""

from __future__ import annotations

import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    PingFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from mtlsgate.http2.wire import CONNECTION_WINDOW, STREAM_WINDOW
from mtlsgate.protocols.http.configuration import HttpHealthCheck
from mtlsgate.testing import Client
from mtlsgate.upstream.backends import Backends
from tests.kits.http import GET, HttpGate, get, read_response
from tests.kits.http2 import (
    GET as GET2,
)
from tests.kits.http2 import (
    POST,
    Fields,
    FrameTarget,
    TlsSpeaker,
    raw,
)

ONE, TWO = "127.0.0.1:9001", "127.0.0.1:9002"
POST1 = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\n"
CHUNKED1 = b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n"
OK: Fields = [(b":status", b"200")]
E = ErrorCodes


def speaker(http: HttpGate) -> TlsSpeaker:
    """:returns: a client of HTTP/2."""
    return TlsSpeaker(http.connect(alpn=["h2"]))


def asked(
    http: HttpGate, request: bytes = GET, settings: dict[int, int] | None = None
) -> tuple[Client, FrameTarget]:
    """:returns: a client of HTTP/1.1 that asked, and the target."""
    client = http.connect()
    client.send(request)
    return client, FrameTarget(http.backend, settings)


def spoken(
    http: HttpGate, fields: Fields = GET2, *, end: bool = True
) -> tuple[TlsSpeaker, FrameTarget]:
    """:returns: a client of HTTP/2 that asked, and the target."""
    client = speaker(http)
    client.send(client.headers(1, fields, end=end))
    return client, FrameTarget(http.backend)


@pytest.fixture
def up(http: HttpGate) -> HttpGate:
    """A gate whose targets speak HTTP/2."""
    return http.configure(http_version="2")


def test_a_request_of_http1_becomes_a_stream(up: HttpGate) -> None:
    client, target = asked(
        up, b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nX-A: 1\r\nTE: trailers\r\n\r\n"
    )
    [head] = target.heads(1)
    assert list(head)[:4] == [b":method", b":scheme", b":authority", b":path"]
    pseudo = [head[name] for name in list(head)[:4]]
    assert pseudo == [b"GET", b"http", b"a.example", b"/a?b"]
    assert (head[b"x-a"], head[b"te"], head[b"x-forwarded-proto"]) == (b"1", b"trailers", b"https")
    assert not {b"host", b"connection", b"transfer-encoding", b"content-length"} & set(head)
    assert target.is_complete(1) is False or target.of(DataFrame, 1) == []
    target.answer(1)
    response = read_response(client.receive())
    assert (response.status, response.body) == (200, b"2\r\nok\r\n0\r\n\r\n")
    [event] = up.http_log.requests
    assert (event["status"], event["bytes_out"], event["target"]) == (200, 2, "127.0.0.1:9000")


def test_nothing_is_sent_before_the_target_has_said_that_it_speaks_http2(up: HttpGate) -> None:
    client = up.connect()
    client.send(GET)
    assert b"a.example" not in up.backend.received()
    up.backend.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert read_response(client.receive()).status == 502
    assert "does not speak HTTP/2" in up.http_log.failures[0]["cause"]


def test_the_client_is_named_and_cannot_name_itself(http: HttpGate) -> None:
    http.configure(http_version="2", client_cert=True)
    _, target = spoken(http, [*GET2, (b"client-cert", b"forged"), (b"x-forwarded-for", b"::1")])
    [head] = target.heads(1)
    assert head[b"client-cert"].startswith(b":MII")
    assert head[b"x-forwarded-for"] != b"::1"


def test_what_was_verified_in_another_way_takes_no_more_requests(
    up: HttpGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When an agent has delivered another bundle: requests that are underway end in peace, and
    the next goes elsewhere."""
    trust = [1]
    monkeypatch.setattr(Backends, "trust", property(lambda _: trust[0]))
    up.configure(http_version="2")
    client, target = asked(up)
    trust[0] = 2
    other = up.connect()
    other.send(GET)
    first, second = up.reactor.backends
    assert first.open
    target.answer(1)
    assert read_response(client.receive()).status == 200
    assert not first.open
    new = FrameTarget(second)
    new.answer(1)
    assert read_response(other.receive()).status == 200
    other.send(GET)
    assert len(up.reactor.backends) == 2
    new.answer(3)
    # One that is idle is closed as soon as somebody asks.
    trust[0] = 3
    client.send(GET)
    assert not second.open


@pytest.mark.parametrize(
    ("request_", "length"), [(POST1 + b"abc", b"3"), (CHUNKED1 + b"3\r\nabc\r\n0\r\n\r\n", None)]
)
def test_a_body_of_http1_passes(up: HttpGate, request_: bytes, length: bytes | None) -> None:
    _, target = asked(up, request_)
    assert target.heads(1)[0].get(b"content-length") == length
    assert (target.body(1), target.is_complete(1)) == (b"abc", True)


def test_bodies_trailers_and_interim_responses_pass_both_ways(up: HttpGate) -> None:
    client, target = spoken(up, [*POST, (b"te", b"trailers")], end=False)
    assert target.heads(1)[0][b"te"] == b"trailers"
    target.send(target.headers(1, [(b":status", b"103"), (b"link", b"a")], end=False))
    client.receive()
    assert client.heads(1) == [{b":status": b"103", b"link": b"a"}]
    client.send(client.data(1, b"abc"), client.headers(1, [(b"x-sum", b"3")]))
    target.receive()
    assert (target.body(1), target.heads(1)[1]) == (b"abc", {b"x-sum": b"3"})
    head = target.headers(1, [*OK, (b"content-type", b"application/grpc")], end=False)
    target.send(head, target.data(1, b"ok"), target.headers(1, [(b"grpc-status", b"0")]))
    client.receive()
    assert (client.status(1), client.body(1), client.is_complete(1)) == (200, b"ok", True)
    assert client.heads(1)[-1] == {b"grpc-status": b"0"}


def test_trailers_of_the_target_reach_a_client_of_http1(up: HttpGate) -> None:
    client, target = asked(up)
    target.send(target.headers(1, OK, end=False), target.data(1, b"ok"))
    target.send(target.headers(1, [(b"x-end", b"1")]))
    assert client.receive().endswith(b"2\r\nok\r\n0\r\nx-end: 1\r\n\r\n")


def test_a_head_that_is_the_end_stays_so(up: HttpGate) -> None:
    """gRPC tells an error of a call by one."""
    client, target = spoken(up)
    target.send(target.headers(1, [*OK, (b"grpc-status", b"12")]))
    client.receive()
    assert (client.is_complete(1), client.of(DataFrame, 1)) == (True, [])


def test_head_has_no_body_whatever_its_length_says(up: HttpGate) -> None:
    client, target = asked(up, GET.replace(b"GET", b"HEAD"))
    target.send(target.headers(1, [*OK, (b"content-length", b"5")]))
    response = read_response(client.receive())
    assert (response.status, response["content-length"], response.body) == (200, "5", b"")


def test_requests_share_a_connection(up: HttpGate) -> None:
    first, target = asked(up)
    second = speaker(up)
    second.send(second.headers(1), second.headers(3))
    assert target.asked == [1, 3, 5]
    target.answer(5)
    target.answer(3)
    target.answer(1)
    second.receive()
    assert (second.status(1), second.status(3)) == (200, 200)
    assert read_response(first.receive()).status == 200


def test_requests_wait_for_one_connection_together(up: HttpGate) -> None:
    client = speaker(up)
    client.send(*(client.headers(number) for number in (1, 3, 5)))
    target = FrameTarget(up.backend)
    assert target.asked == [1, 3, 5]


def test_a_full_connection_gets_a_second_one(up: HttpGate) -> None:
    """SETTINGS_MAX_CONCURRENT_STREAMS."""
    client = speaker(up)
    client.send(*(client.headers(number) for number in (1, 3, 5)))
    most = {SettingsFrame.MAX_CONCURRENT_STREAMS: 2}
    first = FrameTarget(up.reactor.backends[0], most)
    second = FrameTarget(up.reactor.backends[1], most)
    assert (first.asked, second.asked) == ([1, 3], [1])
    first.answer(1)
    client.send(client.headers(7))
    assert (first.asked, second.asked) == ([1, 3, 5], [1])
    assert len(up.reactor.backends) == 2


def test_a_target_that_takes_no_requests_is_no_loop(up: HttpGate) -> None:
    client, _ = asked(up, settings={SettingsFrame.MAX_CONCURRENT_STREAMS: 0})
    assert read_response(client.receive()).status == 502
    assert len(up.reactor.backends) == 1
    assert "takes no requests" in up.http_log.failures[0]["cause"]


def test_a_client_that_does_not_read_stops_no_other(up: HttpGate) -> None:
    """What waits for it is no more than its stream's window, and the connection's is open."""
    slow, fast = speaker(up), speaker(up)
    slow.send(slow.settings(INITIAL_WINDOW_SIZE=0), slow.headers(1))
    fast.send(fast.settings(INITIAL_WINDOW_SIZE=2**31 - 1), fast.window(0, 2**30), fast.headers(1))
    target = FrameTarget(up.backend)
    piece = 16384 * b"a"
    target.send(target.headers(1, OK, end=False), target.headers(3, OK, end=False))
    for _ in range(STREAM_WINDOW // len(piece)):
        target.send(target.data(1, piece))
    opened = target.of(WindowUpdateFrame, 1)
    assert opened == []
    for _ in range(2 * CONNECTION_WINDOW // len(piece)):
        target.send(target.data(3, piece))
        fast.receive()
    assert len(fast.body(1)) == 2 * CONNECTION_WINDOW
    assert sum(one.window_increment for one in target.of(WindowUpdateFrame, 0)) > CONNECTION_WINDOW
    slow.send(slow.window(1, STREAM_WINDOW))
    target.receive()
    assert len(slow.body(1)) == 65535
    slow.send(slow.window(0, STREAM_WINDOW))
    target.receive()
    assert len(slow.body(1)) == STREAM_WINDOW
    assert sum(one.window_increment for one in target.of(WindowUpdateFrame, 1)) > 0


def test_a_target_that_floods_a_closed_window_ends_the_connection(up: HttpGate) -> None:
    client = speaker(up)
    client.send(client.settings(INITIAL_WINDOW_SIZE=0), client.headers(1))
    target = FrameTarget(up.backend)
    target.send(target.headers(1, OK, end=False))
    target.send(target.data(1, 16384 * b"a") * (STREAM_WINDOW // 16384 + 1))
    assert target.goaway == E.FLOW_CONTROL_ERROR
    client.receive()
    assert client.reset_code(1) == E.INTERNAL_ERROR


def test_a_body_waits_for_the_target(up: HttpGate) -> None:
    """The client's window opens only as the target's does."""
    client = speaker(up)
    client.send(client.headers(1, POST, end=False))
    target = FrameTarget(up.backend, {SettingsFrame.INITIAL_WINDOW_SIZE: 10})
    client.send(*(client.data(1, 16384 * b"a") for _ in range(STREAM_WINDOW // 16384)))
    target.receive()
    assert (len(target.body(1)), client.of(WindowUpdateFrame, 1)) == (10, [])
    target.send(target.window(1, STREAM_WINDOW), target.window(0, STREAM_WINDOW))
    target.receive()
    client.receive()
    assert len(target.body(1)) == STREAM_WINDOW
    assert client.of(WindowUpdateFrame, 1)


def test_an_early_response_ends_the_request(up: HttpGate) -> None:
    """The rest of the body is not wanted, and the connection goes on."""
    client, target = spoken(up, POST, end=False)
    target.answer(1, status=b"403")
    client.receive()
    assert (client.status(1), client.is_complete(1)) == (403, True)
    assert target.reset_code(1) == E.NO_ERROR
    client.send(client.data(1, b"abc", end=True), client.headers(3))
    assert (target.asked, target.body(1)) == ([1, 3], b"")


def test_a_response_before_a_reset_without_error_is_whole(up: HttpGate) -> None:
    """RFC 9113, 8.1."""
    client, target = spoken(up, POST, end=False)
    target.send(
        target.headers(1, OK, end=False), target.data(1, b"ok", end=True), target.reset(1, 0)
    )
    client.receive()
    assert (client.status(1), client.body(1), client.is_complete(1)) == (200, b"ok", True)


def test_a_client_that_resets_cancels_at_the_target(up: HttpGate) -> None:
    client, target = spoken(up)
    client.send(client.reset(1), client.headers(3))
    assert target.asked == [1, 3]
    assert target.reset_code(1) == E.CANCEL
    # What was on its way is dropped, and its header fields keep the compression in step.
    target.send(target.headers(1, [*OK, (b"x-a", b"b")], end=False), target.data(1, b"ok"))
    target.answer(3)
    client.receive()
    assert client.status(3) == 200


def test_late_heads_of_forgotten_streams_do_no_harm(up: HttpGate) -> None:
    client, target = spoken(up)
    for number in range(3, 60, 2):
        client.send(client.reset(number - 2), client.headers(number))
    target.receive()
    for number in range(1, 57, 2):
        target.send(target.headers(number, [*OK, (b"x-a", b"%d" % number)]))
    target.answer(59)
    client.receive()
    assert (client.status(59), target.goaway) == (200, None)


@pytest.mark.parametrize("begun", [False, True])
def test_a_reset_by_the_target_ends_the_request(up: HttpGate, begun: bool) -> None:
    client, target = spoken(up)
    if begun:
        target.send(target.headers(1, OK, end=False))
    target.send(target.reset(1, E.INTERNAL_ERROR))
    client.receive()
    assert client.is_complete(1) is not begun
    assert (client.status(1), client.reset_code(1)) == (
        (200, E.INTERNAL_ERROR) if begun else (502, None)
    )
    [failure] = up.http_log.failures
    assert failure["cause"] == "it reset the stream, with INTERNAL_ERROR"
    client.send(client.headers(3))
    assert target.asked == [1, 3]


def test_a_target_that_closes_at_once_is_told_of(up: HttpGate) -> None:
    client = up.connect()
    client.send(GET)
    up.backend.transport.finish()
    assert read_response(client.receive()).status == 502
    assert up.http_log.failures[0]["cause"].endswith("before it said that it speaks HTTP/2")


def test_a_target_may_change_its_settings_with_each_answer(up: HttpGate) -> None:
    """As hypercorn does while it ends; without answers it is a flood."""
    client, target = spoken(up)
    for number in range(1, 201, 2):
        target.answer(number)
        target.send(target.settings(MAX_CONCURRENT_STREAMS=10))
        client.send(client.headers(number + 2))
    assert (target.goaway, len(up.reactor.backends)) == (None, 1)


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_what_a_target_does_after_the_client_has_all_is_too_late(
    up: HttpGate, method: bytes
) -> None:
    """The length says that no more can come, though the target has not ended its stream."""
    client, target = spoken(up, [(b":method", method), *GET2[1:]])
    target.send(target.headers(1, [*OK, (b"content-length", b"2")], end=False))
    if method == b"GET":
        target.send(target.data(1, b"ok"))
    client.receive()
    assert client.is_complete(1)
    target.send(target.reset(1, E.INTERNAL_ERROR))
    client.send(client.headers(3))
    target.answer(3)
    client.receive()
    assert (client.reset_code(1), client.goaway, client.status(3)) == (None, None, 200)


def test_a_refused_stream_is_sent_again_elsewhere(up: HttpGate) -> None:
    """REFUSED_STREAM, RFC 9113, 8.7; the body is sent again, too."""
    client, first = spoken(up, POST, end=False)
    client.send(client.data(1, b"abc"))
    first.send(first.reset(1, E.REFUSED_STREAM))
    second = FrameTarget(up.reactor.backends[1])
    client.send(client.data(1, b"def", end=True))
    second.receive()
    assert (second.body(1), second.is_complete(1)) == (b"abcdef", True)
    second.answer(1)
    client.receive()
    assert client.status(1) == 200
    assert not first.backend.open


def test_a_refused_stream_is_not_sent_again_for_ever(up: HttpGate) -> None:
    client, target = spoken(up)
    for number in range(1, 5):
        target.send(target.reset(1, E.REFUSED_STREAM))
        if number < 4:
            target = FrameTarget(up.reactor.backends[number])
    client.receive()
    assert (client.status(1), len(up.reactor.backends)) == (502, 4)


def test_a_long_body_is_not_sent_again(up: HttpGate) -> None:
    client, target = spoken(up, POST, end=False)
    target.send(target.window(1, 2**20), target.window(0, 2**20))
    client.send(*(client.data(1, 16384 * b"a") for _ in range(5)))
    target.send(target.reset(1, E.REFUSED_STREAM))
    client.receive()
    assert (client.status(1), len(up.reactor.backends)) == (502, 1)


def test_goaway_moves_what_was_not_begun(up: HttpGate) -> None:
    """What was is answered; RFC 9113, 6.8."""
    client = speaker(up)
    client.send(client.headers(1), client.headers(3, POST, end=False), client.data(3, b"abc"))
    first = FrameTarget(up.backend)
    first.send(GoAwayFrame(0, last_stream_id=1).serialize())
    second = FrameTarget(up.reactor.backends[1])
    assert (second.asked, second.heads(1)[0][b":method"], second.body(1)) == ([1], b"POST", b"abc")
    assert first.backend.open
    first.answer(1)
    assert not first.backend.open
    client.send(client.data(3, b"", end=True))
    second.answer(1)
    client.receive()
    assert (client.status(1), client.status(3)) == (200, 200)


def test_an_idle_connection_that_says_goodbye_is_closed(up: HttpGate) -> None:
    up.factory.doStart()
    client, target = spoken(up)
    target.answer(1)
    assert target.backend.open
    target.send(GoAwayFrame(0, last_stream_id=2**31 - 1).serialize())
    assert not target.backend.open
    client.send(client.headers(3))
    assert FrameTarget(up.reactor.backends[1]).asked == [1]


def test_a_lost_connection_is_retried_where_that_is_safe(up: HttpGate) -> None:
    """A kept connection that ends just then; not for POST, and not on a new one."""
    client, first = spoken(up)
    first.answer(1)
    client.send(client.headers(3), client.headers(5, POST, end=False))
    first.backend.transport.finish()
    second = FrameTarget(up.reactor.backends[1])
    assert second.asked == [1]
    client.receive()
    assert client.status(5) == 502
    second.backend.transport.finish()
    client.receive()
    assert client.status(3) == 502
    assert len(up.reactor.backends) == 2


MALFORMED: dict[str, Fields] = {
    "no status": [(b"x-a", b"b")],
    "status of letters": [(b":status", b"abc")],
    "status of four digits": [(b":status", b"2000")],
    "two statuses": [*OK, *OK],
    "a status too late": [(b"x-a", b"b"), *OK],
    "a request's pseudo-header": [*OK, (b":path", b"/")],
    "upper case": [*OK, (b"X-A", b"b")],
    "no token": [*OK, (b"x a", b"b")],
    "a line feed": [*OK, (b"x-a", b"b\r\nx-c: d")],
    "a null byte": [*OK, (b"x-a", b"\0")],
    "connection": [*OK, (b"connection", b"close")],
    "transfer-encoding": [*OK, (b"transfer-encoding", b"chunked")],
    "two lengths": [*OK, (b"content-length", b"2"), (b"content-length", b"3")],
    "a length that is none": [*OK, (b"content-length", b"-1")],
    "a switch": [(b":status", b"101")],
}


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_response_is_one_streams_alone(up: HttpGate, fields: Fields) -> None:
    """RFC 9113, 8.1.1; nothing of it reaches a client."""
    client = speaker(up)
    client.send(client.headers(1), client.headers(3))
    target = FrameTarget(up.backend)
    target.send(target.headers(1, fields, end=False))
    target.answer(3)
    client.receive()
    assert (client.status(1), client.status(3)) == (502, 200)
    assert target.reset_code(1) == E.PROTOCOL_ERROR
    [failure] = up.http_log.failures
    assert failure["cause"].startswith("its response is malformed: ")


@pytest.mark.parametrize("body", [b"a", b"abc"])
def test_a_body_of_another_length_is_no_whole_one(up: HttpGate, body: bytes) -> None:
    client, target = spoken(up)
    target.send(target.headers(1, [*OK, (b"content-length", b"2")], end=False))
    target.send(target.data(1, body, end=True))
    client.receive()
    assert (client.is_complete(1), client.reset_code(1)) == (False, E.INTERNAL_ERROR)


def test_too_many_interim_responses_are_refused(up: HttpGate) -> None:
    client, target = spoken(up)
    target.send(*(target.headers(1, [(b":status", b"103")], end=False) for _ in range(65)))
    client.receive()
    assert client.status(1) == 502


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (raw(5, 4, 1, bytes(4)), E.PROTOCOL_ERROR),
        (raw(0, 0, 0, b"a"), E.PROTOCOL_ERROR),
        (raw(0, 0, 9, b"a"), E.PROTOCOL_ERROR),
        (raw(1, 5, 2, b"\x88"), E.PROTOCOL_ERROR),
        (raw(1, 5, 1, b"\xff\xff\xff\xff\xff\xff"), E.COMPRESSION_ERROR),
        (raw(0, 0, 1, b"", size=16385), E.FRAME_SIZE_ERROR),
        (1000 * raw(6, 0, 0, bytes(8)), E.ENHANCE_YOUR_CALM),
        (100 * raw(4, 0, 0), E.ENHANCE_YOUR_CALM),
        (raw(1, 0, 1, b"\x88") + 40 * raw(9, 0, 1), E.ENHANCE_YOUR_CALM),
    ],
)
def test_what_is_no_http2_ends_the_connection(up: HttpGate, frame: bytes, code: ErrorCodes) -> None:
    """PUSH_PROMISE, DATA of no stream or none that began, a stream of the target's own, and
    floods: all its requests end, and clients go on."""
    client = speaker(up)
    client.send(client.headers(1), client.headers(3, POST))
    target = FrameTarget(up.backend)
    target.send(frame)
    client.receive()
    assert target.goaway == code
    assert not target.backend.open
    assert (client.status(1), client.status(3)) == (502, 502)
    assert code.name in up.http_log.failures[0]["cause"]
    client.send(client.headers(5))
    assert FrameTarget(up.reactor.backends[1]).asked == [1]


def test_a_head_that_the_target_does_not_take_is_not_sent(up: HttpGate) -> None:
    """SETTINGS_MAX_HEADER_LIST_SIZE."""
    client, target = asked(up, settings={SettingsFrame.MAX_HEADER_LIST_SIZE: 100})
    assert read_response(client.receive()).status == 502
    assert target.asked == []
    assert "longer than the target takes" in up.http_log.failures[0]["cause"]


def test_a_silent_target_is_asked_whether_it_is_there(http: HttpGate) -> None:
    http.configure(http_version="2", response_timeout=10_000.0, body_timeout=10_000.0)
    client, target = spoken(http)
    http.reactor.advance(30)
    target.receive()
    [ping] = [one for one in target.of(PingFrame) if "ACK" not in one.flags]
    target.send(target.ping(ping.opaque_data, ack=True))
    # Servers of gRPC end the connection of a client that asks again within five minutes.
    for _ in range(10):
        http.reactor.advance(30)
    target.receive()
    assert len(target.of(PingFrame)) == 1
    http.reactor.advance(30)
    target.receive()
    assert len(target.of(PingFrame)) == 2
    http.reactor.advance(15)
    client.receive()
    assert (client.status(1), target.backend.open) == (502, False)
    assert "PING" in http.http_log.failures[0]["cause"]


def test_a_target_that_is_late_is(up: HttpGate) -> None:
    client, target = spoken(up)
    for _ in range(3):
        up.reactor.advance(20)
        target.send(target.ping(ack=True))
    client.receive()
    assert (client.status(1), target.reset_code(1)) == (504, E.CANCEL)
    assert target.backend.open


def test_idle_connections_are_kept_for_a_while(http: HttpGate) -> None:
    http.configure(http_version="2", target_keepalive=5.0)
    _, target = spoken(http)
    http.reactor.advance(6)
    assert target.backend.open
    target.answer(1)
    http.reactor.advance(4.9)
    assert target.backend.open
    http.reactor.advance(5.2)
    assert not target.backend.open
    target.receive()
    assert target.goaway == E.NO_ERROR


@pytest.mark.parametrize("how", ["retired", "not kept"])
def test_connections_end_with_their_last_request(http: HttpGate, how: str) -> None:
    http.configure(http_version="2", target_connections=0 if how == "not kept" else 32)
    http.factory.doStart()
    client, target = spoken(http)
    if how == "retired":
        http.factory.retire()
    assert target.backend.open
    target.answer(1)
    assert not target.backend.open
    client.receive()
    assert client.status(1) == 200


def test_requests_are_balanced_over_targets(http: HttpGate) -> None:
    http.configure(ONE, TWO, http_version="2", balance="least_connections")
    client = speaker(http)
    client.send(*(client.headers(number) for number in (1, 3, 5, 7)))
    first, second = map(FrameTarget, http.reactor.backends)
    assert (len(first.asked), len(second.asked)) == (2, 2)
    assert [state.in_use for state in http.factory.backends.states] == [2, 2]
    for target in (first, second):
        target.answer(1)
        target.answer(3)
    assert [state.in_use for state in http.factory.backends.states] == [0, 0]


def test_another_target_takes_over(http: HttpGate) -> None:
    http.configure(ONE, TWO, http_version="2")
    http.reactor.refusing.add(9001)
    client, target = spoken(http)
    target.answer(1)
    client.receive()
    assert (client.status(1), target.backend.port) == (200, 9002)


def test_a_client_that_leaves_while_the_gate_connects_leaves_nothing(up: HttpGate) -> None:
    client = speaker(up)
    client.send(client.headers(1), client.headers(3))
    client.send(client.reset(1))
    target = FrameTarget(up.backend)
    assert target.asked == [1]
    target.answer(1)
    client.receive()
    assert client.status(3) == 200
    assert [state.in_use for state in up.factory.backends.states] == [0]


@pytest.mark.parametrize(("status", "problem"), [(b"200", None), (b"503", "status 503")])
def test_checks_ask_by_http2(http: HttpGate, status: bytes, problem: str | None) -> None:
    http.configure(http_version="2", health_check=HttpHealthCheck(path="/healthz"))
    http.factory.doStart()
    [state] = http.factory.backends.states
    target = FrameTarget(http.backend)
    [head] = target.heads(1)
    assert (head[b":path"], head[b":authority"]) == (b"/healthz", b"127.0.0.1:9000")
    target.send(target.headers(1, [(b":status", status)], end=False))
    http.reactor.advance(0)
    assert (state.is_up, state.problem) == (problem is None, problem)
    assert not target.backend.open
    assert state.in_use == 0


def test_websockets_are_not_offered(up: HttpGate) -> None:
    """An HTTP/2 target would have to be asked in another way (RFC 8441)."""
    request = get("/").replace(
        b"\r\n\r\n",
        b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n",
    )
    client, target = asked(up, request)
    assert b"upgrade" not in target.heads(1)[0]
    target.answer(1, status=b"426")
    assert read_response(client.receive()).status == 426
