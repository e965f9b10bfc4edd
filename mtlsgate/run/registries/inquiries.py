"""
Asking a store about keys: together, once at a time for each key, and in time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission.devices import Device
from mtlsgate.admission.listings import Unavailable
from mtlsgate.registry.store import StoreError, StoreUnavailable
from mtlsgate.text import printable, safe_line

_log = Logger("mtlsgate.registries")

#: How many keys are asked for at once, and in how many questions at a time.
BATCH, AT_ONCE = 256, 8
#: How often a key is asked for again that changes while it is asked for.
_TRIES = 5
#: If the end of a time limit is noticed so many seconds late, this process itself was held up, as
#: when its machine is moved.
_HELD_UP = 0.25

#: What is known of one key: a device, None if it is not listed, or why it is not known.
Finding = Device | Unavailable | None


@attrs.frozen
class Found:
    """
    What was found of one key.

    :ivar mark: greater after anything else has changed.
    """

    finding: Finding
    mark: int


@attrs.define(eq=False)
class _Inquiry:
    """
    One key that is asked for.

    :ivar began: when, in the clock's seconds.
    :ivar waiting: who waits for it.
    :ivar changed: whether it changed after it was sent.
    :ivar tries: how often it was sent.
    :ivar was_held_up: whether this process was held up while it waited.
    """

    key: str
    began: float
    waiting: list[Deferred[Found]] = attrs.field(factory=list)
    changed: bool = False
    tries: int = 0
    was_held_up: bool = False


class Inquiries:
    """
    What is being asked of one store.
    """

    def __init__(
        self,
        find: Callable[[Collection[str]], Deferred[Mapping[str, Device]]],
        found: Callable[[str, Finding], Found],
        outcome: Callable[[float, Exception | None], object],
        clock: IReactorTime,
        timeout: float,
    ) -> None:
        """
        :param find: asks the store.
        :param found: is told each finding, and gives it its mark.
        :param outcome: is told of each question how long it took, and why it failed, or None.
        :param timeout: how many seconds an answer may take.
        """
        self._find = find
        self._found = found
        self._outcome = outcome
        self._clock = clock
        self._timeout = timeout
        self._by_key: dict[str, _Inquiry] = {}
        self._queue: deque[_Inquiry] = deque()
        self._turn: IDelayedCall | None = None
        self._running = 0
        self._is_stopped = False

    def __len__(self) -> int:
        """How many keys are being asked for."""
        return len(self._by_key)

    def ask(self, key: str) -> Deferred[Found]:
        """:returns: a Deferred that never fails.  Cancelling it leaves others their answer."""
        inquiry = self._by_key.get(key)
        if inquiry is None:
            inquiry = self._by_key[key] = _Inquiry(key, self._clock.seconds())
            self._enqueue(inquiry)
        answer: Deferred[Found] = Deferred()
        inquiry.waiting.append(answer)
        return answer

    def changed(self, keys: Collection[str] | None) -> None:
        """What is underway about these keys may be out of date; None for all."""
        if keys is None:
            for inquiry in self._by_key.values():
                inquiry.changed = True
        elif self._by_key:
            for key in keys:
                if key in self._by_key:
                    self._by_key[key].changed = True

    def stop(self, why: str) -> None:
        """Nothing is asked any more.  Tell all who wait, but not before whoever ends this has
        put something else in its place."""
        self._is_stopped = True
        if self._turn is not None and self._turn.active():
            self._turn.cancel()
        self._queue.clear()
        self._clock.callLater(0, self._end_all, Unavailable(why))

    def _end_all(self, finding: Finding) -> None:
        for inquiry in tuple(self._by_key.values()):
            self._end(inquiry, finding)

    def _enqueue(self, inquiry: _Inquiry) -> None:
        if self._is_stopped:
            # Its store is closed.
            return
        self._queue.append(inquiry)
        if self._turn is None:
            # Those of one turn of the reactor go together.
            self._turn = self._clock.callLater(0, self._send)

    def _send(self) -> None:
        self._turn = None
        while self._queue and self._running < AT_ONCE:
            batch = list[_Inquiry]()
            while self._queue and len(batch) < BATCH:
                inquiry = self._queue.popleft()
                waited = self._clock.seconds() - inquiry.began
                if waited >= self._timeout and not self._begins_anew(inquiry, waited):
                    self._end(inquiry, self._too_late())
                    continue
                inquiry.changed = False
                inquiry.tries += 1
                batch.append(inquiry)
            if batch:
                self._ask(batch)

    def _ask(self, batch: list[_Inquiry]) -> None:
        self._running += 1
        began = self._clock.seconds()
        try:
            answer = self._find([one.key for one in batch])
        except Exception:  # noqa: BLE001 -- whatever it is, nobody comes in for it
            answer = fail()
        limit = self._clock.callLater(self._timeout, answer.cancel)

        def ended(result: object) -> None:
            self._running -= 1
            late = not limit.active()
            if not late:
                limit.cancel()
            self._took(batch, result, self._clock.seconds() - began, late)
            if self._queue and self._turn is None:
                self._send()

        answer.addBoth(ended)
        answer.addErrback(lambda failure: _log.failure("an answer was lost", failure))

    def _took(self, batch: list[_Inquiry], result: object, seconds: float, late: bool) -> None:
        if not isinstance(result, Failure):
            self._outcome(seconds, None)
            assert isinstance(result, Mapping)
            for inquiry in batch:
                self._answered(inquiry, result.get(inquiry.key))
            return
        error = StoreUnavailable(self._too_late().why) if late else _store_error(result)
        self._outcome(seconds, error)
        for inquiry in batch:
            if self._begins_anew(inquiry, seconds):
                self._enqueue(inquiry)
            else:
                self._end(inquiry, Unavailable(printable(safe_line(error))))

    def _begins_anew(self, inquiry: _Inquiry, seconds: float) -> bool:
        """
        :param seconds: for how long it has waited, in vain.
        :returns: whether it must be asked again, because this process was held up: the store
            may have answered in time.
        """
        if inquiry.was_held_up or seconds <= self._timeout + _HELD_UP:
            return False
        inquiry.was_held_up, inquiry.began = True, self._clock.seconds()
        return True

    def _answered(self, inquiry: _Inquiry, device: Device | None) -> None:
        if not inquiry.changed:
            self._end(inquiry, device)
        elif inquiry.tries < _TRIES:
            self._enqueue(inquiry)
        else:
            self._end(inquiry, Unavailable("the entry changes faster than it can be read"))

    def _end(self, inquiry: _Inquiry, finding: Finding) -> None:
        if self._by_key.get(inquiry.key) is not inquiry:
            return
        del self._by_key[inquiry.key]
        found = self._found(inquiry.key, finding)
        for one in inquiry.waiting:
            if not one.called:
                one.callback(found)

    def _too_late(self) -> Unavailable:
        return Unavailable(f"no answer within {self._timeout:g} s")


def _store_error(failure: Failure) -> Exception:
    """:returns: the store's own error; what is none of its errors is logged."""
    if isinstance(failure.value, StoreError):
        return failure.value
    _log.failure("asking a registry failed", failure)
    return StoreUnavailable(f"asking it failed: {type(failure.value).__name__}")
