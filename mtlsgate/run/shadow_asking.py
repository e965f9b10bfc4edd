"""
Asks the registries that the configuration in the shadow names.

Asking changes nothing in a registry.  The shadow has connections of its own to the stores, so
what the gate remembers and measures of its registries stays as it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from attrs import evolve, field, frozen

from mtlsgate.admission.listings import Question
from mtlsgate.gate.registries import NOTHING_GIVEN, Givens
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.shadow_judging import Seen

#: How many clients' questions are underway at most, and how often one client's are asked.
AT_ONCE, TIMES = 256, 8


@frozen
class Asked:
    """
    A client about whom registries are asked.

    :ivar seen: the client.
    :ivar given: what they have said.
    :ivar times: how often they were asked.
    """

    seen: Seen
    given: Givens = field(default=NOTHING_GIVEN, repr=False)
    times: int = 0


class Asking:
    """
    Asks registries about clients, about not too many at once.

    :ivar desks: the registries of the configuration in the shadow.
    :ivar answered: the clients that can be judged again.
    :ivar _queue: clients that wait, with their questions.
    :ivar _underway: how many clients' questions are underway.
    """

    def __init__(self, desks: Desks, came: Callable[[], object]) -> None:
        """:param came: is called when a client can be judged again."""
        self.desks = desks
        self.answered = deque[Asked]()
        self._came = came
        self._queue = deque[tuple[Asked, tuple[Question, ...]]]()
        self._underway = 0

    def __len__(self) -> int:
        """How many clients wait."""
        return len(self._queue) + self._underway + len(self.answered)

    def turn_to(self, registries: Iterable[LoadedRegistry]) -> None:
        """:param registries: those of the configuration in the shadow."""
        self.desks.turn_to(registries)

    def clear(self) -> None:
        """Forget all clients, and close the connections to the stores."""
        self._queue.clear()
        # Not to be filled by what is underway.
        self.answered = deque()
        self.desks.turn_to(())

    def stop(self) -> None:
        """As `clear`, and ask no more."""
        self.clear()
        self.desks.stop()

    def ask(self, one: Asked, questions: tuple[Question, ...]) -> bool:
        """
        :param questions: what must be known of the client.
        :returns: whether it is asked; False if it was asked too often already.
        """
        if one.times >= TIMES:
            return False
        self._queue.append((one, questions))
        self._send()
        return True

    def _send(self) -> None:
        while self._queue and self._underway < AT_ONCE:
            one, questions = self._queue.popleft()
            self._underway += 1
            self.desks.ask(questions).addCallback(self._given, one, self.answered)

    def _given(self, given: Givens, one: Asked, answered: deque[Asked]) -> None:
        self._underway -= 1
        answered.append(evolve(one, given={**one.given, **given}, times=one.times + 1))
        self._came()
        self._send()
