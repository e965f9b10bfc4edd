"""How many connections a client may have to all gates together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mtlsgate.errors import ConfigError
from mtlsgate.reasons import Reason
from tests.kits.gate import Log
from tests.kits.registry import RegisteredService
from tests.kits.service import ALICE, RULE, server

DEVICES = 'registry "devices" { url = "redis://devices" }\n'
LAST_KNOWN = DEVICES.replace(" }", '\n  on_outage = "last_known"\n}').replace("{ ", "{\n  ")
COUNTED = """max_connections_per_identity = 2
  count_in = "devices"
"""


def gate(directory: Path, blocks: str = DEVICES, more: str = COUNTED) -> RegisteredService:
    """:returns: a gate that counts in a registry."""
    directory.mkdir(exist_ok=True)
    text = blocks + server(tls=RULE, more=more)
    return RegisteredService(directory, text, now=lambda: datetime.now(UTC))


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
    running.store.is_late = True
    for _ in range(2):
        assert running.try_in(ALICE, 1.5).disconnected
    running.store.is_late = False
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
