"""
What the annotations of a block's class mean.

A block is described by an attrs class whose annotations say what each
attribute and nested block holds; nothing else needs writing.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from enum import Enum, auto
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

import attrs
from attrs import field, frozen

from mtlsgate.config.file_names import wrong_file_name
from mtlsgate.config.peer import PeerText
from mtlsgate.config.tree import Body
from mtlsgate.errors import Position

T = TypeVar("T")


class BodyDecoder(Protocol):
    """What reads the bodies of blocks; `mtlsgate.config.decode.Decoder` does."""

    def decode(self, cls: type[T], body: Body, at: Position, where: str) -> T | None:
        """:returns: the body as an instance, or None if the report says what is wrong."""

    def plain(self, body: Body, where: str) -> dict[str, Any]:
        """:returns: the attributes' values by name, as plain Python."""


@frozen
class Located(Generic[T]):
    """
    A value with the place it was written at.

    :ivar value: the value.
    :ivar at: where it stands in the configuration.
    """

    value: T
    at: Position


@frozen
class Material:
    """
    Certificate or key material, given inline or as a file: the one field
    ``x`` reads either of the attributes ``x`` and ``x_file``.

    :ivar attribute: the attribute that was set, ``x`` or ``x_file``.
    :ivar at: where it was set.
    :ivar text: the inline text, or None.
    :ivar path: the file, relative to the configuration's directory, or None.
    :ivar parts: several of them, as only Python can give them; empty for one.
    """

    attribute: str
    at: Position
    text: str | None = field(default=None, repr=False)
    path: Path | None = None
    parts: tuple[Material, ...] = field(default=(), repr=False)


@frozen
class Parsed:
    """
    Says in an annotation that a string is to be parsed:
    ``Annotated[float, Parsed(parse_duration)]``.

    :ivar parse: from the text to the value; raises ValueError with what is
        wrong.
    :ivar names_file: whether the value is the name of a file, relative to the
        file that it stands in.
    """

    parse: Callable[[str], object]
    names_file: bool = False


class Empty(Enum):
    """
    Says in an annotation what an empty text means; without it, it is an error.

    ``UNSET``: if it stands there as ``""``, the attribute counts as not written.
    ``ALLOWED``: it is a value like others.
    """

    UNSET = auto()
    ALLOWED = auto()


def parse_duration(text: str) -> float:
    """
    :param text: a whole or decimal number and a unit, as ``250ms``, ``10s``,
        ``1.5m`` or ``1h``.
    :returns: seconds, greater than zero.
    :raises ValueError: if it is anything else.
    """
    units = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", text)
    if found is None:
        raise ValueError('not a duration; write it as "250ms", "10s", "5m" or "1h"')
    seconds = float(found[1]) * units[found[2]]
    if not 0 < seconds < 10 * 365 * 86400:
        raise ValueError("a duration must be longer than zero and shorter than ten years")
    return seconds


def parse_duration_or_zero(text: str) -> float:
    """
    :param text: as for `parse_duration`; ``0s`` is zero.
    :raises ValueError: if it is anything else.
    """
    return 0.0 if re.fullmatch(r"0+(ms|s|m|h)", text) else parse_duration(text)


def parse_size(text: str) -> int:
    """
    :param text: a whole number and a unit, as ``64KiB``, ``10MiB`` or ``1GiB``;
        ``B`` for bytes.
    :returns: bytes, greater than zero.
    :raises ValueError: if it is anything else.
    """
    units = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30}
    found = re.fullmatch(r"([0-9]{1,12})(B|KiB|MiB|GiB)", text)
    if found is None:
        raise ValueError('not a size; write it as "512B", "64KiB", "10MiB" or "1GiB"')
    size = int(found[1]) << units[found[2]]
    if size == 0:
        raise ValueError("a size must be greater than zero")
    return size


def parse_size_or_zero(text: str) -> int:
    """
    :param text: as for `parse_size`; ``0B`` is zero.
    :raises ValueError: if it is anything else.
    """
    return 0 if re.fullmatch(r"0+(B|KiB|MiB|GiB)", text) else parse_size(text)


def parse_instant(text: str) -> datetime:
    """
    :param text: date, time and offset as RFC 3339 has them,
        ``2027-01-31T12:00:00Z``.
    :raises ValueError: if it is anything else.
    """
    if not re.fullmatch(
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?"
        r"([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])",
        text,
    ):
        raise ValueError('not an instant; write it as "2027-01-31T12:00:00Z"')
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError as error:
        raise ValueError(f"not an instant: {error}") from None


def parse_file_name(text: str) -> str:
    """
    :returns: the name of a file, as it is.
    :raises ValueError: if it is something else that people write there.
    """
    if (wrong := wrong_file_name(text)) is not None:
        raise ValueError(wrong)
    return text


#: The name of a file or directory, relative to the file that it stands in.
FileName = Annotated[str, Parsed(parse_file_name, names_file=True)]

#: An aware datetime, written as ``"2027-01-31T12:00:00Z"`` (RFC 3339).
Instant = Annotated[datetime, Parsed(parse_instant)]

#: Seconds, written as ``"250ms"``, ``"10s"``, ``"5m"`` or ``"1h"``.
Duration = Annotated[float, Parsed(parse_duration)]

#: The same, and zero, as ``"0s"``.
DurationOrZero = Annotated[float, Parsed(parse_duration_or_zero)]

