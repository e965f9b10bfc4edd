"""
Places: how many connections a client has to all gates together.

A place is a lease in a registry, renewed until the connection ends.  The places of a gate
that dies run out.  While the registry does not answer, no place can be taken: new clients are
rejected; with ``last_known`` each gate counts for itself, and connections over the limit end
when the registry is back.

When another epoch counts in another registry, live connections are counted there at once,
even if they are more than it allows: a new limit is for new clients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from uuid import uuid4

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission import Rejection
from mtlsgate.gate.registries import Claim
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
#: More places than anybody takes; stores count with 32 bits.
_UNLIMITED = 2**31 - 1

#: Told that a connection has lost its place: its number, and why.
Lost = Callable[[int, Rejection], object]


@attrs.define(eq=False)
class _Place:
    """
    :ivar claim: whose it is, and where.
    :ivar desk: that registry; None if the configuration has none of that label.
    :ivar holder: who has it, unique over all gates.
    :ivar due: when it is renewed, in the clock's seconds.
    :ivar is_held: whether the connection has it, or still asks for it.
    :ivar is_renewing: whether a renewal waits for its turn, or for the answer.
    :ivar is_moved: whether another epoch has brought it here, and the registry does not
        know it yet: then it counts, whether or not there is room.
    """

    claim: Claim
    desk: Desk | None
    holder: str
    due: float
    is_held: bool = False
    is_renewing: bool = False
    is_moved: bool = False


class Places:
    """
    The places of a service's connections, by their numbers.

    :ivar _waiting: those to be renewed, in order.
    """

    def __init__(self, desk: Callable[[str], Desk | None], clock: IReactorTime) -> None:
        """:param desk: returns the registry with a label."""
        self._desk = desk
        self._clock = clock
        self._gate = uuid4().hex
        self._places: dict[int, _Place] = {}
        self._lost: list[Lost] = []
        self._waiting: deque[tuple[int, _Place]] = deque()
        self._renewing = 0
        self._is_going_on = False
        self._looking = LoopingCall(self._look)
        self._looking.clock = clock

    def __len__(self) -> int:
        return len(self._places)

    def subscribe(self, lost: Lost) -> None:
        """:param lost: is told when a connection must end."""
        self._lost.append(lost)

    def has(self, claim: Claim, number: int) -> bool:
        """:returns: whether a connection has that place."""
        place = self._places.get(number)
        return place is not None and place.is_held and place.claim == claim

    def take(self, claim: Claim, number: int) -> Deferred[Rejection | None]:
        """
        :param number: the connection's.
        :returns: a Deferred with why there is no place, or None; it never fails.  If another
            epoch takes over meanwhile, the connection may have none all the same: see `has`.
        """
        self.give_back(number)
        place = self._enter(claim, number)
        return self._lease(place).addBoth(self._took, number, place)

    def move(self, claim: Claim | None, number: int) -> None:
        """
        Count a live connection elsewhere.

        :param claim: None if it is not counted any more.
        """
        place = self._places.get(number)
        if claim is None:
            self.give_back(number)
        elif place is not None and _is_same(place.claim, claim):
            place.claim = claim
        else:
            if place is not None:
                self._release(place)
            self._bring(claim, number)

    def turned(self) -> None:
        """Other registries may have these labels now: in them places are taken anew."""
        for number, place in tuple(self._places.items()):
            desk = self._desk(place.claim.registry)
            # Who has none yet asks again when the answer is there.
            if place.is_held and desk is not None and desk is not place.desk:
                self._bring(place.claim, number)

    def give_back(self, number: int) -> None:
        """The connection is over, or was never admitted."""
        place = self._places.pop(number, None)
        if place is not None:
            self._release(place)
        if not self._places and self._looking.running:
            self._looking.stop()

    def _bring(self, claim: Claim, number: int) -> None:
        place = self._enter(claim, number)
        place.is_held = place.is_moved = True
        place.due = self._clock.seconds()

    def _enter(self, claim: Claim, number: int) -> _Place:
        # The holder stays the same: it may be the same store by another name.
        holder, desk = f"{self._gate}:{number}", self._desk(claim.registry)
        due = self._clock.seconds() + RENEWAL
        place = self._places[number] = _Place(claim, desk, holder, due)
        if not self._looking.running:
            self._looking.start(_INTERVAL, now=False)
        return place

    def _is_in_force(self, place: _Place) -> bool:
        return place.desk is not None and place.desk is self._desk(place.claim.registry)

    def _release(self, place: _Place) -> None:
        if place.desk is not None and self._is_in_force(place):
            place.desk.release(place.claim.key, place.holder)

    def _lease(self, place: _Place) -> Deferred[bool]:
        if place.desk is None or not self._is_in_force(place):
            return fail(StoreError("the configuration in force has no such registry"))
        most = _UNLIMITED if place.is_moved else place.claim.most
        return place.desk.lease(place.claim.key, place.holder, most, LEASE)

    def _took(self, result: bool | Failure, number: int, place: _Place) -> Rejection | None:
        if self._places.get(number) is not place:
            # The client left meanwhile.
            self._release(place)
            return Rejection(Reason.PEER_GONE, "it went away")
        if place.desk is not None and not self._is_in_force(place):
            # Another epoch took over: its terms count.
            del self._places[number]
            return None
        if result is True:
            place.is_held = True
            return None
        if (
            isinstance(result, Failure)
            and place.desk is not None
            and place.desk.registry.on_outage == "last_known"
        ):
            # The renewals try again.
            place.is_held, place.due = True, self._clock.seconds() + _INTERVAL
            return None
        del self._places[number]
        if not isinstance(result, Failure):
            return _full(place)
        # It may have been taken all the same.
        self._release(place)
        return _unavailable(place, result)

    def _look(self) -> None:
        now = self._clock.seconds()
        for number, place in self._places.items():
            if place.due <= now and place.is_held and not place.is_renewing:
                place.is_renewing = True
                self._waiting.append((number, place))
        self._go_on()

    def _go_on(self) -> None:
        """Renew those that wait, so many at a time."""
        if self._is_going_on:
            return
        # A store may answer at once, and so call this again.
        self._is_going_on = True
        try:
            while self._waiting and self._renewing < _AT_ONCE:
                number, place = self._waiting.popleft()
                if self._places.get(number) is place:
                    self._renewing += 1
                    self._lease(place).addBoth(self._renewed, number, place)
        finally:
            self._is_going_on = False

    def _renewed(self, result: bool | Failure, number: int, place: _Place) -> None:
        self._renewing -= 1
        place.is_renewing = False
        if self._places.get(number) is not place:
            self._release(place)
        elif result is True:
            place.is_moved, place.due = False, self._clock.seconds() + RENEWAL
        elif isinstance(result, Failure):
            place.due = self._clock.seconds() + _INTERVAL
        else:
            # It was away for so long that others took its place.
            del self._places[number]
            for lost in self._lost:
                lost(number, _full(place))
        self._go_on()


def _is_same(one: Claim, other: Claim) -> bool:
    """:returns: whether they are the same place; the limit may be another."""
    return (one.registry, one.key) == (other.registry, other.key)


def _full(place: _Place) -> Rejection:
    where = f"registry {quoted(place.claim.registry)}"
    return Rejection(
        Reason.TOO_MANY_OF_IDENTITY,
        f"{where}: the client has {place.claim.most} connections to all gates, which is the limit",
        0,
    )


def _unavailable(place: _Place, failure: Failure) -> Rejection:
    if not failure.check(StoreError, CancelledError):
        _log.failure("taking a place in a registry failed", failure)
    why = failure.value if failure.check(StoreError) else "no answer in time"
    where = f"registry {quoted(place.claim.registry)}"
    return Rejection(
        Reason.REGISTRY_UNAVAILABLE,
        f"{where}: its connections cannot be counted: {printable(safe_line(why))}",
        0,
    )
