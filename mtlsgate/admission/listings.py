"""
What rules ask of registries, and what the answers mean.

Pure: a question is a value, and so is its answer.  A rule is judged with the answers that
are known; what has not been asked counts as favourable, and the verdict says which
questions it depends on (`Admitted.questions`).  So a verdict counts only when all of them
have been answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from types import MappingProxyType

from attrs import frozen

from mtlsgate.admission.conditions import UNREADABLE, Condition, Leaf, leaf_of
from mtlsgate.admission.devices import Device, DeviceState, keys_of
from mtlsgate.admission.key_kinds import KeyKind, RegistryName
from mtlsgate.admission.verdicts import Rejection
from mtlsgate.certificates.certificate import MAX_REMEMBERED, Certificate
from mtlsgate.reasons import Reason
from mtlsgate.text import printable, quoted, safe_line


@frozen(cache_hash=True)
class Question:
    """
    What a registry is asked about a client.

    :ivar registry: the registry's label.
    :ivar keys: what it may know the client by, perhaps none.
    :ivar for_deny: whether a ``deny`` block asks.
    :ivar is_doubtful: whether the certificate has such a name that cannot be read, which
        matters for ``deny``.
    """

    registry: str
    keys: tuple[str, ...]
    for_deny: bool = False
    is_doubtful: bool = False


@frozen
class Unavailable:
    """
    An answer: it cannot be known.

    :ivar why: in one line.
    """

    why: str


#: An answer: the registry is gone.
REMOVED = Unavailable("the configuration in force has no such registry")

#: An answer: it is being asked about a client that was admitted without it.
NOT_HEARD = Unavailable("it is being asked")

#: What a registry says: the devices that it lists under the question's keys, or nothing.
Answer = tuple[Device, ...] | Unavailable
Answers = Mapping[Question, Answer]

#: No registry has been asked.
NOT_ASKED: Answers = MappingProxyType({})

_ATTRIBUTES = {
    KeyKind.COMMON_NAME: "common_names",
    KeyKind.DNS_NAME: "dns_names",
    KeyKind.SPIFFE_ID: "spiffe_ids",
}


@lru_cache(MAX_REMEMBERED)
def question_of(name: RegistryName, leaf: Certificate, wide: bool = False) -> Question:
    """
    :param wide: for ``deny``: with every key that could mean this client.
    :returns: what a registry is asked about a leaf.
    """
    attribute = _ATTRIBUTES.get(name.kind) if wide else None
    doubtful = attribute is not None and UNREADABLE in leaf_of(leaf).values(attribute, True)
    return Question(name.label, keys_of(leaf, name.kind, wide), wide, doubtful)


def questions_of(
    registry: RegistryName | None, deny: Iterable[Condition], leaf: Leaf
) -> Iterator[Question]:
    """
    :param registry: must list the leaf, or None.
    :param deny: ``deny`` blocks.
    :returns: the questions whose answers matter for the leaf.
    """
    for condition in deny:
        if condition.registry is not None and condition.denies_if_listed(leaf):
            yield question_of(condition.registry, leaf.certificate, True)
    if registry is not None:
        yield question_of(registry, leaf.certificate)


def unanswered(questions: Iterable[Question], answers: Answers) -> tuple[Question, ...]:
    """:returns: the questions that have no answer yet, each once."""
    return tuple(dict.fromkeys(one for one in questions if one not in answers))


def listed(
    name: RegistryName, leaf: Certificate, now: datetime, answers: Answers
) -> Device | Rejection | None:
    """
    :param name: of a registry that a rule names.
    :returns: the device by which the registry lists the leaf as active; None if the
        registry was not asked; or why the rule does not admit the leaf.
    """
    question = question_of(name, leaf)
    answer = answers.get(question)
    if answer is not None and not question.keys:
        what = f"its certificate has no {name.kind.replace('_', ' ')} to be found by"
        return Rejection(Reason.NOT_REGISTERED, f"registry {quoted(name.label)}: {what}", 0)
    return None if answer is None else _standing(question, answer, now)


def _standing(question: Question, answer: Answer, now: datetime) -> Device | Rejection:
    """:returns: the device by which a client is listed as active, or why a rule that asks
    does not admit it."""
    if not isinstance(answer, Unavailable):
        device = _active(answer, now)
        if device is not None:
            return device
    where = f"registry {quoted(question.registry)}"
    if isinstance(answer, Unavailable):
        return Rejection(Reason.REGISTRY_UNAVAILABLE, f"{where}: {answer.why}", 0)
    if not answer:
        what = f"it is not listed there as {_shortly(question.keys)}"
        return Rejection(Reason.NOT_REGISTERED, f"{where}: {what}", 0)
    denial = next((one for one in answer if one.state is not DeviceState.ACTIVE), None)
    if denial is not None:
        why = denial.problem or denial.note
        note = f": {printable(safe_line(why)[:_NOTE])}" if why else ""
        return Rejection(Reason.REGISTRY_DENIED, f"{where} denies it{note}", 0)
    return Rejection(Reason.NOT_REGISTERED, f"{where}: {_why_not_now(answer[0], now)}", 0)


#: How much of a note a rejection shows, in characters.
_NOTE = 100


def _shortly(keys: tuple[str, ...]) -> str:
    """:returns: the first keys of a client, for a person who wants to list it."""
    more = len(keys) - _KEYS
    return ", ".join(keys[:_KEYS]) + (f" and {more} more" if more > 0 else "")


#: How many keys of a client a rejection shows.
_KEYS = 2


def _active(answer: tuple[Device, ...], now: datetime) -> Device | None:
    """:returns: the device by which a client is listed as active, if none denies it."""
    found = None
    for one in answer:
        if one.state is not DeviceState.ACTIVE:
            return None
        if found is None and _why_not_now(one, now) is None:
            found = one
    return found


def _why_not_now(device: Device, now: datetime) -> str | None:
    if device.not_before is not None and now < device.not_before:
        return f"it is listed from {device.not_before.isoformat()} on"
    if device.not_after is not None and now > device.not_after:
        return f"it was listed until {device.not_after.isoformat()}"
    return None


def denied_by_registry(
    conditions: Iterable[Condition], leaf: Leaf, answers: Answers
) -> Rejection | None:
    """:returns: a rejection if a ``deny`` block with a registry matches the leaf, or if that
    cannot be known."""
    for condition in conditions:
        if condition.registry is None or not condition.denies_if_listed(leaf):
            continue
        question = question_of(condition.registry, leaf.certificate, True)
        denial = _denial(question, answers.get(question))
        if denial is not None:
            return denial
    return None


def _denial(question: Question, answer: Answer | None) -> Rejection | None:
    """:returns: why a ``deny`` block that asks keeps a client out, or None."""
    where = f"registry {quoted(question.registry)}"
    if isinstance(answer, Unavailable):
        return Rejection(Reason.REGISTRY_UNAVAILABLE, f"{where}, in deny: {answer.why}", 0)
    if answer:
        return Rejection(Reason.REGISTRY_DENIED, f"a deny block names {where}, which lists it", 0)
    if question.is_doubtful:
        why = "the certificate has a name that cannot be read"
        return Rejection(Reason.REGISTRY_DENIED, f"{where}, in deny: {why}", 0)
    return None


def turned_against(before: Answers, after: Answers, now: datetime) -> Rejection | None:
    """
    For a client that rules no longer admit, and that may stay all the same: what they asked
    of registries still counts.

    :param before: the answers with which it was admitted.
    :param after: the answers to the same questions, as far as they are known.
    :param now: the time to judge by, aware.
    :returns: why it must go, if an answer that was in its favour, or was not there yet, is
        another now, and against it.
    """
    for question in before.keys() & after.keys():
        was, answer = before[question], after[question]
        if answer in (was, REMOVED) or not _was_in_favour(question, was):
            # What a registry said that is gone no longer matters.
            continue
        verdict = _against(question, answer, now)
        if verdict is not None:
            return verdict
    return None


def _was_in_favour(question: Question, answer: Answer) -> bool:
    """:returns: whether it was at some time; that of a listing may be over."""
    if isinstance(answer, Unavailable):
        return answer == NOT_HEARD
    if question.for_deny:
        return _denial(question, answer) is None
    return bool(answer) and all(one.state is DeviceState.ACTIVE for one in answer)


def _against(question: Question, answer: Answer, now: datetime) -> Rejection | None:
    if question.for_deny:
        return _denial(question, answer)
    standing = _standing(question, answer, now)
    return standing if isinstance(standing, Rejection) else None
