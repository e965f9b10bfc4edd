"""
Tables that fit a terminal.

A table never breaks a line within a word.  If a terminal is too narrow, the table first
shortens long words, and then leaves out the columns that matter least, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from attrs import frozen
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

#: The width of output that is not for a terminal, where nothing is shortened.
WIDE = 10_000
#: The longest words that are tried, one after the other.
_LONGEST = (WIDE, 64, 40, 28, 20)
#: What remains to be tried if the columns that matter most still do not fit.
_SHORTEST = (12, 8, 4, 2)
#: Cells between two columns.
_GAP = 3


@frozen
class Column:
    """
    A column of a table.

    :ivar heading: one word or several.
    :ivar is_right: whether it is aligned to the right.
    :ivar rank: the columns with the highest are left out first; those with 0 never are.
    """

    heading: str
    is_right: bool = False
    rank: int = 0


@frozen
class FittingTable:
    """
    A table, which chooses its layout when it is printed.

    :ivar columns: its columns.
    :ivar rows: a cell for each column.
    :ivar command: the command of ``mtlsgate ctl`` that shows all of it.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Text, ...], ...]
    command: str = "status"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """:returns: the table, with what fits the terminal's width."""
        room = options.max_width
        shown, longest = self._fitting(room)
        made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold")
        cells = [[shortened(row[index], longest) for index in shown] for row in self.rows]
        headings = [shortened(Text(self.columns[index].heading), longest) for index in shown]
        widths = _widths([headings, *cells], room)
        for heading, index, width in zip(headings, shown, widths, strict=True):
            justify: Literal["right", "left"] = "right" if self.columns[index].is_right else "left"
            made.add_column(heading, justify=justify, width=width)
        for row in cells:
            made.add_row(*row)
        yield made
        left_out = [one.heading for index, one in enumerate(self.columns) if index not in shown]
        if left_out:
            text = f"(no room for: {', '.join(left_out)}; ctl {self.command} --wide shows all)"
            yield shortened(Text(text, style="dim"), room)

    def _fitting(self, room: int) -> tuple[list[int], int]:
        """:returns: the indexes of the columns that fit, and how long words may be."""
        for shown in self._choices():
            for longest in _LONGEST:
                if self._least(shown, longest) <= room:
                    return shown, longest
        for longest in _SHORTEST:
            if self._least(shown, longest) <= room:
                break
        return shown, longest

    def _choices(self) -> Iterator[list[int]]:
        """Yield all columns, and then fewer and fewer."""
        shown = list(range(len(self.columns)))
        yield shown
        for index in sorted(shown, key=lambda one: (-self.columns[one].rank, -one)):
            if self.columns[index].rank:
                shown = [one for one in shown if one != index]
                yield shown

    def _least(self, shown: Sequence[int], longest: int) -> int:
        """:returns: the width at which no word of that length is broken."""
        words = [self._longest_word(index) for index in shown]
        return sum(min(one, longest) + _GAP for one in words) - _GAP

    def _longest_word(self, index: int) -> int:
        column = [self.columns[index].heading, *(row[index].plain for row in self.rows)]
        return max(map(longest_word, column))


def longest_word(text: str) -> int:
    """:returns: how many cells the longest word of a text takes."""
    return max(map(cell_len, text.split()), default=0)


def shortened(text: Text, longest: int) -> Text:
    """:returns: the text, in which no word takes more cells than that."""
    if longest_word(text.plain) <= longest:
        return text
    return Text(re.sub(r"\S+", lambda word: _cut(word[0], longest), text.plain), style=text.style)


def _cut(word: str, longest: int) -> str:
    if cell_len(word) <= longest:
        return word
    return set_cell_size(word, longest - 1).rstrip() + "…"


def _widths(rows: Iterable[Sequence[Text]], room: int) -> list[int]:
    """:returns: how wide each column is: no word is broken, and what room is left goes
    where lines would be broken."""
    columns = list(zip(*rows, strict=True))
    widths = [max(longest_word(cell.plain) for cell in one) for one in columns]
    wanted = [max(cell_len(cell.plain) for cell in one) for one in columns]
    left = room - sum(widths) - _GAP * (len(widths) - 1)
    while left > 0 and any(want > width for want, width in zip(wanted, widths, strict=True)):
        short = [want - width for want, width in zip(wanted, widths, strict=True)]
        # The column that lacks least is soonest whole.
        index = min((one for one in range(len(short)) if short[one] > 0), key=lambda i: short[i])
        grown = min(short[index], left)
        widths[index] += grown
        left -= grown
    return widths


@frozen
class FittingText:
    """
    Lines of text, broken between words only.

    :ivar text: the lines.
    """

    text: Text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """:returns: the text, with words that are too long for the terminal shortened."""
        yield shortened(self.text, options.max_width)
