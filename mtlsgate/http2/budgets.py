"""
How much a client may send that carries nothing, without any I/O.

Some frames cost a server more than they cost the client that sends them.  All of them are
legal, and clients that mean well send some.  So each kind has a budget: it begins full, is
spent frame by frame, and is refilled by time and by what the client does that is useful.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType

from attrs import frozen
from h2.errors import ErrorCodes

from mtlsgate.http2.faults import ConnectionFault


class Spent(Enum):
    """What costs; the value is how the log names it."""

    RESET = "resets of streams"
    PING = "PING frames"
    SETTINGS = "SETTINGS frames"
    PRIORITY = "PRIORITY frames"
    EMPTY = "DATA frames without data"
    WINDOW = "WINDOW_UPDATE frames"
    STRAY = "frames for streams that are over"
    UNKNOWN = "frames of unknown types"


@frozen
class Allowance:
    """
    :ivar burst: how many at once, when nothing came for a while.
    :ivar rate: how many a second, for ever.
    """

    burst: int
    rate: float


#: RESET is for CVE-2023-44487 (by the client) and CVE-2025-8671 (by the server, because of
#: what the client sent): each costs a request that nobody waits for.  A browser that leaves a
#: page resets all that is underway at once.  PING to EMPTY are CVE-2019-9512, 9515, 9513 and
#: 9518, and WINDOW is CVE-2019-9511: windows opened byte by byte.
ALLOWANCES: Mapping[Spent, Allowance] = MappingProxyType(
    {
        Spent.RESET: Allowance(200, 20.0),
        Spent.PING: Allowance(100, 10.0),
        Spent.SETTINGS: Allowance(20, 1.0),
        Spent.PRIORITY: Allowance(200, 20.0),
        Spent.EMPTY: Allowance(100, 10.0),
        Spent.WINDOW: Allowance(1000, 100.0),
        Spent.STRAY: Allowance(1000, 100.0),
        Spent.UNKNOWN: Allowance(100, 10.0),
    }
)
#: What each useful step gives back, to these budgets: a request that was answered in full, a
#: piece of a body that came, a piece that was sent, a KiB that was sent.  Browsers send
#: PRIORITY_UPDATE (RFC 9218, 7.1), which is not known here, for requests; clients of gRPC PING
#: when a message comes, to measure the way.
_ANSWERED = (Spent.RESET, Spent.PING, Spent.SETTINGS, Spent.PRIORITY, Spent.UNKNOWN)
_CAME = (Spent.PING, Spent.WINDOW)
_SENT = (Spent.PING,)
_SENT_KIB = (Spent.WINDOW,)


class Budgets:
    """
    The budgets of one connection.

    :ivar _left: what is left of each budget that is not full.
    :ivar _since: when it was refilled last, in the clock's seconds.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        """
        :param seconds: the time.
        """
        self._seconds = seconds
        self._left: dict[Spent, float] = {}
        self._since: dict[Spent, float] = {}

    def spend(self, what: Spent) -> None:
        """:raises ConnectionFault: if nothing is left."""
        allowance, now = ALLOWANCES[what], self._seconds()
        left = self._left.get(what, float(allowance.burst))
        left += max(0.0, now - self._since.get(what, now)) * allowance.rate
        left = min(left, float(allowance.burst)) - 1
        self._left[what], self._since[what] = left, now
        if left < 0:
            raise ConnectionFault(ErrorCodes.ENHANCE_YOUR_CALM, f"too many {what.value}")

    def answered(self) -> None:
        """A request was answered in full."""
        self._refill(_ANSWERED, 1)

    def came(self) -> None:
        """A piece of a body came."""
        self._refill(_CAME, 1)

    def sent(self, size: int) -> None:
        """A piece of a body was sent; it takes many bytes to refill the budget of windows, so
        that a window of one byte pays for nothing."""
        self._refill(_SENT, 1)
        self._refill(_SENT_KIB, size / 1024)

    def _refill(self, kinds: tuple[Spent, ...], amount: float) -> None:
        if not self._left:
            return
        for kind in kinds:
            left = self._left.get(kind)
            if left is not None:
                self._left[kind] = min(left + amount, float(ALLOWANCES[kind].burst))
