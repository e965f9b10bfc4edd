"""
An ASGI application behind the gate: what it is told, and what its clients are held to.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame
from websockets.http11 import Response
from websockets.uri import parse_uri

from mtlsgate import VerifiedPeer, verified_peer
from mtlsgate.http.limits import HttpLimits
from mtlsgate.protocols.aio.connection import CLOSE_TIMEOUT
from mtlsgate.protocols.web.asgi_scope import _CIPHERS as CIPHERS
from mtlsgate.protocols.web.asgi_scope import extensions
from mtlsgate.testing import Client, Version
from tests.kits.aio import Loop

Send = Callable[[dict[str, Any]], Any]


class Application:
    """
    Answers each request, and keeps what it was told.

    :ivar scopes: of its requests.
    :ivar bodies: of its requests.
    :ivar gone: how many clients left before their answers were complete.
    :ivar held: while it is not set, nothing is answered.
    """

    def __init__(self, answer: bytes = b"hello") -> None:
        self.answer = answer
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.gone = 0
        self.held = asyncio.Event()
        self.held.set()
        self.reads = True

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Send) -> None:
        self.scopes.append(scope)
        body = b""
        while self.reads:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        await self.held.wait()
        headers = [(b"content-length", b"%d" % len(self.answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.answer})


GET = b"GET / HTTP/1.1\r\nHost: gate.example\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: gate.example\r\n"


def statuses(answer: bytes) -> list[int]:
    """:returns: the statuses in an answer whose bodies have no line of HTTP."""
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


# What the application is told


def test_a_request_is_answered(loop: Loop, version: Version) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate, version, alpn=["h2", "http/1.1"])
    assert client.negotiated_alpn == "http/1.1"
    for _ in range(2):
        answer = loop.say(client, GET)
        assert answer.startswith(b"HTTP/1.1 200 OK\r\ndate: ")
        assert answer.endswith(b"\r\n\r\nhello")
    assert not client.disconnected


def test_the_scope_says_who_the_client_is(loop: Loop, version: Version) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate, version)
    loop.say(client, b"GET /a%20b?c=d HTTP/1.1\r\nHost: gate.example\r\nX-Y: z\r\n\r\n")
    [scope] = app.scopes
    peer = verified_peer(scope)
    assert isinstance(peer, VerifiedPeer)
    assert peer.common_name == "alice"
    told = {name: scope[name] for name in ("client", "server", "scheme", "path", "raw_path")}
    assert told == {
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8443),
        "scheme": "https",
        "path": "/a b",
        "raw_path": b"/a%20b",
    }
    assert (scope["type"], scope["method"], scope["query_string"]) == ("http", "GET", b"c=d")
    assert scope["headers"] == [(b"host", b"gate.example"), (b"x-y", b"z")]
    assert scope["extensions"]["mtlsgate"] == peer.to_dict()
    json.dumps(scope["extensions"])


def test_the_tls_extension_is_as_the_specification_says(loop: Loop, version: Version) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate, version)
    loop.say(client, GET)
    tls = app.scopes[0]["extensions"]["tls"]
    peer = verified_peer(app.scopes[0])
    assert peer is not None
    chain = tuple(ssl.DER_cert_to_PEM_cert(one.der) for one in peer.certificates)
    assert tls["client_cert_chain"] == chain
    assert tls["client_cert_name"] == "CN=alice"
    assert tls["client_cert_error"] is None
    assert tls["tls_version"] == (0x0303 if version == "1.2" else 0x0304)
    assert tls["cipher_suite"] == CIPHERS[str(client.cipher)]
    assert tls["server_cert"].startswith("-----BEGIN CERTIFICATE-----")


def test_the_numbers_of_cipher_suites_are_right() -> None:
    """As the standard library has them."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    known = {one["name"]: one["id"] & 0xFFFF for one in context.get_ciphers()}
    assert {name: known[name] for name in CIPHERS} == CIPHERS


