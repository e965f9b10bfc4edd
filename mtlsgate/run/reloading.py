"""
Loading the configuration anew: one attempt at a time, and what came of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from attrs import evolve
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.errors import GateError
from mtlsgate.gate.connection import Reload
from mtlsgate.load.epoch import Epoch
from mtlsgate.peer import address_text
from mtlsgate.run.epoch_diff import changes
from mtlsgate.run.rejudging import Handover
from mtlsgate.run.selftest import self_test
from mtlsgate.run.threads import InThread
from mtlsgate.text import printable

if TYPE_CHECKING:
    from mtlsgate.run.service import GateService

_log = Logger("mtlsgate.service")

#: Loads the configuration anew, or raises `GateError`; told whether that is only
#: to tell what would change.
Load = Callable[[bool], Epoch]


class Reloader:
    """
    Builds epochs, and lets them take over or only tells what would change.

    :ivar _running: one attempt at a time.
    :ivar _asked: who waits for the next, which has not begun.
    """

    def __init__(
        self,
        gate: GateService,
        load: Load | None,
        in_thread: InThread,
        cooperator: Cooperator,
    ) -> None:
        """
        :param gate: what an epoch takes over.
        :param load: loads the configuration anew.
        :param in_thread: where that is done.
        :param cooperator: for what goes on in the reactor, a step at a time.
        """
        self._gate = gate
        self._load = load
        self._in_thread = in_thread
        self._cooperator = cooperator
        self._running = DeferredLock()
        self._asked: list[Deferred[Reload]] = []

    def reload(self) -> Deferred[Reload]:
        """:returns: what came of it."""
        answer: Deferred[Reload] = Deferred()
        self._asked.append(answer)
        if len(self._asked) == 1:
            self._running.run(self._reload_for_all)
        return answer

    def try_out(self) -> Deferred[Reload]:
        """:returns: what would come of it."""
        return self._running.run(self._attempt, self._trial, is_trial=True)

    def _reload_for_all(self) -> Deferred[None]:
        asked, self._asked = self._asked, []

        def tell(report: Reload | Failure) -> None:
            for one in asked:
                one.callback(report)

        return self._attempt(self._reload, is_trial=False).addBoth(tell)

    def _attempt(
        self, go_on: Callable[[Epoch], Reload | Deferred[Reload]], *, is_trial: bool
    ) -> Deferred[Reload]:
        began = self._gate.connections.clock.seconds()

        def tell(report: Reload) -> Reload:
            seconds = self._gate.connections.clock.seconds() - began
            return self._tell(evolve(report, seconds=seconds, is_trial=is_trial))

        loading: Deferred[Epoch] = self._in_thread(lambda: self._loaded(is_trial))
        made: Deferred[Reload] = loading.addCallback(go_on)
        return made.addErrback(self._failed).addCallback(tell)

    def _loaded(self, is_trial: bool) -> Epoch:
        if self._load is None:
            raise GateError("this gate was not told how to load its configuration anew")
        epoch = self._load(is_trial)
        self_test(epoch)
        return epoch

    def _reload(self, epoch: Epoch) -> Reload:
        gate = self._gate
        found = tuple(changes(gate.epoch, epoch))
        gate.take_over(epoch)
        return Reload(at=gate.connections.now(), number=gate.number, changes=found)

    def _failed(self, failure: Failure) -> Reload:
        if not failure.check(GateError):
            _log.failure("loading the configuration anew failed", failure=failure)
        lines = str(failure.value) if failure.check(GateError) else repr(failure.value)
        problems = tuple(map(printable, lines.split("\n")))
        gate = self._gate
        return Reload(at=gate.connections.now(), number=gate.number, problems=problems)

    def _trial(self, epoch: Epoch) -> Deferred[Reload]:
        gate, dropped = self._gate, list[str]()

        def look() -> Iterator[None]:
            for visit, why in Handover(epoch).dropped(gate.connections):
                if why is not None:
                    address = address_text(visit.address)
                    line = f"{visit.server}: {address}: {why.reason}: {why.detail}"
                    dropped.append(printable(line))
                yield

        def told(_: object) -> Reload:
            return Reload(
                at=gate.connections.now(),
                number=gate.number,
                changes=tuple(changes(gate.epoch, epoch)),
                dropped=tuple(dropped),
            )

        # A step each: of ten thousand clients it takes seconds.
        return self._cooperator.coiterate(look()).addCallback(told)

    def _tell(self, report: Reload) -> Reload:
        if not report.is_trial:
            self._gate.last_reload = report
        self._gate.connections.tell_reloaded(report)
        return report
