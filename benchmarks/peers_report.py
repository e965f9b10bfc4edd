"""
What `peers.py` makes of its measurements: tables, ratios and floors.  No
effects, no clocks.
"""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from gate import Turn

#: The names of the gate's own.
MINE = ("gate", "web, WSGI", "web, files", "web, ASGI", "http")


@dataclass(frozen=True)
class Floor:
    """
    What a ratio of the gate's speed to another server's must reach.

    :ivar mine: which of the gate's servers it is about.
    :ivar against: the names of the others, of which the best counts.
    """

    mine: str
    against: tuple[str, ...]
    least: float


@dataclass(frozen=True)
class Comparison:
    """
    One thing that is measured of several servers.

    :ivar key: what `--only` selects it by.
    :ivar operation: that of the load, with its parameter.
    :ivar per: how many of what is counted make one of the unit.
    :ivar logged: whether the servers write a line for each connection or request.
    """

    key: str
    title: str
    operation: str
    parameter: object
    servers: tuple[str, ...]
    floors: tuple[Floor, ...] = ()
    per: float = 1.0
    logged: bool = False


@dataclass(frozen=True)
class Measured:
    """
    What came out of it.

    :ivar turns: those of each server, in the same order.
    """

    comparison: Comparison
    turns: Mapping[str, list[Turn]]

    def speed(self, name):
        """Return the median over the turns, per second of CPU."""
        return statistics.median(turn.speed for turn in self.turns[name]) / self.comparison.per

    def pace(self, name):
        """Return what was done per second by the clock."""
        turns = self.turns[name]
        took = sum(turn.took for turn in turns)
        return sum(turn.count for turn in turns) / took / self.comparison.per


@dataclass(frozen=True)
class Ratio:
    """How one server's speeds relate to another's: the median, and what half of the turns are
    between."""

    median: float
    low: float
    high: float

    def __str__(self):
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"


def by_cpu(turn):
    """Return how much was done per second of CPU."""
    return turn.speed


def by_the_clock(turn):
    """Return how much was done per second by the clock."""
    return turn.count / turn.took


def ratio(mine, its, speed=by_cpu):
    """
    Return the ratio of two servers' speeds.

    :param mine: turns, as many as `its`, each of which took place beside one of these.
    """
    ratios = [speed(one) / speed(other) for one, other in zip(mine, its, strict=True)]
    if len(ratios) < 2:
        return Ratio(*ratios * 3)
    low, median, high = statistics.quantiles(ratios, method="inclusive")
    return Ratio(median, low, high)


@dataclass(frozen=True)
class Verdict:
    """
    Whether a floor was reached.

    :ivar against: the server that counted, or None if none of them was there.
    :ivar ratio: of what was done per second of CPU, which is what counts.
    :ivar clock: of what was done by the clock.
    """

    floor: Floor
    against: str | None = None
    ratio: Ratio | None = None
    clock: Ratio | None = None

    @property
    def missed(self):
        return self.ratio is not None and self.ratio.median < self.floor.least

    def __str__(self):
        if self.ratio is None:
            return "not measured"
        return "missed" if self.missed else "reached"


def judge(measured):
    """Yield a verdict on each floor of a comparison."""
    for floor in measured.comparison.floors:
        there = [name for name in floor.against if name in measured.turns]
        if there and floor.mine in measured.turns:
            best = max(there, key=measured.speed)
            turns = measured.turns[floor.mine], measured.turns[best]
            yield Verdict(floor, best, ratio(*turns), ratio(*turns, by_the_clock))
        else:
            yield Verdict(floor)


def figure(value):
    """Return a number with as many digits as matter."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def markdown(head, rows):
    """Return a table, its columns aligned for those who read it as it is."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def speeds(every):
    """Return a table of comparisons of the same servers: per second of CPU, and by the clock."""
    names = list(dict.fromkeys(name for one in every for name in one.comparison.servers))
    rows = [
        [
            one.comparison.title,
            *(
                f"{figure(one.speed(name))}; {figure(one.pace(name))}" if name in one.turns else ""
                for name in names
            ),
        ]
        for one in every
    ]
    return markdown(["per second of CPU; by the clock", *names], rows)


#: Each is a median, with what half of the turns are between.
_RATIOS = ("ratio by CPU", "ratio by the clock")


def ratios(every):
    """Return a table of how the gate's servers relate to each of the others."""
    rows = []
    for one in every:
        mine = [name for name in one.turns if name in MINE]
        others = [name for name in one.turns if name not in MINE]
        rows += [
            [
                *(one.comparison.title, name, other),
                ratio(one.turns[name], one.turns[other]),
                ratio(one.turns[name], one.turns[other], by_the_clock),
            ]
            for name in mine
            for other in others
        ]
    return markdown(["", "the gate's", "to", *_RATIOS], rows)


def floors(every):
    """Return a table of the floors."""
    rows = [
        [
            one.comparison.title,
            verdict.floor.mine,
            verdict.against or " or ".join(verdict.floor.against),
            verdict.ratio or "",
            verdict.clock or "",
            f"at least {verdict.floor.least:.2f}",
            verdict,
        ]
        for one in every
        for verdict in judge(one)
    ]
    return markdown(["", "the gate's", "to", *_RATIOS, "floor, by CPU", ""], rows)


@dataclass(frozen=True)
class Panel:
    """
    One bar for each server.

    :ivar better: which way is.
    """

    title: str
    bars: Mapping[str, float]
    better: str = "more is better"


def panels(every, memory):
    """Return what the plot shows."""
    found = [
        Panel(one.comparison.title, {name: one.speed(name) for name in one.turns}) for one in every
    ]
    if memory:
        found.append(Panel("KB per idle connection", memory, "less is better"))
    return found
