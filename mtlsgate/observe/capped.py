"""
What somebody outside has chosen, for a line of JSON: cut to a limit, and well-formed.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable

from mtlsgate.text import length_mark

#: Bytes of a value, or a list of names, that somebody outside has chosen; a longer
#: one is cut, and says how long it was.
MAX_VALUE = 4096

#: Writes JSON without spaces.
encode = json.JSONEncoder(separators=(",", ":")).encode


class Capped:
    """
    Cuts texts to their limits, and makes them well-formed.

    :ivar is_cut: whether something was left out.
    """

    def __init__(self) -> None:
        self.is_cut = False

    def text(self, value: str | None) -> str | None:
        """:returns: the text, or its beginning and how long it is."""
        if value is None:
            return None
        if _size(value) <= MAX_VALUE:
            return _well_formed(value)
        self.is_cut = True
        mark = length_mark(value)
        room = MAX_VALUE - _size(mark)
        # A character takes up to twelve bytes in JSON.
        kept = bisect_right(range(room), room, key=lambda count: _size(value[:count])) - 1
        return _well_formed(value[:kept]) + mark

    def texts(self, values: Iterable[str], most: int = MAX_VALUE) -> list[str]:
        """:returns: the texts, or as many as fit into so many bytes."""
        found: list[str] = []
        for value in values:
            text = self.text(value)
            assert text is not None
            # Counts quotes and comma, because names can be empty. The first always fits.
            most -= _size(text) + 3
            if most < 0 and found:
                self.is_cut = True
                break
            found.append(text)
        return found


def _size(text: str) -> int:
    """:returns: the bytes that the text takes in JSON, without the quotes."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return len(text)
    return len(encode(_well_formed(text))) - 2


def _well_formed(text: str) -> str:
    """Escape lone surrogates, which some JSON readers refuse."""
    return text if text.isascii() else text.encode(errors="backslashreplace").decode()
