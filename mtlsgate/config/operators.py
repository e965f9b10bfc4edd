"""
The operators, on values: what HashiCorp's HCL makes of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal, DivisionByZero, InvalidOperation

from mtlsgate.config.values import (
    EXACT,
    Data,
    Value,
    as_boolean,
    as_number,
    equal,
    failure,
    kind_of,
    of_decimal,
    to_decimal,
)
from mtlsgate.errors import Position

_COMPARISONS: Mapping[str, Callable[[Decimal, Decimal], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_ARITHMETIC: Mapping[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": EXACT.add,
    "-": EXACT.subtract,
    "*": EXACT.multiply,
    "/": EXACT.divide,
    "%": EXACT.remainder,
}


def _number(value: Value, sign: str) -> Decimal:
    number = as_number(value.data)
    if number is None:
        raise failure(value.at, f'"{sign}" takes numbers, not {kind_of(value.data)}')
    return to_decimal(number)


def boolean(value: Value, what: str) -> bool:
    """
    :param what: what the value is, for messages.
    :raises ExpressionErrors: if it is not true or false.
    """
    truth = as_boolean(value.data)
    if truth is None:
        raise failure(value.at, f"{what} is true or false, not {kind_of(value.data)}")
    return truth


def signed(value: Value, operators: str, at: Position) -> Data:
    """
    :param operators: ``-`` and ``!``, as they stand before the value.
    :raises ExpressionErrors: if the value is of another kind.
    """
    for sign in reversed(operators):
        data: Data
        if sign == "-":
            data = of_decimal(EXACT.minus(_number(value, sign)))
        else:
            data = not boolean(value, 'what "!" takes')
        value = Value(data, at)
    return value.data


def operated(left: Value, sign: str, right: Value) -> Data:
    """
    :param sign: a comparison or an arithmetic operator.
    :raises ExpressionErrors: if a value is of a kind that it does not take.
    """
    if sign in ("==", "!="):
        return equal(left.data, right.data) == (sign == "==")
    one, other = _number(left, sign), _number(right, sign)
    if sign in _COMPARISONS:
        return _COMPARISONS[sign](one, other)
    if other == 0 and sign in ("/", "%"):
        raise failure(right.at, "a number cannot be divided by zero")
    try:
        result = of_decimal(_ARITHMETIC[sign](one, other))
    except (InvalidOperation, DivisionByZero):
        result = None
    if result is None:
        raise failure(left.at, "this number is too large; use a smaller one")
    return result
