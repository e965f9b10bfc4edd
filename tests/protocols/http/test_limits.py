from __future__ import annotations

import pytest

from mtlsgate.testing import Client, Version
from tests.kits.http import GET, OK, HttpGate, read_response


def post(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length


CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


# Sizes


def test_a_head_of_the_greatest_size(http: HttpGate) -> None:
    """max_header_size counts request line and fields, without line ends."""
    http.configure(max_header_size=1024)
    first, host = b"GET / HTTP/1.1", b"Host: a.example"
    fill = b"X: " + b"a" * (1024 - len(first + host) - 3)
    received, answer = http.exchange(b"\r\n".join([first, host, fill]) + b"\r\n\r\n")
    assert fill in received
    assert read_response(answer).status == 200
    client = http.connect()
    client.send(b"\r\n".join([first, host, fill + b"a"]) + b"\r\n\r\n")
    assert read_response(client.receive()).status == 400
    assert client.close_notified


def test_a_body_that_says_it_is_too_long(http: HttpGate) -> None:
    """413 before anything is forwarded, and closed."""
    http.configure(max_body_size=10)
    client = http.connect()
    client.send(post(11) + b"x" * 11)
    response = read_response(client.receive())
    assert (response.status, response.body) == (413, b"413 Content Too Large\n")
    assert response["connection"] == "close"
    assert client.close_notified
    assert http.reactor.backends == []


def test_a_body_of_the_greatest_size(http: HttpGate) -> None:
    """max_body_size itself is allowed, also in chunks."""
    http.configure(max_body_size=10)
    for request in (post(10) + b"0123456789", CHUNKED + b"a\r\n0123456789\r\n0\r\n\r\n"):
        _, answer = http.exchange(request)
        assert read_response(answer).status == 200


def test_a_chunked_body_that_becomes_too_long(http: HttpGate) -> None:
    """413 in the middle; the target sees a request that breaks off."""
    http.configure(max_body_size=10)
    client = http.connect()
    client.send(CHUNKED + b"5\r\nhello\r\n")
    assert http.backend.received().endswith(b"5\r\nhello\r\n")
    client.send(b"6\r\nworld!\r\n0\r\n\r\n")
    assert read_response(client.receive()).status == 413
    assert client.close_notified
    assert not http.backend.open
    assert b"world" not in http.backend.received()
    [event] = http.http_log.requests
    assert event["status"] == 413


def test_a_body_that_becomes_too_long_after_the_response_began(http: HttpGate) -> None:
    """The response is broken off, since there is no other way left to say so."""
    http.configure(max_body_size=10)
    client = http.connect()
    client.send(CHUNKED + b"5\r\nhello\r\n")
    http.backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    client.send(b"6\r\nworld!\r\n")
    answer = client.receive()
    assert answer.endswith(b"1\r\na\r\n")
    assert client.close_notified
    assert not http.backend.open


# Numbers


def test_no_more_requests_at_a_time_than_allowed(http: HttpGate) -> None:
    """One more is 503, at once; when one is done there is room again."""
    http.configure(max_requests=2)
    clients = [http.connect() for _ in range(3)]
    for client in clients:
        client.send(GET)
    response = read_response(clients[2].receive())
    assert (response.status, response.body) == (503, b"503 Service Unavailable\n")
    assert response["retry-after"] == "1"
    [failure] = http.http_log.failures
    assert failure["cause"] == "there are 2 requests already"
    assert len(http.reactor.backends) == 2
    http.reactor.backends[0].send(OK)
    clients[0].pump()
    clients[2].send(GET)
    http.reactor.backends[0].send(OK)
    assert clients[2].receive().endswith(b"ok")
    clients[1].reset()
    clients[0].send(GET)
    assert http.factory.capacity.requests == 1


def test_one_client_cannot_have_all_requests(http: HttpGate) -> None:
    """By what its issuer signed, over all its connections."""
    http.configure(max_requests=10, max_requests_per_client=2)
    alice, bob = http.authority.issue("alice"), http.authority.issue("bob")
    clients = [http.connect(alice) for _ in range(3)]
    for client in clients:
        client.send(GET)
    assert read_response(clients[2].receive()).status == 503
    [failure] = http.http_log.failures
    assert failure["cause"] == "the client has 2 requests underway already"
    other = http.connect(bob)
    other.send(GET)
    http.reactor.backends[-1].send(OK)
    assert other.receive().endswith(b"ok")
    clients[0].reset()
    clients[2].send(GET)
    http.reactor.backends[-1].send(OK)
    assert clients[2].receive().endswith(b"ok")
    clients[1].reset()
    assert http.factory.capacity.requests == 0
    assert not http.factory.capacity._requests_of


# Times


def close_in_time(http: HttpGate, client: Client, seconds: float) -> bytes:
    """:returns: what the client received, when the gate closed after that time."""
    http.reactor.advance(seconds - 0.1)
    client.pump()
    assert client.established
    http.reactor.advance(0.1)
    received = client.receive()
    assert client.close_notified
    return received


def test_a_client_that_says_nothing(http: HttpGate) -> None:
    """It has header_timeout for its first request; there is nothing to answer."""
    http.configure(header_timeout=7.0)
    assert close_in_time(http, http.connect(), 7) == b""
    assert http.http_log.events == []


def test_a_head_that_comes_drop_by_drop(http: HttpGate) -> None:
    """The time for a head does not begin anew with each byte: 408, and closed."""
    http.configure(header_timeout=7.0)
    client = http.connect()
    for byte in GET[:6]:
        client.send(bytes([byte]))
        http.reactor.advance(1)
    answer = close_in_time(http, client, 1)
    assert read_response(answer).status == 408
    assert http.http_log.events[0]["cause"] == "the head was not complete in time"


def test_a_kept_connection_and_its_next_head(http: HttpGate) -> None:
    """Between requests there is keepalive_timeout, and from a byte on header_timeout."""
    http.configure(header_timeout=7.0, keepalive_timeout=20.0)
    client = http.connect()
    for _ in range(2):
        client.send(GET)
        http.reactor.advance(30)
        http.backend.send(OK)
        client.receive()
        http.reactor.advance(19)
    assert client.established
    client.send(b"G")
    http.reactor.advance(6)
    client.send(GET[1:])
    http.backend.send(OK)
    assert client.receive().endswith(b"ok")
    assert close_in_time(http, client, 20) == b""
    client = http.connect()
    client.send(GET)
    http.reactor.backends[-1].send(OK)
    client.receive()
    http.reactor.advance(19)
    client.send(b"G")
    assert read_response(close_in_time(http, client, 7)).status == 408


def test_a_client_that_stops_in_its_body(http: HttpGate) -> None:
    """408 after body_timeout without a byte, and the target's connection is ended."""
    http.configure(body_timeout=5.0, response_timeout=50.0)
    client = http.connect()
    client.send(post(10) + b"he")
    http.reactor.advance(4)
    client.send(b"llo")
    assert read_response(close_in_time(http, client, 5)).status == 408
    assert not http.backend.open
    [event] = http.http_log.requests
    assert event["cause"] == "the client was silent for 5 s"


def test_the_target_has_its_own_time_after_the_body(http: HttpGate) -> None:
    """Once the request is complete, it is the target that is waited for."""
    http.configure(body_timeout=2.0, response_timeout=5.0)
    client = http.connect()
    client.send(post(5) + b"hello")
    http.reactor.advance(4.9)
    assert client.receive() == b""
    http.reactor.advance(0.1)
    assert read_response(client.receive()).status == 504


def test_a_client_that_takes_nothing(http: HttpGate) -> None:
    """A response that nobody reads is given up after body_timeout, and so is its target."""
    http.configure(body_timeout=5.0, response_timeout=2.0)
    client = http.connect()
    client.pause_reading()
    client.send(GET)
    backend = http.backend
    backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    sent = 0
    while sent < 500_000 and backend.transport._reading:
        backend.send(b"x" * 10_000)
        client.pump()
        sent += 10_000
    assert sent < 200_000
    http.reactor.advance(4.9)
    assert backend.open
    http.reactor.advance(0.1)
    http.reactor.advance(0)
    assert not backend.open
    assert client.disconnected
    [event] = http.http_log.events
    assert event["cause"] == "the client took nothing for 5 s"


def test_a_client_that_does_not_end_its_connection(http: HttpGate) -> None:
    """After a refusal it has body_timeout to close, and what it sends is not read."""
    http.configure(body_timeout=5.0)
    client = http.connect(answer_close=False)
    client.send(b"NO\r\n")
    assert read_response(client.receive()).status == 400
    for _ in range(3):
        client.transport.deliver(b"")
        http.reactor.advance(1)
    assert not client.disconnected
    http.reactor.advance(2)
    client.pump()
    assert client.disconnected
    assert client.aborted


@pytest.mark.parametrize("seconds", [0.5, 3600.0])
def test_nothing_is_left_of_a_connection(http: HttpGate, seconds: float) -> None:
    """When client and target are gone, no delayed call is."""
    http.configure(header_timeout=seconds, keepalive_timeout=seconds, target_connections=0)
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    client.receive()
    http.backend.received()
    client.close()
    client.pump()
    assert http.reactor.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"NO\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 421),
        (b"TRACE / HTTP/1.1\r\nHost: a.example\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a.example\r\nExpect: x\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 11\r\n\r\n", 413),
        (b"GET /", 408),
    ],
)
def test_refusals_reach_the_client(
    http: HttpGate, version: Version, sent: bytes, status: int
) -> None:
    """On either version of TLS, in full and before the connection ends."""
    http.configure(max_body_size=10, header_timeout=1.0)
    client = http.connect(server_name="a.example", min_version=version, max_version=version)
    client.send(sent)
    http.reactor.advance(1)
    response = read_response(client.receive())
    assert response.status == status
    assert len(response.body) == int(response["content-length"])
    assert ("connection" in response) == client.close_notified == (status in (400, 408, 413))
