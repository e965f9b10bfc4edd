"""
What is logged while a test runs.
"""

from __future__ import annotations

from types import TracebackType

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer


@implementer(ILogObserver)
class Logged:
    """
    Keeps the events of a namespace that are logged in its ``with`` block.

    :ivar events: in order.
    """

    def __init__(self, namespace: str) -> None:
        self.events: list[LogEvent] = []
        self._namespace = namespace

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == self._namespace:
            self.events.append(event)

    def __enter__(self) -> Logged:
        globalLogPublisher.addObserver(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        globalLogPublisher.removeObserver(self)
