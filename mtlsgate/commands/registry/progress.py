"""
How far a long import or export is, on a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TaskProgressColumn, TextColumn
from rich.progress import TimeRemainingColumn as Remaining

from mtlsgate.commands.registry import importing

#: Seconds between two looks at what was done.
_EVERY = 0.1


class Nobody:
    """Shows nothing, where nobody looks."""

    def begin(self, what: str, total: int) -> None:
        """A part begins."""

    def advance(self, count: int) -> None:
        """Something was done."""

    def paused(self) -> AbstractContextManager[object]:
        """Nothing is shown anyway."""
        return nullcontext()


class Bar:
    """
    Shows a bar for the part that is under way.

    :ivar _done: how much was done that the bar does not show yet.
    """

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._done = 0
        self._shown = 0.0

    def begin(self, what: str, total: int) -> None:
        """A part begins."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._done = 0
        self._task = self._bars.add_task(what, total=total)

    def advance(self, count: int) -> None:
        """Something was done; the bar moves now and then only, since each move costs."""
        self._done += count
        now = time.monotonic()
        if self._task is not None and now - self._shown >= _EVERY:
            self._bars.advance(self._task, self._done)
            self._done, self._shown = 0, now

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Show nothing until the block ends."""
        self._bars.stop()
        yield
        self._bars.start()


@contextmanager
def shown() -> Iterator[importing.Progress]:
    """Show progress on standard error, if that is a terminal."""
    if not sys.stderr.isatty():
        yield Nobody()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), Remaining())
    console = Console(stderr=True, markup=False, highlight=False, emoji=False)
    with Progress(*columns, console=console, transient=True) as bars:
        yield Bar(bars)
