"""
The admin endpoint's routes, through the real site and in memory.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred

from mtlsgate.admin.guard import Guard
from mtlsgate.admin.site import (
    ANSWER_TIMEOUT,
    MOST_CONNECTIONS,
    REQUEST_TIMEOUT,
)
from mtlsgate.observe.metrics import CONTENT_TYPE
from mtlsgate.observe.status import ReloadStatus
from mtlsgate.reasons import Cause
from mtlsgate.run.control import Control, GateHandle
from tests.kits.admin import PORT, Endpoint, Running, reply, running_handle
from tests.kits.gate import Log
from tests.kits.pki import pki, server

TOKEN = b"0123456789abcdef"
GETS = [
    "/healthz", "/readyz", "/metrics", "/status", "/connections", "/rejections", "/history",
    "/periods", "/changes",
]  # fmt: skip
POSTS = ["/reload", "/drain", "/connections/1/close", f"/clients/{'0' * 64}/eject", "/explain"]


@pytest.fixture
def loopback(running: Running) -> Endpoint:
    """On loopback TCP, with a token."""
    return Endpoint(
        running_handle(running),
        Guard(lambda: TOKEN, is_loopback=True),
        running.clock,
        IPv4Address("TCP", "127.0.0.1", PORT),
    )


# What there is


def test_alive_and_ready(endpoint: Endpoint, running: Running) -> None:
    """Alive is alive; ready is ready until the gate drains."""
    assert endpoint.ask("GET", "/healthz").body == b"alive\n"
    ready = endpoint.ask("GET", "/readyz")
    assert (ready.status, ready.body) == (200, b"ready\n")
    running.service.runner.drain()
    ready = endpoint.ask("GET", "/readyz")
    assert (ready.status, ready.body) == (503, b"draining\n")
    assert endpoint.ask("GET", "/healthz").status == 200


def test_a_gate_that_has_not_started_is_not_ready(running: Running) -> None:
    """Listening is not enough: the service must run."""
    running.service.running = 0
    try:
        assert running.control.not_ready == "starting"
    finally:
        running.service.running = 1


def test_before_there_is_a_gate_only_alive_is_told() -> None:
    """Everything but /healthz is 503 until the gate runs."""
    endpoint = Endpoint(GateHandle())
    assert endpoint.ask("GET", "/healthz").status == 200
    for path in GETS[1:]:
        found = endpoint.ask("GET", path)
        assert (found.status, found.body) == (503, b"starting\n")
    for path in POSTS:
        assert endpoint.ask("POST", path).status == 503


def test_out_of_descriptors_is_not_ready(endpoint: Endpoint, running: Running) -> None:
    """A gate that has stopped accepting says so."""
    running.service.runner._listeners.descriptors.is_scarce = True
    found = endpoint.ask("GET", "/readyz")
    assert (found.status, found.body) == (503, b"out of file descriptors\n")


def test_metrics_are_the_gates(endpoint: Endpoint, running: Running) -> None:
    """/metrics is what Prometheus reads, of this gate."""
    running.client(None)
    found = endpoint.ask("GET", "/metrics")
    assert found.status == 200
    assert found.headers["content-type"] == CONTENT_TYPE
    assert b'mtlsgate_handshakes_total{reason="no_certificate"' in found.body


def test_a_server_may_have_few_routes(running: Running) -> None:
    """A route that a server leaves out is refused, and does nothing."""
    endpoint = Endpoint(running_handle(running), clock=running.clock, routes=("/metrics",))
    assert endpoint.ask("GET", "/metrics").status == 200
    for method, path in (*(("GET", path) for path in GETS), *(("POST", path) for path in POSTS)):
        if path != "/metrics":
            found = endpoint.ask(method, path)
            assert found.status == 403
            assert "is not among this server's routes" in found.value["error"]
    assert endpoint.ask("GET", "/nothing").status == 404
    assert running.ended == 0


def test_status_is_that_of_the_service(endpoint: Endpoint, running: Running) -> None:
    """/status is the found's, and nothing else."""
    found = endpoint.ask("GET", "/status")
    assert found.status == 200
    assert found.value == json.loads(json.dumps(running.control.status().service.to_dict()))


