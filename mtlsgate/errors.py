"""
What can go wrong before a connection is accepted, as values.

Every class here prints as lines a person can act on: place first, then the
problem and the remedy.  Nothing in a message is ever key material or PEM.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from mtlsgate.text import printable

__all__ = ["ConfigError", "CredentialError", "GateError", "Position", "Problem"]


class GateError(Exception):
    """The base of every error that mtlsgate raises on purpose."""


@frozen(order=True)
class Position:
    """
    A place in a configuration file.

    :ivar line: the line, counted from 1.
    :ivar column: the column in characters, counted from 1.
    :ivar path: the file, as the person named it; empty where a configuration
        is one file.
    """

    line: int
    column: int
    path: str = ""

    @property
    def reference(self) -> str:
        """`` in line 5``; empty for what no file says."""
        return f" in line {self.line}" if self.line else ""


#: Where a problem of the file as a whole is reported.
START = Position(1, 1)
#: The place of what no file says, but Python.
NOWHERE = Position(0, 0)


@frozen(order=True)
class Problem:
    """
    One thing that is wrong, or (as a warning) surely not meant.

    :ivar path: the configuration file, as the person named it.
    :ivar at: the place in it.
    :ivar where: the innermost block, as ``client_certificate "IOT"``.
    :ivar text: what is wrong and what to do, in one line.
    """

    path: str
    at: Position
    where: str
    text: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.at.line}:{self.at.column}" if self.at.line else self.path
        # One line, whatever a plugin or a file name brings along.
        return printable(": ".join(filter(None, (place, self.where, self.text))))


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems)))


@frozen(str=False)
class ConfigError(GateError):
    """
    A configuration that the gate refuses to run, with everything that is
    wrong in it.

    :ivar problems: at least one, sorted by position.
    """

    problems: tuple[Problem, ...] = field(converter=_sorted)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


@frozen(str=False)
class CredentialError(GateError):
    """
    Bytes that are not the certificate or the key they should be.

    :ivar problem: what is wrong and what to do; names no place, because only
        the caller knows where the bytes came from.
    """

    problem: str

    def __str__(self) -> str:
        return self.problem


class Report:
    """
    Collects the problems of one load, so that all are said in one go.

    :ivar path: the configuration file, as the person named it.
    :ivar errors: what keeps the gate from starting.
    :ivar warnings: what does not, but is surely not meant.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, at: Position, where: str, text: str) -> None:
        """Note something that keeps the gate from starting."""
        self.errors.append(Problem(at.path or self.path, at, where, text))

    def warn(self, at: Position, where: str, text: str) -> None:
        """Note something the person should hear of all the same."""
        self.warnings.append(Problem(at.path or self.path, at, where, text))

    def raise_errors(self) -> None:
        """
        :raises ConfigError: if any error was noted.
        """
        if self.errors:
            raise ConfigError(self.errors)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    :return: ``; did you mean "x"?`` if ``name`` is one or two slips of the
        keyboard from exactly one name in ``known``, and otherwise the empty string.
    """
    near = sorted((slips(name.lower(), one.lower()), one) for one in set(known))
    near = [(count, one) for count, one in near if count <= min(2, len(name) // 3)]
    if not near or (len(near) > 1 and near[0][0] == near[1][0]):
        return ""
    return f'; did you mean "{near[0][1]}"?'


def slips(one: str, other: str) -> int:
    """
    :returns: how many characters to add, drop, change or swap with a neighbour to
        make one text of the other; 9 stands for many.
    """
    if abs(len(one) - len(other)) > 2 or max(len(one), len(other)) > 64:
        return 9
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, left in enumerate(one, 1):
        previous, before, row = before, row, [i]
        for j, right in enumerate(other, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == other[j - 2] and right == one[i - 2]:
                cost = min(cost, previous[j - 2] + 1)
            row.append(cost)
    return min(row[-1], 9)
