"""
A client's HTTP/2 connection: its streams, backpressure, time limits, and the end.
"""

from __future__ import annotations

from typing import Any

import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, PingFrame, RstStreamFrame, WindowUpdateFrame

from mtlsgate.http.stages import HttpStage
from mtlsgate.http2.session import MAX_STREAMS
from mtlsgate.http2.wire import STREAM_WINDOW
from tests.kits.http2 import GET, POST, Speaker
from tests.kits.http_server import Recorded, Server

WINDOW = {4: 10}
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 2, 7, 8


def speaker(
    *, answers: bool = True, settings: dict[int, int] | None = None, **limits: Any
) -> Speaker:
    return Speaker(Server(answers=answers, **limits), settings)


def asked(client: Speaker, stream: int = 1) -> Recorded:
    """:returns: the exchange of a GET that waits for its answer."""
    client.send(client.headers(stream))
    return client.server.exchanges[-1]


# Requests and responses


def test_a_request_is_answered() -> None:
    client = speaker()
    client.send(client.headers(1))
    assert (client.status(1), client.body(1), client.is_complete(1)) == (200, b"ok", True)
    [exchange] = client.server.exchanges
    assert exchange.told == ["start", ("end", [])]
    assert client.reset_code(1) is None


def test_the_same_request_again_is_one_of_its_own() -> None:
    """Its bytes are the same, and are not read again; with a body to come it is another."""
    client = speaker(answers=False)
    for number in (1, 3, 5):
        client.send(client.headers(number))
    client.send(client.headers(7, end=False))
    heads = [exchange.head for exchange in client.server.exchanges]
    assert [head.length for head in heads] == [0, 0, 0, None]
    assert heads[0] == heads[1] == heads[2]
    assert [exchange.side.complete for exchange in client.server.exchanges][2:] == [True, False]


def test_many_requests_are_answered_in_any_order() -> None:
    client = speaker(answers=False)
    first, second = asked(client, 1), asked(client, 3)
    second.answer(b"2")
    first.answer(b"1")
    client.receive()
    assert (client.body(1), client.body(3)) == (b"1", b"2")


def test_a_body_and_its_trailers_arrive() -> None:
    client = speaker()
    client.send(client.headers(1, POST, end=False), client.data(1, b"abc"))
    client.send(client.headers(1, [(b"x-sum", b"3")]))
    [exchange] = client.server.exchanges
    assert (exchange.received, exchange.told[-1]) == (3, ("end", [(b"x-sum", b"3")]))
    assert client.status(1) == 200


def test_a_response_may_have_trailers() -> None:
    client = speaker(answers=False)
    exchange = asked(client)
    exchange.side.respond(200, b"OK", [(b"Content-Type", b"text/plain")])
    exchange.side.send(b"ab")
    exchange.side.finish([(b"X-Sum", b"2")])
    client.receive()
    head, trailers = client.heads(1)
    assert head == {b":status": b"200", b"content-type": b"text/plain"}
    assert (client.body(1), trailers) == (b"ab", {b"x-sum": b"2"})
    assert client.is_complete(1)


@pytest.mark.parametrize("status", [204, 304])
def test_a_response_without_a_body_ends_with_its_head(status: int) -> None:
    client = speaker(answers=False)
    exchange = asked(client)
    exchange.side.respond(status, b"", [])
    exchange.side.finish()
    client.receive()
    assert client.is_complete(1)
    assert not client.of(DataFrame)


def test_head_has_no_body() -> None:
    client = speaker()
    client.send(client.headers(1, [(b":method", b"HEAD"), *GET[1:]]))
    assert client.heads(1) == [{b":status": b"200", b"content-length": b"2"}]
    assert (client.body(1), client.is_complete(1)) == (b"", True)


def test_interim_responses_come_first() -> None:
    client = speaker(answers=False)
    exchange = asked(client)
    exchange.side.interim(103, b"Early Hints", [(b"Link", b"</a>")])
    exchange.answer()
    client.receive()
    assert [head[b":status"] for head in client.heads(1)] == [b"103", b"200"]