def test_connections_come_in_pages(endpoint: Endpoint, running: Running) -> None:
    """/connections has at most limit of them, and says where to go on."""
    clients = [running.client(pki().client) for _ in range(3)]
    first = endpoint.ask("GET", "/connections?limit=2").value
    assert [one["number"] for one in first["connections"]] == [1, 2]
    assert first["next"] == 2
    rest = endpoint.ask("GET", f"/connections?limit=2&after={first['next']}").value
    assert [one["number"] for one in rest["connections"]] == [3]
    assert rest["next"] is None
    assert endpoint.ask("GET", "/connections?limit=3").value["next"] is None
    assert endpoint.ask("GET", "/connections?limit=0").value["connections"] == []
    assert len(endpoint.ask("GET", "/connections?server=door").value["connections"]) == 3
    assert endpoint.ask("GET", "/connections?server=window").value["connections"] == []
    for client in clients:
        client.close()


def test_rejections_are_those_of_the_status(endpoint: Endpoint, running: Running) -> None:
    """/rejections has the latest first, and how many there were."""
    running.client(pki().stranger)
    running.client(None)
    found = endpoint.ask("GET", "/rejections").value
    assert [one["reason"] for one in found["rejections"]] == ["no_certificate", "unknown_ca"]
    assert found["total"] == 2


def test_a_dry_run_changes_nothing(endpoint: Endpoint, running: Running) -> None:
    """POST /reload?dry_run=1 says what would change, and who would be dropped."""
    client = running.client(pki().client)
    running.site.write("gate.hcl", running.text.replace("door", "window"))
    found = endpoint.ask("POST", "/reload?dry_run=1")
    assert (found.status, found.value["is_trial"], found.value["epoch"]) == (200, True, 1)
    assert found.value["changes"] == ["server door: removed", "server window: added"]
    assert found.value["dropped"] == []
    rule = 'client_certificate { ca_certificate_file = "issuing.crt" }'
    deny = 'deny { common_names = ["client"] }'
    running.site.write("gate.hcl", server(f"{rule}\n{deny}", label='"door"'))
    found = endpoint.ask("POST", "/reload?dry_run=1")
    [dropped] = found.value["dropped"]
    assert dropped.startswith("door: ")
    assert ": denied: " in dropped
    assert running.service.runner.number == 1
    assert running.service.reloader.last is None
    client.pump()
    assert client.established
    client.close()


def test_a_refused_reload_says_why(endpoint: Endpoint, running: Running) -> None:
    """It is 422, with every problem at its place; the epoch stays."""
    running.site.write("gate.hcl", running.text.replace("issuing.crt", "gone.crt"))
    for query in ("", "?dry_run=0", "?dry_run=1"):
        found = endpoint.ask("POST", f"/reload{query}")
        assert found.status == 422
        [problem] = found.value["problems"]
        assert problem.endswith('ca_certificate_file: "gone.crt" no such file')
        assert found.value["succeeded"] is False
    assert running.service.runner.number == 1
    last = endpoint.ask("GET", "/status").value["last_reload"]
    assert last["problems"] == found.value["problems"]


def test_a_reload_takes_its_time(running: Running) -> None:
    """The answer comes when the gate has loaded, however long that takes; who is gone
    by then is not missed."""
    waiting: list[Deferred[ReloadStatus]] = []

    class Slow(Control):
        def reload(self, who: str, *, is_trial: bool = False) -> Deferred[ReloadStatus]:
            waiting.append(Deferred())
            return waiting[-1]

    endpoint = Endpoint(
        lambda: Slow(
            running.control.taker, running.control.metrics, maybeDeferred, list, running.shadow
        ),
        clock=running.clock,
    )
    channel, transport = endpoint.connect()
    channel.dataReceived(b"POST /reload HTTP/1.1\r\nHost: gate\r\n\r\n")
    gone, gone_transport = endpoint.connect()
    gone.dataReceived(b"POST /reload HTTP/1.1\r\nHost: gate\r\n\r\n")
    running.clock.advance(REQUEST_TIMEOUT * 10)
    assert not transport.disconnecting
    gone.connectionLost()
    facts = ReloadStatus(
        at=running.service.runner.connections.now(), succeeded=True, is_trial=False, epoch=2,
        seconds=100.0, problems=(), changes=(), dropped=(),
    )  # fmt: skip
    for one in waiting:
        one.callback(facts)
    assert reply(transport).value["epoch"] == 2
    assert gone_transport.value() == b""


