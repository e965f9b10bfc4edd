"""
Targets are checked again and again: what goes down is not used, what returns is.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import provider

from mtlsgate.testing import Authority, MemoryTransport, RecordingFactory, Version
from mtlsgate.upstream.backends import Backends, Dialled, Unreachable
from mtlsgate.upstream.checks import Closing, ConnectCheck, HealthCheck, HealthChecker, Unhealthy
from mtlsgate.upstream.state import TargetState
from mtlsgate.upstream.targets import Listed, Target, parse_target
from mtlsgate.upstream.tls import TlsClient
from tests.kits.upstream import MemoryServer, ScriptedEndpoint

A, B = (parse_target(f"127.0.0.1:{port}") for port in (1, 2))
REFUSED = ConnectionRefusedError(111, "Connection refused")


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What is logged of targets."""
    lines: list[str] = []

    @provider(ILogObserver)
    def keep(event: LogEvent) -> None:
        if event.get("log_namespace") == "mtlsgate.targets":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(keep)
    yield lines
    globalLogPublisher.removeObserver(keep)


class Field:
    """Two targets that are checked."""

    def __init__(self, *, interval: float = 10.0, timeout: float = 5.0) -> None:
        self.clock = Clock()
        self.endpoints = {target: ScriptedEndpoint() for target in (A, B)}
        self.backends = Backends(
            [Listed(A), Listed(B)],
            MemoryReactorClock(),
            server="sql",
            clock=self.clock,
            connect_timeout=2.0,
            is_checked=True,
            endpoint=lambda target, reactor, timeout: self.endpoints[target],
        )
        self.results: list[Deferred[None]] = []
        terms = HealthCheck(interval=interval, timeout=timeout)
        self.checker = HealthChecker(self.backends, self.check, terms, self.clock)

    def check(self, state: TargetState) -> Deferred[None]:
        return self.backends.attempt(state, RecordingFactory(), b"").addCallback(lambda _: None)

    def dial(self) -> Target | None:
        """:returns: the target that a client's connection reaches."""
        found: list[object] = []
        self.backends.dial(RecordingFactory()).addBoth(found.append)
        [outcome] = found
        return outcome.target if isinstance(outcome, Dialled) else None

    @property
    def up(self) -> list[bool | None]:
        return [state.is_up for state in self.backends.states]


def test_each_target_is_checked_at_once_and_at_every_interval() -> None:
    """From the start on, and no more after the end."""
    field = Field()
    assert not field.backends.is_ready
    field.checker.start()
    field.checker.start()
    assert field.up == [True, True]
    assert field.backends.is_ready
    for _ in range(3):
        field.clock.advance(10.0)
    assert [one.calls for one in field.endpoints.values()] == [4, 4]
    field.checker.stop()
    assert field.clock.getDelayedCalls() == []


def test_what_goes_down_is_not_used_until_a_check_finds_it_up(said: list[str]) -> None:
    """A client's connection neither brings it back nor tries it meanwhile."""
    field = Field()
    field.checker.start()
    field.endpoints[A].outcome = REFUSED
    field.clock.advance(10.0)
    assert field.up == [False, True]
    calls = field.endpoints[A].calls
    assert [field.dial() for _ in range(3)] == [B, B, B]
    assert field.endpoints[A].calls == calls
    field.clock.advance(10.0)
    field.endpoints[A].outcome = None
    assert field.dial() == B
    field.clock.advance(10.0)
    assert field.up == [True, True]
    assert {field.dial(), field.dial()} == {A, B}
    assert said == [
        "sql: target 127.0.0.1:1 is down: connection refused",
        "sql: target 127.0.0.1:1 is up again after 20 s",
    ]
    assert field.backends.states[0].failures == 2


def test_a_clients_connection_that_fails_takes_a_target_down() -> None:
    """Before the next check; that one brings it back."""
    field = Field()
    field.checker.start()
    field.endpoints[A].outcome = field.endpoints[B].outcome = REFUSED
    assert field.dial() is None
    assert field.up == [False, False]
    assert not field.backends.is_ready
    field.endpoints[A].outcome = None
    # All are down: a connection is tried all the same, but the check has the say.
    assert field.dial() == A
    assert field.up == [False, False]
    field.clock.advance(10.0)
    assert field.up == [True, False]
    assert field.backends.is_ready


def test_a_check_that_takes_too_long_fails_and_no_second_runs_beside_it(said: list[str]) -> None:
    """A silent target costs one connection at a time."""
    field = Field(interval=1.0, timeout=5.0)
    field.endpoints[A].hangs = True
    field.checker.start()
    field.clock.pump([0.5] * 3)
    assert field.endpoints[A].calls == 1
    field.clock.advance(0.5)
    assert said == ["sql: target 127.0.0.1:1 is down: no answer within 2 s"]
    assert field.endpoints[A].cancelled == 1
    assert field.endpoints[A].calls == 2
    assert field.endpoints[B].calls == 3


