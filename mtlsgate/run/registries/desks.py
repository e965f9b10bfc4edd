"""
All registries of a service, over its epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import datetime
from functools import partial
from random import random

from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mtlsgate.admission import Rejection
from mtlsgate.admission.listings import REMOVED, Answer, Answers, Question
from mtlsgate.clock import utc_now
from mtlsgate.gate.registries import NOTHING_GIVEN, Claim, Given, Givens, Told
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.observe.registry_status import RegistryStatus
from mtlsgate.registry.opening import open_store
from mtlsgate.run.registries.desk import Desk, State, Surroundings
from mtlsgate.run.registries.guest_loop import AsyncioRunner
from mtlsgate.run.registries.odd_keys import OddKeys
from mtlsgate.run.registries.places import Places
from mtlsgate.run.registries.words import Words, WordsInForce

_log = Logger("mtlsgate.registries")

#: Seconds between two looks at what has become stale or silent.
_INTERVAL = 0.25
_IN_FORCE = WordsInForce()


class Desks:
    """
    The registries of the epoch in force.

    A registry whose block did not change keeps its connections and what it remembers when
    another epoch takes over.

    :ivar places: of connections that are counted over all gates.
    """

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._by_name: dict[str, Desk] = {}
        self._subscribers: list[Told] = []
        self._odd_keys = OddKeys(surroundings.clock)
        self.places = Places(self.desk, surroundings.clock)
        self._looking = LoopingCall(self._look)
        self._looking.clock = surroundings.clock

    @classmethod
    def of(
        cls,
        clock: IReactorTime,
        now: Callable[[], datetime] = utc_now,
        words: Words = _IN_FORCE,
    ) -> Desks:
        """
        :param clock: the reactor.
        :param now: tells the time for people.
        :param words: what the log says of them.
        :returns: those that ask real stores.
        """
        return cls(Surroundings(open_store, AsyncioRunner(clock), clock, now, random, words))

    def __iter__(self) -> Iterator[Desk]:
        """The registries in force."""
        return iter(tuple(self._by_name.values()))

    def subscribe(self, told: Told) -> None:
        """:param told: is called with each change."""
        self._subscribers.append(told)

    def turn_to(self, registries: Iterable[LoadedRegistry]) -> None:
        """:param registries: those of the epoch that takes over.  Others are closed."""
        before = self._by_name
        self._by_name = {}
        for registry in registries:
            desk = before.get(registry.name)
            if desk is not None and desk.registry == registry:
                self._by_name[registry.name] = before.pop(registry.name)
            else:
                told = partial(self._tell, registry.name)
                self._by_name[registry.name] = Desk(registry, self._surroundings, told)
        for gone in before.values():
            gone.stop()
        self.places.turned()
        if self._by_name and not self._looking.running:
            self._looking.start(_INTERVAL, now=False)
        elif not self._by_name and self._looking.running:
            self._looking.stop()

    def stop(self) -> None:
        """Close all."""
        self.turn_to(())
        self._surroundings.runner.close()

    def states(self) -> tuple[RegistryStatus, ...]:
        """:returns: how each registry is, in file order."""
        return tuple(desk.status() for desk in self)

    def desk(self, name: str) -> Desk | None:
        """:returns: the registry with this label, if there is one."""
        return self._by_name.get(name)

    def answers(self, questions: Iterable[Question], given: Givens = NOTHING_GIVEN) -> Answers:
        """:returns: the answers that count now, without asking."""
        found: dict[Question, Answer] = {}
        for question in questions:
            desk = self._by_name.get(question.registry)
            if desk is None:
                found[question] = REMOVED
                continue
            one = given.get(question)
            # Another registry with this label may have taken its place since.
            asked = one if one is not None and one.source is desk else None
            answer = desk.known(question, asked)
            if answer is not None:
                found[question] = answer
                desk.figures.hits += asked is None
        return found

    def ask(self, questions: Iterable[Question]) -> Deferred[Givens]:
        """:returns: a Deferred with the answers; it never fails."""
        asked = tuple(questions)
        if len(asked) == 1:
            # As nearly always.
            [question] = asked
            return self._ask(question).addCallback(lambda given: {question: given})
        waiting = [self._ask(question) for question in asked]
        every: Deferred[list[Given]] = gatherResults(waiting)
        return every.addCallback(lambda found: dict(zip(asked, found, strict=True)))

    def _ask(self, question: Question) -> Deferred[Given]:
        desk = self._by_name.get(question.registry)
        if desk is None:
            return succeed(Given(REMOVED))
        desk.figures.misses += 1
        return desk.ask(question)

    def is_stale(self, registry: str) -> bool:
        """:returns: whether live connections that depend on it end."""
        desk = self._by_name.get(registry)
        return desk is None or desk.is_stale

    def take(self, claim: Claim, number: int) -> Deferred[Rejection | None]:
        """:returns: a Deferred with why there is no place for a connection, or None."""
        return self.places.take(claim, number)

    def has_place(self, claim: Claim, number: int) -> bool:
        """:returns: whether a connection has that place."""
        return self.places.has(claim, number)

    def move(self, claim: Claim | None, number: int) -> None:
        """:param claim: what a live connection is counted in from now on, or None."""
        self.places.move(claim, number)

    def give_back(self, number: int) -> None:
        """:param number: of a connection that is over."""
        self.places.give_back(number)

    def is_away(self, registry: str) -> bool:
        """:returns: whether its changes are not told now."""
        desk = self._by_name.get(registry)
        return desk is None or desk.state is not State.FOLLOWING

    def _tell(self, name: str, keys: Collection[str] | None) -> None:
        desk = self._by_name.get(name)
        if desk is not None:
            self._odd_keys.look(desk.registry, keys or ())
        for told in self._subscribers:
            try:
                told(name, keys)
            except Exception:  # noqa: BLE001 -- the store's client must not fail for it
                _log.failure("a change in a registry was lost")

    def _look(self) -> None:
        for desk in tuple(self._by_name.values()):
            desk.look()