def test_a_failure_is_500_and_logged(running: Running, log: Log) -> None:
    """What should never happen is told in a line, and in the log in full."""

    class Broken(Control):
        def reload(self, who: str, *, is_trial: bool = False) -> Deferred[ReloadStatus]:
            failed: Deferred[ReloadStatus] = Deferred()
            failed.errback(ZeroDivisionError("secret"))
            return failed

    endpoint = Endpoint(
        lambda: Broken(
            running.control.taker, running.control.metrics, maybeDeferred, list, running.shadow
        ),
        clock=running.clock,
    )
    found = endpoint.ask("POST", "/reload")
    assert found.status == 500
    assert found.value == {"error": "it failed: see the gate's log"}
    log.expect_failure(ZeroDivisionError)


def test_drain_is_once(endpoint: Endpoint, running: Running) -> None:
    """POST /drain ends the gate; a second one is no second signal."""
    client = running.client(pki().client)
    for _ in range(2):
        found = endpoint.ask("POST", "/drain")
        assert (found.status, found.value) == (
            202,
            {"draining": True, "admitted": 1, "handshakes": 0},
        )
    assert running.ended == 1
    assert endpoint.ask("GET", "/status").value["not_ready"] == "draining"
    client.pump()
    assert client.established
    client.close()


def test_close_ends_one_connection(endpoint: Endpoint, running: Running) -> None:
    """POST /connections/ID/close ends that one, at once, and says so in its cause."""
    first, second = running.client(pki().client), running.client(pki().client)
    endings: list[Any] = []
    running.recent.closed = endings.append  # type: ignore[method-assign, assignment]
    found = endpoint.ask("POST", "/connections/1/close")
    assert (found.status, found.value) == (200, {"closed": 1})
    for client in (first, second):
        client.pump()
    assert first.disconnected
    assert not second.disconnected
    [ending] = endings
    assert ending.cause is Cause.CLOSED_BY_OPERATOR
    assert ending.detail.startswith("asked for by ")
    found = endpoint.ask("POST", "/connections/1/close")
    assert (found.status, found.value) == (404, {"error": "there is no connection 1"})
    second.close()


# What there is not


@pytest.mark.parametrize(
    ("path", "method"),
    [
        *((path, "POST") for path in GETS),
        *((GETS[0], method) for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "get")),
    ],
)
def test_get_and_head_only(endpoint: Endpoint, path: str, method: str) -> None:
    """Other methods are 405, with those that are allowed; there is no CORS."""
    found = endpoint.ask(method, path)
    assert (found.status, found.headers["allow"]) == (405, "GET, HEAD")
    assert not any(name.startswith("access-control") for name in found.headers)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_post_only(endpoint: Endpoint, running: Running, path: str, method: str) -> None:
    """What changes something is never a GET, which a link could be."""
    found = endpoint.ask(method, path)
    assert (found.status, found.headers["allow"]) == (405, "POST")
    assert running.service.runner.number == 1
    assert running.ended == 0


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(endpoint: Endpoint, path: str) -> None:
    """HEAD has the headers of GET, and no body."""
    whole, head = endpoint.ask("GET", path), endpoint.ask("HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert whole.headers["content-length"] == str(len(whole.body))
    length = head.headers["content-length"]
    if path == "/metrics":
        # Numbers such as the process's CPU time grow a digit from one answer to the next.
        assert int(length) > 0
    else:
        assert length == str(len(whole.body))
    same = {"content-length": length, "date": head.headers["date"]}
    assert {**whole.headers, **same} == head.headers


@pytest.mark.parametrize(
    "path",
    [
        "//", "/index.html", "/console", "/console/", "/console/nothing.js",
        "/console/../console.py", "//status", "/status/", "/Status", "/statu",
        "/connections/1", "/connections//close",
        "/connections/x/close", "/connections/-1/close", "/connections/1/close/",
        "/connections/9999999999999999/close", "/%73tatus", "/../status", "/connections/1%2Fclose",
        "http://localhost:9090/status",
    ],
)  # fmt: skip
def test_there_is_nothing_else(endpoint: Endpoint, path: str) -> None:
    """Other paths, and other ways to write these, are 404."""
    for method in ("GET", "POST"):
        found = endpoint.ask(method, path)
        assert (found.status, found.value) == (404, {"error": "there is nothing here"})


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/reload?dry_run"), ("POST", "/reload?dryrun=1"), ("POST", "/reload?dry_run=yes"),
        ("POST", "/reload?&&dry_run"), ("POST", "/reload?" + "&".join("abcdefghijklmnopqrs")),
        ("POST", "/reload?dry_run="),
        ("POST", "/reload?dry_run=1&dry_run=1"), ("POST", "/drain?dry_run=1"),
        ("GET", "/connections?limit=-1"), ("GET", "/connections?limit=1001"),
        ("GET", "/connections?after=x"), ("GET", "/connections?limit=1&x"),
        ("GET", "/status?verbose=1"), ("GET", "/connections?after=%D9%A1"),
        ("POST", "/connections/1/close?now"), ("GET", "/status?%0a%1b=1"),
        ("GET", "/changes?after=-1"), ("GET", "/changes?wait=31"), ("GET", "/history?hours=2"),
        ("POST", f"/clients/{'0' * 64}/eject?for=1h"), ("GET", "/?token=x"),
    ],
)  # fmt: skip
def test_a_wrong_parameter_does_nothing(
    endpoint: Endpoint, running: Running, method: str, target: str
) -> None:
    """A parameter that is not known, or not as it should be, is 400: a dry run that is
    written wrongly must not be a real one."""
    found = endpoint.ask(method, target)
    assert found.status == 400
    assert found.value["error"].isprintable()
    assert running.service.runner.number == 1
    assert running.ended == 0


