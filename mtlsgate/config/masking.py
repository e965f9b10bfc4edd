"""
HCL text to a masked text of the same shape.

Strings, heredocs and comments are blanked out and interpolations stay, so that
brackets are known to match and nesting is known to be shallow before a grammar
sees the text, and the grammar never sees (nor reports) what is in a string.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from codecs import BOM_UTF8

from attrs import frozen

from mtlsgate.errors import START, Position

#: The longest file that is read, in bytes.
MAXIMUM_SIZE = 1024 * 1024

#: How deep blocks, lists, objects, parentheses and calls may nest.
MAXIMUM_DEPTH = 32


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
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def position(self, offset: int) -> Position:
        """The line and column of a character, or of the end of the text."""
        offset = min(offset, len(self.text))
        line = bisect_right(self._starts, offset)
        return Position(line, offset - self._starts[line - 1] + 1)

    def unreadable(self, offset: int, text: str) -> UnreadableError:
        """An error that points at a character."""
        return UnreadableError(self.position(offset), text)


# Bytes to text


def decode(data: bytes) -> str:
    if len(data) > MAXIMUM_SIZE:
        raise UnreadableError(
            START, "the file is over 1 MiB; move certificates and keys into files of their own"
        )
    data = data.removeprefix(BOM_UTF8)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        raise Source(before).unreadable(
            len(before),
            f"byte 0x{data[error.start]:02x} is not UTF-8 text; save the file as UTF-8",
        ) from None
    text = text.replace("\r\n", "\n")
    if "\0" in text:
        raise Source(text).unreadable(
            text.index("\0"), "a NUL byte is not text; save the file as UTF-8"
        )
    if "\r" in text:
        # It would hide in a comment whatever a Macintosh editor shows as lines after it.
        raise Source(text).unreadable(
            text.index("\r"),
            "a carriage return without a line feed; save the file with LF or CRLF line ends",
        )
    return text


# Text to masked text

_IN_CODE = re.compile(
    r"""(?P<comment>(?:\#|//)[^\n]*|/\*.*?\*/)
      | (?P<heredoc><<-?(?P<marker>[A-Za-z][A-Za-z0-9._-]*)\n)
      | (?P<open>[(\[{"])
      | (?P<close>[)\]}])
      | (?P<broken>/\*|<<)""",
    re.VERBOSE | re.DOTALL,
)
_IN_STRING = re.compile(r'\\[^\n]|\$\$\{|%%\{|(?P<open>[$%]\{)|(?P<end>["\n])')
_IN_HEREDOC = re.compile(r"\$\$\{|%%\{|(?P<open>[$%]\{)")

_CLOSER = {"(": ")", "[": "]", "{": "}", "${": "}", "%{": "}", '"': '"'}


@frozen
class _Opening:
    """
    Something open.

    :ivar token: what opened it; for a heredoc ``<<``.
    :ivar offset: where that is.
    :ivar end: where the text of a heredoc ends, which is where the line of its
        closing marker starts.
    :ivar marker: where the closing marker of a heredoc ends.
    """

    token: str
    offset: int
    end: int = 0
    marker: int = 0


class Mask:
    """
    Blanks out what is in strings, heredocs and comments; heredocs become
    quoted strings over several lines.

    It keeps a stack of what is open in place of recursion, and reads
    every character a bounded number of times.  (The heredocs of the
    ``hcl2`` grammar take quadratic time, and its escaped interpolations run past
    the end of the string.)
    """

    def __init__(self, text: str) -> None:
        # A last line end closes a string or comment that the file does not.
        self.text = text + "\n"
        self.source = Source(self.text)
        self.masked = list(self.text)
        self.stack: list[_Opening] = []

    def run(self) -> str:
        """
        :raises UnreadableError: if something is not closed, or too deep.
        """
        offset = 0
        while offset < len(self.text):
            match self.stack[-1].token if self.stack else "":
                case '"':
                    offset = self.string(offset)
                case "<<":
                    offset = self.heredoc(offset)
                case _:
                    offset = self.code(offset)
        if self.stack:
            left = self.stack[-1]
            closer = _CLOSER[left.token]
            raise self.source.unreadable(
                left.offset, f'this "{left.token}" is not closed; a "{closer}" is missing'
            )
        return "".join(self.masked)

    def hide(self, start: int, end: int, by: str = "_") -> None:
        self.masked[start:end] = re.sub(r"[^\n]", by, self.text[start:end])

    def open(self, token: str, offset: int) -> None:
        self.stack.append(_Opening(token, offset))
        if sum(1 for opening in self.stack if opening.token not in {'"', "<<"}) > MAXIMUM_DEPTH:
            raise self.source.unreadable(
                offset, f"nested too deep; at most {MAXIMUM_DEPTH} levels of brackets are read"
            )

    def close(self, token: str, offset: int) -> None:
        opening = self.stack.pop() if self.stack else None
        if opening is None:
            raise self.source.unreadable(
                offset, f'unexpected "{token}"; nothing is open that it could close'
            )
        if _CLOSER[opening.token] != token:
            at = self.source.position(opening.offset)
            raise self.source.unreadable(
                offset,
                f'unexpected "{token}"; the "{opening.token}" at {at.line}:{at.column}'
                " is not closed",
            )
        if self.text.startswith("%{", opening.offset):
            self.hide(opening.offset, offset + 1)

    def code(self, offset: int) -> int:
        found = _IN_CODE.search(self.text, offset)
        if not found:
            return len(self.text)
        start, token = found.start(), found.group()
        match found.lastgroup:
            case "comment":
                self.hide(start, found.end(), " ")
            case "open":
                self.open(token, start)
            case "close":
                self.close(token, start)
            case "broken":
                raise self.source.unreadable(
                    start,
                    'this comment is not closed; close it with "*/"'
                    if token[0] == "/"
                    else "a heredoc starts with << and a name, such as <<EOT, at the end of a line",
                )
            case _:
                self.open_heredoc(found)
        return found.end()

    def open_heredoc(self, found: re.Match[str]) -> None:
        start, name = found.start(), found["marker"]
        marker = re.compile(rf"^[^\S\n]*({re.escape(name)})[^\S\n]*$", re.MULTILINE)
        closing = marker.search(self.text, found.end())
        if not closing:
            raise self.source.unreadable(
                start, "this heredoc is not closed; close it with its name on a line of its own"
            )
        self.hide(start, found.end())
        self.masked[start] = '"'
        self.stack.append(_Opening("<<", start, closing.start(), closing.end(1)))

    def string(self, offset: int) -> int:
        found = _IN_STRING.search(self.text, offset)
        if not found or found["end"] == "\n":
            raise self.source.unreadable(
                self.stack[-1].offset,
                "this string is not closed on its line; add the quote that is missing,"
                " or use a heredoc for several lines",
            )
        self.hide(offset, found.start() if found.lastgroup else found.end())
        if found.lastgroup == "end":
            self.close('"', found.start())
        elif found.lastgroup == "open":
            self.open(found.group(), found.start())
        return found.end()

    def heredoc(self, offset: int) -> int:
        opening = self.stack[-1]
        if offset > opening.end:
            raise self.source.unreadable(
                opening.offset, 'an interpolation in this heredoc is not closed; add its "}"'
            )
        found = _IN_HEREDOC.search(self.text, offset, opening.end)
        if not found:
            self.hide(offset, opening.marker - 1)
            self.masked[opening.marker - 1] = '"'
            self.stack.pop()
            return opening.marker
        self.hide(offset, found.start() if found.lastgroup else found.end())
        if found.lastgroup == "open":
            self.open(found.group(), found.start())
        return found.end()
