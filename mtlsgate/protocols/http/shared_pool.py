"""
The connections of HTTP/2 to targets, each for many requests at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from mtlsgate.protocols.http.idle_sweep import IdleSweep
from mtlsgate.protocols.http.target_http2 import Http2Target, Keeper
from mtlsgate.protocols.http.target_side import TargetSide
from mtlsgate.upstream.backends import Backends, Dialled, FailedAttempt, Unreachable
from mtlsgate.upstream.checks import HealthChecker
from mtlsgate.upstream.state import TargetState, TargetUse
from mtlsgate.upstream.targets import Target


class Http2TargetFactory(Factory):
    """Makes connections of HTTP/2."""

    noisy = False

    def __init__(self, keeper: Keeper, clock: IReactorTime, *, tls: bool, seconds: float) -> None:
        """The parameters are those of `Http2Target`."""
        self._keeper = keeper
        self._clock = clock
        self._tls = tls
        self._seconds = seconds

    def buildProtocol(self, addr: IAddress | None) -> Http2Target:
        """:returns: a connection."""
        return Http2Target(self._keeper, self._clock, tls=self._tls, seconds=self._seconds)


@frozen(eq=False)
class _Waiting:
    """
    A request that waits for a connection.

    :ivar use: counts it for the target that was chosen, if one was.
    """

    place: Deferred[TargetSide]
    use: TargetUse | None

    def end(self) -> None:
        """It does not go to that target."""
        if self.use is not None:
            self.use.end()


@define(eq=False)
class _Queue:
    """
    The requests that wait for the same connection.

    :ivar state: of the target that was chosen, or None.
    :ivar waiting: the requests.
    :ivar is_dialling: whether the connection is being made.
    """

    state: TargetState | None
    waiting: deque[_Waiting] = field(factory=deque)
    is_dialling: bool = False


class SharedPool:
    """
    Shares connections among requests, and makes another when all are full
    (`mtlsgate.protocols.http.target_side.Pool`).

    :ivar backends: connects.
    :ivar _open: the connections that take requests, by target.
    :ivar _queues: those that wait for a connection that is being made, by the target that was
        chosen: all of them wait for one.
    :ivar _trust: by which the targets of the open connections were verified.
    """

    def __init__(
        self,
        backends: Backends,
        clock: IReactorTime,
        *,
        keep: int,
        keep_for: float,
        tls: bool,
        seconds: float,
        checker: HealthChecker | None = None,
    ) -> None:
        """
        :param keep: how many connections without requests to keep to each target.
        :param keep_for: for how many seconds.
        :param tls: whether targets are spoken to with TLS.
        :param seconds: for which a target may take nothing.
        :param checker: checks the targets.
        """
        self.backends = backends
        self._clock = clock
        self._keep = keep
        self._checker = checker
        self._factory = Http2TargetFactory(self, clock, tls=tls, seconds=seconds)
        self._open: dict[Target, list[Http2Target]] = {}
        self._queues: dict[TargetState | None, _Queue] = {}
        self._sweep = IdleSweep(clock, keep_for, self._close_old)
        self._stopped = False
        self._trust = backends.trust

    def take(self, *, fresh: bool, replayable: bool) -> TargetSide | Deferred[TargetSide]:
        """:returns: a place for one request (`Pool`).  A connection that failed is not kept, so
        that nothing depends on the parameters."""
        if self._trust != self.backends.trust:
            self._retire_all()
        state = self.backends.rotation.choose(self._clock.seconds())
        if state is not None:
            for connection in self._open.get(state.target, ()):
                if connection.has_room:
                    return connection.take(TargetUse(state))
        queue = self._queues.get(state)
        if queue is None:
            queue = self._queues[state] = _Queue(state)
        waiting = _Waiting(
            Deferred(partial(_forget, queue)), None if state is None else TargetUse(state)
        )
        queue.waiting.append(waiting)
        if not queue.is_dialling:
            self._dial(queue)
        return waiting.place

    def _dial(self, queue: _Queue) -> None:
        queue.is_dialling = True
        dialling = self.backends.dial(self._factory, first=queue.state)
        connected = partial(self._connected, queue, self.backends.trust)
        dialling.addCallbacks(connected, partial(self._fail, queue))

    def _retire_all(self) -> None:
        """No request goes to a target again that was verified in another way."""
        self._trust = self.backends.trust
        for found in self._open.values():
            while found:
                found.pop().retire()

    def _connected(self, queue: _Queue, trust: int, dialled: Dialled) -> None:
        connection, state = dialled.protocol, dialled.use.state
        assert isinstance(connection, Http2Target)
        dialled.use.end()
        connection.reached(state)
        if trust != self.backends.trust:
            connection.retire()
            self._dial(queue)
            return
        self._open.setdefault(state.target, []).append(connection)
        served = 0
        while queue.waiting and connection.has_room:
            waiting = queue.waiting.popleft()
            waiting.end()
            served += 1
            waiting.place.callback(connection.take(TargetUse(state)))
        if queue.waiting and served:
            # It is full: those that are left wait for another.
            self._dial(queue)
        else:
            self._fail(queue, Unreachable([FailedAttempt(state.target, "it takes no requests")]))
        if connection.is_idle:
            self.idle(connection)

    def _fail(self, queue: _Queue, failure: Failure | Unreachable) -> None:
        """Nobody waits any longer: those who do are told why."""
        self._queues.pop(queue.state, None)
        while queue.waiting:
            waiting = queue.waiting.popleft()
            waiting.end()
            waiting.place.errback(failure)

    # What connections tell (`Keeper`).

    def idle(self, connection: Http2Target) -> None:
        """A connection has no requests any more."""
        if self._stopped or self._keep == 0:
            connection.close()
            return
        found = [one for one in self._open.get(connection.state.target, ()) if one.is_idle]
        if len(found) > self._keep:
            min(found, key=lambda one: one.idle_since).close()
        self._sweep.begin()

    def remove(self, connection: Http2Target) -> None:
        """Forget a connection that takes no more requests."""
        for found in self._open.values():
            if connection in found:
                found.remove(connection)

    def _idle(self) -> list[Http2Target]:
        return [one for found in self._open.values() for one in found if one.is_idle]

    def _close_old(self, is_old: Callable[[float], bool]) -> float | None:
        for connection in self._idle():
            if is_old(connection.idle_since):
                connection.close()
        return min((one.idle_since for one in self._idle()), default=None)

    # (`Pool`)

    def start(self) -> None:
        """Keep connections, and check the targets."""
        self._stopped = False
        if self._checker is not None:
            self._checker.start()

    def stop(self) -> None:
        """Close what is free, keep no more, and check no more."""
        self._stopped = True
        if self._checker is not None:
            self._checker.stop()
        self._sweep.stop()
        for connection in self._idle():
            connection.close()


def _forget(queue: _Queue, place: Deferred[TargetSide]) -> None:
    """Its request is over."""
    for waiting in queue.waiting:
        if waiting.place is place:
            queue.waiting.remove(waiting)
            waiting.end()
            return