def test_without_a_client_certificate_nobody_is_named(loop: Loop) -> None:
    app = Application()
    gate, _ = loop.serve(app, gate={"rules": None})
    loop.say(loop.connect(gate, credential=None), GET)
    [scope] = app.scopes
    assert verified_peer(scope) is None
    assert "mtlsgate" not in scope["extensions"]
    assert scope["extensions"]["tls"]["client_cert_chain"] == ()
    assert scope["extensions"]["tls"]["client_cert_name"] is None


def test_without_tls_there_is_no_tls_extension() -> None:
    assert extensions(None, None) == {}


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 5\r\n\r\n", b"abcde"),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n"),
    ],
)
def test_a_body_arrives_in_whatever_pieces(loop: Loop, head: bytes, body: bytes) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    for position in range(len(POST + head + body)):
        loop.say(client, (POST + head + body)[position : position + 1])
    assert app.bodies == [b"abcde"]
    loop.say(client, POST + head + body + GET)
    assert app.bodies == [b"abcde", b"abcde", b""]


def test_a_client_that_waits_for_100_gets_it(loop: Loop) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    answer = loop.say(client, POST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\n")
    assert statuses(answer) == [100]
    assert statuses(loop.say(client, b"x")) == [200]


def test_requests_sent_ahead_are_answered_in_order_and_not_all_at_once(loop: Loop) -> None:
    app = Application()
    app.held.clear()
    gate, server = loop.serve(app)
    client = loop.connect(gate)
    number = 2000
    loop.say(client, GET * number)
    [connection] = server.state.connections
    # Of two pieces: the application asked whether its first client is still there.
    assert len(connection.pipeline) <= 2 * 2**14 // len(GET)  # type: ignore[union-attr]
    app.held.set()
    answer = b""
    for _ in range(number):
        loop.settle(client)
        answer += client.receive()
        if len(app.scopes) == number:
            break
    assert statuses(answer + loop.say(client, b"")) == [200] * number


# What clients are held to


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /#x HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\na",
        POST + b"Content-Length: 1, 1\r\n\r\na",
        POST + b"Content-Length: +1\r\n\r\na",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: identity\r\n\r\n",
        POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content_Length: 5\r\n\r\nhello",
        POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Connection: Upgrade\r\nUpgrade: x\r\nContent-Length: %d\r\n\r\n" % len(GET),
        POST + b"Connection: Upgrade\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_what_two_programs_might_read_differently_is_refused(loop: Loop, request_: bytes) -> None:
    """And what follows it is not read as a request."""
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    answer = loop.say(client, request_ + GET)
    assert statuses(answer) == [400]
    assert app.scopes == []
    assert client.disconnected


@pytest.mark.parametrize(
    "chunks",
    [
        b"x\r\n",
        b"-1\r\n",
        b"1 \r\na\r\n",
        b"1\na\n",
        b"1\r\nab",
        b"ffffffffffffffffff\r\n",
        b"1;a=\x01\r\n",
    ],
)
def test_a_malformed_chunk_ends_the_request(loop: Loop, chunks: bytes) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    answer = loop.say(client, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert statuses(answer) == [400]
    assert (app.gone, app.bodies) == (1, [])
    assert client.disconnected


def test_a_field_after_the_body_is_no_header_field(loop: Loop) -> None:
    """Neither for the application nor for the next request."""
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    chunked = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    late = b"Host: other\r\nAuthorization: x\r\n\r\n"
    assert statuses(loop.say(client, chunked + late + GET)) == [200, 200]
    first, second = (dict(scope["headers"]) for scope in app.scopes)
    assert first == {b"host": b"gate.example", b"transfer-encoding": b"chunked"}
    assert second == {b"host": b"gate.example"}
    assert app.bodies == [b"a", b""]


@pytest.mark.parametrize("late", [b"X-A: %s\r\n" % bytes(100).hex().encode(), b"x" * 200])
@pytest.mark.parametrize("end", [b"0\r\n", b"1\r\na\r\n1;"])
def test_what_frames_a_body_has_the_limit_of_a_head(loop: Loop, end: bytes, late: bytes) -> None:
    app = Application()
    gate, _ = loop.serve(app, max_header_size=1024)
    client = loop.connect(gate)
    answer = loop.say(client, POST + b"Transfer-Encoding: chunked\r\n\r\n" + end)
    steps = 0
    while not client.disconnected:
        answer += loop.say(client, late)
        steps += 1
        assert steps < 10
    assert statuses(answer) == [400]
    assert (app.gone, app.bodies) == (1, [])


def test_an_upgrade_to_what_is_not_known_is_answered_as_if_it_were_none(loop: Loop) -> None:
    """With the end of the connection, so that a client does not wait for what it sent ahead."""
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    asks = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    answer = loop.say(client, asks + GET)
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
    assert client.disconnected


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 421),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 421),
        (b"CONNECT gate.example:1 HTTP/1.1\r\nHost: gate.example:1\r\n\r\n", 501),
        (POST + b"Expect: more\r\nContent-Length: 1\r\n\r\n", 417),
        (POST + b"Content-Length: 999999999999\r\n\r\n", 413),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n7d1\r\n" + bytes(2001), 413),
        (b"GET / HTTP/1.1\r\nHost: gate.example\r\nX: " + b"x" * 500 + b"\r\n\r\n", 400),
        (b"GET /" + b"x" * 500, 400),
    ],
)
def test_other_refusals_are_those_of_every_http_server(
    loop: Loop, request_: bytes, status: int
) -> None:
    app = Application()
    gate, _ = loop.serve(
        app, max_header_size=400, max_body_size=2000, server_names=("gate.example",)
    )
    client = loop.connect(gate, server_name="gate.example")
    for part in (request_[:450], request_[450:]):
        loop.say(client, part) if part and not client.disconnected else None
    assert app.bodies == []
    assert client.disconnected
    assert f"{status}" in str(loop.log_of_web[-1])


