"""
``mtlsgate ctl top``: shows the gate on one screen, updated regularly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic, sleep
from typing import Any

from attrs import frozen
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from mtlsgate.ctl import tables
from mtlsgate.ctl.client import Remote
from mtlsgate.ctl.fitting import Column
from mtlsgate.ctl.printing import say, table
from mtlsgate.ctl.words import duration, size

#: How many rejections are shown, and how many lines the rest takes.
_REJECTIONS = 5
_LINES = 18
_FEWEST = 5


@frozen
class Look:
    """
    The gate's answers at one moment.

    :ivar at: when, in seconds.
    :ivar status: the gate as a whole.
    :ivar connections: all.
    :ivar rejections: the latest first.
    """

    at: float
    status: Mapping[str, Any]
    connections: Sequence[Mapping[str, Any]]
    rejections: Sequence[Mapping[str, Any]]


def look(remote: Remote) -> Look:
    """:returns: the state of the gate now."""
    return Look(
        monotonic(),
        remote.get("/status"),
        remote.connections(),
        remote.get("/rejections")["rejections"],
    )


def rates(before: Look | None, now: Look) -> dict[int, float]:
    """:returns: by connection number the bytes a second in both directions, since the
    last look or since the connection arrived."""
    known = {} if before is None else {one["number"]: _bytes(one) for one in before.connections}
    elapsed = 0.0 if before is None else now.at - before.at
    found = {}
    for one in now.connections:
        is_known = one["number"] in known
        seconds = elapsed if is_known else one["seconds"]
        grown = _bytes(one) - known.get(one["number"], 0)
        found[one["number"]] = grown / seconds if seconds > 0 else 0.0
    return found


def _bytes(connection: Mapping[str, Any]) -> int:
    return int(connection["received"] + connection["sent"])


def frame(before: Look | None, now: Look, height: int) -> RenderableType:
    """:param height: of the terminal, in lines."""
    speed = rates(before, now)
    most = max(_FEWEST, height - _LINES - len(now.status["servers"]))
    busiest = sorted(now.connections, key=lambda one: (-speed[one["number"]], one["number"]))[:most]
    parts: list[RenderableType] = [
        tables.heading(now.status),
        Text(),
        tables.servers(now.status),
        Text(),
        table(
            (
                Column("number", is_right=True),
                Column("server", rank=3),
                Column("address"),
                Column("rule", rank=1),
                Column("subject"),
                Column("for", is_right=True, rank=2),
                Column("a second", is_right=True),
                Column("received", is_right=True, rank=5),
                Column("sent", is_right=True, rank=4),
            ),
            [
                (
                    one["number"],
                    one["server"],
                    one["address"],
                    one["rule"] or one["state"],
                    one["subject"],
                    duration(one["seconds"]),
                    size(speed[one["number"]]),
                    size(one["received"]),
                    size(one["sent"]),
                )
                for one in busiest
            ],
            "connections",
        ),
    ]
    if now.rejections:
        parts += [Text(), tables.rejections(now.rejections[:_REJECTIONS])]
    return Group(*parts)


def show(
    remote: Remote,
    console: Console,
    every: float,
    *,
    once: bool,
    wait: Callable[[float], object] = sleep,
) -> None:
    """
    Show the gate until a KeyboardInterrupt, which it does not catch.

    :param every: seconds between two looks.
    :param once: whether to look only once; without a terminal it always does.
    """
    now = look(remote)
    if once or not console.is_terminal:
        say(frame(None, now, console.height))
        return
    with Live(console=console, screen=True, auto_refresh=False) as live:
        before = None
        while True:
            live.update(frame(before, now, console.height), refresh=True)
            wait(every)
            before, now = now, look(remote)
