"""How many connections a client may have to all gates together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mtlsgate.errors import ConfigError
from mtlsgate.gate.registries import Claim
from mtlsgate.reasons import Reason
from mtlsgate.run.registries.places import RENEWAL, Places
from tests.kits.gate import Log
from tests.kits.memory_stores import FaultyStore
from tests.kits.registry import RegisteredService
from tests.kits.service import ALICE, RULE, server

DEVICES = 'registry "devices" { url = "redis://devices" }\n'
LAST_KNOWN = DEVICES.replace(" }", '\n  on_outage = "last_known"\n}').replace("{ ", "{\n  ")
COUNTED = """max_connections_per_identity = 2
  count_in = "devices"
"""


def gate(directory: Path, blocks: str = DEVICES, more: str = COUNTED) -> RegisteredService:
    """:returns: a gate that counts in a registry."""
    return gate_of(directory, text(blocks, more))


def gate_of(directory: Path, configuration: str) -> RegisteredService:
    """:returns: a gate with this configuration."""
    directory.mkdir(exist_ok=True)
    return RegisteredService(directory, configuration, now=lambda: datetime.now(UTC))


def text(blocks: str, more: str, tls: str = RULE) -> str:
    """:returns: a configuration with these registries and terms."""
    return blocks + server(tls=tls, more=more)


def share(one: RegisteredService, other: RegisteredService) -> None:
    """Let two gates use one store."""
    other.store.places = one.store.places


def reasons(log: Log) -> list[Any]:
    return [event["reason"] for event in log.events if event.get("reason")]


def test_two_gates_count_together(tmp_path: Path, log: Log) -> None:
    """The limit is that of all of them; who leaves makes room."""
    one, other = gate(tmp_path / "one"), gate(tmp_path / "other")
    share(one, other)
    first, second = one.try_in(ALICE), other.try_in(ALICE)
    assert one.is_in(first)
    assert other.is_in(second)
    third = other.try_in(ALICE)
    assert third.disconnected
    assert reasons(log) == [Reason.TOO_MANY_OF_IDENTITY]
    first.reset()
    one.run()
    assert other.is_in(other.try_in(ALICE))


def test_a_place_is_renewed_before_its_time_is_over(tmp_path: Path, log: Log) -> None:
    """Every third of it."""
    running = gate(tmp_path)
    client = running.try_in(ALICE)
    [holders] = running.store.places.values()
    [holder] = holders
    holders[holder] = 0.0
    running.run(12)
    assert holders[holder] == 30
    assert running.is_in(client)


def test_whoever_has_lost_its_place_ends(tmp_path: Path, log: Log) -> None:
    """After an outage others may have taken it: the limit holds again."""
    running = gate(tmp_path)
    client = running.try_in(ALICE)
    [holders] = running.store.places.values()
    holders.clear()
    holders.update({"another gate:1": 30.0, "another gate:2": 30.0})
    running.run(12)
    client.pump()
    assert client.disconnected
    assert running.endings.found[0][1].startswith("too_many_of_identity: ")


@pytest.mark.parametrize(("blocks", "is_in"), [(DEVICES, False), (LAST_KNOWN, True)])
def test_while_the_store_is_away(tmp_path: Path, log: Log, blocks: str, is_in: bool) -> None:
    """New clients are rejected, or each gate counts for itself."""
    running = gate(tmp_path, blocks)
    before = running.try_in(ALICE)
    running.store.cut()
    assert running.is_in(running.try_in(ALICE)) is is_in
    assert running.is_in(before)
    third = running.try_in(ALICE)
    assert third.disconnected
    expected = Reason.TOO_MANY_OF_IDENTITY if is_in else Reason.REGISTRY_UNAVAILABLE
    assert reasons(log)[-1] == expected
    running.store.mend()
    running.run(12)
    [holders] = running.store.places.values()
    assert len(holders) == 1 + is_in


HERE, THERE = COUNTED, COUNTED.replace("devices", "stolen")
UNCOUNTED = "max_connections_per_identity = 2\n"
#: Two registries, and rules that need both, whichever counts.
BOTH = DEVICES + 'registry "stolen" { url = "redis://stolen" }\n'
NEITHER = f"""deny {{ registry = "devices" }}
    deny {{ registry = "stolen" }}
    {RULE}"""


def counted(store: FaultyStore) -> int:
    """:returns: how many connections a store counts."""
    return sum(map(len, store.places.values()))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (UNCOUNTED, HERE, (2, 0)),
        (HERE, UNCOUNTED, (0, 0)),
        (HERE, THERE, (0, 2)),
        (HERE, HERE.replace("2", "1"), (2, 0)),
        (THERE, HERE.replace("2", "1"), (2, 0)),
    ],
    ids=["added", "removed", "renamed", "lowered", "renamed and lowered"],
)
def test_a_reload_counts_live_connections_where_it_says(
    tmp_path: Path, log: Log, before: str, after: str, expected: tuple[int, int]
) -> None:
    """It ends none, even if there are more than it allows; new clients come in as soon as
    there is room, and not before."""
    running = gate_of(tmp_path, text(BOTH, before, NEITHER))
    clients = [running.try_in(ALICE) for _ in range(2)]
    assert running.reload(text(BOTH, after, NEITHER)).problems == ()
    running.run(2)
    assert (counted(running.store), counted(running.stolen)) == expected
    assert all(map(running.is_in, clients))
    assert running.try_in(ALICE).disconnected
    # Renewals change nothing.
    running.run(25)
    assert (counted(running.store), counted(running.stolen)) == expected
    assert all(map(running.is_in, clients))
    assert running.endings.found == []
    for one in clients:
        one.reset()
    running.run()
    assert running.is_in(running.try_in(ALICE))


def test_another_store_of_the_same_label_counts_them(tmp_path: Path, log: Log) -> None:
    """A registry that moves elsewhere knows the live connections before anybody new comes."""
    running = gate(tmp_path)
    clients = [running.try_in(ALICE) for _ in range(2)]
    running.store.places.clear()
    moved = DEVICES.replace("redis://devices", "redis://stolen")
    assert running.reload(text(moved, COUNTED)).problems == ()
    running.run(2)
    assert (counted(running.store), counted(running.stolen)) == (0, 2)
    assert running.try_in(ALICE).disconnected
    assert all(map(running.is_in, clients))


def test_the_same_store_counts_nobody_twice(tmp_path: Path, log: Log) -> None:
    """Whatever else changes of its block, and of its label."""
    running = gate(tmp_path)
    client = running.try_in(ALICE)
    slower = DEVICES.replace(" }", '\n  timeout = "2s"\n}').replace("{ ", "{\n  ")
    renamed = slower.replace('"devices"', '"fleet"'), COUNTED.replace("devices", "fleet")
    for blocks, more in ((slower, COUNTED), renamed):
        assert running.reload(text(blocks, more)).problems == ()
        running.run(2)
        assert counted(running.store) == 1
    assert running.is_in(client)


@pytest.mark.parametrize(
    ("blocks", "more", "expected"),
    [
        (BOTH, THERE, (0, 1)),
        (BOTH, UNCOUNTED, (0, 0)),
        # The old store is not asked any more: what it has ends by itself.
        (BOTH.replace("//devices", "//stolen"), HERE, (1, 1)),
    ],
    ids=["renamed", "removed", "elsewhere"],
)
def test_a_client_that_comes_during_a_reload_is_counted_where_that_says(
    tmp_path: Path, log: Log, blocks: str, more: str, expected: tuple[int, int]
) -> None:
    """Its place is asked for when another epoch takes over."""
    running = gate_of(tmp_path, text(BOTH, HERE, NEITHER))
    running.store.is_held = True
    client = running.try_in(ALICE)
    # Whether it is denied; then it asks for a place.
    running.store.answer()
    assert running.reload(text(blocks, more, NEITHER)).problems == ()
    running.store.is_held = False
    running.store.answer()
    running.run()
    client.pump()
    assert running.is_in(client)
    running.run(2)
    assert (counted(running.store), counted(running.stolen)) == expected


def test_a_denial_that_comes_as_a_place_is_given_back_counts(tmp_path: Path, log: Log) -> None:
    """A store may tell of it in that moment, just before the client comes in."""
    running = gate_of(tmp_path, text(BOTH, HERE, NEITHER))
    running.store.is_held = True
    client = running.try_in(ALICE)
    running.store.answer()
    running.store.released = lambda: running.store.list(ALICE)
    assert running.reload(text(BOTH, UNCOUNTED, NEITHER)).problems == ()
    running.store.is_held = False
    running.store.answer()
    running.run(1)
    client.pump()
    assert client.disconnected


class SlowDesk:
    """
    A registry that answers when it is told to.

    :ivar asked: the questions that wait.
    """

    def __init__(self) -> None:
        self.asked: list[Deferred[bool]] = []

    def lease(self, *_: object) -> Deferred[bool]:
        self.asked.append(Deferred())
        return self.asked[-1]

    def answer(self) -> int:
        """Answer all.  :returns: how many."""
        asked, self.asked = self.asked, []
        for one in asked:
            one.callback(True)
        return len(asked)


def test_any_number_of_places_is_renewed_in_time() -> None:
    """Some at a time, and the next as soon as there are answers: none may run out because
    there are many."""
    clock, desk = Clock(), SlowDesk()
    places = Places(lambda _: desk, clock)  # type: ignore[arg-type, return-value]
    for number in range(5000):
        places.take(Claim("devices", str(number), 1), number)
    desk.answer()
    clock.advance(RENEWAL)
    clock.advance(1)
    assert 0 < len(desk.asked) <= 64
    assert sum(iter(desk.answer, 0)) == 5000
    clock.advance(1)
    assert desk.asked == []


def test_a_client_that_leaves_early_keeps_no_place(tmp_path: Path, log: Log) -> None:
    """Nor one that is rejected after it got one."""
    running = gate(tmp_path, DEVICES, COUNTED + "max_connections = 1\n")
    first = running.try_in(ALICE)
    assert running.is_in(first)
    assert running.try_in(ALICE).disconnected
    [holders] = running.store.places.values()
    assert len(holders) == 1
    first.reset()
    running.run()
    assert not holders


def test_a_client_that_got_a_place_too_late_keeps_none(tmp_path: Path, log: Log) -> None:
    """Or it would be kept out by its own attempts until their time is over."""
    running = gate(tmp_path)
    running.store.is_held = True
    for _ in range(2):
        assert running.try_in(ALICE, 1.5).disconnected
    running.store.is_held = False
    assert running.is_in(running.try_in(ALICE))
    assert reasons(log)[:2] == [Reason.REGISTRY_UNAVAILABLE] * 2


@pytest.mark.parametrize(
    ("blocks", "more", "said"),
    [
        ("", COUNTED, "count_in: no registry block is called"),
        (DEVICES, 'count_in = "devices"', "count_in has no effect without max_connections_per"),
    ],
)
def test_a_count_that_counts_nothing_is_an_error(
    tmp_path: Path, blocks: str, more: str, said: str
) -> None:
    """With its place."""
    with pytest.raises(ConfigError, match=said):
        gate(tmp_path, blocks, more)