@pytest.mark.parametrize("path", POSTS)
def test_a_body_is_refused(endpoint: Endpoint, running: Running, path: str) -> None:
    """Parameters in a body would be overlooked, so a body is 400."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert endpoint.ask("POST", path, dict(form), b"dry_run=1").status == 400
    assert running.service.runner.number == 1
    assert running.ended == 0


# Who is heard


def test_over_tcp_a_token_is_asked_for(loopback: Endpoint) -> None:
    """Every route but the probes', and what does not exist, is 401 without it."""
    for method, paths in (("GET", [*GETS[2:], "/nothing"]), ("POST", POSTS)):
        for path in paths:
            found = loopback.ask(method, path)
            assert found.status == 401
            assert found.headers["www-authenticate"] == 'Bearer realm="mtlsgate"'
    for path in GETS[:2]:
        assert loopback.ask("GET", path).status == 200
    good: dict[str, str | list[str]] = {"Authorization": f"Bearer {TOKEN.decode()}"}
    assert loopback.ask("GET", "/status", good).status == 200


def test_hostile_requests_change_nothing(loopback: Endpoint, running: Running) -> None:
    """DNS rebinding and cross-site requests are refused before anything is done."""
    good: dict[str, str | list[str]] = {"Authorization": f"Bearer {TOKEN.decode()}"}
    for path in POSTS:
        found = loopback.ask("POST", path, good | {"Host": f"evil.example:{PORT}"})
        assert (found.status, found.phrase) == (421, "Misdirected Request")
        found = loopback.ask("POST", path, good | {"Origin": "http://evil.example"})
        assert found.status == 403
        found = loopback.ask("POST", path, good | {"Sec-Fetch-Site": "cross-site"})
        assert found.status == 403
    assert running.service.runner.number == 1
    assert running.ended == 0


