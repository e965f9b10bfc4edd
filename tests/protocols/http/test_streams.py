"""
Bodies that are larger than memory should hold, and switches of protocol.
"""

from __future__ import annotations

import pytest

from mtlsgate.testing import Client
from tests.kits.http import GET, OK, Backend, HttpGate, fields_of, get, read_response

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: y\r\n\r\n"
)
PIECE = 2**14
#: More than both transports buffer, with room for what is underway.
BOUND = 400_000


def upload(client: Client, size: int) -> None:
    for _ in range(size // PIECE):
        client.send(b"u" * PIECE)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_target_that_does_not_read_stops_the_client(http: HttpGate, chunked: bool) -> None:
    """The gate holds a bounded part of a body that nobody takes, and loses none of it."""
    http.configure()
    client = http.connect(piece_size=PIECE)
    size = 200 * PIECE
    if chunked:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(b"%x\r\n" % size)
    else:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
    upload(client, size)
    backend = http.backend
    passed = len(backend.transport._to_client)
    assert 0 < passed < BOUND
    assert client.transport.unread > size - BOUND
    if chunked:
        client.send(b"\r\n0\r\n\r\n")
    for _ in range(100):
        assert len(backend.transport._to_client) < BOUND
        received = backend.received()
        client.pump()
    assert received.partition(b"\r\n\r\n")[2].count(b"u") == size
    backend.send(OK)
    assert read_response(client.receive()).body == b"ok"
    [event] = http.http_log.events
    assert event["bytes_in"] == size


@pytest.mark.parametrize("chunked", [False, True])
def test_a_client_that_does_not_read_stops_the_target(http: HttpGate, chunked: bool) -> None:
    """The same with a response."""
    http.configure()
    client = http.connect()
    client.send(GET)
    backend = http.backend
    client.pause_reading()
    size = 200 * PIECE
    if chunked:
        backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    else:
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
    for _ in range(size // PIECE):
        backend.send(b"%x\r\n%b\r\n" % (PIECE, b"d" * PIECE) if chunked else b"d" * PIECE)
        client.pump()
    if chunked:
        backend.send(b"0\r\n\r\n")
    assert len(backend.transport._to_server) > size - BOUND
    assert client.transport.untaken < BOUND
    client.resume_reading()
    answer = client.receive()
    assert answer.partition(b"\r\n\r\n")[2].count(b"d") == size
    assert http.http_log.requests[0]["bytes_out"] == size
    client.send(GET)
    backend.send(OK)
    assert client.receive().endswith(b"ok")


def test_a_pipelined_response_waits_too(http: HttpGate) -> None:
    """The second of two large responses is not asked for before the first was taken."""
    http.configure()
    client = http.connect()
    client.pause_reading()
    client.send(get("/1") + get("/2"))
    backend = http.backend
    size = 20 * PIECE
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size
    backend.send(head + b"1" * size)
    client.pump()
    assert backend.requests == 1
    client.resume_reading()
    assert client.receive().endswith(b"1" * PIECE)
    assert backend.requests == 2
    client.pause_reading()
    backend.send(head)
    for _ in range(20):
        backend.send(b"2" * PIECE)
        client.pump()
    assert client.transport.untaken < BOUND
    assert len(backend.transport._to_server) > 10 * PIECE
    client.resume_reading()
    assert client.receive().endswith(b"2" * PIECE)


def test_pipelined_responses_do_not_add_up(http: HttpGate) -> None:
    """Whoever asks much at once and reads nothing gets little."""
    http.configure()
    client = http.connect()
    client.pause_reading()
    client.send(get("/") * 30)
    backend, body = http.backend, b"x" * 60_000
    answered = 0
    while backend.requests > answered:
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        client.pump()
        answered += 1
    assert answered < 5
    client.resume_reading()
    received = client.receive()
    while backend.requests > answered:
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        received += client.receive()
        answered += 1
    assert answered == 30
    assert received.count(b"x") == 30 * len(body)


def test_who_does_not_take_the_end_of_a_response(http: HttpGate) -> None:
    """Has as long as between two requests, whatever else it sends."""
    http.configure(keepalive_timeout=60.0, header_timeout=10.0)
    client = http.connect()
    client.pause_reading()
    client.send(get("/1"))
    http.backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    client.send(get("/2"))
    client.pump()
    http.reactor.advance(59)
    [channel] = http.factory.connections
    assert channel.stage.name == "HELD"
    http.reactor.advance(1)
    assert channel.stage.name == "ENDED"
    http.reactor.advance(60)
    assert http.factory.connections == {}
    assert len(http.http_log.requests) == 1


def test_pipelined_requests_are_not_read_without_end(http: HttpGate) -> None:
    """While one is answered, a bounded number of bytes waits in the gate."""
    http.configure()
    client = http.connect(piece_size=PIECE)
    client.send(get("/slow"))
    for number in range(3000):
        client.send(get(f"/{number:0100}"))
    assert client.transport.unread > 200_000
    http.backend.send(OK)
    client.pump()
    assert b"GET /000" in http.backend.received()


def test_nor_are_those_of_a_client_that_does_not_read(http: HttpGate) -> None:
    """The same while the answer waits for the client."""
    http.configure()
    client = http.connect(piece_size=PIECE)
    client.pause_reading()
    client.send(get("/slow"))
    size = 300_000
    http.backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * 200_000)
    client.pump()
    for number in range(3000):
        client.send(get(f"/{number:0100}"))
    assert client.transport.unread > 200_000
    client.resume_reading()
    http.backend.send(b"x" * 100_000)
    assert client.receive().endswith(b"x" * 100_000)
    assert b"GET /000" in http.backend.received()


def test_both_directions_at_once(http: HttpGate) -> None:
    """A target may answer while it reads."""
    http.configure()
    client = http.connect(piece_size=PIECE)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    backend = http.backend
    backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    answer = b""
    for number in range(100):
        client.send(b"%x\r\n%b\r\n" % (PIECE, b"u" * PIECE))
        body = backend.received().partition(b"\r\n\r\n")[2]
        assert body.count(b"u") == (number + 1) * PIECE
        backend.send(b"%x\r\n%b\r\n" % (PIECE, b"d" * PIECE))
        answer += client.receive()
    client.send(b"0\r\n\r\n")
    backend.send(b"0\r\n\r\n")
    answer += client.receive()
    assert answer.partition(b"\r\n\r\n")[2].count(b"d") == 100 * PIECE
    assert answer.endswith(b"0\r\n\r\n")


# WebSockets


def switch(http: HttpGate, client: Client, early: bytes = b"") -> Backend:
    """:returns: the target's end of a connection that has switched."""
    client.send(UPGRADE + early)
    backend = http.reactor.backends[-1]
    head = backend.received()
    values = dict(fields_of(head))
    assert (values["Connection"], values["Upgrade"]) == ("Upgrade", "websocket")
    assert head.endswith(b"\r\n\r\n")
    return backend


def test_a_websocket(http: HttpGate) -> None:
    """After 101 bytes pass as they are, whatever they look like, from the first one on."""
    http.configure()
    client = http.connect()
    backend = switch(http, client, early=b"early")
    backend.send(SWITCHED + b"welcome")
    answer = client.receive()
    response = read_response(answer)
    assert response.status == 101
    assert (response["connection"], response["upgrade"]) == ("Upgrade", "websocket")
    assert response["sec-websocket-accept"] == "y"
    assert response.body == b"welcome"
    assert backend.received().endswith(b"\r\n\r\nearly")
    client.send(b"GET / HTTP/1.1\n\0\xff")
    assert backend.received().endswith(b"earlyGET / HTTP/1.1\n\0\xff")
    backend.send(b"HTTP/1.1 200 OK\r\n\r\n")
    assert client.receive() == b"HTTP/1.1 200 OK\r\n\r\n"
    assert http.http_log.events == []
    client.close()
    client.pump()
    assert not backend.open
    [event] = http.http_log.events
    assert (event["status"], event["bytes_in"], event["bytes_out"]) == (101, 22, 26)


def test_the_target_ends_a_websocket(http: HttpGate) -> None:
    """What it sent last arrives, then the client's connection ends in order."""
    http.configure()
    client = http.connect()
    backend = switch(http, client)
    backend.send(SWITCHED)
    client.receive()
    backend.send(b"bye" * 100_000)
    backend.transport.finish()
    assert client.receive() == b"bye" * 100_000
    assert client.close_notified
    assert http.factory.capacity.requests == 0


def test_a_target_that_does_not_switch(http: HttpGate) -> None:
    """Its response is one like any other, and what follows is the next request."""
    http.configure()
    client = http.connect()
    backend = switch(http, client, early=get("/next"))
    backend.send(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
    assert read_response(client.receive()).status == 426
    assert b"GET /next " in backend.received()


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Content-Length: 1\r\n\r\nx",
    ],
)
def test_no_other_upgrade_is_asked_for(http: HttpGate, head: bytes) -> None:
    """Least of all h2c, which would lead past the gate: the target does not hear of it,
    and a switch that nobody asked for is 502."""
    http.configure()
    received, answer = http.exchange(head, SWITCHED)
    assert b"pgrade" not in received.partition(b"\r\n\r\n")[0]
    assert b"HTTP2" not in received
    assert read_response(answer).status == 502
    assert not http.backend.open


