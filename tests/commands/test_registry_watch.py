"""``mtlsgate registry watch``: what is told of changes, and of outages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from mtlsgate.admission.devices import Device, DeviceState
from mtlsgate.commands.registry.watching import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MOST_PENDING,
    Change,
    Event,
    Everything,
    Following,
    Lost,
    in_json,
    in_words,
    watch,
)
from mtlsgate.registry.store import StoreError, StoreUnavailable
from tests.kits.memory_stores import ScriptedStore


def told(store: ScriptedStore, count: int) -> tuple[list[Event], list[float]]:
    """:returns: the first events, and the pauses between attempts to follow."""
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    async def run() -> list[Event]:
        events: list[Event] = []
        async with aclosing(watch(store, pause)) as watched:
            async for event in watched:
                events.append(event)
                if len(events) == count:
                    break
        return events

    return asyncio.run(run()), pauses


def test_changes_are_told_as_they_are_now() -> None:
    denied = Device("a", DeviceState.DENIED)
    store = ScriptedStore({"a": denied}, story=[[{"a"}, {"gone"}]])
    assert told(store, 4)[0] == [
        Following(),
        Lost("the channel is lost"),
        Change("a", denied),
        Change("gone", None),
    ]


def test_anything_may_have_changed() -> None:
    store = ScriptedStore(story=[[{"a"}, None]])
    assert told(store, 3)[0] == [Following(), Everything(), Lost("the channel is lost")]


def test_more_than_can_be_looked_at_is_told_as_one() -> None:
    store = ScriptedStore(story=[[[str(n) for n in range(MOST_PENDING + 1)]]])
    assert told(store, 2)[0] == [Following(), Everything()]


def test_an_outage_is_told_once_and_its_end() -> None:
    down: Sequence[StoreError | None] = [StoreUnavailable("down")]
    store = ScriptedStore(story=[[], down, down, down, [{"a"}]])
    events, pauses = told(store, 3)
    assert events[:2] == [Following(), Lost("the channel is lost")]
    assert pauses[0] == FIRST_PAUSE
    assert all(FIRST_PAUSE <= one <= LONGEST_PAUSE for one in pauses)


def test_the_pauses_grow_to_a_limit() -> None:
    store = ScriptedStore(problem=StoreUnavailable("down"))
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 6:
            store.problem = None
            store.story.append([{"a"}])
        await asyncio.sleep(0)

    async def run() -> list[Event]:
        async with aclosing(watch(store, pause)) as watched:
            return [await anext(watched) for _ in range(2)]

    assert asyncio.run(run()) == [Lost("down"), Following()]
    assert pauses[:6] == [0.2, 0.4, 0.8, 1.6, LONGEST_PAUSE, LONGEST_PAUSE]


def test_what_cannot_be_looked_at_yet_is_looked_at_later() -> None:
    """The change is not lost if the store goes away right after it."""
    store = ScriptedStore({"a": Device("a")}, story=[[{"a"}]], calls_left=1)

    async def pause(seconds: float) -> None:
        store.problem = store.calls_left = None
        store.story = store.story or [[]]
        await asyncio.sleep(0)

    async def run() -> list[Event]:
        events: list[Event] = []
        async with aclosing(watch(store, pause)) as watched:
            async for event in watched:
                events.append(event)
                if isinstance(event, Change):
                    break
        return events

    events = asyncio.run(run())
    assert events[-1] == Change("a", Device("a"))
    assert any(isinstance(event, Lost) for event in events)


def test_a_fault_of_ours_ends_it() -> None:
    """Nobody waits for changes that nobody follows."""
    with pytest.raises(AssertionError, match="nothing more"):
        told(ScriptedStore(story=[[]]), 100)


NOW = datetime(2026, 6, 15, 12, 0, 0, 7000, UTC)


@pytest.mark.parametrize(
    ("event", "words", "fields"),
    [
        (Following(), "following redis://a", {"event": "following"}),
        (
            Lost("\x1b[31m"),
            "lost redis://a: \\x1b[31m; trying again",
            {"event": "lost", "why": "\x1b[31m"},
        ),
        (Everything(), "everything may have changed", {"event": "everything"}),
        (
            Change("a\u202e", None),
            "a\\u202e: not listed",
            {"event": "changed", "key": "a\u202e", "device": None},
        ),
        (
            Change("a", Device("a", DeviceState.DENIED, NOW, note="\n", attributes={"b": "c"})),
            'a: denied, not_before 2026-06-15T12:00:00.007000Z, note "\\n", attributes.b "c"',
            {
                "event": "changed",
                "key": "a",
                "device": {
                    "key": "a",
                    "state": "denied",
                    "not_before": "2026-06-15T12:00:00.007000Z",
                    "not_after": None,
                    "note": "\n",
                    "attributes": {"b": "c"},
                },
            },
        ),
    ],
    ids=range(5),
)
def test_each_event_is_one_line(event: Event, words: str, fields: dict[str, object]) -> None:
    assert in_words(event, "redis://a", lambda: NOW) == f"2026-06-15T12:00:00Z {words}"
    line = in_json(event, lambda: NOW)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"time": "2026-06-15T12:00:00.007000Z", **fields}