def test_answers_are_for_nobody_else(endpoint: Endpoint) -> None:
    """No answer is kept, framed, sniffed, or given to other origins; none sets a cookie."""
    for method, path in (("GET", "/status"), ("GET", "/nothing"), ("DELETE", "/status")):
        headers = endpoint.ask(method, path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["server"] == "mtlsgate"
        assert "set-cookie" not in headers
        assert "access-control-allow-origin" not in headers


# Clients that are slow, large or many


@pytest.mark.parametrize("sent", [b"", b"GET /sta", b"GET /status HTTP/1.1\r\nHost: x\r\n"])
def test_a_request_must_come(endpoint: Endpoint, running: Running, sent: bytes) -> None:
    """A connection whose request is not there in time is over, and holds nothing."""
    channel, transport = endpoint.connect()
    channel.dataReceived(sent)
    running.clock.advance(REQUEST_TIMEOUT - 1)
    assert not transport.aborted
    running.clock.advance(1)
    assert transport.aborted


def test_a_byte_now_and_then_is_no_request(endpoint: Endpoint, running: Running) -> None:
    """The deadline is not put off by what trickles in."""
    channel, transport = endpoint.connect()
    for byte in b"GET /statu":
        assert not transport.aborted
        channel.dataReceived(bytes([byte]))
        running.clock.advance(REQUEST_TIMEOUT / 10)
    assert transport.aborted


def test_an_answer_must_be_read(endpoint: Endpoint, running: Running) -> None:
    """Who does not read is disconnected after a while."""
    channel, transport = endpoint.connect()
    channel.dataReceived(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n")
    assert transport.disconnecting
    running.clock.advance(ANSWER_TIMEOUT - 1)
    assert not transport.aborted
    running.clock.advance(1)
    assert transport.aborted


def test_a_connection_is_for_one_request(endpoint: Endpoint) -> None:
    """What is sent after it is dropped, and the answer says that it closes."""
    channel, transport = endpoint.connect()
    channel.dataReceived(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert transport.value().count(b"HTTP/1.1 ") == 1
    assert reply(transport).headers["connection"] == "close"


def test_a_large_body_is_not_read(endpoint: Endpoint, running: Running) -> None:
    """Neither announced nor in chunks: it is 413, and ends the connection."""
    for head, chunk in (
        (b"Content-Length: 100000000\r\n\r\n", b"x" * 16384),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b"x" * 16384 + b"\r\n"),
    ):
        channel, transport = endpoint.connect()
        channel.dataReceived(b"POST /reload HTTP/1.1\r\nHost: x\r\n" + head)
        for _ in range(5):
            channel.dataReceived(chunk)
        assert transport.value().startswith(b"HTTP/1.1 413 ")
        assert transport.disconnecting
        running.clock.advance(REQUEST_TIMEOUT)
        assert transport.aborted
        channel.connectionLost()


def test_a_large_head_is_refused(endpoint: Endpoint) -> None:
    """A head above eight kilobytes is 400."""
    channel, transport = endpoint.connect()
    channel.dataReceived(b"GET /status HTTP/1.1\r\nHost: x\r\n")
    for number in range(200):
        if transport.disconnecting:
            break
        channel.dataReceived(b"X-%d: %s\r\n" % (number, b"x" * 100))
    assert transport.value().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00", b"\0" * 20000, b"GET\r\n\r\n",
        b"GET /status HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /reload HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n",
        b"POST /reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)  # fmt: skip
def test_what_is_no_http_is_no_trouble(endpoint: Endpoint, running: Running, sent: bytes) -> None:
    """It is 400 or nothing, without a traceback, and soon over."""
    channel, transport = endpoint.connect()
    channel.dataReceived(sent)
    running.clock.advance(REQUEST_TIMEOUT)
    assert transport.disconnecting or transport.aborted
    assert transport.value()[:13] in (b"", b"HTTP/1.1 400 ")
    assert running.service.runner.number == 1


def test_there_are_not_too_many(endpoint: Endpoint) -> None:
    """Beyond some connections the oldest that has asked nothing makes room."""
    (oldest, transport), *others = [endpoint.connect() for _ in range(MOST_CONNECTIONS)]
    assert endpoint.ask("GET", "/healthz").status == 200
    assert transport.aborted
    assert not any(one.aborted for _, one in others)
    oldest.connectionLost()


def test_whoever_is_being_answered_is_not_sent_away(running: Running) -> None:
    """Where all connections wait for their answers, another is closed as it comes."""

    class Slow(Control):
        def reload(self, who: str, *, is_trial: bool = False) -> Deferred[ReloadStatus]:
            return Deferred()

    slow = Slow(running.control.taker, running.control.metrics, maybeDeferred, list, running.shadow)
    endpoint = Endpoint(lambda: slow, clock=running.clock)
    for _ in range(MOST_CONNECTIONS):
        channel, transport = endpoint.connect()
        channel.dataReceived(b"POST /reload HTTP/1.1\r\nHost: gate\r\n\r\n")
    assert endpoint.admin.buildProtocol(None) is None
    assert not transport.aborted


def test_the_end_waits_for_answers_but_not_for_ever(endpoint: Endpoint, running: Running) -> None:
    """When the gate ends, what is being answered is finished; what hangs is cut."""
    (slow, transport), (quick, _) = endpoint.connect(), endpoint.connect()
    done: list[object] = []
    endpoint.admin.finish(5.0).addCallback(done.append)
    quick.connectionLost()
    assert done == []
    running.clock.advance(5)
    assert transport.aborted
    slow.connectionLost()
    assert done == [None]
    endpoint.admin.finish(5.0).addCallback(done.append)
    assert done == [None, None]
