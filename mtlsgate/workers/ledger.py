"""
What is kept of workers that have ended.
"""

from __future__ import annotations

from attrs import define, field

from mtlsgate.observe.status import ServiceStatus
from mtlsgate.workers.member import Member
from mtlsgate.workers.summing import Counted, added


@define
class Ledger:
    """
    What workers told last, so that it is not lost when one ends.

    :ivar counters: of each worker's present process, by its index.
    :ivar gone: those of all processes that have ended.
    :ivar rejected: how many connections each worker's process has rejected.
    :ivar rejected_before: those of processes that have ended.
    :ivar service: the last status.
    """

    counters: dict[int, Counted] = field(factory=dict)
    gone: Counted = field(factory=dict)
    rejected: dict[int, int] = field(factory=dict)
    rejected_before: int = 0
    service: ServiceStatus | None = None

    def forget(self, member: Member) -> None:
        """A worker's process has ended."""
        self.gone = added(self.gone, self.counters.pop(member.index, {}))
        self.rejected_before += self.rejected.pop(member.index, 0)
