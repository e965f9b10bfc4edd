"""
The lines below the tables of a gate: what is due, what fails, what is worth knowing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from mtlsgate.ctl.fitting import FittingText
from mtlsgate.ctl.printing import text
from mtlsgate.ctl.shadow import lines_of as shadow_lines
from mtlsgate.ctl.words import counted, moment

#: One of the gate's JSON objects.
Facts = Mapping[str, Any]
#: Words for a deadline before and after it.
_ENDING = {
    "server_certificate": "a certificate of the server expires",
    "ca": "a CA expires",
    "pin": "a pin expires or is retired",
    "crl": "a revocation list is to be replaced by",
    "client_certificate": "the client certificate expires",
    "target_ca": "a target's CA expires",
    "target_pin": "a target's pin expires",
}
_OVER = {
    "server_certificate": "a certificate of the server expired",
    "ca": "a CA expired",
    "pin": "a pin expired",
    "crl": "a revocation list was to be replaced by",
    "client_certificate": "the client certificate expired",
    "target_ca": "a target's CA expired",
    "target_pin": "a target's pin expired",
}


def notices(facts: Facts) -> Iterator[RenderableType]:
    """:returns: the lines, in paragraphs."""
    for part in (_due, _fetches, _agents, _registries, _shadow, _orders, _warnings):
        lines = [*part(facts)]
        if lines:
            yield Text()
            yield from lines


def _due(facts: Facts) -> Iterable[RenderableType]:
    return [
        FittingText(text(_due_line(server["name"], deadline), "bold red"))
        for server in (*facts["servers"], *facts["clients"])
        for deadline in server["deadlines"]
        if deadline["is_due"]
    ]


def _fetches(facts: Facts) -> Iterable[RenderableType]:
    return [
        text(
            f"nothing from {one['url']} ({counted(one['failures'], 'failure')}): {one['problem']}; "
            + (
                f"the one in force ends {moment(one['until'])}"
                if one["until"]
                else "there is none in force"
            ),
            "bold red",
        )
        for one in facts.get("fetches", ())
        if one["problem"]
    ]


def _agents(facts: Facts) -> Iterable[RenderableType]:
    return [
        text(
            f"no {one['stream']} from the agent at {one['agent']}: {one['problem']}; "
            + (
                f"in force: {', '.join(one['names'])}" if one["names"] else "there is none in force"
            ),
            "bold red",
        )
        for one in facts.get("agents", ())
        if one["problem"]
    ]


def _registries(facts: Facts) -> Iterable[RenderableType]:
    return [
        FittingText(
            text(
                f"registry {one['name']} is {one['state']} since {moment(one['since'])}: "
                f"{one['problem']}"
                if one["state"] != "following"
                else f"registry {one['name']}: the latest question failed: {one['problem']}",
                "bold red",
            )
        )
        for one in facts.get("registries", ())
        if one["problem"]
    ]


def _shadow(facts: Facts) -> Iterable[RenderableType]:
    found = facts.get("shadow")
    return [] if found is None else [FittingText(Text("\n").join(shadow_lines(found)))]


def _orders(facts: Facts) -> Iterable[RenderableType]:
    lines = [
        text(
            f"no certificate for {', '.join(one['names'])} "
            f"({counted(one['failures'], 'failure')}): {one['problem']}; the next attempt is at "
            f"{moment(one['due'])}; "
            + (
                f"the one in use expires {moment(one['until'])}"
                if one["until"]
                else "there is none in use"
            ),
            "bold red",
        )
        for one in facts.get("orders", ())
        if one["problem"]
    ]
    lines += [
        text(
            f"the certificate for {', '.join(one['names'])} expires {moment(one['until'])}, and is "
            f"renewed {moment(one['due'])}"
        )
        for one in facts.get("orders", ())
        if one["until"] and not one["problem"]
    ]
    return lines


def _warnings(facts: Facts) -> Iterable[RenderableType]:
    return [FittingText(text(f"{warning} (warning)", "yellow")) for warning in facts["warnings"]]


def _due_line(server: str, deadline: Facts) -> str:
    who = server if deadline["rule"] is None else f"{server}: rule {deadline['rule']}"
    is_over = deadline["days_left"] < 0
    what = _OVER[deadline["kind"]] if is_over else _ENDING[deadline["kind"]]
    # Whole days, rounded down: -1 is any time of the last day.
    days = -1 - deadline["days_left"] if is_over else deadline["days_left"]
    distance = counted(days, "day") if days else "less than a day"
    return f"{who}: {what} {moment(deadline['at'])} ({distance} {'ago' if is_over else 'left'})"
