"""
Conditional requests and ranges (RFC 9110, 13 and 14): pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from attrs import frozen
from twisted.web.http import datetimeToString, stringToDatetime

#: More ranges than this at once are a trick, and the whole file is the answer.
MAX_RANGES = 8
_RANGE = re.compile(rb"(?!-$)([0-9]{0,18})-([0-9]{0,18})")
_TAG = re.compile(rb'(W/)?("[^"]*")')

#: The values of a request's fields of one name, which is in lower case.
Fields = Callable[[bytes], Sequence[bytes]]


@frozen
class Version:
    """
    Which version of a file there is.

    :ivar tag: its entity tag, quotes included.
    :ivar modified: when it last changed, in whole seconds since the epoch.
    """

    tag: bytes
    modified: int

    @property
    def date(self) -> bytes:
        """When it last changed, as HTTP writes it."""
        date: bytes = datetimeToString(self.modified)
        return date


def unmet(fields: Fields, version: Version) -> int | None:
    """
    :returns: the status that a GET or HEAD has instead, 304 or 412; None if it goes on
        (RFC 9110, 13.2.2).
    """
    matches, nones = fields(b"if-match"), fields(b"if-none-match")
    if matches:
        if not _names(matches, version.tag, weakly=False):
            return 412
    else:
        before = _date(fields(b"if-unmodified-since"))
        if before is not None and version.modified > before:
            return 412
    if nones:
        return 304 if _names(nones, version.tag, weakly=True) else None
    since = _date(fields(b"if-modified-since"))
    return 304 if since is not None and version.modified <= since else None


def _names(values: Sequence[bytes], tag: bytes, *, weakly: bool) -> bool:
    """:returns: whether a list of tags, or ``*``, names the one there is."""
    if any(one.strip() == b"*" for one in values):
        return True
    found = (one.groups() for value in values for one in _TAG.finditer(value))
    return any(each == tag and (weakly or weak is None) for weak, each in found)


def _date(values: Sequence[bytes]) -> int | None:
    """:returns: a date in seconds; None if there is none, or no sense in it."""
    if len(values) != 1:
        return None
    try:
        return int(stringToDatetime(values[0].split(b";", 1)[0]))
    except Exception:  # noqa: BLE001 -- on nonsense it raises whatever comes of it
        return None


def ranges(fields: Fields, version: Version, size: int) -> list[tuple[int, int]] | None:
    """
    :param size: the file's.
    :returns: the first and the last byte of each part that is asked for, none of them beyond
        the file: an empty list if there is no such part, None if all is asked for.
    """
    asked, version_asked = fields(b"range"), fields(b"if-range")
    if len(asked) != 1:
        return None
    # RFC 9110, 13.1.5: a part of another version is of no use.
    if version_asked and list(version_asked) not in ([version.tag], [version.date]):
        return None
    return _parse(asked[0], size)


def _parse(header: bytes, size: int) -> list[tuple[int, int]] | None:
    unit, _, listed = header.partition(b"=")
    specs = [one for one in (part.strip(b" \t") for part in listed.split(b",")) if one]
    if unit.strip().lower() != b"bytes" or not 0 < len(specs) <= MAX_RANGES:
        return None
    found = []
    for spec in specs:
        numbers = _RANGE.fullmatch(spec)
        if numbers is None:
            return None
        first, last = numbers.groups()
        if first:
            begin, end = int(first), int(last) if last else size - 1
            if last and end < begin:
                return None
        else:
            begin, end = max(size - int(last), 0), size - 1
        if begin < size and begin <= end:
            found.append((begin, min(end, size - 1)))
    return None if sum(end - begin + 1 for begin, end in found) > size else found