def test_the_host_that_the_target_names_is_told(loop: Loop) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    loop.say(
        loop.connect(gate),
        b"GET https://gate.example/x?y HTTP/1.1\r\nA: b\r\nHost: gate.example\r\n\r\n",
    )
    [scope] = app.scopes
    assert (scope["path"], scope["query_string"]) == ("/x", b"y")
    assert scope["headers"] == [(b"host", b"gate.example"), (b"a", b"b")]


def test_a_malformed_request_after_a_good_one_waits_for_its_answer(loop: Loop) -> None:
    app = Application()
    app.held.clear()
    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    loop.say(client, GET + b"nonsense\r\n\r\n" + GET)
    assert client.receive() == b""
    loop.run(app.held.set, client)
    answer = client.receive()
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
    assert len(app.scopes) == 1
    assert client.disconnected


def test_no_more_requests_are_underway_than_max_requests(loop: Loop) -> None:
    app = Application()
    app.held.clear()
    gate, _ = loop.serve(app, max_requests=2)
    clients = [loop.connect(gate) for _ in range(3)]
    answers = [loop.say(client, GET) for client in clients]
    assert [statuses(one) for one in answers] == [[], [], [503]]
    loop.run(app.held.set)
    assert [statuses(loop.say(one, b"")) for one in clients[:2]] == [[200], [200]]
    assert statuses(loop.say(loop.connect(gate), GET)) == [200]


def test_a_head_must_come_in_time(loop: Loop, version: Version) -> None:
    gate, _ = loop.serve(Application(), header_timeout=10.0, keep_alive_timeout=60.0)
    client = loop.connect(gate, version)
    for byte in GET[:-1]:
        loop.say(client, bytes([byte]))
        loop.clock.advance(0.2)
    loop.clock.advance(3.0)
    loop.settle(client)
    assert statuses(client.receive()) == [408]
    assert client.disconnected


def test_a_silent_client_is_let_go(loop: Loop) -> None:
    """Before its first request, in a body, and between two requests: even if it sends empty
    lines."""
    gate, _ = loop.serve(Application(), keep_alive_timeout=60.0)
    first, body = loop.connect(gate), loop.connect(gate)
    loop.say(body, POST + b"Content-Length: 2\r\n\r\na")
    for _ in range(59):
        loop.clock.advance(1.0)
        loop.say(first, b"\r\n")
    assert not first.disconnected
    assert not body.disconnected
    loop.clock.advance(1.0)
    loop.settle(first)
    loop.settle(body)
    assert first.disconnected
    assert statuses(body.receive()) == [408]


