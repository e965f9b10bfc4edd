"""
The gate's answers as tables.

Text from certificates, clients or the configuration is never interpreted as markup or
as terminal control.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from mtlsgate.ctl.words import counted, duration, moment, size
from mtlsgate.text import printable

#: One of the gate's JSON objects.
Facts = Mapping[str, Any]
#: The width of output to a file, where lines are never broken.
_WIDE = 10_000
_NOTHING = "-"
#: The columns with days left, and the kind of deadline in each.
_COLUMNS = {"certificate": "server_certificate", "CA": "ca", "pin": "pin", "CRL": "crl"}
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


def console() -> Console:
    """:returns: a printer for standard output."""
    if hasattr(sys.stdout, "reconfigure"):
        # Show a name even if the terminal lacks its letters.
        sys.stdout.reconfigure(errors="backslashreplace")
    width = None if sys.stdout.isatty() else _WIDE
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def say(what: RenderableType) -> None:
    """Print without trailing blanks."""
    printer = console()
    with printer.capture() as captured:
        printer.print(what)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def text(value: object, style: str = "") -> Text:
    """:returns: the value, safe for a terminal."""
    return Text(_NOTHING if value is None or value == "" else printable(str(value)), style=style)


def table(
    headings: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()
) -> Table:
    """:param right: the headings of columns that are aligned to the right."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
    for heading in headings:
        made.add_column(
            Text(heading), justify="right" if heading in right else "left", overflow="fold"
        )
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text(cell) for cell in row))
    return made


def status(facts: Facts) -> RenderableType:
    """:returns: the gate as a whole."""
    listening = [one for one in (servers(facts), clients(facts)) if one.row_count]
    spaced = [part for one in listening for part in (Text(), one)]
    return Group(heading(facts), *spaced, *_due(facts), *_warnings(facts))


def heading(facts: Facts) -> Text:
    """:returns: the lines before the table of servers."""
    ready = (
        text("ready", "bold green")
        if facts["ready"]
        else text(f"not ready: {facts['not_ready']}", "bold red")
    )
    lines = [
        Text.assemble(
            text(
                f"mtlsgate {facts['version']}, process {facts['pid']}, "
                f"up {duration(facts['uptime'])}: "
            ),
            ready,
        ),
        text(f"{facts['config']}: epoch {facts['epoch']}, for {duration(facts['epoch_age'])}"),
        text(
            f"{counted(facts['admitted'], 'client')} connected, "
            f"{counted(facts['handshakes'], 'handshake')} in progress, "
            f"{counted(facts['rejected'], 'connection')} turned away so far"
        ),
    ]
    last = facts["last_reload"]
    if last is not None and not last["succeeded"]:
        lines.append(text(f"not loaded anew, {moment(last['at'])}:", "bold red"))
        lines += [text(f"  {problem}", "red") for problem in last["problems"]]
    return Text("\n").join(lines)


def _warnings(facts: Facts) -> list[RenderableType]:
    lines = [text(f"{warning} (warning)", "yellow") for warning in facts["warnings"]]
    return [Text(), *lines] if lines else []


def _due(facts: Facts) -> list[RenderableType]:
    lines = [
        text(due_line(server["name"], deadline), "bold red")
        for server in (*facts["servers"], *facts["clients"])
        for deadline in server["deadlines"]
        if deadline["is_due"]
    ]
    return [Text(), *lines] if lines else []


def due_line(server: str, deadline: Facts) -> str:
    """:returns: what needs attention, and by when."""
    who = server if deadline["rule"] is None else f"{server}: rule {deadline['rule']}"
    is_over = deadline["days_left"] < 0
    what = _OVER[deadline["kind"]] if is_over else _ENDING[deadline["kind"]]
    days = f"{counted(abs(deadline['days_left']), 'day')} {'ago' if is_over else 'left'}"
    return f"{who}: {what} {moment(deadline['at'])} ({days})"


