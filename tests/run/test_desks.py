"""When an answer counts that a registry has given: never after something else was told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from twisted.internet.task import Clock

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.admission.key_kinds import KeyKind
from mtlsgate.admission.listings import Question
from mtlsgate.clock import utc_now
from mtlsgate.gate.registries import Givens
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.registry.store import StoreOptions
from mtlsgate.run.registries.desks import Desks
from tests.kits.gate import Log
from tests.kits.memory_stores import FaultyStore
from tests.kits.registry import desks

ONE = Question("devices", ("one",))
BOTH = Question("devices", ("one", "other"))


class Followed:
    """A registry that is followed, and lists two devices."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FaultyStore()
        self.store.listed = {key: Device(key) for key in BOTH.keys}
        self.desks: Desks = desks(self.clock, {"devices": self.store}, utc_now)
        options = StoreOptions("redis://devices", "prefix")
        self.desks.turn_to([LoadedRegistry("devices", KeyKind.COMMON_NAME, options, "there")])
        self.clock.pump([0.0] * 3)
        self.store.is_held = True

    def ask(self, question: Question) -> list[Givens]:
        """:returns: what is given, when it is."""
        given: list[Givens] = []
        self.desks.ask([question]).addCallback(given.append)
        self.clock.advance(0)
        return given

    def deny(self, _: object = None) -> None:
        """Deny a device, and tell of it."""
        self.store.listed["one"] = Device("one", DeviceState.DENIED)
        self.store.tell(["one"])


@pytest.fixture
def followed() -> Followed:
    return Followed()


def test_an_answer_counts_as_long_as_nothing_has_changed(followed: Followed) -> None:
    """It is not asked for again."""
    given = followed.ask(BOTH)
    followed.store.answer()
    answers: Sequence[Device] = [Device(key) for key in BOTH.keys]
    assert followed.desks.answers([BOTH], given[0]) == {BOTH: tuple(answers)}


def test_a_denial_that_comes_while_others_are_told_counts_for_them(followed: Followed) -> None:
    """What the first of them sets off may let the store tell of it."""
    followed.desks.ask([ONE]).addCallback(followed.deny)
    given = followed.ask(ONE)
    followed.store.answer()
    assert followed.desks.answers([ONE], given[0]) == {}


def test_a_denial_that_comes_between_the_keys_of_a_client_counts(followed: Followed) -> None:
    """One was asked for on behalf of another client, and known earlier."""
    first = followed.ask(ONE)
    given = followed.ask(BOTH)
    followed.store.answer(1)
    assert first
    assert not given
    followed.deny()
    followed.store.answer()
    assert followed.desks.answers([BOTH], given[0]) == {}


def test_a_denial_counts_although_its_registry_is_lost_after_it(followed: Followed) -> None:
    """The client still waits for another registry, or for its place."""
    given = followed.ask(ONE)
    followed.store.answer()
    followed.deny()
    followed.store.cut()
    assert followed.desks.answers([ONE], given[0]) == {}


def test_what_is_asked_while_a_registry_is_away_counts(followed: Followed) -> None:
    """However often it cannot be followed meanwhile."""
    followed.store.cut(None, is_mute=True)
    given = followed.ask(ONE)
    followed.store.answer()
    followed.clock.pump([0.1] * 30)
    assert followed.store.followed > 2
    assert followed.desks.answers([ONE], given[0]) == {ONE: (Device("one"),)}


def test_a_fault_in_a_client_of_stores_is_logged_once(followed: Followed, log: Log) -> None:
    """Not with each attempt to follow the registry again."""
    fault = ZeroDivisionError("a fault")
    followed.store.cut(is_mute=True)
    followed.store.problem = fault
    followed.clock.pump([0.1] * 30)
    assert followed.store.followed > 2
    log.expect_failure(ZeroDivisionError)
