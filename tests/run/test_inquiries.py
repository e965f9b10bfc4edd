"""What is being asked of a store, without a desk around it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from mtlsgate.admission.devices import Device
from mtlsgate.admission.listings import Unavailable
from mtlsgate.run.registries.inquiries import Finding, Found, Inquiries


def found(key: str, finding: Finding) -> Found:
    """:returns: what was found, while nothing changes."""
    return Found(finding, 0)


def test_a_removed_registry_is_not_asked_again() -> None:
    """Even if what was asked for has changed meanwhile: its store is closed."""
    clock = Clock()
    asked: list[Deferred[Mapping[str, Device]]] = []

    def find(keys: Collection[str]) -> Deferred[Mapping[str, Device]]:
        asked.append(Deferred())
        return asked[-1]

    inquiries = Inquiries(find, found, lambda *_: None, clock, 1.0)
    told: list[Found] = []
    inquiries.ask("device").addCallback(told.append)
    clock.advance(0)
    inquiries.changed(None)
    inquiries.stop("removed")
    [answer] = asked
    answer.callback({})
    clock.advance(0)
    assert told == [Found(Unavailable("removed"), 0)]
    assert len(asked) == 1
    assert not clock.getDelayedCalls()


def test_a_question_that_could_not_be_sent_in_time_is_sent_all_the_same() -> None:
    """If the gate stood still before it sent it."""
    clock, asked = Clock(), list[list[str]]()

    def find(keys: Collection[str]) -> Deferred[Mapping[str, Device]]:
        asked.append([*keys])
        return succeed({})

    inquiries = Inquiries(find, found, lambda *_: None, clock, 1.0)
    answers = [inquiries.ask("a")]
    clock.advance(3)
    assert asked == [["a"]]
    assert [one.result for one in answers] == [Found(None, 0)]
