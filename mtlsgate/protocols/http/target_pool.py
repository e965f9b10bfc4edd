"""
The connections to targets: which are open, which are free.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory

from mtlsgate.protocols.http.idle_sweep import IdleSweep
from mtlsgate.protocols.http.target_connection import Keeper, TargetConnection
from mtlsgate.protocols.http.target_side import TargetSide
from mtlsgate.upstream.backends import Backends, Dialled
from mtlsgate.upstream.checks import HealthChecker
from mtlsgate.upstream.state import TargetUse
from mtlsgate.upstream.targets import Target

#: Seconds since a connection's last use, for a request that cannot be sent twice: no target
#: closes a connection so soon.
RECENT = 1.0
#: Seconds until a connection that was closed is reset.
_FAREWELL = 10.0


class _ConnectionFactory(Factory):
    noisy = False

    def __init__(self, keeper: Keeper, *, lenient: bool) -> None:
        self._keeper = keeper
        self._lenient = lenient

    def buildProtocol(self, addr: IAddress | None) -> TargetConnection:
        return TargetConnection(self._keeper, lenient=self._lenient)


class TargetPool:
    """
    Keeps connections, for each target those that were used last.

    :ivar backends: connects.
    """

    def __init__(
        self,
        backends: Backends,
        clock: IReactorTime,
        *,
        keep: int,
        keep_for: float,
        lenient: bool = False,
        checker: HealthChecker | None = None,
    ) -> None:
        """
        :param keep: how many free connections to keep to each target.
        :param keep_for: for how many seconds.
        :param lenient: whether to take what some old servers write.
        :param checker: checks the targets.
        """
        self.backends = backends
        self._clock = clock
        self._keep = keep
        self._lenient = lenient
        self._free: dict[Target, list[TargetConnection]] = {}
        self._farewells: dict[TargetConnection, IDelayedCall] = {}
        self._sweep = IdleSweep(clock, keep_for, self._close_old)
        self._stopped = False
        self._checker = checker

    def take(self, *, fresh: bool, replayable: bool) -> TargetSide | Deferred[TargetSide]:
        """
        :param fresh: whether to make a new one in any case.
        :param replayable: whether the request can be sent again.
        :returns: a connection to the target whose turn it is; the Deferred
            fails with `Unreachable`.
        """
        state = self.backends.rotation.choose(self._clock.seconds())
        if not fresh and state is not None:
            free = self._free.get(state.target, [])
            while free:
                found = free.pop()
                if not found.usable or found.trust != self.backends.trust:
                    found.close()
                    continue
                if not replayable and self._clock.seconds() - found.idle_since > RECENT:
                    free.append(found)
                    break
                found.taken(TargetUse(state))
                return found
        dialling = self.backends.dial(_ConnectionFactory(self, lenient=self._lenient), first=state)
        return dialling.addCallback(self._connected, self.backends.trust)

    def _connected(self, dialled: Dialled, trust: int) -> TargetSide:
        connection = dialled.protocol
        assert isinstance(connection, TargetConnection)
        return connection.reached(dialled.target, dialled.use, trust)

    def put(self, connection: TargetConnection) -> None:
        """Take a connection back that is free again."""
        free = self._free.setdefault(connection.target, [])
        if self._stopped or self._keep == 0:
            connection.close()
            return
        if len(free) >= self._keep:
            free.pop(0).close()
        connection.rest(self._clock.seconds())
        free.append(connection)
        self._sweep.begin()

    def remove(self, connection: TargetConnection) -> None:
        """Forget a connection that is over."""
        farewell = self._farewells.pop(connection, None)
        if farewell is not None and farewell.active():
            farewell.cancel()
        for free in self._free.values():
            if connection in free:
                free.remove(connection)

    def ending(self, connection: TargetConnection) -> None:
        """Make sure that a connection that is ended comes to an end."""
        if connection not in self._farewells:
            end = partial(connection.transport.abortConnection)
            self._farewells[connection] = self._clock.callLater(_FAREWELL, end)

    def _close_old(self, is_old: Callable[[float], bool]) -> float | None:
        for free in self._free.values():
            while free and is_old(free[0].idle_since):
                free.pop(0).close()
        return min((free[0].idle_since for free in self._free.values() if free), default=None)

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
        for free in self._free.values():
            while free:
                free.pop().close()
