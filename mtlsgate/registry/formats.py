"""
Devices in files: CSV and JSON lines, without I/O.

A row that cannot be understood is a `Fault` with its line; the rows after it are still
read, so that one run reports them all.  Nothing is held in memory but one row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from io import StringIO
from typing import NamedTuple

from attrs import field, frozen

from mtlsgate.admission.devices import Device, DeviceState, KeyKind
from mtlsgate.certificates.recognise import what_is_it
from mtlsgate.errors import did_you_mean
from mtlsgate.registry.fields import (
    FIELDS,
    FieldError,
    fields_of,
    instant_text,
    parse_attributes,
    read_attributes,
    read_instant,
    read_key,
    read_note,
    read_state,
    unique_pairs,
)
from mtlsgate.text import cut, printable

#: The longest line that is read, in bytes.
LONGEST_LINE = 1 << 20

#: What the name of a CSV column with one attribute begins with.
_ATTRIBUTE = "attributes."


class Format(StrEnum):
    """How devices are written in a file."""

    CSV = "csv"
    JSON_LINES = "jsonl"


@frozen
class Fault:
    """What is wrong with a row, in one line."""

    text: str


class Row(NamedTuple):
    """
    One row of a file.

    :ivar line: where it begins, counted from 1.
    :ivar found: the device, or why it is none.
    """

    line: int
    found: Device | Fault


@frozen
class Unstated:
    """What counts for a device where a file does not say it; the fields are a device's."""

    state: DeviceState = DeviceState.ACTIVE
    not_before: datetime | None = None
    not_after: datetime | None = None
    note: str = ""
    attributes: Mapping[str, str] = field(factory=dict)


def read(
    kind: Format, lines: Iterable[bytes], key: KeyKind, unstated: Unstated = Unstated()
) -> Iterator[Row]:
    """
    :param lines: the file's, with their ends; a line that is longer than `LONGEST_LINE`
        may be cut after that.
    :param key: what the registry finds its devices by.
    :returns: the rows, with what can be understood of the file.
    """
    reader = _Fields(key, unstated)
    return _read_csv(lines, reader) if kind is Format.CSV else _read_json(lines, reader)


def head(kind: Format) -> str:
    """:returns: what a file begins with."""
    return ",".join(FIELDS) + "\r\n" if kind is Format.CSV else ""


def write(kind: Format, devices: Iterable[Device]) -> str:
    """:returns: the rows of these devices, with all fields; `read` makes the same of them."""
    if kind is Format.JSON_LINES:
        return "".join(f"{_encode(object_of(device))}\n" for device in devices)
    rows = StringIO(newline="")
    writer = csv.writer(rows)
    for device in devices:
        writer.writerow([device.key, *fields_of(device).values()])
    return rows.getvalue()


def object_of(device: Device) -> dict[str, object]:
    """:returns: the device, for JSON; what is not stated is None, but for note and attributes."""
    return {
        "key": device.key,
        "state": device.state.value,
        "not_before": None if device.not_before is None else instant_text(device.not_before),
        "not_after": None if device.not_after is None else instant_text(device.not_after),
        "note": device.note,
        "attributes": dict(device.attributes),
    }


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class _Fields:
    """Makes devices of what a file says."""

    def __init__(self, key: KeyKind, unstated: Unstated) -> None:
        self._kind = key
        self._unstated = unstated

    def device(
        self,
        key: str,
        state: str | None,
        not_before: str | None,
        not_after: str | None,
        note: str | None,
        attributes: Mapping[str, str],
    ) -> Device:
        """
        :param attributes: read already.
        :raises FieldError: what is wrong.
        """
        otherwise = self._unstated
        device = Device(
            read_key(self._kind, key),
            read_state(state) if state else otherwise.state,
            read_instant("not_before", not_before) if not_before else otherwise.not_before,
            read_instant("not_after", not_after) if not_after else otherwise.not_after,
            read_note(note) if note else otherwise.note,
            {**otherwise.attributes, **attributes} if otherwise.attributes else attributes,
        )
        if otherwise.attributes:
            # Together they may be too many.
            read_attributes(dict(device.attributes))
        refuse_empty_time(device)
        return device


def refuse_empty_time(device: Device) -> None:
    """:raises FieldError: if there is no time at which it may come in."""
    begin, end = device.not_before, device.not_after
    if begin is not None and end is not None and begin > end:
        raise FieldError("not_after: is before not_before")


# JSON lines.


def _read_json(lines: Iterable[bytes], reader: _Fields) -> Iterator[Row]:
    decode = json.JSONDecoder(object_pairs_hook=unique_pairs).decode
    for number, line in enumerate(lines, 1):
        try:
            text = _text(line, number)
            # Without the blanks around it, a line end of Windows among them.
            if text := text.strip(" \t\r\n"):
                yield Row(number, _of_object(_parsed(decode, text), reader))
        except FieldError as error:
            yield Row(number, Fault(str(error)))


