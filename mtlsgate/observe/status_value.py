"""
The base of what the admin endpoint tells, and its way from JSON and back.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import attrs
from attrs import frozen


@frozen(kw_only=True)
class StatusValue:
    """The base of all parts of a status."""

    def to_dict(self) -> dict[str, Any]:
        """:returns: the same for JSON; times as RFC 3339."""
        return attrs.asdict(self, value_serializer=_plain)


T = TypeVar("T", bound=StatusValue)


def value_of(kind: type[T], told: Mapping[str, Any]) -> T:
    """
    :param told: what `StatusValue.to_dict` returned, also after JSON.
    :returns: the value.
    """
    hints = typing.get_type_hints(kind)
    return kind(**{name: _value(hints[name], one) for name, one in told.items()})


def _value(hint: Any, told: Any) -> Any:
    if told is None:
        return None
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return tuple(_value(arguments[0], one) for one in told)
    if arguments:
        # X | None
        [hint] = [one for one in arguments if one is not type(None)]
        return _value(hint, told)
    if hint is datetime:
        return datetime.fromisoformat(told)
    return value_of(hint, told) if issubclass(hint, StatusValue) else told


def _plain(_instance: object, _attribute: object, value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
