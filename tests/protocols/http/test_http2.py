"""
HTTP/2 towards clients: requests become those of HTTP/1.1 for the target.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1
from typing import Any

import pytest
from h2.errors import ErrorCodes

from mtlsgate.testing import Version
from tests.kits.http import OK, HttpGate, fields_of
from tests.kits.http2 import GET, POST, PSEUDO, WEBSOCKET, Fields, TlsSpeaker

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def connect(http: HttpGate, **options: Any) -> TlsSpeaker:
    return TlsSpeaker(http.connect(alpn=["h2"], **options))


def asked(http: HttpGate, fields: Fields = GET, **options: Any) -> tuple[TlsSpeaker, bytes]:
    """:returns: a client that asked, and what the target got."""
    client = connect(http)
    client.send(client.headers(1, fields, **options))
    return client, http.backend.received()


def test_a_request_is_passed_on(http: HttpGate, version: Version) -> None:
    http.configure()
    client = connect(http, max_version=version)
    client.send(client.headers(1, [*GET, (b"accept", b"*/*")]))
    received = http.backend.received()
    assert received.startswith(b"GET / HTTP/1.1\r\nHost: a.example\r\naccept: */*\r\n")
    http.backend.send(OK)
    client.receive()
    assert (client.status(1), client.body(1), client.is_complete(1)) == (200, b"ok", True)
    [event] = http.http_log.requests
    assert (event["method"], event["path"], event["status"]) == ("GET", "/", 200)
    assert (event["bytes_out"], event["subject"]) == (2, "CN=alice")


def test_the_client_is_named_to_the_target(http: HttpGate) -> None:
    http.configure(client_cert=True)
    _, received = asked(http, [*GET, (b"client-cert", b"forged"), (b"x-forwarded-for", b"::1")])
    fields = [(name.lower(), value) for name, value in fields_of(received)]
    [identity] = [value for name, value in fields if name == "client-cert"]
    assert identity.startswith(":MII")
    assert [value for name, value in fields if name == "x-forwarded-for"] != ["::1"]


def test_requests_share_a_connection_and_targets_do_not_wait(http: HttpGate) -> None:
    http.configure()
    client = connect(http)
    client.send(client.headers(1), client.headers(3))
    first, second = http.reactor.backends
    second.send(OK)
    client.receive()
    assert (client.status(1), client.status(3)) == (None, 200)
    first.send(OK)
    client.receive()
    assert client.status(1) == 200


@pytest.mark.parametrize(
    ("fields", "framing"),
    [
        ([], ("Transfer-Encoding", "chunked")),
        ([(b"content-length", b"3")], ("Content-Length", "3")),
    ],
)
def test_a_body_is_framed_anew(http: HttpGate, fields: Fields, framing: tuple[str, str]) -> None:
    http.configure()
    client, _ = asked(http, [*POST, *fields], end=False)
    client.send(client.data(1, b"abc", end=True))
    received = http.backend.received()
    assert framing in fields_of(received)
    body = b"abc" if framing[1] == "3" else b"3\r\nabc\r\n0\r\n\r\n"
    assert received.endswith(b"\r\n\r\n" + body)


def test_trailers_pass_both_ways(http: HttpGate) -> None:
    http.configure()
    client, _ = asked(http, [*POST, (b"te", b"trailers")], end=False)
    client.send(client.data(1, b"abc"), client.headers(1, [(b"x-sum", b"3"), (b"cookie", b"a")]))
    received = http.backend.received()
    assert ("TE", "trailers") in fields_of(received)
    assert received.endswith(b"0\r\nx-sum: 3\r\n\r\n")
    http.backend.send(CHUNKED + b"2\r\nok\r\n0\r\nX-End: 1\r\n\r\n")
    client.receive()
    assert client.heads(1)[1] == {b"x-end": b"1"}
    assert client.is_complete(1)


def test_what_was_to_be_continued_is(http: HttpGate) -> None:
    http.configure()
    client, received = asked(http, [*POST, (b"expect", b"100-continue")], end=False)
    assert ("Expect", "100-continue") in fields_of(received)
    http.backend.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: a\r\n\r\n")
    client.send(client.data(1, b"a", end=True))
    assert [head[b":status"] for head in client.heads(1)] == [b"100", b"103"]


def test_a_response_that_breaks_off_is_no_whole_one(http: HttpGate) -> None:
    http.configure()
    client, _ = asked(http)
    http.backend.send(CHUNKED + b"2\r\nok\r\n")
    http.backend.transport.finish()
    client.receive()
    assert (client.is_complete(1), client.reset_code(1)) == (False, ErrorCodes.INTERNAL_ERROR)


def test_a_reset_drops_the_target(http: HttpGate) -> None:
    http.configure()
    client, _ = asked(http)
    client.send(client.reset(1))
    assert not http.backend.open
    [event] = http.http_log.requests
    assert event["cause"] == "the client reset the stream, with CANCEL"


REFUSED: dict[str, tuple[Fields, int]] = {
    "another server's name": ([*PSEUDO[:2], (b":authority", b"b.example"), GET[3]], 421),
    "no host": ([*PSEUDO[:2], GET[3]], 400),
    "an empty host": ([*PSEUDO[:2], (b":authority", b""), GET[3]], 400),
    "a user in the host": ([*PSEUDO[:2], (b":authority", b"u@a.example"), GET[3]], 400),
    "a fragment": ([*PSEUDO, (b":path", b"/#a")], 400),
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"a.example:443")], 501),
    "TRACE": ([(b":method", b"TRACE"), *GET[1:]], 501),
    "an expectation": ([*GET, (b"expect", b"miracles")], 417),
    "a long body": ([*POST, (b"content-length", b"99999999999")], 413),
}


@pytest.mark.parametrize(("fields", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_refused_as_in_http_1(
    http: HttpGate, fields: Fields, status: int, version: Version
) -> None:
    http.configure(server_names=["a.example"])
    client = connect(http, server_name="a.example", max_version=version)
    client.send(client.headers(1, fields, end=status != 413), client.headers(3))
    assert client.status(1) == status
    assert client.is_complete(1)
    [event] = http.http_log.requests
    assert event["status"] == status
    http.backend.send(OK)
    client.receive()
    assert client.status(3) == 200


def test_limits_hold_for_all_requests(http: HttpGate) -> None:
    http.configure(max_requests=1)
    client, _ = asked(http)
    client.send(client.headers(3))
    assert client.status(3) == 503


def test_a_target_that_does_not_read_stops_its_stream_alone(http: HttpGate) -> None:
    http.configure()
    client = connect(http, piece_size=16384)
    client.send(client.headers(1, POST, end=False), client.headers(3, POST, end=False))
    stuck, other = http.reactor.backends
    for _ in range(8):
        client.send(client.data(1, bytes(16384)))
    before = client.window(1, 1)
    assert before
    taken = len(other.received())
    for _ in range(8):
        client.send(client.data(3, bytes(16384)))
        taken += len(other.transport.take())
    assert taken > 8 * 16384
    assert len(stuck.transport._to_client) < 140_000


# WebSockets


KEYED = [*WEBSOCKET, (b"sec-websocket-version", b"13"), (b"sec-websocket-protocol", b"chat")]


def accepted(received: bytes) -> bytes:
    """:returns: the target's answer to an opening handshake."""
    [key] = [value for name, value in fields_of(received) if name.lower() == "sec-websocket-key"]
    digest = sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: %b\r\n\r\n" % b64encode(digest)
    )