#: Bytes, written as ``"512B"``, ``"64KiB"``, ``"10MiB"`` or ``"1GiB"``.
Size = Annotated[int, Parsed(parse_size)]

#: The same, and zero, as ``"0B"``.
SizeOrZero = Annotated[int, Parsed(parse_size_or_zero)]


class Lone(Enum):
    """
    Says in an annotation of a list that one text stands for a list of it:
    ``Annotated[tuple[str, ...], Lone.TEXT]``.
    """

    TEXT = auto()


@frozen
class OrWord:
    """
    Says in an annotation that a whole number is wanted, or one word:
    ``Annotated[int | Literal["auto"], OrWord("auto")]``.

    :ivar word: which.
    """

    word: str


def label(**options: Any) -> Any:
    """An attrs field that takes the block's label; with a default it is optional."""
    return field(metadata={"hcl": "label"}, **options)


def position() -> Any:
    """An attrs field that takes the `Position` of the block."""
    return field(metadata={"hcl": "position"})


def needed_unless(*others: str) -> Any:
    """An attrs field for material that must be given, unless one of the other attributes or
    blocks stands there, which say where it comes from instead."""
    return field(default=None, metadata={"unless": others})


class AlreadyReported(Exception):
    """What was asked for is in error, and the report says so."""


class Misconfigured(ValueError):
    """
    What a configuration asks for cannot be had; the place in it is known.

    :ivar at: where.
    :ivar text: what is wrong and what to do, in one line.
    """

    def __init__(self, at: Position, text: str) -> None:
        super().__init__(text)
        self.at = at
        self.text = text


@frozen
class Remainder:
    """
    The attributes and blocks that no other field of a class reads: annotate
    one field with this to get them.
    """

    _decoder: BodyDecoder
    _body: Body
    _at: Position
    _where: str

    def decode(self, cls: type[T]) -> T:
        """
        :param cls: an attrs class to read them into.
        :raises AlreadyReported: if they do not fit it.
        """
        decoded = self._decoder.decode(cls, self._body, self._at, self._where)
        if decoded is None:
            raise AlreadyReported
        return decoded

    def plain(self) -> dict[str, Any]:
        """
        :returns: the attributes' values by name, as plain Python; null is None.
        :raises AlreadyReported: if an expression is in error, or there are blocks.
        """
        return self._decoder.plain(self._body, self._where)


@frozen
class Field:
    """
    One attrs field, as the decoder sees it.

    :ivar name: its name in the block.
    :ivar hint: its type without None.
    :ivar source: ``label``, ``position``, ``body``, ``remainder``, ``block``,
        ``blocks``, ``material``, ``peer_text``, ``peer_texts`` or ``attribute``.
    :ivar required: whether it must be given.
    :ivar empty_is_unset: whether a literal ``""`` counts as not written.
    :ivar unless: if there are any, it is required unless one of these is given.
    """

    name: str
    hint: Any
    source: str
    required: bool
    empty_is_unset: bool = False
    unless: tuple[str, ...] = ()


def without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        rest = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        if len(rest) == 1:
            return rest[0]
    return hint


def _is_block(hint: Any) -> bool:
    return (
        isinstance(hint, type)
        and attrs.has(hint)
        and hint
        not in (
            Material,
            Body,
            PeerText,
            Remainder,
        )
    )


def fields_of(cls: type) -> tuple[Field, ...]:
    return _remembered_fields(cls)


@cache
def _remembered_fields(cls: type) -> tuple[Field, ...]:
    return tuple(_fields(cls))


def _fields(cls: type) -> Iterator[Field]:
    hints = typing.get_type_hints(cls, include_extras=True)
    for attribute in attrs.fields(cls):
        if not attribute.init:
            continue
        hint = without_none(hints.get(attribute.name, Any))
        arguments = typing.get_args(hint)
        empty_is_unset = Empty.UNSET in arguments
        if empty_is_unset:
            hint = without_none(arguments[0])
            arguments = typing.get_args(hint)
        if "hcl" in attribute.metadata:
            source = attribute.metadata["hcl"]
        elif hint is Body:
            source = "body"
        elif hint is Remainder:
            source = "remainder"
        elif hint is Material:
            source = "material"
        elif hint is PeerText:
            source = "peer_text"
        elif typing.get_origin(hint) in (dict, Mapping) and arguments[1:] == (PeerText,):
            source = "peer_texts"
        elif _is_block(hint):
            source = "block"
        elif typing.get_origin(hint) is tuple and arguments and _is_block(arguments[0]):
            source, hint = "blocks", arguments[0]
        else:
            source = "attribute"
        name = attribute.alias or attribute.name
        required = attribute.default is attrs.NOTHING
        unless = attribute.metadata.get("unless", ())
        yield Field(name, hint, source, required, empty_is_unset, unless)


#: Sources of fields that are written as an attribute, and as a block.
_ATTRIBUTES = ("attribute", "material", "peer_text", "peer_texts")
_BLOCKS = ("block", "blocks", "peer_texts")


def names_read(fields: Iterable[Field]) -> tuple[set[str], set[str]]:
    """:returns: the names of the attributes and of the blocks that fields read."""
    fields = tuple(fields)
    blocks = {one.name for one in fields if one.source in _BLOCKS}
    attributes = {one.name for one in fields if one.source in _ATTRIBUTES}
    attributes |= {f"{one.name}_file" for one in fields if one.source == "material"}
    return attributes, blocks
