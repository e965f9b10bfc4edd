"""
From an evaluated value to what an annotation asks for.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from attrs import evolve

from mtlsgate.config.expressions import variables_of
from mtlsgate.config.fields import Empty, Located, Lone, OrWord, Parsed, without_none
from mtlsgate.config.source import relative_to_file
from mtlsgate.config.tree import Expression
from mtlsgate.config.values import Data, Value, as_boolean, as_number, as_text
from mtlsgate.errors import Position
from mtlsgate.text import shown


class Mismatch(Exception):
    """
    A value is not what its annotation asks for.

    :ivar at: where it is.
    :ivar text: what is wrong, or None where that has been reported.
    """

    def __init__(self, at: Position, text: str | None) -> None:
        super().__init__(at, text)
        self.at = at
        self.text = text


_NAMES: Mapping[type, str] = {
    str: "a string",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: "a list",
    dict: "an object",
}


def _kind(value: Value) -> str:
    return "null" if value.data is None else _NAMES[type(value.data)]


def convert(hint: Any, value: Value) -> object:
    """
    :returns: the plain Python value that the annotation asks for.
    :raises Mismatch: if the value is of another kind, or an empty text.
    """
    hint = without_none(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, object):
        return value.plain()
    if origin is Annotated:
        return _annotated(arguments, value)
    if origin is Located:
        return Located(convert(arguments[0], value), value.at)
    if origin is Literal:
        return _choice(arguments, value)
    if origin in (tuple, list) and isinstance(value.data, tuple):
        items = [convert(arguments[0], item) for item in value.data]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping) and isinstance(value.data, dict):
        return {
            key: "" if item.data == "" else convert(arguments[1], item)
            for key, item in value.data.items()
        }
    return _primitive(hint, origin, value)


def _choice(choices: tuple[Any, ...], value: Value) -> object:
    if value.data in choices and type(value.data) is type(choices[0]):
        return value.data
    said = " or ".join(map(json.dumps, choices))
    remedy = ""
    if not isinstance(value.data, str) and as_text(value.data) in choices:
        remedy = ": put it in quotes"
    raise Mismatch(value.at, f"must be {said}{remedy}")


def _primitive(hint: Any, origin: Any, value: Value) -> object:
    wanted = {list: tuple, Mapping: dict}.get(origin or hint, origin or hint)
    if wanted not in _NAMES:
        raise TypeError(f"{hint!r} is not an annotation that a block can be read by")
    value = _converted(wanted, value)
    if value.data == "":
        raise Mismatch(value.at, emptiness(value))
    if wanted is float and type(value.data) is int:
        return float(value.data)
    if type(value.data) is not wanted:
        raise Mismatch(
            value.at,
            f"must be {_NAMES[wanted]}, not {_kind(value)}{_remedy(wanted, value.data)}",
        )
    return value.plain()


def _converted(wanted: type, value: Value) -> Value:
    """
    Convert as HashiCorp's HCL does what an expression makes: an environment
    variable is always text.  What stands in the file must be right as it is.
    """
    if value.is_literal or isinstance(value.data, tuple | dict) or value.data is None:
        return value
    data: Data = None
    if wanted is str:
        data = as_text(value.data)
    elif wanted is bool:
        data = as_boolean(value.data)
    elif wanted in (int, float):
        data = as_number(value.data)
    return value if data is None else evolve(value, data=data)


def _remedy(wanted: type, data: Data) -> str:
    if isinstance(data, str) and (
        (wanted is bool and data in ("true", "false"))
        or (wanted in (int, float) and as_number(data) is not None)
    ):
        return f": write {data}, without quotes"
    if isinstance(data, str) and data and wanted is tuple:
        return ": put it in [brackets]"
    if wanted is str and isinstance(data, int | float) and not isinstance(data, bool):
        return ": put it in quotes"
    return ""


def emptiness(value: Value, whole: Expression | None = None) -> str:
    """
    :param whole: the attribute's expression, where the value does not know its own.
    :returns: what to say of an empty text.
    """
    if value.is_literal:
        return "is empty: write a value, or remove it"
    names = sorted(set(variables_of(value.origin)) or set(variables_of(whole)))
    match [shown(name) for name in names]:
        case []:
            return "comes out empty: an expression must not make it so"
        case [name]:
            return f"comes out empty: check environment variable {name}"
        case listed:
            return f"comes out empty: check environment variables {', '.join(listed)}"


def _annotated(arguments: tuple[Any, ...], value: Value) -> object:
    if Empty.ALLOWED in arguments[1:] and value.data == "":
        return ""
    if Lone.TEXT in arguments[1:] and isinstance(value.data, str):
        value = evolve(value, data=(value,))
    words = [one.word for one in arguments[1:] if isinstance(one, OrWord)]
    if words:
        return _number_or_word(words[0], value)
    parsers = [one for one in arguments[1:] if isinstance(one, Parsed)]
    if not parsers:
        return convert(arguments[0], value)
    value = _converted(str, value)
    if not isinstance(value.data, str):
        raise Mismatch(value.at, _not_text(parsers[0], value))
    if not value.data:
        raise Mismatch(value.at, emptiness(value))
    try:
        found = parsers[0].parse(value.data)
    except ValueError as error:
        raise Mismatch(value.at, str(error)) from None
    if parsers[0].names_file and isinstance(found, str):
        return relative_to_file(found, value.at)
    return found


def _number_or_word(word: str, value: Value) -> object:
    if value.data == word:
        return word
    try:
        return convert(int, value)
    except Mismatch as error:
        raise Mismatch(error.at, f'must be a whole number or "{word}"') from None


def _not_text(parser: Parsed, value: Value) -> str:
    """:returns: how to write a value that should be text."""
    try:
        parser.parse(as_text(value.data) or "")
    except ValueError as error:
        if isinstance(value.data, int | float) and not isinstance(value.data, bool):
            return str(error)
        return f"must be a string, not {_kind(value)}"
    return f"must be a string, not {_kind(value)}{_remedy(str, value.data)}"