def test_100_is_for_who_expects_it() -> None:
    client = speaker(answers=False)
    asked(client).side.interim(100, b"Continue", [])
    client.send(client.headers(3, [*POST, (b"expect", b"100-continue")], end=False))
    client.server.exchanges[-1].side.interim(100, b"Continue", [])
    client.receive()
    assert (client.heads(1), client.heads(3)) == ([], [{b":status": b"100"}])


def test_a_response_that_is_shorter_than_it_said_is_no_whole_one() -> None:
    client = speaker(answers=False)
    exchange = asked(client)
    exchange.side.respond(200, b"OK", [(b"Content-Length", b"5")])
    exchange.side.send(b"abc")
    exchange.side.finish()
    client.receive()
    assert (client.is_complete(1), client.reset_code(1)) == (False, INTERNAL_ERROR)


@pytest.mark.parametrize("way", ["abandon", "cut"])
def test_a_response_that_breaks_off_costs_its_stream_alone(way: str) -> None:
    client = speaker(answers=False)
    exchange, other = asked(client, 1), asked(client, 3)
    exchange.side.respond(200, b"OK", [])
    getattr(exchange.side, way)()
    other.answer()
    client.receive()
    assert client.reset_code(1) == INTERNAL_ERROR
    assert client.is_complete(3)
    client.pass_time(0)
    assert any("lost" in one for one in exchange.told) is (way == "cut")


def test_the_rest_of_a_body_that_nobody_wants_is_stopped() -> None:
    """RFC 9113, 8.1: after a complete response, with NO_ERROR.  But not at once: some clients
    then forget what they have of the response."""
    client = speaker(answers=False)
    client.send(client.headers(1, POST, end=False))
    client.server.exchanges[0].answer()
    client.send(client.data(1, b"more"), client.data(1, bytes(100))[:50])
    assert (client.is_complete(1), client.reset_code(1)) == (True, None)
    client.pass_time(2)
    assert client.reset_code(1) == NO_ERROR


def test_a_body_that_ends_after_its_response_needs_no_reset() -> None:
    client = speaker(answers=False)
    client.send(client.headers(1, [*POST, (b"content-length", b"9")], end=False))
    client.server.exchanges[0].answer()
    client.send(client.data(1, b"some"), client.data(1, b" more", end=True))
    client.pass_time(5)
    assert client.is_complete(1)
    assert client.reset_code(1) is None
    assert client.goaway is None


# Refusals


def test_a_malformed_request_is_told_so_and_reset() -> None:
    """RFC 9113, 8.1.1.  The others go on."""
    client = speaker(answers=False)
    other = asked(client, 1)
    client.send(client.headers(3, [*GET, (b"connection", b"close")]))
    other.answer()
    client.receive()
    assert (client.status(3), client.reset_code(3)) == (400, PROTOCOL_ERROR)
    assert client.is_complete(1)
    [refusal] = client.server.refusals
    assert "connection" in refusal.cause


@pytest.mark.parametrize(
    ("length", "pieces"), [(b"2", [b"abc"]), (b"5", [b"abc"]), (b"2", [b"a", b"bc"])]
)
def test_a_body_is_as_long_as_it_says(length: bytes, pieces: list[bytes]) -> None:
    """RFC 9113, 8.1.1: a target that frames it anew would take the rest for a request."""
    client = speaker(answers=False)
    other = asked(client, 1)
    client.send(client.headers(3, [*POST, (b"content-length", length)], end=False))
    exchange = client.server.exchanges[-1]
    for place, piece in enumerate(pieces, 1):
        client.send(client.data(3, piece, end=place == len(pieces)))
    assert ("broken", 400) in exchange.told
    assert exchange.received <= int(length) or len(pieces) == 1
    assert (client.status(3), client.reset_code(3)) == (400, PROTOCOL_ERROR)
    other.answer()
    client.receive()
    assert client.is_complete(1)


