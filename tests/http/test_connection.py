"""
A connection's stages, and what it does when something comes at an odd moment.
"""

from __future__ import annotations

import pytest

from mtlsgate.http.framing import ResponseFraming
from mtlsgate.http.stages import TABLE, HttpStage, Late
from tests.kits.http_server import LIMITS, Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BODY = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"


def test_every_stage_is_in_the_table() -> None:
    """With a time, or none for the stages that an exchange watches."""
    assert set(TABLE) == set(HttpStage)
    timed = {stage for stage, rule in TABLE.items() if rule.time(LIMITS) is not None}
    assert set(HttpStage) - timed == {HttpStage.BUSY, HttpStage.RAW, HttpStage.LOST}
    assert all(rule.cause for rule in TABLE.values() if rule.late is Late.TOLD)


def test_stages_of_a_request() -> None:
    """From the first byte to the next request."""
    server = Server(answers=False)
    connection, transport = server.connect()
    assert connection.stage is HttpStage.FIRST
    stages = []
    for piece in (BODY[:5], BODY[5:], b"hel", b"lo"):
        connection.dataReceived(piece)
        stages.append(connection.stage)
    assert stages == [HttpStage.HEAD, HttpStage.BODY, HttpStage.BODY, HttpStage.BUSY]
    server.exchanges[0].answer()
    assert connection.stage.name == "IDLE"
    connection.dataReceived(GET)
    connection.pauseProducing()
    server.exchanges[1].answer()
    assert connection.stage.name == "HELD"
    connection.resumeProducing()
    assert connection.stage.name == "IDLE"
    server.time.advance(LIMITS.idle_timeout)
    assert connection.stage.name == "ENDED"
    assert transport.disconnecting
    server.time.advance(LIMITS.close_timeout)
    assert transport.aborted
    connection.connectionLost()
    assert connection.stage.name == "LOST"
    assert server.time.getDelayedCalls() == []
    assert server.connections == {}


def test_while_a_response_waits_for_its_client_the_next_request_does() -> None:
    server = Server()
    connection, transport = server.connect()
    connection.pauseProducing()
    connection.dataReceived(GET + GET)
    assert len(server.exchanges) == 1
    connection.resumeProducing()
    assert len(server.exchanges) == 2
    assert transport.value().count(b"200 OK") == 2


def test_an_exchange_hears_that_its_client_left() -> None:
    """Once, and nothing after it."""
    server = Server(answers=False)
    connection, _ = server.connect()
    connection.dataReceived(BODY + b"he")
    connection.connectionLost()
    [exchange] = server.exchanges
    assert exchange.told == ["start", ("lost", "the client left")]


def test_a_client_that_takes_nothing_is_given_up() -> None:
    server = Server(answers=False, send_timeout=3.0)
    connection, transport = server.connect()
    connection.dataReceived(GET)
    [exchange] = server.exchanges
    exchange.side.respond(200, b"OK", [])
    connection.pauseProducing()
    server.time.advance(2.9)
    assert not transport.aborted
    server.time.advance(0.1)
    assert transport.aborted
    assert exchange.told[-1] == ("lost", "the client took nothing for 3 s")


def test_a_response_that_is_shorter_than_it_says_ends_the_connection() -> None:
    """And one that is longer is cut: the next response must not begin in it."""
    for body, sent in ((b"1234", b"1234"), (b"123456", b"12345")):
        server = Server(answers=False)
        connection, transport = server.connect()
        connection.dataReceived(GET)
        side = server.exchanges[0].side
        side.respond(200, b"OK", [(b"Content-Length", b"5")])
        side.send(body)
        side.finish()
        assert transport.value().endswith(b"\r\n\r\n" + sent)
        assert transport.disconnecting == (len(body) < 5)


@pytest.mark.parametrize(
    ("method", "version", "status", "lines", "written"),
    [
        (b"GET", b"HTTP/1.1", 200, [], b"2\r\nhi\r\n0\r\n\r\n"),
        (b"GET", b"HTTP/1.1", 200, [(b"content-length", b"2")], b"hi"),
        (b"GET", b"HTTP/1.0", 200, [], b"hi"),
        (b"HEAD", b"HTTP/1.1", 200, [], b""),
        (b"GET", b"HTTP/1.1", 304, [(b"Content-Length", b"2")], b""),
        (b"GET", b"HTTP/1.1", 204, [], b""),
    ],
)
def test_a_body_is_framed_by_length_or_chunks(
    method: bytes, version: bytes, status: int, lines: list[tuple[bytes, bytes]], written: bytes
) -> None:
    framing = ResponseFraming(method, version, status, lines)
    pieces = [*framing.piece(b""), *framing.piece(b"hi"), framing.end(())]
    assert b"".join(pieces) == written
    assert framing.ends_with_connection == (version == b"HTTP/1.0")
    assert not framing.is_short


def test_a_refusal_amid_a_body_is_the_exchanges_to_answer() -> None:
    server = Server(answers=False, body_size=3)
    connection, transport = server.connect()
    connection.dataReceived(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    connection.dataReceived(b"4\r\nmore\r\n0\r\n\r\n" + GET)
    [exchange] = server.exchanges
    assert exchange.told == ["start", ("broken", 413)]
    assert exchange.received == 0
    assert transport.value().startswith(b"HTTP/1.1 413 ")
    assert transport.disconnecting


def test_what_is_refused_before_its_exchange_is_told() -> None:
    server = Server()
    for raw, status in ((b"GET / HTTP/1.1\r\n\r\n", 400), (b"\x16\x03", 400)):
        connection, transport = server.connect()
        connection.dataReceived(raw)
        assert transport.value().startswith(b"HTTP/1.1 %d " % status)
    assert [one.status for one in server.refusals] == [400, 400]
    assert server.exchanges == []


def test_who_makes_room() -> None:
    """The oldest without a complete request, then one whose response was sent."""
    server = Server(answers=False, connections=2)
    busy, _ = server.connect()
    busy.dataReceived(GET)
    done, done_transport = server.connect()
    done.dataReceived(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert server.buildProtocol(None) is None
    server.exchanges[1].answer()
    _, idle_transport = server.connect()
    assert done_transport.aborted
    server.connect()
    assert idle_transport.aborted
