"""
What a connection asks of registries, and how clients are judged with the answers.

A client is judged with the answers that are known now.  The rest is asked, without
blocking, and the client is judged again.  What counts is what is known at hand-over.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Protocol

from attrs import frozen
from twisted.internet.defer import Deferred, succeed

from mtlsgate.admission import Admitted, Rejection
from mtlsgate.admission.listings import (
    NOT_ASKED,
    Answer,
    Answers,
    Question,
    Unavailable,
    unanswered,
)
from mtlsgate.gate.terms import Terms
from mtlsgate.reasons import Reason

#: Told that something has changed in a registry: its label, and the keys; None for any.
Told = Callable[[str, Collection[str] | None], object]


@frozen
class Given:
    """
    An answer as it came from a store.

    :ivar answer: the answer.
    :ivar mark: of the registry when it came: tells whether something has changed since.
    :ivar source: the registry that gave it.  It says nothing of another that has taken its
        place.
    """

    answer: Answer
    mark: object = None
    source: object = None


Givens = Mapping[Question, Given]
NOTHING_GIVEN: Givens = MappingProxyType({})

#: Returns the answers to some of these questions, as far as they are known now.
Known = Callable[[Collection[Question]], Answers]


@frozen
class Claim:
    """
    What a connection is counted in over all gates.

    :ivar registry: the label of the registry that counts.
    :ivar key: whose connection; limits are those of a server, at all gates that have it.
    :ivar most: how many places there are.
    """

    registry: str
    key: str
    most: int


def claim_of(server: str, terms: Terms, identity: bytes | None) -> Claim | None:
    """:returns: the place that a client's connection to a server needs, or None."""
    most = terms.limits.max_connections_per_identity
    if terms.count_in is None or most is None or identity is None:
        return None
    return Claim(terms.count_in, f"{identity.hex()}@{server}", most)


class Registries(Protocol):
    """The registries of a service."""

    def answers(self, questions: Iterable[Question], given: Givens = NOTHING_GIVEN) -> Answers:
        """
        :param given: what `ask` gave for this client.
        :returns: the answers that count now, without asking.
        """

    def ask(self, questions: Iterable[Question]) -> Deferred[Givens]:
        """
        :returns: a Deferred with the answers, within the registries' time limits.  It
            never fails: what cannot be known is `Unavailable`.
        """

    def take(self, claim: Claim, number: int) -> Deferred[Rejection | None]:
        """
        Take a place for a connection, over all gates.

        :param number: the connection's.
        :returns: a Deferred with why there is none, or None; it never fails.
        """

    def has_place(self, claim: Claim, number: int) -> bool:
        """:returns: whether a connection has that place."""

    def move(self, claim: Claim | None, number: int) -> None:
        """
        Count a live connection elsewhere, as another epoch wants it.  It gets the place,
        whether or not one is left.

        :param claim: None if it is not counted any more.
        """

    def give_back(self, number: int) -> None:
        """:param number: of a connection that is over, whether or not it has a place."""

    def is_stale(self, registry: str) -> bool:
        """:returns: whether a registry has been away for so long that live connections end."""

    def is_away(self, registry: str) -> bool:
        """:returns: whether changes in a registry are not told now."""

    def subscribe(self, told: Told) -> None:
        """:param told: is called in the reactor's thread with each change."""


class NoRegistries:
    """Where none can be asked, as in a self-test: clients who need one are rejected."""

    _ANSWER = Unavailable("registries are not asked here")

    def answers(self, questions: Iterable[Question], given: Givens = NOTHING_GIVEN) -> Answers:
        """:returns: that nothing can be known."""
        return dict.fromkeys(questions, self._ANSWER)

    def ask(self, questions: Iterable[Question]) -> Deferred[Givens]:
        """:returns: likewise."""
        return succeed(dict.fromkeys(questions, Given(self._ANSWER)))

    def take(self, claim: Claim, number: int) -> Deferred[Rejection | None]:
        """:returns: that there is none."""
        return succeed(Rejection(Reason.REGISTRY_UNAVAILABLE, self._ANSWER.why))

    def has_place(self, claim: Claim, number: int) -> bool:
        """:returns: never."""
        return False

    def move(self, claim: Claim | None, number: int) -> None:
        """There is none."""

    def give_back(self, number: int) -> None:
        """There is none."""

    def is_stale(self, registry: str) -> bool:
        """:returns: always."""
        return True

    def is_away(self, registry: str) -> bool:
        """:returns: always."""
        return True

    def subscribe(self, told: Told) -> None:
        """Nothing is ever told."""


@frozen
class Judged:
    """
    A verdict with the answers that are known.

    :ivar verdict: the verdict.
    :ivar answers: those that it depends on, and those to rules that did not admit.
    :ivar open: the questions that must still be asked before an admission counts.
    """

    verdict: Admitted | Rejection
    answers: Answers
    open: tuple[Question, ...] = ()


def judged(
    judge: Callable[[Answers], Admitted | Rejection], known: Known, first: Answers = NOT_ASKED
) -> Judged:
    """
    :param judge: gives the verdict with these answers.
    :param known: looks answers up.
    :param first: what was looked up already, since an earlier verdict depended on it.
    :returns: the verdict with all answers that are known.  Only what matters for the
        client is looked up.
    """
    answers = dict(first)
    while True:
        verdict = judge(answers)
        if isinstance(verdict, Rejection):
            return Judged(verdict, answers)
        missing = unanswered(verdict.questions, answers)
        found = known(missing) if missing else {}
        if not found:
            return Judged(verdict, answers, missing)
        answers.update(found)


def known_of_live(registries: Registries, before: Answers, given: Givens = NOTHING_GIVEN) -> Known:
    """
    :param before: the answers with which a live connection was judged last.
    :param given: what was asked for it since.
    :returns: looks up what counts for a live connection: while an answer cannot be had,
        the last one, until the registry is stale.
    """

    def known(questions: Collection[Question]) -> Answers:
        found = dict[Question, Answer]()
        for question, answer in registries.answers(questions, given).items():
            if isinstance(answer, Unavailable) and not registries.is_stale(question.registry):
                answer = before.get(question, answer)
                if isinstance(answer, Unavailable):
                    continue
            found[question] = answer
        return found

    return known


def nothing_known(questions: Collection[Question]) -> Answers:
    """:returns: no answers."""
    return {}
