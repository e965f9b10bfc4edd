"""
The gate's answers as tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from mtlsgate.ctl.fitting import Column, FittingTable, FittingText
from mtlsgate.ctl.notices import notices
from mtlsgate.ctl.printing import table, text
from mtlsgate.ctl.registries import registries
from mtlsgate.ctl.words import counted, duration, moment, size
from mtlsgate.text import printable

#: One of the gate's JSON objects.
Facts = Mapping[str, Any]
#: The columns with days left, and the kind of deadline in each.
_COLUMNS = {"certificate": "server_certificate", "CA": "ca", "pin": "pin", "CRL": "crl"}
#: How soon each of them is left out of a narrow table.
_RANKS = {"certificate": 1, "CA": 5, "pin": 5, "CRL": 5}


def status(facts: Facts) -> RenderableType:
    """:returns: the gate as a whole."""
    tables = (servers(facts), clients(facts), targets(facts), registries(facts))
    listening = [one for one in tables if one.rows]
    spaced = [part for one in listening for part in (Text(), one)]
    return Group(heading(facts), *spaced, *workers(facts), *notices(facts))


def heading(facts: Facts) -> FittingText:
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
            f"{counted(facts['rejected'], 'connection')} rejected since the start"
        ),
    ]
    last = facts["last_reload"]
    if last is not None and not last["succeeded"]:
        lines.append(text(f"not reloaded, {moment(last['at'])}:", "bold red"))
        lines += [text(f"  {problem}", "red") for problem in last["problems"]]
    return FittingText(Text("\n").join(lines))


def workers(facts: Facts) -> list[RenderableType]:
    """:returns: a line for each worker, if there are several."""
    if not facts.get("workers"):
        return []
    rows = [
        (
            one["number"],
            one["pid"],
            text(one["state"], "" if one["state"] == "running" else "bold red"),
            None if one["uptime"] is None else duration(one["uptime"]),
            one["admitted"],
            one["handshakes"],
            f"{one['cpu_seconds']:.1f} s",
            one["restarts"],
        )
        for one in facts["workers"]
    ]
    columns = (
        Column("worker", is_right=True),
        Column("process", is_right=True, rank=1),
        Column("state"),
        Column("up", is_right=True, rank=2),
        Column("clients", is_right=True),
        Column("handshakes", is_right=True, rank=4),
        Column("CPU", is_right=True, rank=3),
        Column("restarts", is_right=True),
    )
    return [Text(), table(columns, rows)]


def servers(facts: Facts) -> FittingTable:
    """:returns: a line for each server."""
    return table(
        (
            Column("server"),
            Column("listening on"),
            Column("protocol", rank=2),
            Column("rules", rank=3),
            Column("pins", is_right=True, rank=6),
            Column("clients", is_right=True),
            Column("handshakes", is_right=True, rank=4),
            *(Column(name, is_right=True, rank=_RANKS[name]) for name in _COLUMNS),
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
    )


def clients(facts: Facts) -> FittingTable:
    """:returns: a line for each client gate."""
    return table(
        (
            Column("client gate"),
            Column("listening on"),
            Column("connected", is_right=True),
            Column("dialling", is_right=True, rank=3),
            Column("certificate", is_right=True, rank=1),
            Column("CA", is_right=True, rank=2),
        ),
        [
            (
                client["name"],
                ", ".join(client["listening"]),
                _of(client["connected"], client["max_connections"]),
                _of(client["dialling"], client["max_handshakes"]),
                _days(client["deadlines"], "client_certificate"),
                _days(client["deadlines"], "target_ca"),
            )
            for client in facts["clients"]
        ],
    )


def targets(facts: Facts) -> FittingTable:
    """:returns: a line for each target of a server or a client gate."""
    return table(
        (
            Column("from"),
            Column("target"),
            Column("state"),
            Column("in use", is_right=True, rank=3),
            Column("connects in", is_right=True, rank=2),
            Column("failures", is_right=True, rank=4),
            Column("last error", rank=1),
        ),
        [
            (
                one["name"],
                target["address"],
                _state(target),
                target["in_use"],
                None if target["last_dial"] is None else f"{target['last_dial'] * 1000:.3g} ms",
                target["failures"],
                target["last_error"],
            )
            for one in (*facts["servers"], *facts["clients"])
            for target in one["targets"]
        ],
    )


def _state(target: Facts) -> Text:
    if not target["up"]:
        return text(f"down since {moment(target['down_since'])}", "bold red")
    state = "up" if target["is_known"] else "not tried yet"
    return text(f"{state}, backup" if target["backup"] else state)


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


def connections(found: Iterable[Facts], *, wide: bool = False) -> FittingTable:
    """
    :param wide: whether to show whole fingerprints.
    :returns: a line for each connection.
    """
    return table(
        (
            Column("number", is_right=True),
            Column("server", rank=3),
            Column("state", rank=5),
            Column("address"),
            Column("rule or target", rank=1),
            Column("subject"),
            Column("SHA-256", rank=4),
            Column("for", is_right=True, rank=2),
            Column("idle", is_right=True, rank=8),
            Column("received", is_right=True, rank=7),
            Column("sent", is_right=True, rank=6),
            Column("TLS", rank=9),
            Column("name", rank=10),
        ),
        [
            (
                one["number"],
                one["server"],
                one["state"],
                one["address"],
                one["rule"] or one["target"],
                one["subject"],
                _fingerprint(one["sha256"], wide),
                duration(one["seconds"]),
                None if one["idle"] is None else duration(one["idle"]),
                size(one["received"]),
                size(one["sent"]),
                _tls(one),
                one["server_name"],
            )
            for one in found
        ],
        "connections",
    )


def _fingerprint(sha256: str | None, wide: bool) -> str | None:
    return sha256 if sha256 is None or wide else sha256[:16]


def _tls(one: Facts) -> str | None:
    if one["tls_version"] is None:
        return None
    return f"{one['tls_version']}{' resumed' if one['resumed'] else ''}"


def rejections(found: Iterable[Facts], *, wide: bool = False) -> FittingTable:
    """
    :param wide: whether to show whole fingerprints.
    :returns: a line for each rejection.
    """
    return table(
        (
            Column("time"),
            Column("server", rank=2),
            Column("address"),
            Column("reason"),
            Column("detail", rank=1),
            Column("subject", rank=3),
            Column("SHA-256", rank=4),
        ),
        [
            (
                moment(one["at"]),
                one["server"],
                one["address"],
                one["reason"],
                one["detail"],
                one["leaf"] and one["leaf"]["subject"],
                one["leaf"] and _fingerprint(one["leaf"]["sha256"], wide),
            )
            for one in found
        ],
        "rejections",
    )


def pins(found: Iterable[Facts]) -> list[str]:
    """:returns: HCL with a pin for each client that a pin may admit, the latest first."""
    lines: dict[str, str] = {}
    for one in found:
        if one["pin_block"] is not None:
            said = f"{one['leaf']['subject']}, rejected by {one['server']}: {one['reason']}"
            lines.setdefault(printable(one["pin_block"]), f"# {printable(said)}")
    return [line for block, comment in lines.items() for line in (comment, block)]
