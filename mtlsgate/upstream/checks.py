"""
Checks of targets: each is asked again and again whether it is up.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.config import Duration
from mtlsgate.text import printable
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.relay import StreamTransport
from mtlsgate.upstream.state import TargetState

_log = Logger("mtlsgate.targets")
#: Seconds until a connection that a check closed is reset.
_FAREWELL = 5.0


@frozen(kw_only=True)
class HealthCheck:
    """
    The ``health_check`` block of a protocol that connects to targets.

    :ivar interval: seconds from one check of a target to the next.
    :ivar timeout: how long a check may take, in seconds.
    """

    interval: Duration = 10.0
    timeout: Duration = 5.0


class Unhealthy(Exception):
    """A target can be reached, but is not well; the text says why."""


class Closing(Protocol):
    """
    Closes its connection at once, and resets it if that takes too long.

    :ivar _farewell: the timer for that; None if the connection is not closing.
    """

    transport: StreamTransport  # type: ignore[assignment]
    _farewell: IDelayedCall | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def close(self) -> None:
        """Close the connection."""
        self._farewell = self._clock.callLater(_FAREWELL, self.transport.abortConnection)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is over."""
        if self._farewell is not None and self._farewell.active():
            self._farewell.cancel()


class _ClosingFactory(Factory):
    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock

    def buildProtocol(self, addr: IAddress | None) -> Closing:
        return Closing(self._clock)


@frozen
class ConnectCheck:
    """
    Checks whether a target takes connections; with TLS, whether it is verified.

    :ivar backends: connects.
    :ivar clock: limits how long closing takes.
    :ivar preface: what to send first.
    """

    backends: Backends
    clock: IReactorTime
    preface: bytes = b""

    def __call__(self, state: TargetState) -> Deferred[None]:
        """:returns: a Deferred that fails if the target is not up."""
        connecting = self.backends.attempt(state, _ClosingFactory(self.clock), self.preface)
        return connecting.addCallback(_close)


def _close(protocol: object) -> None:
    assert isinstance(protocol, Closing)
    protocol.close()


class HealthChecker:
    """
    Checks each target of a server, one check of a target at a time.

    :ivar backends: the targets; gets to know the results.
    """

    def __init__(
        self,
        backends: Backends,
        check: Callable[[TargetState], Deferred[None]],
        terms: HealthCheck,
        clock: IReactorTime,
    ) -> None:
        """
        :param check: checks one target; its Deferred fails if the target is not up.
        :param terms: how often, and how long it may take.
        """
        self.backends = backends
        self._check = check
        self._terms = terms
        self._clock = clock
        self._underway: dict[TargetState, Deferred[None]] = {}
        self._timers: dict[TargetState, IDelayedCall] = {}
        self._is_running = False

    def start(self) -> None:
        """Check all targets now, and again and again from then on."""
        if not self._is_running:
            self._is_running = True
            for state in self.backends.states:
                self._begin(state)

    def stop(self) -> None:
        """Check no more."""
        self._is_running = False
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        underway, self._underway = self._underway, {}
        for checking in underway.values():
            checking.cancel()

    def _begin(self, state: TargetState) -> None:
        """Check a target, and have it checked again."""
        self._timers.pop(state, None)
        began = self._clock.seconds()
        checking = succeed(state).addCallback(self._check)
        checking.addTimeout(self._terms.timeout, self._clock, self._late)
        self._underway[state] = checking
        checking.addCallbacks(
            lambda _: self.backends.reachable(state), lambda failure: self._failed(state, failure)
        )
        checking.addBoth(lambda _: self._again(state, began))

    def _late(self, result: Failure | None, seconds: float) -> Failure | None:
        return Failure(Unhealthy(f"no answer within {seconds:g} s"))

    def _failed(self, state: TargetState, failure: Failure) -> None:
        if not self._is_running or failure.check(CancelledError):
            return
        if failure.check(Unhealthy):
            problem = printable(str(failure.value))
        else:
            try:
                attempt = self.backends.describe(state.target, failure)
            except Exception:  # noqa: BLE001 -- a fault of the check: the next one goes on
                _log.failure("a check of a target failed", failure=failure)
                problem = "the check failed: see the log"
            else:
                if attempt.is_own:
                    return
                problem = attempt.problem
        self.backends.unreachable(state, problem)

    def _again(self, state: TargetState, began: float) -> None:
        self._underway.pop(state, None)
        if self._is_running:
            wait = max(0.0, began + self._terms.interval - self._clock.seconds())
            self._timers[state] = self._clock.callLater(wait, self._begin, state)
