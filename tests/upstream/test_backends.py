"""
Which target is next, and what becomes of those that do not answer.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionRefusedError,
    DNSLookupError,
    NoProtocol,
    NoRouteError,
    TCPTimedOutError,
    getConnectError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from mtlsgate.testing import RecordingFactory, RecordingProtocol
from mtlsgate.upstream.backends import Backends, Dialled, Unreachable
from mtlsgate.upstream.rotation import Member, Rotation
from mtlsgate.upstream.state import TargetState
from mtlsgate.upstream.targets import Listed, Target, parse_target
from tests.kits.upstream import ScriptedEndpoint

A, B, C = (parse_target(f"127.0.0.1:{port}") for port in (1, 2, 3))


@pytest.mark.parametrize(
    "story",
    [
        # Round robin.
        ["0 ?A", "0 ?B", "0 ?C", "0 ?A"],
        # What failed is passed over until its time has come, and is back after an answer.
        ["0 -A", "1 ?B", "1 ?C", "1 ?B", "9 ?C", "10 ?A", "10 +A", "10 ?B", "10 ?C", "10 ?A"],
        # Of those that ask when it has come, one tries.
        ["0 -A", "10 ?A", "10 ?B", "10 ?C", "10 ?B", "19 ?C", "20 ?A"],
        # All are down: each is tried all the same, and none twice.
        ["0 -A", "0 -B", "0 -C", "1 ?A", "1 ?B/A", "1 ?C/AB", "1 ?none/ABC"],
        # Those that are not down come first, then those that are.
        ["0 -A", "1 ?B", "1 -B", "1 ?C/B", "1 -C", "1 ?A/BC", "1 ?none/ABC"],
        # A target that failed again stays down longer.
        ["0 -A", "5 -A", "10 ?B", "14 ?C", "15 ?A"],
    ],
)  # fmt: skip
def test_a_failed_target_is_skipped_and_retried(story: list[str]) -> None:
    """A target that failed is skipped, and retried after ``retry_after``; if all are down
    nothing fails without a try."""
    states = {name: TargetState(target) for name, target in zip("ABC", (A, B, C), strict=True)}
    rotation = Rotation([Member(one) for one in states.values()], 10.0)
    for step in story:
        time, what = step.split()
        chosen, _, tried = what[1:].partition("/")
        if what[0] == "?":
            found = rotation.choose(float(time), [states[one].target for one in tried])
            assert (step, found) == (step, states.get(chosen))
        elif what[0] == "-":
            states[chosen].failed(float(time), "connection refused")
        else:
            states[chosen].answered()


class Field:
    """Backends of scripted endpoints, and what a dial came to."""

    def __init__(self, *targets: Target) -> None:
        self.clock = Clock()
        self.endpoints = {target: ScriptedEndpoint() for target in targets}
        self.backends = Backends(
            [Listed(one) for one in targets],
            MemoryReactorClock(),
            clock=self.clock,
            connect_timeout=5.0,
            retry_after=10.0,
            endpoint=lambda target, reactor, timeout: self.endpoints[target],
        )
        self.factory = RecordingFactory()

    def dial(self) -> list[object]:
        """:returns: a list that will hold the outcome."""
        outcome: list[object] = []
        self.dialling: Deferred[Dialled] = self.backends.dial(self.factory)
        self.dialling.addBoth(outcome.append)
        return outcome


def _error(outcome: list[object]) -> BaseException:
    [failure] = outcome
    return failure.value  # type: ignore[attr-defined, no-any-return]


def _target(outcome: list[object]) -> Target:
    [dialled] = outcome
    assert isinstance(dialled, Dialled), dialled
    assert isinstance(dialled.protocol, RecordingProtocol)
    return dialled.target


def test_dials_in_turn() -> None:
    """Connections go to the targets in turn."""
    field = Field(A, B)
    assert [_target(field.dial()) for _ in range(3)] == [A, B, A]


@pytest.mark.parametrize("error", [ConnectionRefusedError(), DNSLookupError(), OSError(2, "x")])
def test_refused_is_skipped(error: Exception) -> None:
    """A target that refuses costs no connection: the next one is tried at once, and the
    refusing one only after ``retry_after``."""
    field = Field(A, B)
    field.endpoints[A].outcome = error
    assert [_target(field.dial()) for _ in range(4)] == [B] * 4
    assert field.endpoints[A].calls == 1
    field.clock.advance(10)
    field.endpoints[A].outcome = None
    assert _target(field.dial()) == A


def test_silent_is_given_up() -> None:
    """A target that does not answer within ``connect_timeout`` is given up for the next."""
    field = Field(A, B)
    field.endpoints[A].hangs = True
    outcome = field.dial()
    field.clock.advance(4.9)
    assert outcome == []
    field.clock.advance(0.1)
    assert _target(outcome) == B
    assert field.endpoints[A].cancelled == 1
    assert field.clock.getDelayedCalls() == []


def test_all_down() -> None:
    """Where none can be reached, the failure names each with its reason; the next
    connection tries them all again."""
    field = Field(A, B)
    field.endpoints[A].outcome = ConnectionRefusedError(111, "Connection refused")
    field.endpoints[B].hangs = True
    for _ in range(2):
        outcome = field.dial()
        field.clock.advance(5)
        error = _error(outcome)
        assert isinstance(error, Unreachable)
        assert sorted(str(error).split("; ")) == [
            "127.0.0.1:1: connection refused",
            "127.0.0.1:2: no answer within 5 s",
        ]
        assert not error.timed_out
        assert {one.target: one.timed_out for one in error.attempts} == {A: False, B: True}
    assert field.endpoints[A].calls == 2
    only = Field(A)
    only.endpoints[A].hangs = True
    outcome = only.dial()
    only.clock.advance(5)
    error = _error(outcome)
    assert isinstance(error, Unreachable)
    assert error.timed_out


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(), "connection refused"),
        (DNSLookupError("x"), "the host name does not resolve"),
        (NoRouteError(113, "No route to host"), "no route to it"),
        (ConnectError(2, "No such file or directory"), "no such file or directory"),
        (ConnectError(), "ConnectError: An error occurred while connecting."),
        (OSError(13, "Permission denied"), "permission denied"),
        (TCPTimedOutError(), "no answer within 5 s"),
        (ConnectError(0, "a\nb"), r"a\nb"),
    ],
)
def test_a_failure_is_one_line_of_words(cause: Exception, words: str) -> None:
    """What went wrong is said in words, on one line."""
    field = Field(A)
    field.endpoints[A].outcome = cause
    assert str(_error(field.dial())) == f"127.0.0.1:1: {words}"


@pytest.mark.parametrize("error", [NoProtocol(), ZeroDivisionError()])
def test_own_failures(error: Exception) -> None:
    """What is not the target's fault is passed on as it is, and marks no target."""
    field = Field(A, B)
    field.endpoints[A].outcome = error
    assert _error(field.dial()) is error
    field.endpoints[A].outcome = None
    assert [_target(field.dial()) for _ in range(2)] == [B, A]


