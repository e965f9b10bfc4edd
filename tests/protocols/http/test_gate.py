from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from twisted.internet.error import ConnectionLost

from mtlsgate.gate.judging import Held
from mtlsgate.http2.versions import HttpVersion
from mtlsgate.protocols.http.target_pool import RECENT
from mtlsgate.upstream.backends import Backends
from tests.kits.http import GET, OK, HttpGate, fields_of, get, read_response, text

POST = b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello"


# Requests and responses


def test_a_request_is_written_anew(http: HttpGate) -> None:
    """Method, target and end-to-end fields pass; Host is kept, and the way is told."""
    http.configure()
    received, answer = http.exchange(
        b"PATCH /a%20b?c=d HTTP/1.1\r\nhost: A.example:8443\r\nAccept: x\r\ncookie: a=b\r\n"
        b"Cookie: c=d\r\nVia: 1.1 x\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\n"
        b"Connection: close, X-Hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\nabc"
    )
    assert received.startswith(b"PATCH /a%20b?c=d HTTP/1.1\r\nHost: A.example:8443\r\n")
    assert received.endswith(b"\r\n\r\nabc")
    assert fields_of(received) == [
        ("Host", "A.example:8443"),
        ("Accept", "x"),
        ("cookie", "a=b"),
        ("Cookie", "c=d"),
        ("Via", "1.1 x"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "A.example:8443"),
        ("Forwarded", 'for=127.0.0.1;proto=https;host="A.example:8443"'),
        ("Content-Length", "3"),
    ]
    assert read_response(answer)["connection"] == "close"


def test_host_can_be_set(http: HttpGate) -> None:
    """The target gets the host that the block says, and the client's as X-Forwarded-Host."""
    http.configure(host="app.internal:81")
    received, _ = http.exchange(GET)
    values = dict(fields_of(received))
    assert values["Host"] == "app.internal:81"
    assert values["X-Forwarded-Host"] == "a.example"