def servers(facts: Facts) -> Table:
    """:returns: a line for each server."""
    return table(
        (
            "server",
            "listening on",
            "protocol",
            "rules",
            "pins",
            "clients",
            "handshakes",
            *_COLUMNS,
        ),
        [
            (
                server["name"],
                ", ".join(server["listening"]),
                server["protocol"],
                _rules(server),
                sum(rule["pins"] for rule in server["rules"]),
                _of(server["admitted"], server["limits"]["max_connections"]),
                _of(server["handshakes"], server["limits"]["max_handshakes"]),
                *(_days(server["deadlines"], kind) for kind in _COLUMNS.values()),
            )
            for server in facts["servers"]
        ],
        right=("pins", "clients", "handshakes", *_COLUMNS),
    )


def clients(facts: Facts) -> Table:
    """:returns: a line for each client gate."""
    return table(
        ("client gate", "listening on", "targets", "connected", "dialling", "certificate", "CA"),
        [
            (
                client["name"],
                ", ".join(client["listening"]),
                ", ".join(client["targets"]),
                _of(client["connected"], client["max_connections"]),
                _of(client["dialling"], client["max_handshakes"]),
                _days(client["deadlines"], "client_certificate"),
                _days(client["deadlines"], "target_ca"),
            )
            for client in facts["clients"]
        ],
        right=("connected", "dialling", "certificate", "CA"),
    )


def _rules(server: Facts) -> Text:
    if server["client_authentication"] == "none":
        return text("lets in anyone", "bold yellow")
    return text(", ".join(rule["name"] for rule in server["rules"]))


def _of(number: int, limit: int | None) -> str:
    return str(number) if limit is None else f"{number}/{limit}"


def _days(deadlines: Iterable[Facts], kind: str) -> Text:
    """:returns: how many days are left until the first of that kind."""
    first = next((one for one in deadlines if one["kind"] == kind), None)
    if first is None:
        return text(None)
    return text(f"{first['days_left']} d", "bold red" if first["is_due"] else "")


def connections(found: Iterable[Facts]) -> Table:
    """:returns: a line for each connection."""
    return table(
        (
            "number", "server", "state", "address", "rule or target", "subject", "SHA-256", "for",
            "idle", "received", "sent", "TLS", "name",
        ),
        [
            (
                one["number"],
                one["server"],
                one["state"],
                one["address"],
                one["rule"] or one["target"],
                one["subject"],
                None if one["sha256"] is None else one["sha256"][:16],
                duration(one["seconds"]),
                None if one["idle"] is None else duration(one["idle"]),
                size(one["received"]),
                size(one["sent"]),
                _tls(one),
                one["server_name"],
            )
            for one in found
        ],
        right=("number", "for", "idle", "received", "sent"),
    )  # fmt: skip


def _tls(one: Facts) -> str | None:
    if one["tls_version"] is None:
        return None
    return f"{one['tls_version']}{' resumed' if one['resumed'] else ''}"


def rejections(found: Iterable[Facts]) -> Table:
    """:returns: a line for each rejection."""
    return table(
        ("time", "server", "address", "reason", "detail", "subject", "SHA-256"),
        [
            (
                moment(one["at"]),
                one["server"],
                one["address"],
                one["reason"],
                one["detail"],
                one["leaf"] and one["leaf"]["subject"],
                one["leaf"] and one["leaf"]["sha256"][:16],
            )
            for one in found
        ],
    )


def pins(found: Iterable[Facts]) -> list[str]:
    """:returns: HCL with a pin for each client that a pin may admit, the latest first."""
    lines: dict[str, str] = {}
    for one in found:
        if one["pin_block"] is not None:
            said = f"{one['leaf']['subject']}, turned away from {one['server']}: {one['reason']}"
            lines.setdefault(printable(one["pin_block"]), f"# {printable(said)}")
    return [line for block, comment in lines.items() for line in (comment, block)]