def _parsed(decode: Callable[[str], object], text: str) -> dict[str, object]:
    try:
        found = decode(text)
    except json.JSONDecodeError as error:
        raise FieldError(f"is no JSON: {error.msg}, at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise FieldError(f"is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise FieldError('is no JSON object: write one a line, as {"key": "…"}')
    return found


def _of_object(found: dict[str, object], reader: _Fields) -> Device:
    if not found.keys() <= _KNOWN:
        raise _unknown_field(next(name for name in found if name not in _KNOWN))
    key, attributes = _string(found, "key"), found.get("attributes")
    if key is None:
        raise FieldError("key: is missing")
    return reader.device(
        key,
        _string(found, "state"),
        _string(found, "not_before"),
        _string(found, "not_after"),
        _string(found, "note"),
        {} if attributes is None else read_attributes(attributes),
    )


_KNOWN = frozenset(FIELDS)


def _string(found: Mapping[str, object], name: str) -> str | None:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise FieldError(f"{name}: must be a text, in quotes")
    return value


def _unknown_field(name: str) -> FieldError:
    hint = did_you_mean(name, FIELDS)
    return FieldError(f'has no field "{_short(name)}"{hint}: {", ".join(FIELDS)}')


# CSV (RFC 4180).


def _read_csv(lines: Iterable[bytes], reader: _Fields) -> Iterator[Row]:
    columns: _Columns | None = None
    line = 1
    for line, row in _csv_rows(lines):
        try:
            if isinstance(row, Fault):
                yield Row(line, row)
                return
            if columns is not None:
                yield Row(line, columns.device(row, reader))
            else:
                columns = _Columns.of(row)
        except FieldError as error:
            yield Row(line, Fault(str(error)))
            if columns is None:
                return
    if columns is None:
        yield Row(line, Fault(f"has no first line with the columns: {','.join(FIELDS)}"))


def _csv_rows(lines: Iterable[bytes]) -> Iterator[tuple[int, list[str] | Fault]]:
    """:returns: the rows that are not empty, with the lines where they begin.  A fault is
    the last: what follows an odd quote cannot be trusted."""
    rows = csv.reader(_texts(lines), strict=True)
    begin = 1
    try:
        for row in rows:
            if row:
                yield begin, row
            begin = rows.line_num + 1
    except csv.Error as error:
        yield begin, Fault(f"is no CSV: {error}")
    except FieldError as error:
        yield rows.line_num + 1, Fault(str(error))


@frozen
class _Columns:
    """
    Where in a row each field is.

    :ivar width: how many columns there are.
    :ivar fields: of each of `FIELDS` the column, or None.
    :ivar attributes: name and column of those that are one attribute.
    """

    width: int
    fields: tuple[int | None, ...]
    attributes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, row: Sequence[str]) -> _Columns:
        """:raises FieldError: if these are no columns."""
        places = {name: column for column, name in enumerate(row)}
        if len(places) != len(row):
            raise FieldError("has two columns of the same name")
        if "key" not in places:
            raise FieldError(
                'has no column "key": the first line names the columns, with commas between '
                f"them: {','.join(FIELDS)}"
            )
        attributes = []
        for name, column in places.items():
            if name.startswith(_ATTRIBUTE):
                attributes.append((name.removeprefix(_ATTRIBUTE), column))
            elif name not in _KNOWN:
                raise _unknown_field(name)
        read_attributes(dict.fromkeys((name for name, _ in attributes), ""))
        return cls(len(row), tuple(places.get(name) for name in FIELDS), tuple(attributes))

    def device(self, row: Sequence[str], reader: _Fields) -> Device:
        """:raises FieldError: what is wrong with the row."""
        if len(row) != self.width:
            raise FieldError(f"has {len(row)} columns, and the first line {self.width}")
        key, *others, packed = (None if at is None else row[at] for at in self.fields)
        attributes = parse_attributes(packed) if packed else {}
        if self.attributes:
            for name, at in self.attributes:
                if row[at]:
                    if name in attributes:
                        raise FieldError(f"attributes: {name}: is there twice")
                    attributes[name] = row[at]
            read_attributes(attributes)
        assert key is not None
        state, not_before, not_after, note = others
        return reader.device(key, state, not_before, not_after, note, attributes)


def _texts(lines: Iterable[bytes]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        yield _text(line, number)


def _text(line: bytes, number: int) -> str:
    """:raises FieldError: if it is no text, or far too long."""
    if len(line) > LONGEST_LINE:
        raise FieldError(f"is longer than {LONGEST_LINE} bytes")
    try:
        # Windows writes a mark before the first line.
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        what = what_is_it(line) if number == 1 else None
        raise FieldError(what or "is not UTF-8") from None


def _short(name: str) -> str:
    return printable(cut(name, 40))