def test_a_switch_to_something_else(http: HttpGate) -> None:
    """A target that takes up another protocol than the one asked for is 502."""
    http.configure()
    client = http.connect()
    backend = switch(http, client)
    backend.send(SWITCHED.replace(b"websocket", b"h2c"))
    assert read_response(client.receive()).status == 502


def test_websockets_can_be_switched_off(http: HttpGate) -> None:
    """Then a request for one is an ordinary request."""
    http.configure(websockets=False)
    received, answer = http.exchange(UPGRADE)
    assert b"pgrade" not in received
    assert read_response(answer).status == 200


def test_a_silent_websocket(http: HttpGate) -> None:
    """It lives on while something passes, and ends after websocket_timeout without."""
    http.configure(websocket_timeout=100.0, response_timeout=2.0, body_timeout=2.0)
    client = http.connect()
    backend = switch(http, client)
    backend.send(SWITCHED)
    client.receive()
    http.reactor.advance(99)
    client.send(b"ping")
    http.reactor.advance(99)
    backend.send(b"pong")
    assert client.receive() == b"pong"
    http.reactor.advance(99)
    assert backend.open
    http.reactor.advance(1)
    client.pump()
    assert not backend.open
    assert client.close_notified
    assert http.http_log.events[0]["cause"]


def test_backpressure_in_a_websocket(http: HttpGate) -> None:
    """Both ways: who does not read stops who sends, and nothing is lost."""
    http.configure()
    client = http.connect(piece_size=PIECE)
    backend = switch(http, client)
    backend.send(SWITCHED)
    client.receive()
    upload(client, 100 * PIECE)
    assert len(backend.transport._to_client) < BOUND
    client.pause_reading()
    for _ in range(100):
        backend.send(b"d" * PIECE)
        client.pump()
    assert client.transport.untaken < BOUND
    assert len(backend.transport._to_server) > 0
    for _ in range(100):
        received = backend.received()
        client.pump()
    assert received.endswith(b"u" * 100 * PIECE)
    client.resume_reading()
    assert client.receive() == b"d" * PIECE * 100