def test_a_client_is_not_late_while_the_application_does_not_read(loop: Loop) -> None:
    app = Application()
    app.reads = False
    app.held.clear()
    gate, _ = loop.serve(app, keep_alive_timeout=5.0)
    client = loop.connect(gate)
    loop.say(client, POST + b"Content-Length: 1000000\r\n\r\n" + bytes(200_000))
    for _ in range(10):
        loop.clock.advance(5.0)
    loop.settle(client)
    assert not client.disconnected
    loop.run(app.held.set, client)
    assert statuses(client.receive()) == [200]


def test_a_client_that_does_not_read_is_cut_off(loop: Loop, version: Version) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": bytes(2**18), "more_body": True})
            # As uvicorn says nothing to an application whose client is gone.
            if ended:
                return

    ended: list[bool] = []
    gate, _ = loop.serve(app, send_timeout=30.0)
    client = loop.connect(gate, version)
    client.pause_reading()
    loop.say_without_reading(client, GET)
    loop.clock.advance(29.0)
    loop.settle(client)
    assert not client.disconnected
    ended.append(True)
    loop.clock.advance(1.0)
    loop.settle(client)
    assert client.aborted


def test_a_client_that_does_not_take_the_end_of_an_answer_is_let_go(loop: Loop) -> None:
    gate, _ = loop.serve(Application(bytes(2**22)), keep_alive_timeout=30.0)
    client = loop.connect(gate)
    client.pause_reading()
    loop.say_without_reading(client, GET)
    loop.clock.advance(30.0 + CLOSE_TIMEOUT)
    loop.settle(client)
    loop.clock.advance(CLOSE_TIMEOUT)
    loop.settle(client)
    assert client.disconnected


# Answers


def test_an_application_that_fails_answers_500(loop: Loop) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise LookupError("its own")

    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    assert statuses(loop.say(client, GET)) == [500]
    loop.log.expect_failure(LookupError)


def test_an_answer_that_breaks_off_does_not_look_complete(loop: Loop, version: Version) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"some", "more_body": True})
        raise LookupError("its own")

    gate, _ = loop.serve(app)
    client = loop.connect(gate, version)
    answer = loop.say(client, GET)
    assert b"0\r\n\r\n" not in answer
    assert client.disconnected
    loop.log.expect_failure(LookupError)


def test_no_client_can_make_lines_in_the_log(loop: Loop) -> None:
    """Of its own, beside the one for its request."""
    gate, _ = loop.serve(Application())
    loop.say(loop.connect(gate), b"nonsense\r\n\r\n")
    loop.say(
        loop.connect(gate),
        GET.replace(b"\r\n\r\n", b"\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"),
    )
    assert [event["status"] for event in loop.log_of_web] == [400, 200]


def test_each_request_is_logged(loop: Loop) -> None:
    gate, _ = loop.serve(Application())
    loop.say(loop.connect(gate), GET)
    [event] = loop.log_of_web
    assert event["text"].startswith("door: 127.0.0.1:50000 GET / 200 5 rule=rule sha256=")
    assert (event["bytes"], event["method"], event["path"]) == (5, "GET", "/")


def test_the_access_log_can_be_off(loop: Loop) -> None:
    gate, _ = loop.serve(Application(), access_log=False)
    assert statuses(loop.say(loop.connect(gate), GET)) == [200]
    assert loop.log_of_web == []


# Ending


def test_a_retired_server_lets_connections_end(loop: Loop) -> None:
    """Idle ones at once, others with their answers; one that has only just come is still
    answered."""
    app = Application()
    gate, server = loop.serve(app)
    idle, busy, fresh = (loop.connect(gate) for _ in range(3))
    loop.say(idle, GET)
    app.held.clear()
    loop.say(busy, GET)
    loop.run(gate.entrance.stop)
    loop.settle(idle)
    assert (idle.disconnected, busy.disconnected, fresh.disconnected) == (True, False, False)
    loop.run(app.held.set, busy)
    answer = busy.receive()
    assert statuses(answer) == [200]
    assert b"connection: close" in answer
    assert busy.disconnected
    assert b"connection: close" in loop.say(fresh, GET)
    assert fresh.disconnected
    assert server.state.connections == set()


