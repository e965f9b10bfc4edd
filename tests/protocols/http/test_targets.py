"""
Several targets of ``protocol "http"``: checks by a path, and what counts as their load.
"""

from __future__ import annotations

import pytest

from mtlsgate.protocols.http.configuration import HttpHealthCheck
from mtlsgate.upstream.state import TargetState
from tests.kits.http import GET, OK, HttpGate

ONE, TWO = "127.0.0.1:9001", "127.0.0.1:9002"


def checked(http: HttpGate, *targets: str, **terms: object) -> list[TargetState]:
    """Make a gate with a check, and start it."""
    check = HttpHealthCheck(path="/healthz", **terms)  # type: ignore[arg-type]
    http.configure(*targets, health_check=check)
    http.factory.doStart()
    return list(http.factory.backends.states)


@pytest.mark.parametrize(
    ("answer", "statuses", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", (), None),
        (b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", (), None),
        (b"HTTP/1.0 204 No Content\n\n", (), None),
        (b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", (), None),
        (b"HTTP/1.1 429 Too Many Requests\r\n\r\n", (200, 429), None),
        (b"HTTP/1.1 200 OK\r\n\r\n", (204,), "status 200"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", (), "status 400"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", (), "status 503"),
        (b"SSH-2.0-x\r\n\r\n", (), ""),
    ],
)
def test_the_status_of_a_path_tells(
    http: HttpGate, answer: bytes, statuses: tuple[int, ...], problem: str | None
) -> None:
    """2xx and 3xx are well, unless the block states which are; the body is not read."""
    [state] = checked(http, ONE, status=statuses)
    request = http.backend.received()
    assert request.startswith(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:9001\r\n")
    assert request.endswith(b"\r\nConnection: close\r\n\r\n")
    assert state.is_up is None
    http.backend.send(answer)
    http.reactor.advance(0)
    assert state.is_up is (problem is None)
    assert problem is None or problem in str(state.problem)
    assert not http.backend.open


def test_a_target_that_answers_nothing_is_down(http: HttpGate) -> None:
    """Whether it closes or is silent."""
    one, two = checked(http, ONE, TWO)
    http.reactor.backends[0].transport.finish()
    http.reactor.advance(0)
    assert one.problem == "it closed the connection without an answer"
    http.reactor.advance(5.0)
    assert two.problem == "no answer within 5 s"
    assert not http.reactor.backends[1].transport.connected


def test_requests_go_to_the_target_that_is_well(http: HttpGate) -> None:
    """One that takes connections and is not well gets none."""
    checked(http, ONE, TWO)
    http.reactor.backends[0].send(b"HTTP/1.1 503 Service Unavailable\r\n\r\n")
    http.reactor.backends[1].send(OK)
    client = http.connect()
    for _ in range(3):
        client.send(GET)
        assert http.reactor.backends[-1].port == 9002
        http.reactor.backends[-1].send(OK)
        assert client.receive().endswith(b"ok")


def test_checks_stop_when_the_gate_retires(http: HttpGate) -> None:
    """Another epoch makes its own."""
    checked(http, ONE)
    http.backend.send(OK)
    http.reactor.advance(0)
    http.factory.retire()
    http.reactor.advance(60.0)
    assert len(http.reactor.backends) == 1
    assert http.reactor.getDelayedCalls() == []


def test_the_host_that_is_configured_is_asked_for(http: HttpGate) -> None:
    """As in every request."""
    http.configure(ONE, host="app.internal", health_check=HttpHealthCheck(path="/x"))
    http.factory.doStart()
    assert b"\r\nHost: app.internal\r\n" in http.backend.received()


def test_without_a_path_a_connection_is_enough(http: HttpGate) -> None:
    """Nothing is sent."""
    http.configure(ONE, health_check=HttpHealthCheck())
    http.factory.doStart()
    assert http.factory.backends.states[0].is_up
    assert http.backend.received() == b""
    assert not http.backend.open


@pytest.mark.parametrize(
    "ending", ["answered", "kept and answered", "target gone", "client gone", "nonsense", "late"]
)
def test_a_request_counts_for_its_target_until_it_is_over(http: HttpGate, ending: str) -> None:
    """However it ends."""
    http.configure(ONE)
    [state] = http.factory.backends.states
    client = http.connect()
    if ending.startswith("kept"):
        client.send(GET)
        http.backend.send(OK)
        client.receive()
        assert state.in_use == 0
    client.send(GET)
    assert state.in_use == 1
    match ending:
        case "target gone":
            http.backend.transport.finish()
        case "client gone":
            client.reset()
        case "nonsense":
            http.backend.send(b"nonsense\r\n\r\n")
        case "late":
            http.reactor.advance(61)
        case _:
            http.backend.send(OK)
    client.pump()
    assert state.in_use == 0


def test_requests_in_progress_decide_where_the_next_one_goes(http: HttpGate) -> None:
    """Kept connections do not count."""
    http.configure(ONE, TWO, balance="least_connections")
    slow, fast = http.connect(), http.connect()
    slow.send(GET)
    busy = http.reactor.backends[-1].port
    for _ in range(3):
        fast.send(GET)
        assert http.reactor.backends[-1].port != busy
        http.reactor.backends[-1].send(OK)
        assert fast.receive().endswith(b"ok")