def websocket(http: HttpGate, client: Client) -> Backend | None:
    """:returns: the target's end of a WebSocket; None if the gate refuses it."""
    client.send(UPGRADE)
    refusal = client.receive()
    if refusal:
        assert read_response(refusal).status == 503
        return None
    [backend] = [
        one
        for one in http.reactor.backends
        if one.open and one.received().endswith(b"Upgrade: websocket\r\n\r\n")
    ]
    backend.send(SWITCHED)
    assert read_response(client.receive()).status == 101
    client.send(b"hi")
    return backend


def test_websockets_are_no_requests(http: HttpGate) -> None:
    """They have a limit of their own: however many are open, requests are answered."""
    http.configure(max_requests=1, max_websockets=3, max_websockets_per_client=3)
    clients = [http.connect() for _ in range(4)]
    backends = [websocket(http, client) for client in clients]
    assert [one is not None for one in backends] == [True, True, True, False]
    assert http.http_log.failures[0]["cause"] == "there are 3 WebSockets already"
    client = http.connect()
    client.send(GET)
    http.reactor.backends[-1].send(OK)
    assert client.receive().endswith(b"ok")
    clients[0].reset()
    assert websocket(http, http.connect()) is not None


def test_one_client_cannot_have_all_websockets(http: HttpGate) -> None:
    """By what its issuer signed, over all its connections; its requests go on."""
    http.configure(max_websockets=10, max_websockets_per_client=2)
    alice, bob = http.authority.issue("alice"), http.authority.issue("bob")
    for _ in range(2):
        assert websocket(http, http.connect(alice)) is not None
    third = http.connect(alice)
    assert websocket(http, third) is None
    assert http.http_log.failures[0]["cause"] == "the client has 2 WebSockets already"
    third.send(GET)
    http.reactor.backends[-1].send(OK)
    assert third.receive().endswith(b"ok")
    assert websocket(http, http.connect(bob)) is not None


@pytest.mark.parametrize("answer", [OK, b"", b"nonsense"])
def test_a_websocket_that_does_not_come_about_takes_no_room(http: HttpGate, answer: bytes) -> None:
    """Whether the target says no, nothing, or nonsense."""
    http.configure(max_websockets=1, max_websockets_per_client=1)
    client = http.connect()
    client.send(UPGRADE)
    if answer:
        http.backend.send(answer)
    else:
        http.backend.transport.finish()
    client.receive()
    assert http.factory.capacity.websockets == 0
    assert http.factory.capacity.requests == 0
    backend = websocket(http, http.connect())
    assert backend is not None
    assert http.factory.capacity.websockets == 1
    backend.transport.finish()
    assert http.factory.capacity.websockets == 0
