"""
Printing on a terminal.

Text from certificates, clients or the configuration is never interpreted as markup or
as terminal control.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

import click
from rich.console import Console, RenderableType
from rich.text import Text

from mtlsgate.ctl.fitting import WIDE, Column, FittingTable
from mtlsgate.text import printable

_NOTHING = "-"


def console(*, wide: bool = False) -> Console:
    """
    :param wide: whether lines may be longer than the terminal's.
    :returns: a printer for standard output.
    """
    if hasattr(sys.stdout, "reconfigure"):
        # Show a name even if the terminal lacks its letters.
        sys.stdout.reconfigure(errors="backslashreplace")
    width = None if sys.stdout.isatty() and not wide else WIDE
    return Console(width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def say(what: RenderableType, *, wide: bool = False) -> None:
    """
    Print without trailing blanks.

    :param wide: whether lines may be longer than the terminal's.
    """
    printer = console(wide=wide)
    with printer.capture() as captured:
        printer.print(what)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def text(value: object, style: str = "") -> Text:
    """:returns: the value, safe for a terminal."""
    return Text(_NOTHING if value is None or value == "" else printable(str(value)), style=style)


def table(
    columns: Iterable[Column], rows: Iterable[Sequence[object]], command: str = "status"
) -> FittingTable:
    """
    :param command: the command that shows all of it.
    :returns: a table, whose cells are safe for a terminal.
    """
    return FittingTable(
        tuple(columns),
        tuple(
            tuple(cell if isinstance(cell, Text) else text(cell) for cell in row) for row in rows
        ),
        command,
    )