def test_too_many_streams_are_refused_one_by_one() -> None:
    """RFC 9113, 5.1.2; REFUSED_STREAM says that it is safe to send it again."""
    client = speaker(answers=False)
    for place in range(MAX_STREAMS + 1):
        client.send(client.headers(2 * place + 1))
    while client.server.time.calls and client.connection._again.is_due:
        client.pass_time(0)
    last = 2 * MAX_STREAMS + 1
    assert len(client.server.exchanges) == MAX_STREAMS
    assert client.reset_code(last) == REFUSED_STREAM
    client.server.exchanges[0].answer()
    client.send(client.headers(last + 2))
    assert len(client.server.exchanges) == MAX_STREAMS + 1


def test_a_body_that_is_too_long_is_refused() -> None:
    client = speaker(answers=False, body_size=10)
    client.send(client.headers(1, POST, end=False), client.data(1, bytes(11)))
    assert client.status(1) == 413
    client.send(client.headers(3, [*POST, (b"content-length", b"11")], end=False))
    assert client.status(3) == 413
    client.pass_time(2)
    assert (client.reset_code(1), client.reset_code(3)) == (NO_ERROR, NO_ERROR)


def test_a_head_that_is_too_long_is_refused_alone() -> None:
    client = speaker(head_size=2000)
    client.send(client.headers(1, [*GET, (b"a", 2000 * b"b")]))
    client.send(client.headers(3))
    assert (client.status(1), client.status(3)) == (400, 200)


def test_an_error_of_the_connection_ends_all_of_it_and_is_logged() -> None:
    client = speaker(answers=False)
    exchange = asked(client)
    client.send(b"\0\0\x04\x08\0\0\0\0\0" + bytes(4))
    assert client.goaway == PROTOCOL_ERROR
    assert client.is_over
    assert exchange.told[-1][0] == "lost"
    [refusal] = client.server.refusals
    assert refusal.cause.startswith("PROTOCOL_ERROR: ")


# Backpressure


