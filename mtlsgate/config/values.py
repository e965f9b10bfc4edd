"""
What expressions stand for, and how one kind of value becomes another.

The conversions are HashiCorp's (HCL Syntax-Agnostic Information Model, "Type
Conversions"): numbers and booleans become text, and text that is written like one
becomes a number or a boolean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from decimal import Context, Decimal
from typing import TypeAlias

from attrs import field, frozen

from mtlsgate.config.tree import Expression, Literal
from mtlsgate.errors import Position

#: Ordinary Python, as :meth:`Value.plain` gives it.
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
Data: TypeAlias = "str | int | float | bool | tuple[Value, ...] | dict[str, Value] | None"

_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,4})?")
#: As many digits as HashiCorp's numbers have.
EXACT = Context(prec=154)
_LARGEST = Decimal("1e308")
#: How long a text may be that an expression makes.
LONGEST = 64 * 1024 * 1024


@frozen
class Value:
    """
    What an expression stands for.

    :ivar data: text, a number, a boolean, None, or values in a tuple or dict.
    :ivar at: what to point at when the value turns out to be wrong.
    :ivar origin: the expression that it came from; None for a value that was given.
    """

    data: Data
    at: Position
    origin: Expression | None = field(default=None, eq=False, repr=False)

    @property
    def is_literal(self) -> bool:
        """Whether it stands in the file as it is, or was given so."""
        return self.origin is None or isinstance(self.origin, Literal)

    def plain(self) -> Plain:
        """
        :returns: ordinary Python, with lists and dicts.
        """
        match self.data:
            case tuple(items):
                return [item.plain() for item in items]
            case dict(items):
                return {key: item.plain() for key, item in items.items()}
            case data:
                return data


@frozen
class Fault:
    """
    What is wrong with an expression.

    :ivar unset: whether this is an unset variable, for which ``default`` helps.
    """

    at: Position
    text: str
    unset: bool = False


class ExpressionErrors(Exception):
    """
    An expression that stands for nothing.

    :ivar faults: all that is wrong with it; at least one.
    :ivar errors: where they are, and their texts.
    """

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        self.errors: tuple[tuple[Position, str], ...] = tuple(
            (fault.at, fault.text) for fault in self.faults
        )
        super().__init__(*(text for _, text in self.errors))

    @property
    def unset(self) -> bool:
        """Whether nothing is wrong but that variables are not set."""
        return all(fault.unset for fault in self.faults)


def failure(at: Position, text: str) -> ExpressionErrors:
    """:returns: one fault, to raise."""
    return ExpressionErrors([Fault(at, text)])


def kind_of(data: Data) -> str:
    """:returns: what a value is, for messages."""
    match data:
        case None:
            return "null"
        case str():
            return "text"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case tuple():
            return "a list"
        case dict():
            return "an object"


def number_text(number: int | float) -> str:
    """:returns: a number as HCL writes it: 1e3 is 1000, and 1e-7 is 0.0000001."""
    if isinstance(number, int):
        return str(number)
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def as_text(data: Data) -> str | None:
    """:returns: the value as text, or None if it cannot become one."""
    match data:
        case str(text):
            return text
        case bool(truth):
            return "true" if truth else "false"
        case int() | float() as number:
            return number_text(number)
        case _:
            return None


def as_boolean(data: Data) -> bool | None:
    """:returns: the value as a boolean, or None if it cannot become one."""
    if isinstance(data, bool):
        return data
    return (
        {"true": True, "1": True, "false": False, "0": False}.get(data)
        if (isinstance(data, str))
        else None
    )


def as_number(data: Data) -> int | float | None:
    """:returns: the value as a number, or None if it cannot become one."""
    if isinstance(data, int | float) and not isinstance(data, bool):
        return data
    if isinstance(data, str) and len(data) <= 400 and _NUMBER.fullmatch(data):
        return of_decimal(Decimal(data))
    return None


def of_decimal(number: Decimal) -> int | float | None:
    """:returns: an integer where it is one; None if it is too large."""
    if not number.is_finite() or abs(number) > _LARGEST:
        return None
    return int(number) if number == number.to_integral_value() else float(number)


def to_decimal(number: int | float) -> Decimal:
    """:returns: the number as it is written, and not as floating point has it."""
    return Decimal(number) if isinstance(number, int) else Decimal(repr(number))


def equal(one: Data, other: Data) -> bool:
    """:returns: whether two values are of one kind and equal."""
    match one, other:
        case tuple(), tuple():
            return len(one) == len(other) and all(
                equal(left.data, right.data) for left, right in zip(one, other, strict=True)
            )
        case dict(), dict():
            return one.keys() == other.keys() and all(
                equal(one[key].data, other[key].data) for key in one
            )
        case _:
            return kind_of(one) == kind_of(other) and one == other


def joined(values: Sequence[Value], where: str, separator: str = "") -> str:
    """
    Join values as HCL does: numbers and booleans become text.

    :param where: what they become part of, for messages.
    :raises ExpressionErrors: for values that are neither.
    """
    texts = []
    faults = []
    for value in values:
        text = as_text(value.data)
        if text is None:
            what = kind_of(value.data)
            faults.append(Fault(value.at, f"{what} cannot be part of {where}; use text or numbers"))
        else:
            texts.append(text)
    if faults:
        raise ExpressionErrors(faults)
    if sum(map(len, texts)) + len(separator) * len(texts) > LONGEST:
        raise failure(values[0].at, "the text that this makes is too long")
    return separator.join(texts)


def text_of(value: Value) -> str:
    """:returns: the text that a value is known to be."""
    assert isinstance(value.data, str)
    return value.data


def items_of(value: Value) -> tuple[Value, ...]:
    """:returns: the items of a value that is known to be a list."""
    assert isinstance(value.data, tuple)
    return value.data


def mapping_of(value: Value) -> dict[str, Value]:
    """:returns: the object that a value is known to be."""
    assert isinstance(value.data, dict)
    return value.data


def whole_of(value: Value) -> int:
    """:returns: the whole number that a value is known to be."""
    assert isinstance(value.data, int)
    return value.data