def test_a_cancelled_connect_tries_no_other_target() -> None:
    """Who no longer wants the connection stops the attempt, and no other target is tried."""
    field = Field(A, B)
    field.endpoints[A].hangs = True
    outcome = field.dial()
    field.dialling.cancel()
    assert isinstance(_error(outcome), CancelledError)
    assert field.endpoints[A].cancelled == 1
    assert field.endpoints[B].calls == 0
    assert field.clock.getDelayedCalls() == []


def test_endpoints_may_fail_as_they_like_when_cancelled() -> None:
    """Twisted's endpoints fail with an error of their own where a Deferred is cancelled;
    it is a timeout all the same."""
    field = Field(A)
    hanging: Deferred[object] = Deferred(
        lambda deferred: deferred.errback(ConnectingCancelledError(None))
    )
    connect: Callable[..., object] = lambda factory: hanging  # noqa: E731
    field.endpoints[A].connect = connect  # type: ignore[method-assign, assignment]
    outcome = field.dial()
    field.clock.advance(5)
    error = _error(outcome)
    assert isinstance(error, Unreachable)
    assert error.timed_out


def test_is_an_endpoint() -> None:
    """It can stand where Twisted wants a client endpoint, as twisted.web's client does."""
    field = Field(A)
    assert verifyObject(IStreamClientEndpoint, field.backends)
    outcome: list[object] = []
    field.backends.connect(field.factory).addBoth(outcome.append)
    assert outcome == field.factory.protocols


def test_same_target_twice() -> None:
    """A target that is named twice is one target."""
    field = Field(A, A)
    field.endpoints[A].outcome = ConnectionRefusedError()
    error = _error(field.dial())
    assert isinstance(error, Unreachable)
    assert len(error.attempts) == 1


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL])
def test_what_this_machine_lacks_takes_no_target_down(code: int) -> None:
    """Without descriptors or ports nothing is known of a target."""
    field = Field(A, B)
    for endpoint in field.endpoints.values():
        endpoint.outcome = getConnectError((code, os.strerror(code)))
    error = _error(field.dial())
    assert isinstance(error, Unreachable)
    assert os.strerror(code).lower() in str(error)
    assert [state.is_up for state in field.backends.states] == [None, None]
    for endpoint in field.endpoints.values():
        endpoint.outcome = None
    assert [_target(field.dial()) for _ in range(2)] == [A, B]
