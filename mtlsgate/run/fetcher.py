"""
Fetches the documents that an epoch needs: revocation lists, and OCSP responses to staple.

Each is fetched when the gate starts and after a reload, again when half of its remaining
time is over but at least every hour (a response: every twelve), and after a failure with
growing delays.  A new document is checked, takes effect, and is kept for the next start.
One that must not be used is refused, and the earlier one stays in force until its own
end.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.config.urls import Url
from mtlsgate.errors import GateError
from mtlsgate.load.fetches import Fetch
from mtlsgate.load.refresh import refreshed
from mtlsgate.observe.status import FetchStatus
from mtlsgate.run.download import Downloader, why_not
from mtlsgate.run.regular import RegularService
from mtlsgate.run.upkeep import Upkeep
from mtlsgate.text import printable

_log = Logger("mtlsgate.fetching")

#: Seconds between two looks at what is due.
INTERVAL = 1.0
#: The shortest time between two fetches of a document, in seconds.
SHORTEST = 60.0
#: The longest delay after a failure, in seconds.
LONGEST_DELAY = 900.0


@attrs.define(eq=False)
class _Progress:
    """
    How far one document is.

    :ivar due: when it is fetched next, in the clock's seconds.
    :ivar is_underway: whether that happens now.
    :ivar was_tried: whether an attempt has ended.
    :ivar fetched: when it came last, aware; None if it has not come since the start.
    :ivar failures: how many attempts have failed since.
    :ivar problem: why the latest failed, in one line, or None.
    :ivar taken: the version that came last; None before any came.
    """

    due: float
    is_underway: bool = False
    was_tried: bool = False
    fetched: datetime | None = None
    failures: int = 0
    problem: str | None = None
    taken: object = None


class Fetcher(RegularService):
    """
    Fetches what the epoch in force needs.

    :ivar _progress: of each document, by its key.
    :ivar _number_seen: the number of the epoch at the last look.
    """

    def __init__(
        self,
        upkeep: Upkeep,
        download: Callable[[Url, bytes | None], Deferred[bytes]],
        why_not: Callable[[BaseException | None], str],
    ) -> None:
        """
        :param upkeep: the epoch that needs them; after a reload everything is fetched.
        :param download: fetches from a URL, with an OCSP request if there is one.
        :param why_not: says why that failed.
        """
        super().__init__(INTERVAL, upkeep.reactor)
        self._upkeep = upkeep
        self._number_seen = upkeep.number
        self._download = download
        self._why_not = why_not
        self._progress: dict[Hashable, _Progress] = {}

    @classmethod
    def of(cls, upkeep: Upkeep) -> Fetcher:
        """:returns: what fetches by HTTP."""
        return cls(upkeep, Downloader(upkeep.reactor), why_not)

    @property
    def is_waiting(self) -> bool:
        """Whether a document is missing that has not been asked for to the end."""
        return any(
            fetch.is_missing and not self._progress_of(fetch).was_tried
            for fetch in self._upkeep.epoch.fetches
        )

    def states(self) -> tuple[FetchStatus, ...]:
        """:returns: how each document is."""
        return tuple(self._state(fetch) for fetch in self._upkeep.epoch.fetches)

    def _state(self, fetch: Fetch) -> FetchStatus:
        progress = self._progress_of(fetch)
        return FetchStatus(
            url=printable(str(fetch.url)),
            until=fetch.until,
            fetched=progress.fetched,
            failures=progress.failures,
            problem=progress.problem,
        )

    def look(self) -> None:
        """Begin to fetch what is due."""
        fetches, now = self._upkeep.epoch.fetches, self._upkeep.reactor.seconds()
        for gone in self._progress.keys() - {fetch.key for fetch in fetches}:
            del self._progress[gone]
        before, self._number_seen = self._number_seen, self._upkeep.number
        if before != self._number_seen:
            for progress in self._progress.values():
                progress.due = now
        for fetch in fetches:
            progress = self._progress_of(fetch)
            # A reload that began before the latest fetch may have brought older lists back.
            is_older = progress.taken not in (None, fetch.version)
            is_due = now >= progress.due or (is_older and not progress.failures)
            if is_due and not progress.is_underway:
                self._fetch(fetch, progress)

    def _progress_of(self, fetch: Fetch) -> _Progress:
        return self._progress.setdefault(fetch.key, _Progress(self._upkeep.reactor.seconds()))

    def _fetch(self, fetch: Fetch, progress: _Progress) -> None:
        progress.is_underway = True

        def ended(_: object) -> None:
            progress.is_underway, progress.was_tried = False, True

        asked: Deferred[Any] = self._download(fetch.url, fetch.request)
        asked.addCallback(self._take, fetch, progress)
        asked.addCallbacks(
            partial(self._took, fetch, progress), partial(self._failed, fetch, progress)
        )
        asked.addErrback(lambda failure: _log.failure("fetching failed", failure)).addBoth(ended)

    def _take(
        self, data: bytes, fetch: Fetch, progress: _Progress
    ) -> Deferred[tuple[str, ...]] | tuple[str, ...]:
        """:returns: what changes for clients, in lines; fails if the document is refused."""
        now, until = self._upkeep.now(), fetch.until
        is_known = data == fetch.kept.get(fetch.path) and progress.taken in (None, fetch.version)
        if is_known and until is not None and now <= until:
            return ()
        taken = self._upkeep.refresh(lambda epoch: refreshed(epoch, fetch.key, data, now))
        return taken.addCallback(partial(self._keep, data, fetch))

    def _keep(
        self, data: bytes, fetch: Fetch, changes: tuple[str, ...]
    ) -> Deferred[tuple[str, ...]]:
        kept: Deferred[Any] = self._upkeep.in_thread(lambda: fetch.kept.put(fetch.path, data))

        def not_kept(failure: Failure) -> None:
            failure.trap(OSError)
            _log.error(
                "{path} cannot be written: {problem}; after a restart there is no {what} from "
                "{url} before it has come again: {without}",
                what=fetch.what,
                without=fetch.without,
                path=printable(str(fetch.path)),
                problem=getattr(failure.value, "strerror", None) or str(failure.value),
                url=str(fetch.url),
            )

        return kept.addErrback(not_kept).addCallback(lambda _: changes)

    def _took(self, fetch: Fetch, progress: _Progress, changes: tuple[str, ...]) -> None:
        now = self._upkeep.now()
        if progress.problem is not None:
            _log.info("{url} can be fetched again", url=str(fetch.url))
        progress.fetched, progress.failures, progress.problem = now, 0, None
        after = next((one for one in self._upkeep.epoch.fetches if one.key == fetch.key), fetch)
        progress.taken = after.version
        left = after.longest
        if after.until is not None:
            left = (after.until - now).total_seconds() / 2
        self._wait(progress, min(max(left, SHORTEST), after.longest))
        for change in changes:
            _log.info("fetched {url}: {change}", url=str(fetch.url), change=printable(change))

    def _failed(self, fetch: Fetch, progress: _Progress, failure: Failure) -> None:
        cause = failure.value
        problem = _refusal(cause) if isinstance(cause, GateError) else self._why_not(cause)
        progress.failures += 1
        progress.problem = printable(problem)
        self._wait(progress, min(SHORTEST * 2 ** min(progress.failures - 1, 10), LONGEST_DELAY))
        if fetch.until is None:
            meanwhile = f"there is none yet: {fetch.without}"
        else:
            meanwhile = f"the one in force ends at {fetch.until:%Y-%m-%d %H:%M:%SZ}"
        _log.warn(
            "no {what} from {url}: {problem}; {meanwhile}",
            what=fetch.what,
            url=str(fetch.url),
            problem=progress.problem,
            meanwhile=meanwhile,
        )

    def _wait(self, progress: _Progress, seconds: float) -> None:
        """Fetch it next after about this time."""
        spread = 0.9 + 0.2 * self._upkeep.random()
        progress.due = self._upkeep.reactor.seconds() + seconds * spread


def _refusal(error: GateError) -> str:
    """:returns: why a document is refused."""
    text = str(error)
    return f"what came {text}" if text.startswith(("is ", "has ")) else f"what came: {text}"
