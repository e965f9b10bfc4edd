"""
Everybody who is told what happens to connections: log, audit log, counts, recent
rejections, the last hour, and who waits for changes.
"""

from __future__ import annotations

from attrs import field, frozen

from mtlsgate.gate.events import Observer
from mtlsgate.observe.audit import AuditLog
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.history import History
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.observe.recent_rejections import RecentRejections


@frozen(kw_only=True)
class Observers:
    """
    The observers of one service.

    :ivar audit: writes the audit log.
    :ivar log: writes to Twisted's log, in words.
    :ivar counts: counts, for the metrics.
    :ivar recent: remembers the latest rejections.
    :ivar history: counts by minutes.
    :ivar changes: tells those who wait for something to happen.
    """

    history: History
    changes: Changes
    audit: AuditLog = field(factory=AuditLog)
    log: HumanLog = field(factory=HumanLog)
    counts: Counts = field(factory=Counts)
    recent: RecentRejections = field(factory=RecentRejections)

    @property
    def all(self) -> tuple[Observer, ...]:
        """The audit log first: nobody comes in who might not stand in it."""
        return (self.audit, self.log, self.counts, self.recent, self.history, self.changes)

    def set_quiet(self, quiet: bool) -> None:
        """:param quiet: whether to leave out connections that come and go without a byte."""
        self.log.set_quiet(quiet)
        self.recent.set_quiet(quiet)
