"""
``mtlsgate registry watch``: changes as they come.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from datetime import datetime
from itertools import islice

from attrs import frozen

from mtlsgate.admission.devices import Device
from mtlsgate.clock import utc_now
from mtlsgate.commands.registry.changing import described
from mtlsgate.registry.fields import instant_text
from mtlsgate.registry.formats import object_of
from mtlsgate.registry.store import Store, StoreError
from mtlsgate.text import first_line, printable

#: Seconds before the first attempt to follow again, and at most.
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 2.0
#: More changes than these are told as one; they came faster than they could be looked at.
MOST_PENDING = 100_000
#: How many devices are looked at together.
_TOGETHER = 500


@frozen
class Following:
    """Changes are told from now on."""


@frozen
class Lost:
    """No change is told from now on, until `Following`."""

    why: str


@frozen
class Everything:
    """The store was emptied, or more changed than can be told."""


@frozen
class Change:
    """A device has changed, has come, or, with None, has gone."""

    key: str
    device: Device | None


Event = Following | Lost | Everything | Change


class _Told:
    """
    Is told of changes, and keeps them until they are looked at.

    :ivar _events: in order; few, whatever happens.
    :ivar _keys: of the devices that changed, in order.
    """

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._keys: dict[str, None] = {}
        self._more = asyncio.Event()

    def following(self) -> None:
        """Changes are told from now on."""
        self.say(Following())

    def changed(self, keys: Collection[str] | None) -> None:
        """Something has changed."""
        if keys is not None:
            self._keys.update(dict.fromkeys(keys))
        if keys is None or len(self._keys) > MOST_PENDING:
            self._keys.clear()
            self.say(Everything())
        self.wake()

    def alive(self) -> None:
        """All is well, which nobody needs to be told."""

    def say(self, event: Event) -> None:
        """Keep an event, unless it says what the last one says."""
        if self._events[-1:] != [event]:
            self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Let `next` return."""
        self._more.set()

    async def next(self) -> tuple[list[Event], list[str]]:
        """:returns: what has happened since the last time, and some keys; waits if nothing
        has."""
        await self._more.wait()
        events, self._events = self._events, []
        keys = list(islice(self._keys, _TOGETHER))
        for key in keys:
            del self._keys[key]
        if not self._keys:
            self._more.clear()
        return events, keys


async def watch(
    store: Store, pause: Callable[[float], Awaitable[object]] = asyncio.sleep
) -> AsyncGenerator[Event]:
    """
    Follow a store for ever; when the push channel is lost, follow anew.

    :param pause: waits so many seconds.
    :returns: what happens.  A device that changes twice at a time is told once; of an
        outage only that it began.
    """
    told, is_lost = _Told(), False
    follower = asyncio.ensure_future(_follow(store, told, pause))
    follower.add_done_callback(lambda _: told.wake())
    try:
        while not follower.done():
            events, keys = await told.next()
            try:
                found = await store.find(keys) if keys else {}
            except StoreError as error:
                events.append(Lost(first_line(error)))
                told.changed(keys)
                keys = []
                await pause(FIRST_PAUSE)
            for event in events:
                if not (is_lost and isinstance(event, Lost)):
                    yield event
                is_lost = isinstance(event, Lost) or (is_lost and not isinstance(event, Following))
            for key in keys:
                yield Change(key, found.get(key))
        follower.result()
    finally:
        follower.cancel()


async def _follow(store: Store, told: _Told, pause: Callable[[float], Awaitable[object]]) -> None:
    now = asyncio.get_running_loop().time
    seconds = FIRST_PAUSE
    while True:
        begun = now()
        try:
            await store.follow(told)
        except StoreError as error:
            told.say(Lost(first_line(error)))
        # One that held for a while was good.
        if now() - begun > LONGEST_PAUSE:
            seconds = FIRST_PAUSE
        await pause(seconds)
        seconds = min(2 * seconds, LONGEST_PAUSE)


def in_words(event: Event, place: str, now: Callable[[], datetime] = utc_now) -> str:
    """
    :param place: where the store is.
    :returns: an event in one line, safe for a terminal.
    """
    match event:
        case Following():
            text = f"following {place}"
        case Lost(why):
            text = f"lost {place}: {printable(why)}; trying again"
        case Everything():
            text = "everything may have changed"
        case Change(key, device) if device is None:
            text = f"{printable(key)}: not listed"
        case Change(key, device):
            assert device is not None
            fields = described(device)
            state = fields.pop("state")
            text = ", ".join([state, *(f"{name} {value}" for name, value in fields.items())])
            text = f"{printable(key)}: {text}"
    return f"{instant_text(now().replace(microsecond=0))} {text}"


def in_json(event: Event, now: Callable[[], datetime] = utc_now) -> str:
    """:returns: an event as a JSON object, in one line."""
    fields: dict[str, object] = {"time": instant_text(now())}
    match event:
        case Following():
            fields["event"] = "following"
        case Lost(why):
            fields |= {"event": "lost", "why": why}
        case Everything():
            fields["event"] = "everything"
        case Change(key, device):
            listed = None if device is None else object_of(device)
            fields |= {"event": "changed", "key": key, "device": listed}
    return json.dumps(fields)
