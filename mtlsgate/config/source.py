"""
Bytes to text that knows where its characters are.
"""

from __future__ import annotations

import os.path
import re
from bisect import bisect_right
from codecs import BOM_UTF8

from mtlsgate.errors import Position

#: The longest file that is read, in bytes.
MAXIMUM_SIZE = 1024 * 1024


class UnreadableError(Exception):
    """The text as a whole cannot be read."""

    def __init__(self, at: Position, text: str) -> None:
        super().__init__(at, text)
        self.at = at
        self.text = text


class Source:
    """
    A text that knows where its characters are.

    :ivar text: the text, with ``\\n`` line ends only.
    :ivar path: the file, where a configuration is made of several.
    """

    def __init__(self, text: str, path: str = "") -> None:
        self.text = text
        self.path = path
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def position(self, offset: int) -> Position:
        """The line and column of a character, or of the end of the text."""
        offset = min(offset, len(self.text))
        line = bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1, self.path)

    def end_of_line(self, offset: int) -> int:
        """:returns: where the line ends that a character is in."""
        end = self.text.find("\n", offset)
        return len(self.text) if end < 0 else end

    def unreadable(self, offset: int, text: str) -> UnreadableError:
        """An error that points at a character."""
        return UnreadableError(self.position(offset), text)


def decode(data: bytes, path: str = "") -> Source:
    """
    :param data: UTF-8; a byte order mark and CRLF are fine.
    :param path: the file, for positions.
    :raises UnreadableError: if it is not text, or too long.
    """
    if len(data) > MAXIMUM_SIZE:
        raise Source("", path).unreadable(
            0, "the file is over 1 MiB; move certificates and keys into files of their own"
        )
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise Source(before, path).unreadable(
            len(before),
            f"byte 0x{data[error.start]:02x} is not UTF-8 text; save the file as UTF-8",
        ) from None
    source = Source(text.replace("\r\n", "\n"), path)
    if "\0" in source.text:
        raise source.unreadable(
            source.text.index("\0"), "a NUL byte is not text; save the file as UTF-8"
        )
    if "\r" in source.text:
        # It would hide in a comment whatever a Macintosh editor shows as lines after it.
        raise source.unreadable(
            source.text.index("\r"),
            "a carriage return without a line feed; save the file with LF or CRLF line ends",
        )
    return source


def relative_to_file(name: str, at: Position) -> str:
    """:returns: the name of a file, from the directory of the file that it
    stands in; a configuration may be made of several."""
    if not at.path:
        return name
    # Absolute, because other names start at the directory of the first file.
    return os.path.join(os.path.abspath(os.path.dirname(at.path)), name)