def test_the_whole_check_has_its_own_time() -> None:
    """Whatever a check waits for."""
    field = Field(timeout=1.5)
    silent: Deferred[None] = Deferred()
    checker = HealthChecker(field.backends, lambda _: silent, HealthCheck(timeout=1.5), field.clock)
    checker.start()
    field.clock.advance(1.5)
    assert field.backends.states[0].problem == "no answer within 1.5 s"
    checker.stop()


def test_stopping_ends_checks_that_are_underway(said: list[str]) -> None:
    """And takes no target down by that."""
    field = Field()
    field.endpoints[A].hangs = True
    field.checker.start()
    field.checker.stop()
    assert field.endpoints[A].cancelled == 1
    assert field.up == [None, True]
    assert said == []
    assert field.clock.getDelayedCalls() == []


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (Unhealthy("status 503"), "status 503"),
        (Unhealthy("a\nb"), r"a\nb"),
        (ZeroDivisionError("x"), "the check failed: see the log"),
    ],
)
def test_a_check_that_fails_says_why(failure: Exception, problem: str) -> None:
    """And the next check runs in any case."""
    field = Field()
    outcome: list[Exception] = [failure]

    def check(_: TargetState) -> Deferred[None]:
        return fail(outcome[0]) if outcome else Deferred()

    checker = HealthChecker(field.backends, check, HealthCheck(), field.clock)
    checker.start()
    assert field.backends.states[0].problem == problem
    outcome.clear()
    field.clock.advance(10.0)
    checker.stop()
    field.clock.advance(0)


@pytest.mark.parametrize("answers_close", [True, False])
def test_a_check_by_connecting_leaves_no_connection_behind(answers_close: bool) -> None:
    """It is closed in good order, and reset if the target does not close."""
    clock = Clock()
    address = IPv4Address("TCP", "127.0.0.1", 1)
    transport = MemoryTransport(clock, address, address)
    protocol = Closing(clock)
    protocol.makeConnection(transport)
    protocol.close()
    assert transport.disconnecting
    if answers_close:
        clock.advance(0)
    clock.advance(5.0)
    assert not transport.connected
    assert clock.getDelayedCalls() == []


def test_connecting_is_a_check() -> None:
    """Reached is up; refused is not."""
    field = Field()
    check = ConnectCheck(field.backends, field.clock)
    field.endpoints[A].outcome = REFUSED
    state = field.backends.states[0]
    failed: list[object] = []
    check(state).addErrback(lambda failure: failed.append(failure.value))
    assert failed == [REFUSED]


@pytest.mark.parametrize(("name", "problem"), [("x", None), ("y", "it is not y")])
def test_with_tls_a_check_verifies_the_target(
    name: str, problem: str | None, version: Version
) -> None:
    """A target that answers with the wrong certificate is down; the check ends in good order."""
    clock = Clock()
    authority = Authority.create()
    credential = authority.issue("x", dns_names=["x"], usages=["server_auth"])
    server = MemoryServer(credential, clock, version)
    backends = Backends(
        [Listed(A)],
        MemoryReactorClock(),
        clock=clock,
        tls=TlsClient([authority.certificate], server_name=name),
        is_checked=True,
        endpoint=lambda *_: server,
    )
    checker = HealthChecker(backends, ConnectCheck(backends, clock), HealthCheck(), clock)
    checker.start()
    server.pump()
    [state] = backends.states
    assert state.is_up is (problem is None)
    assert (state.last_seconds is None) is (problem is not None)
    assert problem is None or problem in str(state.problem)
    checker.stop()
    server.finish()
    clock.advance(5.0)
    assert clock.getDelayedCalls() == []


def test_unreachable_without_checks_counts_as_ready_when_it_may_be_tried_again() -> None:
    """Else nobody would ever try it: a balancer would send nothing."""
    endpoint = ScriptedEndpoint()
    endpoint.outcome = REFUSED
    clock = Clock()
    backends = Backends(
        [Listed(A)], MemoryReactorClock(), clock=clock, endpoint=lambda *_: endpoint
    )
    assert backends.is_ready
    found: list[object] = []
    backends.dial(RecordingFactory()).addErrback(lambda failure: found.append(failure.value))
    assert isinstance(found[0], Unreachable)
    assert not backends.is_ready
    clock.advance(10.0)
    assert backends.is_ready
