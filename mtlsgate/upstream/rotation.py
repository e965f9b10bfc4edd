"""
Which of several targets is next: round robin, past those that are down.

The time comes in with each call, and nothing is dialled here.
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import define, field

from mtlsgate.upstream.targets import Target


@define(eq=False)
class Rotation:
    """
    The targets, and which of them failed not long ago.

    :ivar targets: in the order they are used in.
    :ivar retry_after: seconds for which a target that failed is passed over.
    :ivar _next: the place that is looked at first.
    :ivar _down_until: by place, until when what failed is passed over.
    """

    targets: tuple[Target, ...]
    retry_after: float
    _next: int = field(default=0, init=False)
    _down_until: dict[int, float] = field(factory=dict, init=False)

    def choose(self, now: float, tried: Collection[Target] = ()) -> Target | None:
        """
        :param tried: what was tried in vain already, for this connection.
        :returns: the next target that is not down; if all are, one that is,
            so that nothing fails without a try; None if all were tried.
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
            # One connection finds out whether it is back; the others still pass it over.
            down_until[chosen] = now + self.retry_after
        return self.targets[chosen]

    def failed(self, target: Target, now: float) -> None:
        """Note that a target could not be reached."""
        self._down_until[self.targets.index(target)] = now + self.retry_after

    def answered(self, target: Target) -> None:
        """Note that a target could be reached."""
        self._down_until.pop(self.targets.index(target), None)
