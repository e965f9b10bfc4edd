"""
Chooses the next target: round robin, without those that are down.

Callers pass in the time; nothing is dialled here.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, field

from mtlsgate.upstream.targets import Target


@define(eq=False)
class Rotation:
    """
    The targets, and which of them failed recently.

    :ivar targets: the targets, in the order of use.
    :ivar retry_after: for how many seconds a failed target is skipped.
    :ivar _next: the index to try first.
    :ivar _down_until: by index, until when a failed target is skipped.
    """

    targets: tuple[Target, ...]
    retry_after: float
    _next: int = field(default=0, init=False)
    _down_until: dict[int, float] = field(factory=dict, init=False)

    def choose(self, now: float, tried: Collection[Target] = ()) -> Target | None:
        """
        :param tried: the targets that have already failed for this connection.
        :returns: the next target that is not down.  If all are down, one of them,
            so that no connection fails without a try.  None if all were tried.
        """
        count, down_until = len(self.targets), self._down_until
        places = [(self._next + step) % count for step in range(count)]
        left = [place for place in places if self.targets[place] not in tried]
        up = [place for place in left if down_until.get(place, now) <= now]
        if not left:
            return None
        chosen = (up or left)[0]
        self._next = (chosen + 1) % count
        if chosen in down_until:
            # One connection finds out whether it is back; the others still skip it.
            down_until[chosen] = now + self.retry_after
        return self.targets[chosen]

    def failed(self, target: Target, now: float) -> None:
        """Note that a target could not be reached."""
        self._down_until[self.targets.index(target)] = now + self.retry_after

    def answered(self, target: Target) -> None:
        """Note that a target could be reached."""
        self._down_until.pop(self.targets.index(target), None)