def test_the_application_is_told_of_a_client_that_left(loop: Loop, version: Version) -> None:
    app = Application()
    gate, _ = loop.serve(app)
    client = loop.connect(gate, version)
    loop.say(client, POST + b"Content-Length: 2\r\n\r\na")
    loop.run(client.reset, client)
    loop.settle(client)
    assert app.gone == 1


def test_a_client_that_leaves_makes_no_traceback(loop: Loop) -> None:
    """As it would in Starlette, which says so by an exception."""

    class ClientDisconnect(Exception):
        pass

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise ClientDisconnect

    gate, _ = loop.serve(app)
    client = loop.connect(gate)
    loop.say(client, POST + b"Content-Length: 2\r\n\r\na")
    loop.run(client.reset, client)
    assert loop.log_of_web[-1]["text"].endswith("the application said ClientDisconnect")


# WebSockets


class Socket:
    """A WebSocket's client."""

    def __init__(self, loop: Loop, client: Client, path: str = "/ws") -> None:
        self.loop, self.client = loop, client
        self.protocol = ClientProtocol(parse_uri(f"wss://gate.example{path}"))
        self.protocol.send_request(self.protocol.connect())

    def talk(self) -> list[Any]:
        """:returns: the events that come after what is to be sent."""
        data = self.loop.say(self.client, b"".join(self.protocol.data_to_send()))
        self.protocol.receive_data(data)
        return list(self.protocol.events_received())


async def echoing(scope: Any, receive: Any, send: Any) -> None:
    """Echoes what it gets, after its client's name."""
    assert scope["type"] == "websocket"
    assert (await receive())["type"] == "websocket.connect"
    peer = verified_peer(scope)
    assert peer is not None
    if scope["path"] == "/no":
        await send({"type": "websocket.close"})
        return
    assert scope["scheme"] == "wss"
    assert scope["extensions"]["mtlsgate"]["common_name"] == "alice"
    assert "websocket.http.response" in scope["extensions"]
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": f"{peer.common_name}: {message['text']}"})


def test_a_websocket_knows_its_client(loop: Loop, version: Version) -> None:
    gate, server = loop.serve(echoing)
    client = loop.connect(gate, version)
    socket = Socket(loop, client)
    [accepted] = socket.talk()
    assert isinstance(accepted, Response)
    assert accepted.status_code == 101
    socket.protocol.send_text(b"hello")
    [frame] = socket.talk()
    assert isinstance(frame, Frame)
    assert frame.data == b"alice: hello"
    # It is not idle by the rules of HTTP.
    loop.clock.advance(3600.0)
    loop.settle(client)
    assert not client.disconnected
    socket.protocol.send_close()
    socket.talk()
    loop.settle(client)
    assert client.disconnected
    assert server.state.connections == set()
    [event] = loop.log_of_web
    assert (event["status"], event["path"], event["bytes"]) == (101, "/ws", 12)


def test_a_websocket_can_be_declined(loop: Loop) -> None:
    gate, _ = loop.serve(echoing)
    [answer] = Socket(loop, loop.connect(gate), "/no").talk()
    assert isinstance(answer, Response)
    assert answer.status_code == 403
    assert [event["status"] for event in loop.log_of_web] == [403]


def test_an_upgrade_is_checked_like_any_request(loop: Loop) -> None:
    gate, _ = loop.serve(echoing, server_names=("other.example",))
    client = loop.connect(gate, server_name="other.example")
    [answer] = Socket(loop, client).talk()
    assert isinstance(answer, Response)
    assert answer.status_code == 421


def test_a_message_may_not_be_longer_than_a_body(loop: Loop) -> None:
    gate, _ = loop.serve(echoing, max_body_size=1000)
    client = loop.connect(gate)
    socket = Socket(loop, client)
    socket.talk()
    socket.protocol.send_text(b"x" * 1001)
    [frame] = socket.talk()
    assert frame.opcode == 8
    loop.settle(client)
    assert client.disconnected


def test_the_limits_of_a_block_are_those_of_every_http_server(loop: Loop) -> None:
    _, server = loop.serve(Application())
    assert isinstance(server.limits, HttpLimits)
    assert server.max_requests == 1000
