"""
The bodies of the functions that work on lists and objects, and JSON of both.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from mtlsgate.config.values import (
    Data,
    Plain,
    Value,
    equal,
    failure,
    items_of,
    kind_of,
    mapping_of,
    text_of,
)
from mtlsgate.errors import Position


def concat(*lists: Value) -> Data:
    return tuple(item for one in lists for item in items_of(one))


def contains(items: Value, value: Value) -> Data:
    return any(equal(item.data, value.data) for item in items_of(items))


def keys(mapping: Value) -> Data:
    return tuple(Value(key, mapping.at) for key in sorted(mapping_of(mapping)))


def values(mapping: Value) -> Data:
    found = mapping_of(mapping)
    return tuple(found[key] for key in sorted(found))


def length(value: Value) -> Data:
    if not isinstance(value.data, str | tuple | dict):
        what = kind_of(value.data)
        raise failure(value.at, f"length takes a list, an object or text, not {what}")
    return len(value.data)


def lookup(mapping: Value, key: Value, otherwise: Value) -> Data:
    return mapping_of(mapping).get(text_of(key), otherwise).data


def set_intersection(first: Value, *others: Value) -> Data:
    found: list[Value] = []
    for item in items_of(first):
        if not any(equal(item.data, one.data) for one in found) and all(
            any(equal(item.data, one.data) for one in items_of(other)) for other in others
        ):
            found.append(item)
    return tuple(found)


def merge(*values: Value) -> Data:
    given = [value for value in values if value.data is not None]
    kinds = {kind_of(value.data) for value in given}
    wrong = [value for value in given if not isinstance(value.data, tuple | dict)]
    if wrong or len(kinds) > 1:
        at = (wrong or given)[0].at
        raise failure(
            at, f"merge takes objects only, or lists only, not {' and '.join(sorted(kinds))}"
        )
    return _merged(given) if given else None


def _merged(values: Sequence[Value]) -> Data:
    if isinstance(values[0].data, tuple):
        return concat(*values)
    found: dict[str, Value] = {}
    for one in values:
        for key, value in mapping_of(one).items():
            before = found.get(key)
            deep = before is not None and any(
                isinstance(before.data, kind) and isinstance(value.data, kind)
                for kind in (tuple, dict)
            )
            if before is not None and deep:
                found[key] = Value(_merged([before, value]), value.at)
            else:
                found[key] = value
    return found


# JSON

#: How deep lists and objects may nest, as in the file itself.
_DEEPEST = 32


def json_decode(text: Value) -> Data:
    try:
        decoded = json.loads(text_of(text), object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise failure(text.at, "this is not JSON, or names a key twice") from None
    return _valued(decoded, text.at, 0).data


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _no_constant(name: str) -> None:
    raise ValueError(name)


def _valued(decoded: Any, at: Position, depth: int) -> Value:
    if depth > _DEEPEST:
        raise failure(at, f"this JSON nests too deep; at most {_DEEPEST} levels are read")
    match decoded:
        case list(items):
            return Value(tuple(_valued(item, at, depth + 1) for item in items), at)
        case dict(items):
            return Value({key: _valued(item, at, depth + 1) for key, item in items.items()}, at)
        case float(number) if number.is_integer():
            return Value(int(number), at)
        case float(number) if number in (float("inf"), float("-inf")):
            raise failure(at, "a number in this JSON is too large")
        case _:
            return Value(decoded, at)


def json_encode(value: Value) -> Data:
    return json.dumps(
        _whole_numbers(value.plain()),
        sort_keys=True,
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _whole_numbers(plain: Plain) -> Plain:
    match plain:
        case list(items):
            return [_whole_numbers(item) for item in items]
        case dict(items):
            return {key: _whole_numbers(item) for key, item in items.items()}
        case float(number) if number.is_integer():
            return int(number)
        case _:
            return plain
