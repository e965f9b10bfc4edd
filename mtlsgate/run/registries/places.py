"""
Places: how many connections a client has to all gates together.

A place is a lease in a registry, renewed until the connection ends.  The places of a gate
that dies go when their time is over.  While the registry does not answer, places cannot be
taken: new clients are rejected, or with ``last_known`` each gate counts for itself, and
what is too much ends when the registry is back.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import uuid4

import attrs
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.reasons import Reason
from mtlsgate.registry.store import StoreError
from mtlsgate.run.registries.desk import Desk
from mtlsgate.text import printable, quoted, safe_line

_log = Logger("mtlsgate.registries")

#: How long a place is kept without a renewal, and how often it is renewed, in seconds.
LEASE, RENEWAL = 30.0, 10.0
#: Seconds between two looks at what must be renewed; renewals at a time.
_INTERVAL = 1.0
_AT_ONCE = 64

#: Told that a connection has lost its place: its number, and why.
Lost = Callable[[int, Rejection], object]


@attrs.define(eq=False)
class _Place:
    """
    :ivar registry: its label.
    :ivar key: whose.
    :ivar holder: who has it, unique over all gates.
    :ivar most: how many there are.
    :ivar due: when it is renewed, in the clock's seconds.
    :ivar is_renewing: whether that happens now.
    """

    registry: str
    key: str
    holder: str
    most: int
    due: float
    is_renewing: bool = False


class Places:
    """The places of a service's connections, by their numbers."""

    def __init__(self, desk: Callable[[str], Desk | None], clock: IReactorTime) -> None:
        """:param desk: returns the registry with a label."""
        self._desk = desk
        self._clock = clock
        self._gate = uuid4().hex
        self._places: dict[int, _Place] = {}
        self._lost: list[Lost] = []
        self._renewing = 0
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def __len__(self) -> int:
        return len(self._places)

    def subscribe(self, lost: Lost) -> None:
        """:param lost: is told when a connection must end."""
        self._lost.append(lost)

    def take(self, registry: str, key: str, number: int, most: int) -> Deferred[Rejection | None]:
        """
        :param key: whose place.
        :param number: the connection's.
        :param most: how many places there are.
        :returns: a Deferred with why there is none, or None; it never fails.
        """
        place = _Place(
            registry, key, f"{self._gate}:{number}", most, self._clock.seconds() + RENEWAL
        )
        self._places[number] = place
        if not self._looking.running:
            self._looking.start(_INTERVAL, now=False)
        return self._lease(place).addBoth(self._took, number, place)

    def give_back(self, number: int) -> None:
        """The connection is over, or was never admitted."""
        place = self._places.pop(number, None)
        if place is not None:
            self._release(place)
        if not self._places and self._looking.running:
            self._looking.stop()

    def _release(self, place: _Place) -> None:
        desk = self._desk(place.registry)
        if desk is not None:
            desk.release(place.key, place.holder)

    def _lease(self, place: _Place) -> Deferred[bool]:
        desk = self._desk(place.registry)
        if desk is None:
            failed: Deferred[bool] = Deferred()
            failed.errback(StoreError("the configuration in force has no such registry"))
            return failed
        return desk.lease(place.key, place.holder, place.most, LEASE)

    def _took(self, result: bool | Failure, number: int, place: _Place) -> Rejection | None:
        if self._places.get(number) is not place:
            # The client left meanwhile.
            self._release(place)
            return Rejection(Reason.PEER_GONE, "it went away")
        if result is True:
            return None
        desk = self._desk(place.registry)
        if isinstance(result, Failure):
            if desk is not None and desk.registry.on_outage == "last_known":
                # It is tried again with the renewals.
                place.due = self._clock.seconds() + _INTERVAL
                return None
            del self._places[number]
            # It may have been taken all the same.
            self._release(place)
            return _unavailable(place, result)
        del self._places[number]
        return _full(place)

    def _look(self) -> None:
        now = self._clock.seconds()
        for number, place in tuple(self._places.items()):
            if self._renewing >= _AT_ONCE:
                return
            if place.due <= now and not place.is_renewing:
                place.is_renewing = True
                self._renewing += 1
                self._lease(place).addBoth(self._renewed, number, place)

    def _renewed(self, result: bool | Failure, number: int, place: _Place) -> None:
        self._renewing -= 1
        place.is_renewing = False
        if self._places.get(number) is not place:
            self._release(place)
            return
        if result is True:
            place.due = self._clock.seconds() + RENEWAL
        elif isinstance(result, Failure):
            place.due = self._clock.seconds() + _INTERVAL
        else:
            # It was away for so long that others took its place.
            del self._places[number]
            for lost in self._lost:
                lost(number, _full(place))


def _full(place: _Place) -> Rejection:
    where = f"registry {quoted(place.registry)}"
    return Rejection(
        Reason.TOO_MANY_OF_IDENTITY,
        f"{where}: the client has {place.most} connections to all gates, which is the limit",
        0,
    )


def _unavailable(place: _Place, failure: Failure) -> Rejection:
    if not failure.check(StoreError, CancelledError):
        _log.failure("taking a place in a registry failed", failure)
    why = failure.value if failure.check(StoreError) else "no answer in time"
    where = f"registry {quoted(place.registry)}"
    return Rejection(
        Reason.REGISTRY_UNAVAILABLE,
        f"{where}: its connections cannot be counted: {printable(safe_line(why))}",
        0,
    )
