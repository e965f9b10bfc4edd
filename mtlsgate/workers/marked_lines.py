"""
Lines of the log that say which worker they come from.
"""

from __future__ import annotations

from attrs import frozen
from twisted.logger import LogEvent

from mtlsgate.observe.event_lines import LineMaker


@frozen
class OfWorker:
    """
    Makes the lines of a worker: text has ``worker N`` before the namespace, JSON a
    field ``worker``.

    :ivar _make: makes the lines of an event.
    :ivar _number: the worker's, from 1.
    :ivar _is_json: whether the lines are JSON.
    """

    _make: LineMaker
    _number: int
    _is_json: bool

    def __call__(self, event: LogEvent) -> str | None:
        """:returns: the event's lines; None if it has no text."""
        if self._is_json:
            return self._make({**event, "worker": self._number})
        marked = {
            name: f"worker {self._number} {event[name]}"
            for name in ("log_namespace", "log_system")
            if event.get(name) is not None
        }
        return self._make({**event, **marked})
