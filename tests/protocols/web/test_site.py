"""
The HTTP side of ``protocol "web"``: limits, times, hygiene, the log; and resources.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer
from zope.interface.verify import verifyClass

from mtlsgate.http.resources import Pull
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.protocols.web.wsgi_call import Flow
from mtlsgate.testing import Client
from tests.kits.gate import Log
from tests.kits.web import Events, Web, logged, parse, request


class Echo(Resource):
    """
    Answers what it is sent, and keeps what it was asked.

    :ivar asked: method, target and body of each request.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[bytes, bytes, bytes]] = []

    def render(self, request: Request) -> bytes:
        assert request.content is not None
        body = request.content.read()
        self.asked.append((request.method, request.uri, body))
        return body or b"asked"


Serve = Callable[..., Web]


@pytest.fixture
def serve(log: Log, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Put a resource behind a gate."""

    def serve(resource: object, **attributes: Any) -> Web:
        monkeypatch.setitem(sys.modules, "served", type(sys)("served"))
        sys.modules["served"].resource = resource  # type: ignore[attr-defined]
        return Web(log, monkeypatch, resource="served:resource", **attributes)

    return serve


@pytest.fixture
def events() -> Iterator[Events]:
    """What is logged."""
    with logged() as found:
        yield found


def say(client: Client, data: bytes) -> list[int]:
    """:returns: the status of each answer."""
    client.send(data)
    return [one.status for one in parse(client.receive())]


# Resources


class WhoIsThere(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        assert request.channel is not None
        peer = IVerifiedPeer(request.channel.transport)
        return f"{peer.common_name} {request.isSecure()}".encode()

    def render_POST(self, request: Request) -> bytes:
        assert request.args is not None
        return repr(request.args).encode()


def test_a_resource_finds_its_client(serve: Serve) -> None:
    assert serve(WhoIsThere()).ask().body == b"alice True"


class Odd(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> int:
        request.setHeader(b"content-length", request.args[b"length"][0])
        request.setHeader(b"transfer-encoding", b"gzip")
        request.setHeader(b"connection", b"X")
        request.write(b"12345")
        request.finish()
        return NOT_DONE_YET


@pytest.mark.parametrize("length", ["abc", "-1", "+5", ""])
def test_a_resource_has_no_say_in_framing(serve: Serve, length: str) -> None:
    """A length that is none is left out, and so is what belongs to the connection."""
    web = serve(Odd())
    client = web.client()
    for _ in range(2):
        answer = web.ask(f"/?length={length}", client=client)
        assert answer.body == b"12345"
        assert answer.header("transfer-encoding") == "chunked"
        assert answer.headers.getRawHeaders("connection") is None


class Unchanged(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setResponseCode(int(request.args[b"status"][0]))
        return b""


@pytest.mark.parametrize("status", [204, 304])
def test_what_has_no_body_has_no_length(serve: Serve, status: int) -> None:
    """RFC 9110, 8.6: it would be that of another response."""
    web = serve(Unchanged())
    client = web.client()
    for _ in range(2):
        answer = web.ask(f"/?status={status}", client=client)
        assert answer.status == status
        for name in ("content-length", "transfer-encoding"):
            assert answer.headers.getRawHeaders(name) is None


class Cookies(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        return repr([request.getCookie(name) for name in (b"a", b"b", b"c", b"d")]).encode()


def test_cookies_are_there_as_always(serve: Serve) -> None:
    answer = serve(Cookies()).ask("/", "Cookie: a=1; b=2=3;c", "Cookie: ; d=")
    assert answer.body == b"[b'1', b'2=3', None, b'']"


def test_a_resource_that_promises_more_than_it_sends(serve: Serve) -> None:
    """The connection ends short of the length; of more than it promised nothing is sent."""
    client = serve(Odd()).client()
    client.send(request("/?length=9") + request("/?length=5"))
    received = client.receive()
    assert received.endswith(b"\r\n\r\n12345")
    assert received.count(b"HTTP/1.1 ") == 1
    assert client.close_notified
    client = serve(Odd()).client()
    client.send(request("/?length=3") + request("/?length=5"))
    assert [one.body for one in parse(client.receive())] == [b"123", b"12345"]


def test_connect_asks_for_a_tunnel(serve: Serve) -> None:
    """501, whatever the resource."""
    echo = Echo()
    client = serve(echo).client()
    raw = b"CONNECT gate.example:443 HTTP/1.1\r\nHost: gate.example:443\r\n\r\n"
    assert say(client, raw) == [501]
    assert echo.asked == []


def test_a_resource_gets_forms_as_always(serve: Serve) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    answer = serve(WhoIsThere()).ask("/?a=1", form, method="POST", body=b"b=2")
    assert answer.body == b"{b'a': [b'1'], b'b': [b'2']}"


def test_a_resource_gets_files_of_forms(serve: Serve) -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n\0\xff\r\n--x--\r\n'
    )
    answer = serve(WhoIsThere()).ask(
        "/?f=1", "Content-Type: multipart/form-data; boundary=x", method="POST", body=body
    )
    assert answer.body == repr({b"f": [b"\0\xff"]}).encode()


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("multipart/form-data; boundary=x", b"nonsense", 400),
        ("multipart/form-data; boundary=x", b"\r\n--x" * 2000, 413),
        ("multipart/form-data; boundary=x", b"y" * 5001, 413),
        ("application/x-www-form-urlencoded", b"a&" * 1001, 413),
        ("application/x-www-form-urlencoded", b"a" * 5001, 413),
        ("application/json", b"y" * 6000, 200),
    ],
)
def test_forms_are_bounded(serve: Serve, kind: str, body: bytes, status: int) -> None:
    """In size and in fields; no resource hears of one that is refused, and the connection goes
    on where the request was complete and in order."""
    echo = Echo()
    web = serve(echo, max_form_size=5000)
    client = web.client()
    answer = web.ask("/", f"Content-Type: {kind}", method="POST", body=body, client=client)
    assert answer.status == status
    assert len(echo.asked) == (status == 200)
    if status != 400:
        assert web.ask(client=client).status == 200


class Failing(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        raise RuntimeError("secret")


def test_an_exception_is_500_without_a_traceback(serve: Serve, log: Log) -> None:
    answer = serve(Failing()).ask()
    assert answer.status == 500
    assert b"secret" not in answer.body
    log.expect_failure(RuntimeError)


def test_connections_are_kept_and_requests_answered_in_order(serve: Serve) -> None:
    echo = Echo()
    client = serve(echo).client()
    requests = [request("/", method="POST", body=str(n).encode()) for n in range(20)]
    client.send(b"".join(requests))
    assert [one.body for one in parse(client.receive())] == [str(n).encode() for n in range(20)]
    assert client.established


def test_connection_close_is_honoured(serve: Serve) -> None:
    client = serve(Echo()).client()
    assert say(client, request("/", "Connection: close") + request()) == [200]
    assert client.close_notified


# Hygiene


@pytest.mark.parametrize(
    ("target", "uri"),
    [
        ("https://gate.example/x?y=z", b"/x?y=z"),
        ("HTTPS://GATE.example", b"/"),
        ("http://gate.example:80?q", b"/?q"),
    ],
)
def test_a_proxys_form_of_target_is_understood(serve: Serve, target: str, uri: bytes) -> None:
    """RFC 9112, 3.2.2."""
    echo = Echo()
    assert serve(echo).ask(target).status == 200
    assert echo.asked == [(b"GET", uri, b"")]


BAD = {
    "a Host that is none": b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "folding": request("/", "X: a\r\n b"),
    "a fragment": request("/#x"),
    "framing for CGI": request("/", "Content_Length: 5"),
    "a malformed trailer": request("/", "Transfer-Encoding: chunked") + b"0\r\nX : y\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": request("/", "Host: other.example"),
    "relative": request("x"),
    "authority": request("gate.example:443", method="CONNECT"),
    "user": request("https://user@gate.example/"),
    "other scheme": request("ftp://gate.example/"),
    "bytes": request("/\xa0"),
    "two lengths": request("/", "Content-Length: 1", "Content-Length: 2") + b"x",
    "both framings": request("/", "Content-Length: 1", "Transfer-Encoding: chunked") + b"x",
    "odd length": request("/", "Content-Length: +1") + b"x",
    "odd coding": request("/", "Transfer-Encoding: gzip, chunked") + b"x",
    "odd chunk": request("/", "Transfer-Encoding: chunked") + b"xyz\r\n",
    "space": request("/", "X : y"),
    "NUL": request("/", "X: a\0b"),
    "no colon": request("/", "X"),
    "version": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "nonsense": b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
    "many headers": request("/", *(f"X-{n}: y" for n in range(501))),
    "large headers": request("/", *(f"X-{n}: {'y' * 1000}" for n in range(20))),
    "long header": request("/", f"X: {'y' * 20000}"),
    "long target": request("/" + "x" * 20000),
    "endless line": b"GET /" + b"x" * 40000,
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD)
@pytest.mark.parametrize("at_once", [True, False])
def test_what_is_not_http_is_refused_and_nothing_after_it_heard(
    serve: Serve, data: bytes, at_once: bool
) -> None:
    """One 400, then the end; and the resource never hears of any of it."""
    echo = Echo()
    client = serve(echo).client()
    if at_once:
        client.send(data + request("/next"))
    else:
        for line in (data + request("/next")).splitlines(keepends=True):
            client.send(line)
    assert [one.status for one in parse(client.receive())] == [400]
    assert client.close_notified
    assert echo.asked == []


def test_who_is_refused_and_stays_is_cut_off(serve: Serve) -> None:
    web = serve(Echo())
    client = web.client(answer_close=False)
    assert say(client, BAD["relative"]) == [400]
    assert not client.disconnected
    web.clock.advance(16)
    client.pump()
    assert client.aborted


def test_who_has_the_last_answer_and_stays_is_cut_off(serve: Serve) -> None:
    """After the time that it has to read the answer."""
    web = serve(Echo(), keep_alive_timeout=60.0)
    client = web.client(answer_close=False)
    assert say(client, request("/", "Connection: close")) == [200]
    web.clock.advance(59)
    client.pump()
    assert not client.disconnected
    web.clock.advance(2)
    client.pump()
    assert client.aborted


@pytest.mark.parametrize(
    ("host", "status"), [("gate.example", 200), ("GATE.example:8443", 200), ("other.example", 421)]
)
def test_a_request_for_another_server(serve: Serve, host: str, status: int) -> None:
    """What the TLS connection is not for is 421: a client that one server let in is not thereby
    let in by another."""
    echo = Echo()
    client = serve(echo).client(server_name="gate.example")
    assert say(client, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()) == [status]
    assert len(echo.asked) == (status == 200)


@pytest.mark.parametrize("value", ["close, TE", "TE, close", "Close", "x,CLOSE , y"])
def test_close_counts_wherever_it_stands(serve: Serve, value: str) -> None:
    """Connection is a list (RFC 9110, 7.6.1)."""
    web = serve(Echo())
    client = web.client()
    answer = web.ask("/", f"Connection: {value}", client=client)
    assert answer.header("connection") == "close"
    assert client.close_notified


# Limits


@pytest.mark.parametrize("size", [9_000, 10_240])
def test_a_body_within_the_limit_is_taken(serve: Serve, size: int) -> None:
    echo = Echo()
    web = serve(echo, max_body_size=10_240)
    client = web.client()
    assert say(client, request("/", method="PUT", body=b"x" * size)) == [200]
    chunked = request("/", "Transfer-Encoding: chunked", method="PUT")
    client.send(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size))
    assert [one.status for one in parse(client.receive())] == [200]
    assert [len(body) for _, _, body in echo.asked] == [size, size]


def test_a_body_beyond_the_limit_is_refused_by_its_length(serve: Serve) -> None:
    """Before it is sent: not even 100-continue."""
    echo = Echo()
    client = serve(echo, max_body_size=10_240).client()
    head = request("/", "Content-Length: 10241", "Expect: 100-continue", method="PUT")
    client.send(head)
    received = client.receive()
    assert b"100 Continue" not in received
    (answer,) = parse(received)
    assert (answer.status, answer.header("connection")) == (413, "close")
    assert client.close_notified
    assert echo.asked == []


def test_a_chunked_body_beyond_the_limit_is_refused_when_it_gets_there(serve: Serve) -> None:
    echo = Echo()
    client = serve(echo, max_body_size=10_240).client()
    client.send(request("/", "Transfer-Encoding: chunked", method="PUT"))
    for _ in range(20):
        client.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    client.send(b"0\r\n\r\n" + request("/next"))
    assert [one.status for one in parse(client.receive())] == [413]
    assert client.close_notified
    assert echo.asked == []


def test_the_limit_of_headers_can_be_raised(serve: Serve) -> None:
    client = serve(Echo(), max_header_size=65536).client()
    assert say(client, BAD["large headers"]) == [200]
    assert say(client, BAD["long header"]) == [200]


# Times


def test_a_silent_connection_ends(serve: Serve) -> None:
    """At the keep-alive timeout after the last request, without a word in the log."""
    web = serve(Echo(), keep_alive_timeout=60.0)
    client = web.client()
    for _ in range(3):
        web.clock.advance(50)
        assert say(client, request()) == [200]
    web.clock.advance(61)
    client.pump()
    assert client.close_notified


def test_headers_have_a_time_in_all(serve: Serve) -> None:
    """A byte now and then does not keep a connection open."""
    web = serve(Echo(), header_timeout=10.0)
    client = web.client()
    for letter in request()[:9]:
        client.send(bytes([letter]))
        web.clock.advance(1)
    assert client.established
    web.clock.advance(2)
    assert [one.status for one in parse(client.receive())] == [408]
    assert client.close_notified


def test_each_request_has_its_own_time(serve: Serve) -> None:
    web = serve(Echo(), header_timeout=10.0)
    client = web.client()
    for _ in range(3):
        client.send(request()[:20])
        web.clock.advance(9)
        client.send(request()[20:])
        assert [one.status for one in parse(client.receive())] == [200]
        web.clock.advance(20)
    assert client.established


def big(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * (1 << 20))


def test_a_client_that_does_not_read_is_cut_off(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    big(tmp_path)
    web = Web(log, monkeypatch, root=tmp_path, send_timeout=30.0)
    client = web.client()
    client.pause_reading()
    client.send(request("/big"))
    web.clock.advance(29)
    assert not client.aborted
    web.clock.advance(2)
    assert client.aborted


def test_a_client_that_reads_slowly_is_not(
    log: Log, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    big(tmp_path)
    web = Web(log, monkeypatch, root=tmp_path, send_timeout=30.0)
    client = web.client()
    client.pause_reading()
    client.send(request("/big"))
    for _ in range(5):
        web.clock.advance(29)
        # What lies ready, and no more.
        client._reading = True
        client.step()
        client.pause_reading()
    assert client.established
    client.resume_reading()
    (answer,) = parse(client.receive())
    assert len(answer.body) == 1 << 20


def test_nothing_is_left_behind(serve: Serve) -> None:
    """No timer outlives its connection."""
    web = serve(Echo())
    for data in (
        b"",
        request()[:20],
        request(),
        BAD["relative"],
        request("/", "Content-Length: 9"),
    ):
        client = web.client()
        client.send(data)
        client.reset()
    assert web.clock.getDelayedCalls() == []


# Answers that are produced


@implementer(IPullProducer)
class Counting:
    """Writes its numbers, one each time it is asked."""

    def __init__(self, request: Request, fail: bool) -> None:
        self.request = request
        self.left = 5
        self.fail = fail
        self.stopped = False

    def resumeProducing(self) -> None:
        if self.left == 0:
            if self.fail:
                raise RuntimeError("no more")
            self.request.unregisterProducer()
            self.request.finish()
            return
        self.request.write(b"%d" % self.left)
        self.left -= 1

    def stopProducing(self) -> None:
        self.stopped = True


class Produced(Resource):
    isLeaf = True
    fail = False

    def render_GET(self, request: Request) -> int:
        self.producer = Counting(request, self.fail)
        request.registerProducer(self.producer, False)
        return NOT_DONE_YET


def test_a_pull_producer_is_asked_until_it_is_done(serve: Serve) -> None:
    web = serve(Produced())
    client = web.client()
    assert [web.ask(client=client).body for _ in range(2)] == [b"54321", b"54321"]


def test_a_producer_that_fails_cuts_the_answer(serve: Serve, log: Log) -> None:
    resource = Produced()
    resource.fail = True
    client = serve(resource).client()
    client.send(request())
    assert client.aborted
    assert resource.producer.stopped
    log.expect_failure(RuntimeError)


@pytest.mark.parametrize("kind", [Pull, Flow])
def test_they_are_producers(kind: type) -> None:
    assert verifyClass(IPushProducer, kind)


# The log


def test_each_request_is_one_event(serve: Serve, events: Events) -> None:
    """Who, what, and what came of it; not the query, which may be anybody's secret."""
    web = serve(Echo())
    alice = web.authority.issue("alice")
    web.ask("/a%0Ab?secret", method="PUT", body=b"12345", client=web.client(alice))
    (event,) = events
    told = {name: event[name] for name in ("server", "method", "path", "status", "bytes", "rule")}
    assert told == {
        "server": "door", "method": "PUT", "path": "/a%0Ab", "status": 200, "bytes": 5,
        "rule": "rule",
    }  # fmt: skip
    fingerprint = event["fingerprint"]
    assert event["seconds"] == 0
    assert event["text"] == (
        f"door: 127.0.0.1:50000 PUT /a%0Ab 200 5 rule=rule sha256={fingerprint}"
    )


def test_a_client_without_a_certificate_is_logged_without(serve: Serve, events: Events) -> None:
    web = serve(Echo(), anyone=True)
    web.ask(client=web.gate.connect(None))
    (event,) = events
    assert event["text"] == "door: 127.0.0.1:50000 GET / 200 5"
    assert "rule" not in event


def test_the_log_of_requests_can_be_off(serve: Serve, events: Events) -> None:
    serve(Echo(), access_log=False).ask()
    assert events == []


class Large(Resource):
    """
    :ivar asked: how often.
    """

    isLeaf = True
    asked = 0

    def render(self, request: Request) -> bytes:
        self.asked += 1
        return b"x" * 100_000


def test_pipelined_answers_do_not_add_up(serve: Serve) -> None:
    """Whoever asks much at once and reads nothing gets little, and is read no further."""
    resource = Large()
    web = serve(resource)
    client = web.client(piece_size=4096)
    client.pause_reading()
    client.send(request() * 10)
    assert resource.asked == 1
    for number in range(30):
        client.send(request(f"/{number:01000}"))
    assert client.transport.unread > 10_000
    client.resume_reading()
    assert len(parse(client.receive())) == resource.asked == 40


def test_who_does_not_take_the_end_of_an_answer(serve: Serve) -> None:
    """Has as long as between two requests."""
    web = serve(Large(), keep_alive_timeout=60.0)
    client = web.client()
    client.pause_reading()
    client.send(request() * 2)
    web.clock.advance(59)
    client.pump()
    assert client.transport.connected
    web.clock.advance(1)
    web.clock.advance(60)
    client.pump()
    assert not client.transport.connected


class Twofold(Resource):
    """
    Answers one path at once, and others when it is told to.

    :ivar waiting: the latter.
    """

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Request] = []

    def render(self, request: Request) -> bytes | int:
        if request.path == b"/now":
            return b"now"
        self.waiting.append(request)
        return NOT_DONE_YET


def test_a_pipelined_request_goes_on_when_the_gate_ends(serve: Serve) -> None:
    """And only then its connection ends."""
    resource = Twofold()
    web = serve(resource)
    client = web.client()
    client.send(request("/now") + request("/later"))
    web.site.retire()  # type: ignore[attr-defined]
    client.pump()
    assert not client.close_notified
    resource.waiting[0].write(b"later")
    resource.waiting[0].finish()
    assert [one.body for one in parse(client.receive())] == [b"now", b"later"]
    assert client.close_notified


def test_what_waits_for_its_client_is_not_cut_off_when_the_gate_ends(serve: Serve) -> None:
    """It is taken to its end."""
    web = serve(Large())
    client = web.client()
    client.pause_reading()
    client.send(request())
    web.site.retire()  # type: ignore[attr-defined]
    client.resume_reading()
    (answer,) = parse(client.receive())
    assert len(answer.body) == 100_000
    assert client.close_notified
