"""
The errors that mtlsgate raises on purpose, as values.

Every class prints as lines that a person can act on: first the place, then the
problem and the remedy.  A message never contains key material or PEM.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from mtlsgate.text import printable

__all__ = ["ConfigError", "CredentialError", "GateError", "Position", "Problem"]


class GateError(Exception):
    """The base class of every error that mtlsgate raises on purpose."""


@frozen(order=True)
class Position:
    """
    A place in a configuration file.

    :ivar line: the line, counted from 1.
    :ivar column: the column in characters, counted from 1.
    :ivar path: the file, as the user named it; empty if the configuration is one
        file.
    """

    line: int
    column: int
    path: str = ""

    @property
    def reference(self) -> str:
        """For example `` in line 5``; empty if it is in no file."""
        return f" in line {self.line}" if self.line else ""


#: The position for problems of the whole file.
START = Position(1, 1)
#: The position of what was written in Python, not in a file.
NOWHERE = Position(0, 0)


@frozen(order=True)
class Problem:
    """
    One error or one warning.

    :ivar path: the configuration file, as the user named it.
    :ivar at: the position in it.
    :ivar where: the innermost block, such as ``client_certificate "IOT"``.
    :ivar text: what is wrong and what to do, in one line.
    """

    path: str
    at: Position
    where: str
    text: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.at.line}:{self.at.column}" if self.at.line else self.path
        # A plugin's text or a file name may contain anything: keep it on one line.
        return printable(": ".join(filter(None, (place, self.where, self.text))))


def _sorted(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(set(problems)))


@frozen(str=False)
class ConfigError(GateError):
    """
    A configuration that the gate refuses, with everything that is wrong in it.

    :ivar problems: at least one, sorted by position.
    """

    problems: tuple[Problem, ...] = field(converter=_sorted)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


@frozen(str=False)
class CredentialError(GateError):
    """
    Bytes that are not a usable certificate, key or CRL.

    :ivar problem: what is wrong and what to do.  It names no place: only the
        caller knows where the bytes came from.
    """

    problem: str

    def __str__(self) -> str:
        return self.problem


class Report:
    """
    Collects the problems of one load, to report them all together.

    :ivar path: the configuration file, as the user named it.
    :ivar errors: problems that keep the gate from starting.
    :ivar warnings: probable mistakes that do not keep it from starting.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.errors: list[Problem] = []
        self.warnings: list[Problem] = []

    def error(self, at: Position, where: str, text: str) -> None:
        """Add an error."""
        self.errors.append(Problem(at.path or self.path, at, where, text))

    def warn(self, at: Position, where: str, text: str) -> None:
        """Add a warning."""
        self.warnings.append(Problem(at.path or self.path, at, where, text))

    def raise_errors(self) -> None:
        """
        :raises ConfigError: if there is any error.
        """
        if self.errors:
            raise ConfigError(self.errors)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """
    :return: ``; did you mean "x"?`` if exactly one name in ``known`` is one or two
        typing errors away from ``name``; otherwise an empty string.
    """
    near = sorted((slips(name.lower(), one.lower()), one) for one in set(known))
    near = [(count, one) for count, one in near if count <= min(2, len(name) // 3)]
    if not near or (len(near) > 1 and near[0][0] == near[1][0]):
        return ""
    return f'; did you mean "{near[0][1]}"?'


def slips(one: str, other: str) -> int:
    """
    :returns: how many characters must be added, dropped, changed or swapped with a
        neighbour to turn one text into the other; 9 means many.
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
