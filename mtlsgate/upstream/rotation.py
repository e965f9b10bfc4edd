"""
Chooses the next target among those that are up: in turn, or the least used.

Callers pass in the time; nothing is dialled here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import reduce
from math import gcd
from typing import Literal

from attrs import define, field, frozen

from mtlsgate.upstream.state import TargetState
from mtlsgate.upstream.targets import Target

#: How a target is chosen.
Balance = Literal["round_robin", "least_connections"]


@frozen
class Member:
    """
    A target of a rotation.

    :ivar state: what is known of it.
    :ivar weight: its share, in proportion to the others' weights.
    :ivar is_backup: whether it is used only while no other target is up.
    """

    state: TargetState
    weight: int = 1
    is_backup: bool = False


@define(eq=False)
class _Tier:
    """
    Members that share the load.

    :ivar order: the members in the order of their turns.
    :ivar _next: the index in `order` whose turn it is.
    """

    order: tuple[Member, ...]
    balance: Balance
    _next: int = field(default=0, init=False)

    def choose(self, is_wanted: Callable[[TargetState], bool]) -> TargetState | None:
        """:returns: the wanted one whose turn it is, or that is used least; or None."""
        order, count = self.order, len(self.order)
        found: int | None = None
        least = 0.0
        for step in range(count):
            place = (self._next + step) % count
            one = order[place]
            if not is_wanted(one.state):
                continue
            if self.balance == "round_robin":
                found = place
                break
            load = (one.state.in_use + 1) / one.weight
            if found is None or load < least:
                found, least = place, load
        if found is None:
            return None
        self._next = (found + 1) % count
        return order[found].state


class Rotation:
    """
    The targets of a server, and whose turn it is.

    :ivar members: the targets, in the order of the configuration.
    :ivar retry_after: for how many seconds a target that is down is skipped; None if
        until something else finds it up.
    """

    def __init__(
        self,
        members: Sequence[Member],
        retry_after: float | None,
        balance: Balance = "round_robin",
    ) -> None:
        self.members = tuple(members)
        self.retry_after = retry_after
        self._tiers = tuple(
            _Tier(tuple(_in_turn(tier) if balance == "round_robin" else tier), balance)
            for tier in (
                [one for one in members if not one.is_backup],
                [one for one in members if one.is_backup],
            )
            if tier
        )

    def choose(self, now: float, tried: Collection[Target] = ()) -> TargetState | None:
        """
        :param tried: the targets that have already failed for this connection.
        :returns: the next target that is not down.  If all are down, one of them,
            so that no connection fails without a try.  None if all were tried.
        """

        def is_left(state: TargetState) -> bool:
            return state.target not in tried

        def is_usable(state: TargetState) -> bool:
            return self.is_usable(state, now) and is_left(state)

        for is_wanted in (is_usable, is_left):
            for tier in self._tiers:
                chosen = tier.choose(is_wanted)
                if chosen is not None:
                    if chosen.is_up is False:
                        # One connection finds out whether it is back; the others still
                        # skip it.
                        chosen.tried_at = now
                    return chosen
        return None

    def is_usable(self, state: TargetState, now: float) -> bool:
        """:returns: whether a target is not down, or due to be tried again."""
        if state.is_up is not False:
            return True
        return self.retry_after is not None and state.tried_at + self.retry_after <= now


def _in_turn(members: Sequence[Member]) -> Iterator[Member]:
    """
    Yield each as often as its weight says, those of one target far apart.

    Each round the one that is furthest behind its share gets a turn.
    """
    divisor = reduce(gcd, (one.weight for one in members))
    weights = [one.weight // divisor for one in members]
    total, behind = sum(weights), [0] * len(members)
    for _ in range(total):
        behind = [one + weight for one, weight in zip(behind, weights, strict=True)]
        chosen = behind.index(max(behind))
        behind[chosen] -= total
        yield members[chosen]
