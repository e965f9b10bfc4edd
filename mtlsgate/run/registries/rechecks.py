"""
Judges live connections again when a registry has changed.

Connections that depend on a key that changed come first.  All others are judged in small
batches, so that neither the gate nor the store is flooded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from mtlsgate.admission import Rejection
from mtlsgate.admission.listings import Question, Unavailable
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entry import Entry
from mtlsgate.gate.judging import Held
from mtlsgate.gate.registries import NOTHING_GIVEN, Givens, Known, known_of_live
from mtlsgate.reasons import Reason

_log = Logger("mtlsgate.registries")

#: Connections in a batch; batches at a time, of all and of those whose key changed.
BATCH, AT_ONCE, URGENT_AT_ONCE = 128, 2, 8
#: Seconds until a connection is judged again whose registry follows but does not answer.
_AGAIN = 0.5

#: Judges a live connection: what it is held to now; why it must end; None to leave it.
Judge = Callable[[Entry, Known], Held | Rejection | None]


class Rechecks:
    """The live connections that must be judged again."""

    def __init__(self, connections: Connections, judge: Judge, clock: IReactorTime) -> None:
        """:param judge: judges a live connection by the epoch in force."""
        self._connections = connections
        self._judge = judge
        self._clock = clock
        self._urgent: dict[int, None] = {}
        self._others: dict[int, None] = {}
        self._turn: IDelayedCall | None = None
        self._running = 0

    def __len__(self) -> int:
        """How many connections wait."""
        return len(self._urgent) + len(self._others)

    def told(self, registry: str, keys: Collection[str] | None) -> None:
        """A registry has changed."""
        numbers = self._connections.dependents.of(registry, keys)
        self._add(self._others if keys is None else self._urgent, numbers)

    def add(self, entry: Entry) -> None:
        """Judge a connection again, soon."""
        self._add(self._others, (entry.arrival.number,))

    def _add(self, queue: dict[int, None], numbers: Iterable[int]) -> None:
        before = len(queue)
        queue.update(dict.fromkeys(numbers))
        if len(queue) != before:
            self._go_on()

    def _go_on(self) -> None:
        if self._turn is None:
            self._turn = self._clock.callLater(0, self._begin)

    def _begin(self) -> None:
        self._turn = None
        if self._urgent and self._running < URGENT_AT_ONCE:
            self._batch(self._urgent)
        elif self._others and self._running < AT_ONCE:
            self._batch(self._others)
        else:
            return
        if self:
            self._go_on()

    def __bool__(self) -> bool:
        return bool(self._urgent or self._others)

    def _batch(self, queue: dict[int, None]) -> None:
        numbers = [number for number, _ in zip(queue, range(BATCH), strict=False)]
        for number in numbers:
            del queue[number]
        open_ = dict[Question, None]()
        waiting = []
        for number in numbers:
            found = self._look(number, NOTHING_GIVEN)
            if found:
                open_.update(dict.fromkeys(found))
                waiting.append(number)
        if not open_:
            return
        self._running += 1
        asked = self._connections.registries.ask(open_)
        asked.addCallback(self._heard, waiting)
        asked.addErrback(lambda failure: _log.failure("judging again failed", failure))
        asked.addBoth(self._ended)

    def _ended(self, _: object) -> None:
        self._running -= 1
        if self:
            self._go_on()

    def _heard(self, given: Givens, numbers: Iterable[int]) -> None:
        registries = self._connections.registries
        # What cannot be known stays as it is: until the registry follows again, or becomes
        # stale; both are told.
        unknown = {
            question
            for question, one in given.items()
            if isinstance(one.answer, Unavailable) and not registries.is_away(question.registry)
        }
        for number in numbers:
            self._look(number, given)
            entry = self._connections.get(number)
            admission = None if entry is None else entry.admission
            if admission is not None and not unknown.isdisjoint(admission.answers):
                self._clock.callLater(_AGAIN, self._add, self._urgent, (number,))

    def _look(self, number: int, given: Givens) -> Collection[Question]:
        """:returns: what must be asked before a connection can be judged."""
        entry = self._connections.get(number)
        admission = None if entry is None else entry.admission
        if entry is None or admission is None or entry.ended or entry.closing is not None:
            # A client that is not admitted yet is judged at its admission.
            return ()
        known = known_of_live(self._connections.registries, admission.answers, given)
        try:
            held = self._judge(entry, known)
        except Exception:  # noqa: BLE001 -- whatever it is, nobody stays for it
            _log.failure("{server}: judging a client again failed", server=entry.server)
            held = Rejection(Reason.INTERNAL_ERROR, "judging it again failed")
        if isinstance(held, Rejection):
            # At once: the grace after a reload is not for these.
            self._connections.expel(entry, held)
            return ()
        if held is None:
            return ()
        if not held.open:
            self._connections.adopt(entry, held)
        return held.open
