"""
From an evaluated value to what an annotation asks for.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mtlsgate.config.expressions import Value
from mtlsgate.config.fields import Located, Parsed, without_none
from mtlsgate.errors import Position


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
    :raises Mismatch: if the value is of another kind.
    """
    hint = without_none(hint)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in (Any, object):
        return value.plain()
    if origin is Annotated:
        return _parse(arguments, value)
    if origin is Located:
        return Located(convert(arguments[0], value), value.at)
    if origin is Literal:
        if value.data not in arguments or type(value.data) is not type(arguments[0]):
            choices = " or ".join(map(json.dumps, arguments))
            raise Mismatch(value.at, f"must be {choices}")
        return value.data
    if origin in (tuple, list) and isinstance(value.data, tuple):
        items = [convert(arguments[0], item) for item in value.data]
        return tuple(items) if origin is tuple else items
    if origin in (dict, Mapping) and isinstance(value.data, dict):
        return {key: convert(arguments[1], item) for key, item in value.data.items()}
    wanted = {list: tuple, Mapping: dict}.get(origin or hint, origin or hint)
    if wanted not in _NAMES:
        raise TypeError(f"{hint!r} is not an annotation that a block can be read by")
    if wanted is float and type(value.data) is int:
        return float(value.data)
    if type(value.data) is not wanted:
        raise Mismatch(value.at, f"must be {_NAMES[wanted]}, not {_kind(value)}")
    return value.plain()


def _parse(arguments: tuple[Any, ...], value: Value) -> object:
    parsers = [one.parse for one in arguments[1:] if isinstance(one, Parsed)]
    if not parsers:
        return convert(arguments[0], value)
    if not isinstance(value.data, str):
        raise Mismatch(value.at, f"must be a string, not {_kind(value)}")
    try:
        return parsers[0](value.data)
    except ValueError as error:
        raise Mismatch(value.at, str(error)) from None