def test_a_body_that_nobody_takes_closes_its_own_window() -> None:
    client = speaker(answers=False)
    client.send(client.headers(1, POST, end=False), client.headers(3, POST, end=False))
    stuck, other = client.server.exchanges
    stuck.side.pause_body()
    for _ in range(STREAM_WINDOW // 16384):
        client.send(client.data(1, bytes(16384)))
    for _ in range(40):
        client.send(client.data(3, bytes(16384)))
    assert (stuck.received, other.received) == (0, 40 * 16384)
    assert not client.of(WindowUpdateFrame, 1)
    stuck.side.resume_body()
    client.receive()
    assert stuck.received == STREAM_WINDOW
    assert sum(one.window_increment for one in client.of(WindowUpdateFrame, 1)) == STREAM_WINDOW


def test_an_exchange_that_pauses_again_gets_no_more() -> None:
    client = speaker(answers=False)
    client.send(client.headers(1, POST, end=False))
    [exchange] = client.server.exchanges
    exchange.side.pause_body()
    client.send(client.data(1, b"a"), client.data(1, b"b", end=True))
    assert (exchange.pieces, exchange.told) == (0, ["start"])
    exchange.on_data = exchange.side.pause_body
    exchange.side.resume_body()
    assert (exchange.pieces, exchange.side.complete) == (1, False)
    exchange.on_data = None
    exchange.side.resume_body()
    assert (exchange.pieces, exchange.told[-1]) == (2, ("end", []))


def test_a_response_waits_for_the_window() -> None:
    client = speaker(answers=False, settings=WINDOW)
    exchange = asked(client)
    exchange.side.respond(200, b"OK", [(b"Content-Length", b"25")])
    exchange.side.send(bytes(25))
    client.receive()
    assert len(client.body(1)) == 10
    assert exchange.told[-1] == ("slow", True)
    client.send(client.window(1, 15))
    assert exchange.told[-1] == ("slow", False)
    exchange.side.finish()
    client.receive()
    assert (len(client.body(1)), client.is_complete(1)) == (25, True)


def test_the_window_of_all_streams_may_grow_at_once() -> None:
    client = speaker(answers=False, settings=WINDOW)
    exchange = asked(client)
    exchange.answer(bytes(25))
    client.send(client.settings(INITIAL_WINDOW_SIZE=100))
    assert client.is_complete(1)


def test_streams_share_the_connections_window() -> None:
    """One frame each in turn, so that a large response does not delay a small one."""
    client = speaker(answers=False)
    large, small = asked(client, 1), asked(client, 3)
    client.pause()
    large.answer(bytes(200_000))
    small.answer(bytes(20_000))
    client.resume()
    client.receive()
    assert len(client.body(1)) + len(client.body(3)) == 65535
    assert client.is_complete(3)
    client.send(client.window(0, 2**20), client.window(1, 2**20))
    assert client.is_complete(1)


def test_a_socket_that_is_full_stops_all_streams() -> None:
    client = speaker(answers=False)
    exchange = asked(client)
    client.pause()
    exchange.side.respond(200, b"OK", [])
    exchange.side.send(b"abc")
    client.receive()
    assert client.body(1) == b""
    assert exchange.told[-1] == ("slow", True)
    client.resume()
    client.receive()
    assert client.body(1) == b"abc"
    assert exchange.told[-1] == ("slow", False)


def test_a_client_that_leaves_or_resets_is_told_to_the_exchange() -> None:
    client = speaker(answers=False)
    first, second = asked(client, 1), asked(client, 3)
    client.send(client.reset(1))
    assert first.told[-1] == ("lost", "the client reset the stream, with CANCEL")
    client.connection.connectionLost()
    assert second.told[-1] == ("lost", "the client left")
    assert client.server.connections == {}
    assert not client.server.time.getDelayedCalls()


def test_no_client_has_all_turns() -> None:
    """What comes at once is read request by request, and others get turns between."""
    client = speaker()
    numbers = range(1, 161, 2)
    client.send(*(client.headers(number) for number in numbers))
    assert 0 < len(client.server.exchanges) < 40
    assert client.transport.producerState == "paused"
    while len(client.server.exchanges) < len(numbers):
        before = len(client.server.exchanges)
        client.server.time.turn()
        assert before < len(client.server.exchanges) <= before + 16
    client.receive()
    assert all(client.is_complete(number) for number in numbers)


# Time limits


def test_a_client_that_says_nothing_is_closed() -> None:
    client = speaker(first_timeout=5.0)
    client.pass_time(5)
    assert (client.goaway, client.is_over) == (NO_ERROR, True)


def test_a_connection_without_requests_is_closed() -> None:
    client = speaker(idle_timeout=5.0)
    client.send(client.headers(1))
    client.pass_time(4)
    client.send(client.ping())
    client.pass_time(1)
    assert client.of(GoAwayFrame)[-1].last_stream_id == 1
    assert client.is_over


def test_a_head_that_does_not_end_is_closed() -> None:
    client = speaker(head_timeout=5.0)
    client.send(client.headers(1))
    client.send(client.headers(3, pieces=2)[:20])
    client.pass_time(5)
    assert client.is_over
    assert [one.status for one in client.server.refusals] == [408]


def test_a_body_that_pauses_is_408_for_its_stream_alone() -> None:
    client = speaker(answers=False, body_timeout=5.0)
    other = asked(client, 1)
    client.send(client.headers(3, POST, end=False), client.data(3, b"a"))
    client.pass_time(4)
    client.send(client.data(3, bytes(100))[:50])
    client.pass_time(4)
    assert client.status(3) is None
    client.pass_time(1)
    assert client.status(3) == 408
    client.pass_time(2)
    assert client.reset_code(3) == NO_ERROR
    other.answer()
    client.receive()
    assert client.is_complete(1)


def test_a_body_that_nobody_takes_is_not_late() -> None:
    client = speaker(answers=False, body_timeout=5.0)
    client.send(client.headers(1, POST, end=False))
    client.server.exchanges[0].side.pause_body()
    client.pass_time(50)
    assert client.status(1) is None
    assert client.reset_code(1) is None


def test_a_window_that_stays_closed_ends_its_stream() -> None:
    client = speaker(answers=False, settings=WINDOW, send_timeout=5.0)
    exchange, other = asked(client, 1), asked(client, 3)
    exchange.answer(bytes(25))
    client.pass_time(5)
    assert client.reset_code(1) == CANCEL
    other.answer()
    client.receive()
    assert client.is_complete(3)


def test_a_window_that_opens_byte_by_byte_stays_closed() -> None:
    """Or else it would keep a response, and with it a target, for ever."""
    client = speaker(answers=False, settings=WINDOW, send_timeout=5.0)
    exchange = asked(client)
    exchange.side.respond(200, b"OK", [])
    exchange.side.send(bytes(100_000))
    for _ in range(4):
        client.pass_time(1)
        client.send(client.window(1, 1))
    client.pass_time(1)
    assert client.reset_code(1) == CANCEL
    assert exchange.told[-1] == ("lost", "the client took nothing for 5 s")


def test_a_window_that_opens_well_begins_the_time_anew() -> None:
    client = speaker(answers=False, settings=WINDOW, send_timeout=5.0)
    exchange = asked(client)
    exchange.answer(bytes(200_000))
    for _ in range(20):
        client.pass_time(4)
        client.send(client.window(1, 17_000), client.window(0, 17_000))
    assert client.is_complete(1)


@pytest.mark.parametrize("how", ["window", "socket"])
def test_a_connection_that_takes_nothing_is_cut(how: str) -> None:
    client = speaker(answers=False, settings={4: 2**20}, send_timeout=5.0)
    exchange = asked(client)
    if how == "socket":
        client.pause()
    exchange.answer(bytes(100_000))
    client.pass_time(5)
    assert client.transport.aborted


def test_a_connection_whose_window_opens_well_goes_on() -> None:
    client = speaker(answers=False, settings={4: 2**20}, send_timeout=5.0)
    asked(client).answer(bytes(300_000))
    for _ in range(14):
        client.pass_time(4)
        client.send(client.window(0, 17_000))
    assert client.is_complete(1)
    client.pass_time(9)
    assert not client.transport.aborted


# The end


def test_a_server_that_retires_says_so_twice() -> None:
    """RFC 9113, 6.8: what the client sent before it knew is answered."""
    client = speaker(answers=False)
    first = asked(client, 1)
    client.server.retire()
    client.receive()
    second = asked(client, 3)
    [ping] = [one for one in client.of(PingFrame) if "ACK" not in one.flags]
    client.send(client.ping(ping.opaque_data, ack=True))
    client.send(client.headers(5))
    assert [one.last_stream_id for one in client.of(GoAwayFrame)] == [2**31 - 1, 3]
    assert client.reset_code(5) == REFUSED_STREAM
    first.answer()
    client.receive()
    assert not client.is_over
    second.answer()
    client.receive()
    assert client.is_complete(3)
    assert client.is_over


def test_a_client_that_does_not_answer_is_told_after_a_second() -> None:
    client = speaker()
    client.send(client.headers(1))
    client.server.retire()
    client.receive()
    assert not client.is_over
    client.pass_time(1)
    assert client.is_over


def test_a_client_that_leaves_gets_its_responses() -> None:
    client = speaker(answers=False)
    exchange = asked(client)
    client.send(GoAwayFrame(0).serialize())
    assert not client.is_over
    exchange.answer()
    client.receive()
    assert client.is_complete(1)
    assert client.is_over


def test_what_comes_after_the_end_is_dropped() -> None:
    client = speaker(first_timeout=5.0, close_timeout=5.0)
    client.pass_time(5)
    client.send(client.headers(1))
    assert client.server.exchanges == []
    assert client.connection.stage is HttpStage.ENDED
    client.pass_time(5)
    assert client.transport.aborted


def test_a_connection_for_one_request_ends_after_it() -> None:
    client = speaker(keeps=False)
    client.send(client.headers(1))
    client.pass_time(1)
    assert client.is_complete(1)
    assert client.is_over
    assert not client.of(RstStreamFrame)