def test_a_target_in_absolute_form(http: HttpGate) -> None:
    """It is passed on in origin form, and its host counts."""
    http.configure()
    received, _ = http.exchange(b"GET https://a.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert received.startswith(b"GET /x?y HTTP/1.1\r\nHost: a.example\r\n")


@pytest.mark.parametrize("length", [b"", b"Content-Length: 0\r\n"])
def test_no_body_stays_no_body(http: HttpGate, length: bytes) -> None:
    """Content-Length: 0 passes as it is; a request without a body gets no framing."""
    http.configure()
    received, _ = http.exchange(b"POST / HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n")
    assert (b"Content-Length: 0\r\n" in received) == bool(length)
    assert b"Transfer-Encoding" not in received


def test_a_response_passes(http: HttpGate) -> None:
    """Status, reason, fields and body; not what is of the target's connection only."""
    http.configure()
    _, answer = http.exchange(
        GET,
        b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n"
        b"Keep-Alive: timeout=5\r\nConnection: X-Hop\r\nX-Hop: 1\r\nServer: x\r\n\r\nok",
    )
    assert answer.startswith(b"HTTP/1.1 418 I'm a teapot\r\n")
    response = read_response(answer)
    assert sorted(response.fields) == [
        ("content-length", "2"),
        ("server", "x"),
        ("set-cookie", "a"),
        ("set-cookie", "b"),
    ]
    assert response.body == b"ok"


def test_chunked_both_ways_with_trailers(http: HttpGate) -> None:
    """Bodies of unknown length pass in chunks, as they come, and trailers after them."""
    http.configure()
    client = http.connect()
    client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\n"
        b"Trailer: X-Sum\r\n\r\n3\r\nabc\r\n"
    )
    backend = http.backend
    head, _, body = backend.received().partition(b"\r\n\r\n")
    assert body == b"3\r\nabc\r\n"
    values = dict(fields_of(head + b"\r\n\r\n"))
    assert (values["Trailer"], values["TE"], values["Connection"]) == ("X-Sum", "trailers", "TE")
    backend.send(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nhi\r\n"
    )
    response = read_response(client.receive())
    assert response["transfer-encoding"] == "chunked"
    assert response.body == b"2\r\nhi\r\n"
    client.send(b"2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
    assert backend.received().endswith(b"3\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
    backend.send(b"1\r\n!\r\n0\r\nX-T: 1\r\nContent-Length: 7\r\n\r\n")
    assert client.receive() == b"1\r\n!\r\n0\r\nX-T: 1\r\n\r\n"
    [event] = http.http_log.requests
    assert (event["bytes_in"], event["bytes_out"]) == (5, 3)


@pytest.mark.parametrize(
    ("method", "status", "framing"),
    [
        (b"HEAD", b"200 OK", b"Content-Length: 1000\r\n"),
        (b"HEAD", b"200 OK", b"Transfer-Encoding: chunked\r\n"),
        (b"HEAD", b"200 OK", b""),
        (b"GET", b"204 No Content", b""),
        (b"GET", b"304 Not Modified", b"Content-Length: 1000\r\n"),
        (b"GET", b"200 OK", b"Content-Length: 0\r\n"),
    ],
)
def test_responses_without_a_body(
    http: HttpGate, method: bytes, status: bytes, framing: bytes
) -> None:
    """After HEAD, 204 and 304 nothing follows the head, and the connections stay usable."""
    http.configure()
    client = http.connect()
    for _ in range(2):
        client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
        http.backend.send(b"HTTP/1.1 " + status + b"\r\n" + framing + b"\r\n")
        response = read_response(client.receive())
        assert response.body == b""
        if framing.startswith(b"Content-Length"):
            assert response["content-length"] == framing.split()[1].decode()
        assert "transfer-encoding" not in response


def test_a_body_that_ends_with_the_connection(http: HttpGate) -> None:
    """To an HTTP/1.1 client it comes in chunks, which have an end."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(b"HTTP/1.0 200 OK\r\n\r\nhel")
    http.backend.send(b"lo")
    http.backend.transport.finish()
    response = read_response(client.receive())
    assert response["transfer-encoding"] == "chunked"
    assert response.body == b"3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n"
    assert client.established


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
def test_a_response_that_breaks_off_is_seen_to(http: HttpGate, framing: bytes) -> None:
    """The client's connection ends without the body's end."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n3\r\nabc\r\n")
    http.backend.transport.finish()
    answer = client.receive()
    assert b"abc" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert client.close_notified
    [failure] = http.http_log.failures
    assert failure["cause"] == "it closed the connection in the middle of a response"
    assert http.http_log.requests[0]["status"] == 200


def test_http_1_0_clients(http: HttpGate) -> None:
    """They need no Host, get no chunks and no interim response, and the connection ends."""
    http.configure("127.0.0.1:9000")
    client = http.connect()
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert dict(fields_of(http.backend.received()))["Host"] == "127.0.0.1:9000"
    http.backend.send(
        b"HTTP/1.1 103 Early Hints\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    response = read_response(client.receive())
    assert response.status == 200
    assert response.body == b"ok"
    assert client.close_notified


def test_a_break_that_http_1_0_could_take_for_the_end(http: HttpGate) -> None:
    """Where only the connection's end ends a body, a broken one ends it without close_notify."""
    http.configure()
    client = http.connect()
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    http.backend.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
    assert client.receive().endswith(b"ok")
    http.backend.transport.lose(ConnectionLost())
    client.pump()
    assert client.disconnected
    assert client.aborted
    assert not client.close_notified


def test_interim_responses_have_no_length(http: HttpGate) -> None:
    """Nor has a switch: a client that believed one would take the response for a body."""
    http.configure()
    _, answer = http.exchange(
        GET, b"HTTP/1.1 103 Early Hints\r\nContent-Length: 9\r\nA: b\r\n\r\n" + OK
    )
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n")


def test_interim_responses_are_not_long(http: HttpGate) -> None:
    """All of them together are of the size of one head: none waits for the client's reading."""
    http.configure()
    client = http.connect()
    client.send(GET)
    for _ in range(3):
        http.backend.send(b"HTTP/1.1 103 Early Hints\r\nA: " + b"b" * 60_000 + b"\r\n\r\n")
    assert client.receive().count(b"HTTP/1.1 103") == 2
    assert http.http_log.requests[0]["status"] == 502


def test_interim_responses_pass(http: HttpGate) -> None:
    """103 reaches an HTTP/1.1 client; 100, for which it did not ask, does not."""
    http.configure()
    _, answer = http.exchange(
        GET, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK
    )
    assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n")


# Expect: 100-continue

EXPECTING = b"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n"


def test_the_target_decides_whether_to_continue(http: HttpGate) -> None:
    """Expect reaches the target, and its 100 the client, before any body."""
    http.configure()
    client = http.connect()
    client.send(EXPECTING)
    assert dict(fields_of(http.backend.received()))["Expect"] == "100-continue"
    assert client.receive() == b""
    http.backend.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    http.backend.send(OK)
    assert read_response(client.receive()).body == b"ok"
    assert http.backend.received().endswith(b"\r\n\r\nhello")


def test_the_target_may_decline(http: HttpGate) -> None:
    """A final response comes through without 100, and the connection is closed after it."""
    http.configure()
    client = http.connect()
    client.send(EXPECTING)
    http.backend.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    response = read_response(client.receive())
    assert response.status == 403
    assert response["connection"] == "close"
    assert client.close_notified


def test_a_target_that_does_not_know_100(http: HttpGate) -> None:
    """The gate asks for the body itself, after a second."""
    http.configure()
    client = http.connect()
    client.send(EXPECTING)
    http.reactor.advance(1)
    assert client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"hello")
    http.backend.send(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
    assert client.receive().startswith(b"HTTP/1.1 200 OK\r\n")


def test_another_expectation(http: HttpGate) -> None:
    """Nobody knows what is expected: 417."""
    http.configure()
    client = http.connect()
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n")
    assert read_response(client.receive()).status == 417


# Connections


def test_pipelined_requests_are_answered_in_order(http: HttpGate) -> None:
    """One after the other, on one connection to the target."""
    http.configure()
    client = http.connect()
    client.send(get("/1") + POST + get("/3"))
    backend = http.backend
    assert b"POST" not in backend.received()
    for number in range(1, 4):
        backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        client.pump()
    received = backend.received()
    assert received.index(b"GET /1 ") < received.index(b"POST / ") < received.index(b"GET /3 ")
    answer = client.receive()
    assert [part[-1:] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"1", b"2", b"3"]
    assert len(http.reactor.backends) == 1
    assert [one["path"] for one in http.http_log.requests] == ["/1", "/", "/3"]


def test_connections_to_the_target_are_shared_and_kept(http: HttpGate) -> None:
    """Clients, one after the other, use one connection; at the same time, one each."""
    http.configure(target_keepalive=30.0)
    one, other = http.connect(), http.connect()
    for client in (one, other):
        client.send(GET)
        http.backend.send(OK)
        assert client.receive().endswith(b"ok")
    one.send(GET)
    other.send(GET)
    first, second = http.reactor.backends
    for backend in (first, second):
        backend.send(OK)
    assert one.receive().endswith(b"ok")
    assert other.receive().endswith(b"ok")
    http.reactor.advance(29)
    assert first.open
    assert second.open
    http.reactor.advance(1)
    assert not first.open
    assert not second.open


def test_what_was_verified_in_another_way_carries_no_more_requests(
    http: HttpGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When an agent has delivered another bundle, a kept connection is closed, and so is one on
    which a request was underway, after its response."""
    http.configure()
    trust = [1]
    monkeypatch.setattr(Backends, "trust", property(lambda _: trust[0]))
    http.exchange(GET, OK)
    http.exchange(GET, OK)
    assert len(http.reactor.backends) == 1
    trust[0] = 2
    client = http.connect()
    client.send(GET)
    first, second = http.reactor.backends
    assert not first.open
    trust[0] = 3
    second.send(OK)
    assert read_response(client.receive()).status == 200
    client.send(GET)
    assert not second.open
    assert len(http.reactor.backends) == 3


def test_no_more_are_kept_than_asked_for(http: HttpGate) -> None:
    """What is beyond target_connections is closed."""
    http.configure(target_connections=1)
    clients = [http.connect() for _ in range(3)]
    for client in clients:
        client.send(GET)
    for client, backend in zip(clients, http.reactor.backends, strict=True):
        backend.send(OK)
        client.pump()
    assert [one.open for one in http.reactor.backends] == [False, False, True]


def test_targets_take_turns(http: HttpGate) -> None:
    """Requests go round, also over kept connections; a target that is down is passed over."""
    http.configure("127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003")
    http.reactor.refusing = {9002}
    client = http.connect()
    ports = []
    for _ in range(6):
        client.send(GET)
        [busy] = [one for one in http.reactor.backends if one.received().endswith(b"\r\n\r\n")
                  and one.received().count(b"GET") > getattr(one, "answered", 0)]  # fmt: skip
        busy.answered = busy.received().count(b"GET")
        busy.send(OK)
        assert client.receive().endswith(b"ok")
        ports.append(busy.port)
    assert ports[:2] == [9001, 9003]
    assert sorted(ports[2:]) == [9001, 9001, 9003, 9003]
    assert len(http.reactor.backends) == 2


def test_a_connection_that_the_target_closed_is_not_used(http: HttpGate) -> None:
    """One that ended while it was free is forgotten."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    client.pump()
    http.backend.transport.finish()
    client.send(POST)
    http.reactor.backends[1].send(OK)
    assert client.receive().count(b"200 OK") == 2


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE", b"PUT"])
def test_a_stale_connection_is_no_error(http: HttpGate, method: bytes, how: str) -> None:
    """An idempotent request without a body that meets the end of a kept connection is
    sent again on a new one, once."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    client.receive()
    client.send(method + b" /again HTTP/1.1\r\nHost: a\r\n\r\n")
    stale = http.backend
    assert b"/again" in stale.received()
    if how == "close":
        stale.transport.finish()
    else:
        stale.transport.lose(ConnectionLost())
    client.pump()
    fresh = http.reactor.backends[1]
    assert fresh.received().startswith(method + b" /again ")
    fresh.transport.finish()
    assert read_response(client.receive()).status == 502
    assert len(http.reactor.backends) == 2


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /again HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PUT /again HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        b"PATCH /again HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_nothing_else_is_sent_twice(http: HttpGate, request_: bytes) -> None:
    """Who knows whether the target has done it already: 502, and no second try."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    client.receive()
    client.send(request_)
    assert b"/again" in http.backend.received()
    http.backend.transport.finish()
    assert read_response(client.receive()).status == 502
    assert len(http.reactor.backends) == 1


def test_what_cannot_be_sent_twice_avoids_old_connections(http: HttpGate) -> None:
    """A POST goes out on a connection that was in use a moment ago, or on a new one."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    client.pump()
    http.reactor.advance(RECENT)
    client.send(POST)
    http.backend.send(OK)
    client.pump()
    http.reactor.advance(RECENT + 0.1)
    client.send(POST)
    assert len(http.reactor.backends) == 2
    http.reactor.backends[1].send(OK)
    assert client.receive().count(b"200 OK") == 3


def test_a_response_that_began_is_not_asked_for_again(http: HttpGate) -> None:
    """Part of a head is a response that breaks off."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    client.receive()
    client.send(GET)
    http.backend.send(b"HTTP/1.1 20")
    http.backend.transport.finish()
    assert read_response(client.receive()).status == 502
    assert len(http.reactor.backends) == 1


@pytest.mark.parametrize("closing", [b"Connection: close", b"connection: Foo , CLOSE"])
def test_a_target_that_closes_is_believed(http: HttpGate, closing: bytes) -> None:
    """Its connection is not used again, while the client's stays open."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(b"HTTP/1.1 200 OK\r\n" + closing + b"\r\nContent-Length: 2\r\n\r\nok")
    response = read_response(client.receive())
    assert "connection" not in response
    assert not http.backend.open
    client.send(GET)
    assert len(http.reactor.backends) == 2


def test_an_answer_before_the_body_is_there(http: HttpGate) -> None:
    """A target may answer, and close, before it has read the request: the client gets it."""
    http.configure()
    client = http.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhello")
    http.backend.send(
        b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n"
    )
    response = read_response(client.receive())
    assert (response.status, response.body) == (413, b"no\n")
    assert response["connection"] == "close"
    client.send(b"x" * 50 + GET)
    assert client.close_notified
    assert b"x" not in http.backend.received().partition(b"\r\n\r\n")[2]
    assert len(http.reactor.backends) == 1


EARLY = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nno\n"


@pytest.mark.parametrize(
    ("said", "status"), [(EARLY, 413), (EARLY[:30], 502), (b"", 502), (b"nonsense", 502)]
)
@pytest.mark.parametrize("framing", [b"Content-Length: 100", b"Transfer-Encoding: chunked"])
def test_an_answer_that_a_failed_write_would_hide(
    http: HttpGate, said: bytes, status: int, framing: bytes
) -> None:
    """A target answers and closes while the gate still sends: what it said is read before the
    connection is taken for lost; and what is not there is not made up."""
    http.configure()
    client = http.connect()
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n5\r\nhello\r\n")
    http.backend.send(said)
    http.backend.transport.lose(ConnectionLost())
    response = read_response(client.receive())
    assert response.status == status
    if status == 413:
        assert response.body == b"no\n"
        assert response["connection"] == "close"
    assert client.close_notified
    client = http.connect()
    client.send(GET)
    http.reactor.backends[-1].send(OK)
    assert client.receive().endswith(b"ok")


def test_a_client_that_leaves_takes_its_request_along(http: HttpGate) -> None:
    """The target's connection ends, and the log says why there is no status."""
    http.configure()
    client = http.connect()
    client.send(GET)
    client.reset()
    assert not http.backend.open
    [event] = http.http_log.events
    assert (event["status"], event["cause"]) == (None, "the client left")


def test_a_client_that_leaves_while_the_target_is_dialled(http: HttpGate) -> None:
    """Nothing is left of it."""
    http.configure()
    http.reactor.hanging = {9000}
    client = http.connect()
    client.send(POST)
    client.reset()
    assert http.http_log.requests[0]["cause"] == "the client left"
    http.reactor.advance(100)
    assert http.factory.capacity.requests == 0
    assert http.reactor.backends == []


def test_stopping_closes_what_is_free(http: HttpGate) -> None:
    """A factory that is stopped keeps no connection, not even one given back later."""
    http.configure()
    http.factory.doStart()
    one, other = http.connect(), http.connect()
    one.send(GET)
    other.send(GET)
    first, second = http.reactor.backends
    first.send(OK)
    one.pump()
    one.receive()
    http.factory.doStop()
    assert not first.open
    one.pump()
    assert one.close_notified
    second.send(OK)
    response = read_response(other.receive())
    assert response.body == b"ok"
    assert response["connection"] == "close"
    assert other.close_notified
    assert not second.open


def test_a_pipelined_request_is_underway_too(http: HttpGate) -> None:
    """One that came with another, which the gate answered itself."""
    http.configure()
    client = http.connect(server_name="a.example")
    client.send(GET.replace(b"a.example", b"b.example") + GET)
    http.factory.retire()
    client.pump()
    assert not client.close_notified
    http.backend.send(OK)
    assert client.receive().endswith(b"ok")
    assert client.close_notified


def test_what_waits_for_its_client_is_not_cut_off_when_the_gate_stops(http: HttpGate) -> None:
    """It is taken to its end, and then the connection ends."""
    http.configure()
    client = http.connect()
    client.pause_reading()
    client.send(GET)
    http.backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
    client.pump()
    http.factory.retire()
    client.resume_reading()
    assert client.receive().count(b"x") == 200_000
    assert client.close_notified


def test_a_response_underway_goes_on_when_the_gate_stops(http: HttpGate) -> None:
    """It is complete, and only then its connection ends; what was just made serves one more."""
    http.configure()
    http.factory.doStart()
    client, fresh = http.connect(), http.connect()
    client.send(GET)
    http.backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
    assert client.receive().endswith(b"ab")
    http.factory.doStop()
    http.backend.send(b"cd")
    assert client.receive() == b"cd"
    assert client.close_notified
    fresh.send(GET)
    http.reactor.backends[-1].send(OK)
    assert read_response(fresh.receive())["connection"] == "close"
    assert fresh.close_notified
    assert http.factory.connections == {}


# Servers and names


@pytest.mark.parametrize(
    ("versions", "chosen"),
    [(("2", "1.1"), "h2"), (("1.1", "2"), "http/1.1"), (("1.1",), "http/1.1")],
)
def test_alpn_chooses_the_version(
    http: HttpGate, versions: tuple[HttpVersion, ...], chosen: str
) -> None:
    """The gate's order counts; who names no version gets HTTP/1.1."""
    http.configure(http_versions=versions)
    assert http.connect(alpn=["http/1.1", "h2"]).negotiated_alpn == chosen
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    assert read_response(client.receive()).body == b"ok"


@pytest.mark.parametrize(
    ("sni", "host", "names", "status"),
    [
        ("a.example", "a.example", (), 200),
        ("a.example", "A.Example:8443", (), 200),
        ("a.example", "b.example", (), 421),
        ("a.example", "127.0.0.1", (), 421),
        (None, "b.example", (), 200),
        ("a.example", "b.example", ("a.example", "*.example"), 200),
        (None, "b.test", ("a.example",), 421),
        (None, "a.example", ("a.example",), 200),
        (None, "127.0.0.1", ("a.example",), 200),
    ],
)
@pytest.mark.parametrize("anyone", [False, True])
def test_a_request_for_another_server(
    http: HttpGate, sni: str | None, host: str, names: tuple[str, ...], status: int, anyone: bool
) -> None:
    """What the TLS connection is not for is 421, and does not reach the target."""
    http.configure(server_names=names, anyone=anyone)
    client = http.connect(server_name=sni)
    client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    if status == 200:
        http.backend.send(OK)
    else:
        assert http.reactor.backends == []
    response = read_response(client.receive())
    assert response.status == status
    if status == 421:
        assert response.body == b"421 Misdirected Request\n"
        # The connection itself is in order.
        assert client.established


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
@pytest.mark.parametrize(
    ("host", "status"), [(b"a.example:443", 501), (b"b.example:443", 421), (b"a b", 400)]
)
def test_methods_that_are_not_for_a_gate(
    http: HttpGate, method: bytes, host: bytes, status: int
) -> None:
    """Are told so only after Host was checked, as for any other."""
    http.configure()
    client = http.connect(server_name="a.example")
    target = host if method == b"CONNECT" else b"/"
    client.send(method + b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert read_response(client.receive()).status == status
    assert http.reactor.backends == []


@pytest.mark.parametrize(
    ("target", "host", "passed"),
    [
        ("/x", "a.example:", "a.example"),
        ("https://a.example:443/x", "a.example", "a.example:443"),
        ("https://a.example/x", "a.example:443", "a.example"),
        ("http://a.example:80/x", "A.example", "a.example:80"),
    ],
)
def test_other_ways_to_write_a_host(http: HttpGate, target: str, host: str, passed: str) -> None:
    """An empty port, and a default port that is spelt out, are legal."""
    http.configure()
    client = http.connect(server_name="a.example")
    client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    received = http.backend.received()
    assert received.startswith(b"GET /x HTTP/1.1\r\n")
    assert dict(fields_of(received))["Host"] == passed


def test_names_of_fields_keep_their_case(http: HttpGate) -> None:
    """In both directions, and of trailers."""
    http.configure()
    received, answer = http.exchange(
        b"POST / HTTP/1.1\r\nhost: a\r\nX-lOwEr: 1\r\nETAG: 2\r\ntransfer-encoding: chunked\r\n\r\n"
        b"0\r\nx-SUM: 3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nserver: x\r\nX-UPPER: 1\r\ncontent-length: 0\r\n\r\n",
    )
    for detail in (b"\r\nX-lOwEr: 1\r\n", b"\r\nETAG: 2\r\n", b"\r\nx-SUM: 3\r\n"):
        assert detail in received
    for detail in (b"\r\nserver: x\r\n", b"\r\nX-UPPER: 1\r\n", b"\r\ncontent-length: 0\r\n"):
        assert detail in answer


# What goes wrong


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\n", b"HTTP/1.0 200 OK\nContent-Length: 2\n\nok"]
)
def test_a_target_that_ends_its_lines_with_lf_alone(http: HttpGate, answer: bytes) -> None:
    """502 at once, and the log says what to do."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.send(answer)
    assert read_response(client.receive()).status == 502
    cause = "its lines end in LF alone: set lenient = true if it has to be an old server"
    assert http.http_log.failures[0]["cause"] == cause


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\nContent-Length: 2\nX-A: b\n\nok",
        b"HTTP/1.1 200 OK\r\nX-A: b\nContent-Length: 2\r\n\nok",
        b"HTTP/1.1 200 OK\nX-A: b\nTransfer-Encoding: chunked\n\n2  \nok\n0\n\n",
        b"HTTP/1.1 200 OK\r\nX-A: b\r\nTransfer-Encoding: chunked\r\n\r\n 2 \r\nok\r\n0  \r\n\r\n",
    ],
)
@pytest.mark.parametrize("piece", [1000, 1])
def test_old_servers_are_understood_where_that_is_asked_for(
    http: HttpGate, answer: bytes, piece: int
) -> None:
    """lenient: lines that end in LF alone, padded sizes of chunks; the client gets neither."""
    http.configure(lenient=True)
    client = http.connect()
    client.send(GET)
    for place in range(0, len(answer), piece):
        http.backend.send(answer[place : place + piece])
    received = client.receive()
    response = read_response(received)
    assert (response.status, response["x-a"]) == (200, "b")
    assert received.replace(b"\r\n", b"").count(b"\n") == 0
    assert response.body in (b"ok", b"2\r\nok\r\n0\r\n\r\n", b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 5\nContent-Length: 6\n\nhello",
        b"HTTP/1.1 200 OK\nX-A: b\rX-B: c\n\n",
        b"HTTP/1.1 200 OK\nX-A: b\n c\n\n",
        b"HTTP/1.1 200 OK\nContent-Length: 1\nTransfer-Encoding: chunked\n\n0\n\n",
    ],
)
def test_lenient_is_not_careless(http: HttpGate, answer: bytes) -> None:
    """What can be read in two ways is still 502."""
    http.configure(lenient=True)
    client = http.connect()
    client.send(GET)
    http.backend.send(answer)
    assert read_response(client.receive()).status == 502


def test_a_target_that_refuses(http: HttpGate) -> None:
    """502 in one line, an event that says why, and the client's connection stays."""
    http.configure()
    http.reactor.refusing = {9000}
    client = http.connect()
    client.send(get("/secret?token=1"))
    response = read_response(client.receive())
    assert (response.status, response.body) == (502, b"502 Bad Gateway\n")
    assert response["content-type"] == "text/plain; charset=utf-8"
    assert "connection" not in response
    assert response["date"]
    [failure] = http.http_log.failures
    assert failure["cause"] == "127.0.0.1:9000: connection refused"
    [event] = http.http_log.requests
    assert event["cause"] == failure["cause"]
    assert not any("token" in str(value) for one in http.http_log.events for value in one.values())
    http.reactor.refusing = set()
    client.send(GET)
    http.backend.send(OK)
    assert client.receive().endswith(b"ok")


def test_a_target_that_does_not_answer_the_telephone(http: HttpGate) -> None:
    """504 after connect_timeout."""
    http.configure(connect_timeout=3.0)
    http.reactor.hanging = {9000}
    client = http.connect()
    client.send(GET)
    http.reactor.advance(3)
    response = read_response(client.receive())
    assert (response.status, response.body) == (504, b"504 Gateway Timeout\n")
    assert http.http_log.failures[0]["cause"] == "127.0.0.1:9000: no answer within 3 s"


def test_a_body_waits_for_the_target(http: HttpGate) -> None:
    """What comes before there is a connection is not lost, and not read without end."""
    http.configure("127.0.0.1:9001", "127.0.0.1:9000", connect_timeout=3.0)
    http.reactor.hanging = {9001}
    client = http.connect(piece_size=2**14)
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 400000\r\n\r\n")
    client.send(b"x" * 400_000)
    assert client.transport.unread > 300_000
    http.reactor.advance(3)
    client.pump()
    backend = http.backend
    for _ in range(40):
        backend.received()
        client.pump()
    assert backend.received().endswith(b"x" * 400_000)


def test_a_target_that_is_silent(http: HttpGate) -> None:
    """504 after response_timeout, and its connection is ended."""
    http.configure(response_timeout=5.0)
    client = http.connect()
    client.send(GET)
    http.reactor.advance(4)
    http.backend.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
    http.reactor.advance(4)
    assert client.receive() == b"HTTP/1.1 103 Early Hints\r\n\r\n"
    http.reactor.advance(1)
    assert read_response(client.receive()).status == 504
    assert not http.backend.open
    assert http.http_log.failures[0]["cause"] == "the target was silent for 5 s"


def test_a_target_that_falls_silent(http: HttpGate) -> None:
    """A response that stops in the middle is broken off."""
    http.configure(response_timeout=5.0)
    client = http.connect()
    client.send(GET)
    http.backend.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello")
    http.reactor.advance(5)
    assert client.receive().endswith(b"hello")
    assert client.close_notified
    assert not http.backend.open


def test_a_target_that_says_nothing_and_leaves(http: HttpGate) -> None:
    """502, and the event says how it ended."""
    http.configure()
    client = http.connect()
    client.send(GET)
    http.backend.transport.finish()
    assert read_response(client.receive()).status == 502
    assert http.http_log.failures[0]["cause"] == "it closed the connection without a response"


# The access log


def test_one_event_for_each_request(http: HttpGate) -> None:
    """Who, what, how it ended, how much and how long; no query, which may be secret."""
    http.configure()
    credential = http.authority.issue("alice")
    client = http.connect(credential)
    client.send(b"POST /a%0a/b?token=s3cret HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
    http.reactor.advance(0.25)
    client.send(b"lo")
    http.reactor.advance(0.25)
    http.backend.send(b"HTTP/1.1 201 Created\r\nContent-Length: 3\r\n\r\n")
    client.pump()
    http.reactor.advance(0.5)
    http.backend.send(b"abc")
    client.pump()
    [event] = http.http_log.events
    expected = {
        "server": "app",
        "peer_address": "127.0.0.1:50000",
        "rule": "people",
        "subject": "CN=alice",
        "fingerprint": credential.certificate.fingerprint(SHA256()).hex(),
        "method": "POST",
        "path": "/a%0a/b",
        "status": 201,
        "bytes_in": 5,
        "bytes_out": 3,
        "time_to_first_byte": 0.5,
        "duration": 1.0,
        "target": "127.0.0.1:9000",
        "cause": None,
    }
    assert {name: event[name] for name in expected} == expected
    assert "s3cret" not in str(event)
    assert event["text"] == (
        "app: 127.0.0.1:50000 [CN=alice] POST /a%0a/b 201 in=5 out=3 1000.0 ms"
    )


def test_a_subject_cannot_forge_a_line(http: HttpGate) -> None:
    """Names in certificates are printable in the log."""
    http.configure()
    client = http.connect(http.authority.issue("a\nb\u202e"))
    client.send(GET)
    http.backend.send(OK)
    client.pump()
    [event] = http.http_log.events
    assert event["subject"].isprintable()
    assert event["text"].isprintable()


def test_without_a_certificate_nobody_is_named(http: HttpGate) -> None:
    """On a server that asks for none there is a client all the same."""
    http.configure(anyone=True)
    client = http.connect()
    client.send(GET)
    http.backend.send(OK)
    client.pump()
    [event] = http.http_log.events
    assert (event["rule"], event["subject"], event["fingerprint"]) == (None, None, None)
    assert " [-] GET / 200 " in event["text"]


def test_long_values_are_cut_in_the_log(http: HttpGate) -> None:
    """Of a client's path and method there are 256 characters, and how long they were."""
    http.configure()
    http.exchange(b"M" * 5000 + b" /" + b"p" * 9999 + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    [event] = http.http_log.requests
    for value, size in ((event["path"], 10_000), (event["method"], 5000)):
        assert len(value) == 256
        assert value.endswith(f"… ({size} characters)")
    assert len(event["text"]) < 800


def test_headers_name_the_client_as_it_is_now(http: HttpGate) -> None:
    """Its rule, and what a registry knows of it, may change between two requests of one
    connection.  Whatever is stored of it, it ends no line."""
    headers = {"X-Rule": text("peer.rule"), "X-Tenant": text("peer.attributes.tenant")}
    http.configure(headers=headers)
    client, seen = http.connect(), list[list[tuple[str, str]]]()
    connections = http.gate.entrance.connections
    [entry] = connections
    assert entry.admission is not None
    for rule, attributes in (("people", {}), ("devices", {"tenant": "north\r\nX-Rule: people"})):
        peer = entry.admission.peer
        assert peer is not None
        held = Held(
            server=entry.server,
            terms=entry.terms,
            peer=peer.by(peer.certificates, rule, attributes),
            pin=None,
        )
        connections.adopt(entry, held)
        before = sum(len(one.received()) for one in http.reactor.backends)
        client.send(GET)
        received = http.backend.received()[before:]
        seen.append([one for one in fields_of(received) if one[0] in headers])
        http.backend.send(OK)
        client.receive()
    assert seen == [
        [("X-Rule", "people")],
        [("X-Rule", "devices"), ("X-Tenant", "north%0D%0AX-Rule: people")],
    ]
