"""
Tables of ``mtlsgate ctl`` at every width of a terminal: no line breaks within a word.
"""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mtlsgate.ctl import tables
from mtlsgate.ctl.fitting import Column, FittingTable, FittingText, longest_word, shortened

WIDTHS = [80, 81, 97, 120, 163, 200]
#: Names as somebody may choose them.
HOSTILE = [
    "x" * 300,
    "CN=" + "press-7." * 40 + "example",
    "名前" * 60,
    "a b " * 40,
    "e\u0301" * 100,
    "\N{FAMILY}" * 50,
    "-" * 150,
    "", " ", "…", "[bold]x[/bold]", "a\u00a0b" * 30,
]  # fmt: skip


def lines(what: Any, width: int) -> list[str]:
    """:returns: what a terminal of that width shows."""
    stream = io.StringIO()
    Console(file=stream, width=width, markup=False, highlight=False, emoji=False).print(what)
    return stream.getvalue().splitlines()


def words(text: str) -> list[str]:
    return text.split()


def fragments(text: str, shown: set[str]) -> list[str]:
    """:returns: the words of a text that are shown neither whole nor as a beginning with an
    ellipsis."""
    return [
        word
        for word in words(text)
        if word not in shown
        and not any(one.endswith("…") and word.startswith(one[:-1]) for one in shown)
    ]


def connection(name: str, number: int = 1) -> dict[str, Any]:
    return {
        "number": number, "server": name, "state": "admitted", "address": "192.0.2.7:58514",
        "rule": name, "target": None, "subject": f"CN={name}", "sha256": "ab" * 32, "seconds": 5,
        "idle": 3.0, "received": 123456, "sent": 10, "tls_version": "TLSv1.3", "resumed": True,
        "server_name": name,
    }  # fmt: skip


def rejection(name: str) -> dict[str, Any]:
    return {
        "at": "2026-06-15T12:00:00", "server": name, "address": "[2001:db8::1]:58514",
        "reason": "unknown_ca", "detail": f"no certificate of {name} leads to a CA",
        "leaf": {"subject": f"CN={name}", "sha256": "cd" * 32}, "pin_block": None,
    }  # fmt: skip


def status(name: str) -> dict[str, Any]:
    target = {
        "address": name, "up": False, "is_known": True, "last_error": f"{name}: refused",
        "down_since": "2026-06-15T11:00:00", "last_dial": 0.0123, "in_use": 3, "failures": 4,
        "weight": 1, "backup": False,
    }  # fmt: skip
    return {
        "version": "1.2.3", "pid": 1, "uptime": 1, "ready": False, "not_ready": f"no {name}",
        "config": f"/etc/{name}", "epoch": 1, "epoch_age": 1, "admitted": 1, "handshakes": 0,
        "rejected": 1, "warnings": [f"gate.hcl:1:1: {name} is odd"], "servers": [{
            "name": name, "listening": ["0.0.0.0:8443", "[::]:8443"], "protocol": "proxy",
            "rules": [{"name": name, "pins": 1}, {"name": "second", "pins": 0}], "admitted": 1,
            "handshakes": 0, "client_authentication": "required", "deadlines": [
                {"kind": "crl", "rule": name, "days_left": -3, "is_due": True,
                 "at": "2026-06-12T12:00:00"}],
            "limits": {"max_connections": 5, "max_handshakes": None}, "targets": [target] * 2,
        }],
        "clients": [{
            "name": name, "listening": ["127.0.0.1:6379"], "targets": [target], "connected": 1,
            "dialling": 0, "max_connections": None, "max_handshakes": 5, "deadlines": [],
        }],
        "last_reload": {"at": "2026-06-15T12:00:00", "succeeded": False, "problems": [name]},
    }  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_no_word_is_broken_at_any_width(name: str) -> None:
    """Whatever names are: each word of a cell is there whole, or cut with an ellipsis, or its
    column is left out and that is said."""
    for width in WIDTHS:
        for what in (
            tables.connections([connection(name), connection("press-7", 23)]),
            tables.rejections([rejection(name), rejection("press-7")]),
            tables.status(status(name)),
        ):
            shown = lines(what, width)
            assert all(cell_len(line) <= width for line in shown)
            found = {word for line in shown for word in words(line)}
            left_out = " ".join(re.findall(r"no room for:(.*?); ctl", " ".join(shown)))
            for text in _texts(what, left_out):
                assert fragments(text, found) == [], (width, shown)


def _texts(what: Any, left_out: str) -> list[str]:
    """:returns: the text of all cells whose columns are shown, and of all lines."""
    if isinstance(what, FittingText):
        return [what.text.plain]
    if isinstance(what, FittingTable):
        return [
            row[index].plain
            for index, column in enumerate(what.columns)
            if column.heading not in left_out
            for row in (tuple(Text(one.heading) for one in what.columns), *what.rows)
        ]
    return [text for part in getattr(what, "renderables", ()) for text in _texts(part, left_out)]


def test_what_matters_most_is_shown_at_80_columns() -> None:
    """Who is there, from where and for how long; and what there was no room for."""
    shown = lines(tables.connections([connection("press-7")]), 80)
    assert [one in shown[0] for one in ("number", "address", "subject")] == [True] * 3
    assert "CN=press-7" in shown[2]
    said = " ".join(" ".join(shown).partition("(")[2].split())
    assert re.fullmatch(r"no room for: .*name; ctl connections --wide shows all\)", said)


def test_what_fits_is_left_as_it_is() -> None:
    """In a wide terminal nothing is left out, shortened or broken."""
    shown = lines(tables.connections([connection("press-7")]), 200)
    assert len(shown) == 3
    assert "…" not in "".join(shown)


def test_fingerprints_are_whole_if_asked_for() -> None:
    """They are what a pin is compared with."""
    assert "ab" * 32 in "\n".join(lines(tables.connections([connection("x")], wide=True), 10_000))
    assert "cd" * 32 in "\n".join(lines(tables.rejections([rejection("x")], wide=True), 10_000))
    short = "\n".join(lines(tables.connections([connection("x")]), 10_000))
    assert "ab" * 8 in short
    assert "ab" * 9 not in short


def test_columns_are_left_out_by_rank() -> None:
    """Those with the highest first, and those without one never."""
    table = FittingTable(
        (Column("first"), Column("second", rank=1), Column("third", rank=2)),
        ((Text("a" * 30), Text("b" * 30), Text("c" * 30)),),
    )
    assert "third" in lines(table, 70)[0]
    narrow = lines(table, 50)
    assert "third" not in narrow[0]
    assert "second" in narrow[0]
    least = lines(table, 10)
    assert least[0].strip() == "first"
    assert all(cell_len(line) <= 10 for line in least)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("longest", [2, 5, 20])
def test_a_shortened_text_has_no_longer_word(text: str, longest: int) -> None:
    """Counted in cells, of which some letters take two and others none."""
    assert longest_word(shortened(Text(text), longest).plain) <= longest


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong stands out there, and nowhere else."""
    stream = io.StringIO()
    Console(file=stream, width=200, force_terminal=True, color_system="standard").print(
        tables.status(status("x"))
    )
    assert "\x1b[1;31m" in stream.getvalue()
    assert "\x1b" not in "".join(lines(tables.status(status("x")), 200))