def test_a_websocket_is_an_upgrade_for_the_target(http: HttpGate) -> None:
    """RFC 8441."""
    http.configure()
    client, received = asked(http, KEYED, end=False)
    assert received.startswith(b"GET / HTTP/1.1\r\nHost: a.example\r\n")
    assert {("Connection", "Upgrade"), ("Upgrade", "websocket")} <= set(fields_of(received))
    client.send(client.data(1, b"early"))
    assert http.backend.received() == received
    http.backend.send(accepted(received) + b"hello")
    client.receive()
    assert client.heads(1) == [{b":status": b"200", b"sec-websocket-protocol": b"chat"}]
    assert client.body(1) == b"hello"
    client.send(client.data(1, b", late"))
    assert http.backend.received() == received + b"early, late"
    assert http.factory.capacity.websockets == 1
    client.send(client.data(1, end=True))
    assert not http.backend.open
    assert client.is_complete(1)
    assert http.factory.capacity.websockets == 0
    [event] = http.http_log.requests
    assert (event["status"], event["bytes_in"], event["bytes_out"]) == (101, 11, 5)


def test_a_target_that_ends_a_websocket_ends_its_stream(http: HttpGate) -> None:
    http.configure()
    client, received = asked(http, KEYED, end=False)
    http.backend.send(accepted(received))
    http.backend.transport.finish()
    client.receive()
    assert client.is_complete(1)
    assert client.goaway is None


def test_a_target_that_knows_no_websockets_is_not_believed(http: HttpGate) -> None:
    """RFC 6455, 4.1: an answer to another key is no answer."""
    http.configure()
    client, received = asked(http, KEYED, end=False)
    http.backend.send(accepted(received).replace(b"Accept: ", b"Accept: A"))
    client.receive()
    assert client.status(1) == 502
    assert http.factory.capacity.websockets == 0


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content"])
def test_a_page_is_no_websocket(http: HttpGate, status: bytes) -> None:
    """RFC 8441, 4: a client would take 2xx for the beginning of one, and the page for what it
    says."""
    http.configure()
    client, _ = asked(http, KEYED, end=False)
    http.backend.send(b"HTTP/1.1 " + status + b"\r\nContent-Length: 5\r\n\r\nhello")
    client.receive()
    assert (client.status(1), client.is_complete(1)) == (502, True)
    assert b"hello" not in client.body(1)
    assert not http.backend.open
    assert http.factory.capacity.websockets == 0
    assert http.factory.capacity.requests == 0
    [event] = http.http_log.requests
    assert event["status"] == 502


def test_a_websocket_may_be_declined(http: HttpGate) -> None:
    http.configure()
    client, _ = asked(http, KEYED, end=False)
    http.backend.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    client.receive()
    assert (client.status(1), client.body(1)) == (403, b"no")


def test_websockets_that_are_not_offered_are_malformed(http: HttpGate) -> None:
    http.configure(websockets=False)
    client = connect(http)
    client.send(client.headers(1, KEYED, end=False))
    assert (client.status(1), client.reset_code(1)) == (400, ErrorCodes.PROTOCOL_ERROR)


def test_a_retired_gate_loses_no_request(http: HttpGate) -> None:
    http.configure()
    client, _ = asked(http)
    http.factory.retire()
    client.receive()
    client.send(client.headers(3))
    for backend in http.reactor.backends:
        backend.send(OK)
    http.reactor.advance(1)
    client.receive()
    assert (client.status(1), client.status(3)) == (200, 200)
    assert client.goaway == ErrorCodes.NO_ERROR
    assert client.client.close_notified
