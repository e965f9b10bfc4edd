"""
Reloads, one at a time: all who ask during one share the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure

from mtlsgate.gate.events import Reload


class ReloadListener(Protocol):
    """Is told of reloads, but not of dry runs."""

    def reload_began(self) -> object:
        """One has begun."""

    def reload_ended(self, reload: Reload, /) -> object:
        """It has ended, well or not."""


class SharedReloads:
    """
    Lets one reload or dry run go on at a time.

    :ivar lock: held meanwhile.
    :ivar last: the latest reload that was no dry run, or None.
    :ivar _asked: callers that wait for the next reload.
    """

    def __init__(
        self, reload: Callable[[], Deferred[Reload]], listeners: Iterable[ReloadListener]
    ) -> None:
        """
        :param reload: reloads.
        :param listeners: are told when a reload begins and ends.
        """
        self.lock = DeferredLock()
        self.last: Reload | None = None
        self._reload = reload
        self._listeners = tuple(listeners)
        self._asked: list[Deferred[Reload]] = []

    def ask(self) -> Deferred[Reload]:
        """:returns: the result of a reload that begins after this."""
        answer: Deferred[Reload] = Deferred()
        self._asked.append(answer)
        if len(self._asked) == 1:
            self.lock.run(self._reload_for_all)
        return answer

    def _reload_for_all(self) -> Deferred[None]:
        asked, self._asked = self._asked, []
        for one in self._listeners:
            one.reload_began()

        def tell(report: Reload | Failure) -> None:
            for one in asked:
                one.callback(report)

        return self._reload().addBoth(tell)

    def ended(self, report: Reload) -> None:
        """Tell the listeners of a reload, and nobody of a dry run."""
        if not report.is_trial:
            self.last = report
            for one in self._listeners:
                one.reload_ended(report)
