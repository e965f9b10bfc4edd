"""
One registry while the gate runs.

States::

    state       the push channel  answers that count            live connections
    ----------  ----------------  ----------------------------  -------------------------
    FOLLOWING   is good           remembered, or asked now      judged again as it changes
    AWAY        is lost           asked now; with last_known    stay
                                  also remembered ones
    STALE       is lost for more  none                          end
                than max_staleness

A registry begins AWAY.  When it follows again, nothing that was remembered counts, and
everything live is judged again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from enum import StrEnum

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mtlsgate.admission.devices import Device
from mtlsgate.admission.listings import Answer, Question, Unavailable
from mtlsgate.gate.registries import Given
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.observe.registry_status import RegistryStatus
from mtlsgate.registry.store import StoreError, StoreUnavailable
from mtlsgate.run.registries.figures import Figures
from mtlsgate.run.registries.guest_loop import Runner
from mtlsgate.run.registries.inquiries import Finding, Found, Inquiries
from mtlsgate.run.registries.link import Link, Open
from mtlsgate.run.registries.memory import Memory, Unknown
from mtlsgate.run.registries.words import Words, WordsInForce
from mtlsgate.text import printable, safe_line

_log = Logger("mtlsgate.registries")

#: Seconds until the first attempt to connect again, at most, and between two later ones: a
#: denial is heard within a second of the store's return.
FIRST, LONGEST = 0.2, 0.8
#: How long the push channel may be silent beyond the time limit, in seconds.
_SILENCE = 1.0
#: How many reasons of one outage are in the log, each once.
_MOST_SAID = 5
#: A key that no device has.
_PROBE = "mtlsgate"


class State(StrEnum):
    """How a registry is."""

    FOLLOWING = "following"
    AWAY = "away"
    STALE = "stale"


@frozen
class Surroundings:
    """
    What all desks of a service have in common.

    :ivar open: opens a store.
    :ivar runner: runs what asks it.
    :ivar clock: measures durations.
    :ivar now: tells the time for people.
    :ivar random: a number from 0 to 1: gates must not connect all at once.
    :ivar words: what the log says of them.
    """

    open: Open
    runner: Runner
    clock: IReactorTime
    now: Callable[[], datetime]
    random: Callable[[], float]
    words: Words = WordsInForce()


class Desk:
    """
    Asks, remembers and follows one registry.

    :ivar registry: its block.
    :ivar figures: what happened so far.
    :ivar since: since when it is in its state.
    :ivar problem: why it is away, in one line; "" while it is not.
    """

    def __init__(
        self,
        registry: LoadedRegistry,
        surroundings: Surroundings,
        told: Callable[[Collection[str] | None], object],
    ) -> None:
        """:param told: is called with each change; None for any."""
        self.registry = registry
        self.figures = Figures()
        self.since = surroundings.now()
        self.problem = "not connected yet"
        self._clock = surroundings.clock
        self._now = surroundings.now
        self._random = surroundings.random
        self._words = surroundings.words
        self._told = told
        self._memory = Memory(registry.cache_entries, registry.cache_time)
        self._link = Link(
            registry.options, surroundings.open, surroundings.runner, surroundings.clock
        )
        self._inquiries = Inquiries(
            self._link.find, self._found, self._outcome, self._clock, registry.options.timeout
        )
        self._is_following = False
        self._is_stale = False
        # Whether the last question failed: a store that pushes but does not answer is away.
        self._is_failing = False
        self._is_stopped = False
        # Why it is away, as far as the log has it.
        self._said = set[str]()
        self._attempts = 0
        # Counts everything after which an answer may be out of date.
        self._mark = 0
        self._last_alive = self._clock.seconds()
        self._last_sign = self._last_alive
        self._following: Deferred[None] | None = None
        self._timer: IDelayedCall | None = self._clock.callLater(0, self._follow)

    @property
    def state(self) -> State:
        """How it is."""
        if self.is_stale:
            return State.STALE
        return State.FOLLOWING if self._is_following else State.AWAY

    @property
    def is_stale(self) -> bool:
        """Whether it has been away for more than ``max_staleness``."""
        return self._clock.seconds() - self._last_alive > self.registry.max_staleness

    @property
    def is_ready(self) -> bool:
        """Whether clients may come in by it: it follows, or what it remembers counts and is
        more than nothing."""
        is_known = self.registry.on_outage == "last_known" and self.figures.connects > 0
        return not self.is_stale and (self._is_following or is_known)

    @property
    def staleness(self) -> float:
        """For how many seconds it has not been known to be good."""
        return max(0.0, self._clock.seconds() - self._last_alive)

    def status(self) -> RegistryStatus:
        """:returns: how it is, as a value."""
        figures = self.figures
        return RegistryStatus(
            name=printable(self.registry.name),
            place=self.registry.place,
            state=self.state.value,
            since=self.since,
            staleness=self.staleness,
            problem=self.problem or figures.problem or None,
            remembered=len(self._memory),
            hits=figures.hits,
            misses=figures.misses,
            questions=figures.questions,
            failures=figures.failures,
            seconds=figures.seconds,
            latencies=tuple(figures.latencies),
            changes=figures.changes,
            losses=figures.losses,
        )

    # Answers.

    def known(self, question: Question, given: Given | None = None) -> Answer | None:
        """
        :param given: what was asked for this client.
        :returns: the answer that counts now; None if it must be asked.
        """
        if not question.keys:
            return ()
        if self.is_stale:
            return self._too_stale()
        if not self._is_following:
            if given is not None and self._counts(given):
                return given.answer
            if self.registry.on_outage == "reject":
                return None
        found = self._remembered(question)
        if found is None and given is not None and self._counts(given):
            return given.answer
        return found

    def _counts(self, given: Given) -> bool:
        return given.mark == self._mark or isinstance(given.answer, Unavailable)

    def _remembered(self, question: Question) -> Answer | None:
        # While it is away only its staleness limits what counts.
        now = self._clock.seconds() if self._is_following else self._last_alive
        devices = list[Device]()
        for key in question.keys:
            device = self._memory.get(key, now)
            if isinstance(device, Unknown):
                return None
            if device is not None:
                devices.append(device)
        return tuple(devices)

    def ask(self, question: Question) -> Deferred[Given]:
        """:returns: a Deferred with the answer, within the time limit; it never fails."""
        if self.is_stale:
            return succeed(Given(self._too_stale(), self._mark, self))
        answer: Deferred[Given] = Deferred()
        findings: dict[str, Found] = {}

        def found(one: Found, key: str) -> None:
            findings[key] = one
            if len(findings) == len(question.keys) and not answer.called:
                # Some may have come earlier, and something may have changed since.
                mark = min(one.mark for one in findings.values())
                answer.callback(Given(_answer_of(findings.values()), mark, self))

        for key in question.keys:
            self._inquiries.ask(key).addCallback(found, key)
        return answer

    def _too_stale(self) -> Unavailable:
        limit = self.registry.max_staleness
        return Unavailable(f"away for more than {limit:g} s ({self.problem})")

    def _found(self, key: str, finding: Finding) -> Found:
        if self._is_following and not isinstance(finding, Unavailable):
            self._memory.put(key, finding, self._clock.seconds())
        return Found(finding, self._mark)

    def _outcome(self, seconds: float, error: Exception | None) -> None:
        self.figures.asked(seconds, error)
        self._is_failing = error is not None
        if error is None and self._is_following:
            self._alive()

    # Places: how many connections a client has to all gates.

    def lease(self, key: str, holder: str, places: int, seconds: float) -> Deferred[bool]:
        """:returns: a Deferred as `Store.lease`; it fails if there is no answer in time."""
        return self._link.lease(key, holder, places, seconds)

    def release(self, key: str, holder: str) -> None:
        """Give a place back."""
        self._link.release(key, holder)

    # Following.

    def _follow(self) -> None:
        self._timer = None
        if self._is_stopped:
            return
        self._last_sign = self._clock.seconds()
        self._attempts += 1
        following = self._link.follow(self)
        self._following = following
        following.addBoth(self._lost)

    def following(self) -> None:
        """From now on every change is told."""
        if self._is_stopped:
            return
        was_away = not self._is_following
        self._mark += 1
        self._memory.clear()
        self._inquiries.changed(None)
        self._is_following, self._is_failing, self._attempts = True, False, 0
        self._alive()
        if was_away:
            self.since, self.problem = self._now(), ""
            self.figures.connects += 1
            self._words.following(self.registry)
            self._said.clear()
        self._told(None)

    def changed(self, keys: Collection[str] | None) -> None:
        """Something has changed."""
        if self._is_stopped:
            return
        self._mark += 1
        if keys is None:
            self._memory.clear()
        else:
            self._memory.forget(keys)
        self.figures.changes += 1 if keys is None else len(keys)
        self._inquiries.changed(keys)
        self._told(keys)

    def alive(self) -> None:
        """The store and its push channel have just been known to be good."""
        self._last_sign = self._clock.seconds()
        if self._is_following and not self._is_failing and not self._is_stopped:
            self._alive()

    def _alive(self) -> None:
        self._last_alive = self._last_sign = self._clock.seconds()
        self._is_stale = False

    def _lost(self, result: object) -> None:
        self._following = None
        if self._is_stopped:
            return
        fault = None
        if isinstance(result, Failure) and isinstance(result.value, StoreError):
            problem = safe_line(result.value)
        elif isinstance(result, Failure) and result.check(CancelledError):
            problem = "the push channel is silent"
        else:
            problem = "following it failed"
            if isinstance(result, Failure):
                fault = result
                problem += f": {type(result.value).__name__}"
        was_following, self._is_following = self._is_following, False
        self.problem = printable(problem)
        if self.registry.on_outage == "reject":
            self._memory.clear()
        if was_following:
            self._mark += 1
            self.since = self._now()
            self.figures.losses += 1
        if not self._said or self._is_news(result):
            self._said.add(self.problem)
            if fault is not None:
                _log.failure("following a registry failed", fault)
            left = max(0.0, self.registry.max_staleness - self.staleness)
            self._words.lost(self.registry, self.problem, left)
        # 0.1 to 0.2 s, then twice as long each time.
        longest = min(FIRST * 2 ** max(0, self._attempts - 1), LONGEST)
        self._timer = self._clock.callLater(longest * (0.5 + self._random() / 2), self._follow)

    def _is_news(self, result: object) -> bool:
        """:returns: whether the log must have another reason of this outage: one that does not
        pass by itself."""
        error = result.value if isinstance(result, Failure) else None
        return (
            not isinstance(error, StoreUnavailable)
            and self.problem not in self._said
            and len(self._said) < _MOST_SAID
        )

    def look(self) -> None:
        """Notice a silent channel, and that a registry has become stale.  Call it several
        times a second."""
        now = self._clock.seconds()
        if (
            self._following is not None
            and now - self._last_sign > self.registry.options.timeout + _SILENCE
        ):
            self._following.cancel()
        if self._is_failing and self._is_following and not len(self._inquiries):
            # Whether it answers again, although nobody asks.
            self._inquiries.ask(_PROBE)
        if self.is_stale and not self._is_stale:
            self._is_stale = True
            self.since = self._now()
            self._memory.clear()
            self._words.stale(self.registry, self.problem)
            self._told(None)

    def stop(self) -> None:
        """Stop following, and close every connection to the store."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._inquiries.stop("the registry was removed")
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
        self._link.close()


def _answer_of(found: Iterable[Found]) -> Answer:
    """:returns: what the findings on all keys of a question mean together."""
    devices = list[Device]()
    for one in found:
        if isinstance(one.finding, Unavailable):
            return one.finding
        if one.finding is not None:
            devices.append(one.finding)
    return tuple(devices)
