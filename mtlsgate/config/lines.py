"""
What HashiCorp's HCL asks of lines, and ``hcl2`` does not.

Each attribute and each block begins on a line of its own; a value ends with its
line; a block on one line holds one attribute.  This module looks at the tokens of
the file and of its blocks, and never into brackets.  What ``hcl2`` refuses by
itself is left to it.
"""

from __future__ import annotations

from attrs import frozen

from mtlsgate.config.bare_text import without_quotes
from mtlsgate.config.source import UnreadableError
from mtlsgate.config.tokens import Code
from mtlsgate.config.unexpected import (
    AFTER_NAME,
    COMMA_AT_END,
    CONDITIONAL,
    MISSING,
    OPERATORS,
    unexpected,
)

_BRACE = '; the "{" of a block stands on the line of its name'
_ONE_LINE = "; a block on one line holds one attribute; put each on a line of its own"
_OWN_LINE = "; each attribute and block begins on a line of its own"
_CONTINUING = OPERATORS | {"?", ":", "="}


@frozen
class Lines:
    """
    What the lines of a file say.

    :ivar blocks: the ``{`` of each block.
    :ivar bare: values that are text without quotes: for the first token of each,
        the token after it, and what is wrong.
    :ivar fault: the first violation.
    """

    blocks: frozenset[int]
    bare: dict[int, tuple[int, str]]
    fault: UnreadableError | None


def read_lines(code: Code) -> Lines:
    """:returns: what the lines of a file say, up to the first violation."""
    reader = _LineReader(code)
    fault = None
    try:
        reader.file()
    except UnreadableError as error:
        fault = error
    return Lines(frozenset(reader.blocks), reader.bare, fault)


class _LineReader:
    def __init__(self, code: Code) -> None:
        self.code = code
        self.blocks: set[int] = set()
        self.bare: dict[int, tuple[int, str]] = {}
        # For each block that is open, whether it is on one line.
        self.open: list[bool] = []

    def unexpected(self, index: int, hint: str = "") -> UnreadableError:
        return unexpected(self.code, index, hint)

    @property
    def in_one_line(self) -> bool:
        return bool(self.open) and self.open[-1]

    def file(self) -> None:
        index = 0
        while (kind := self.code.kind(index)) != "end":
            if kind == "newline":
                index += 1
            elif kind == "}":
                self.open.pop()
                index += 1
                self.end_of_line(index)
            elif kind == "name":
                index = self.item(index)
            else:
                hint = "; names are written without quotes" if kind == "quote" else ""
                raise self.unexpected(index, hint)

    def end_of_line(self, index: int) -> None:
        """Ask for a line end after a block."""
        if self.code.kind(index) not in ("newline", "end"):
            hint = COMMA_AT_END if self.code.kind(index) == "," else _OWN_LINE
            raise self.unexpected(index, hint)

    def item(self, start: int) -> int:
        """
        :param start: the name of an attribute or block.
        :returns: the token after the attribute, or after the ``{`` of the block.
        """
        code = self.code
        index = start + 1
        if self.in_one_line and code.kind(index) in ("{", "name", "quote"):
            raise self.unexpected(index, _ONE_LINE)
        if code.kind(index) == "=":
            return self.value(index + 1)
        while code.kind(index) in ("name", "quote"):
            index = code.after(index)
        if code.kind(index) == "{":
            self.blocks.add(index)
            self.open.append(code.kind(index + 1) not in ("newline", "}", "end"))
            return index + 1
        brace_follows = code.kind(code.after_newlines(index)) == "{"
        raise self.unexpected(index, _BRACE if brace_follows else AFTER_NAME)

    def value(self, start: int) -> int:
        """:returns: the token after the value that begins at one."""
        if (end := self.bare_text(start)) is not None:
            return self.end_of_value(end)
        code = self.code
        index, pending = start, 0
        while (kind := code.kind(index)) not in ("newline", "end", "}"):
            if kind == "name" and index > start and code.ends_operand(index - 1):
                raise self.unexpected(index, _ONE_LINE if self.in_one_line else _OWN_LINE)
            pending += (kind == "?") - (kind == ":")
            index = code.after(index)
        if kind == "newline":
            if code.kind(index - 1) in _CONTINUING and not code.ends_operand(index - 1):
                raise self.unexpected(index, MISSING)
            if pending > 0 and code.ends_operand(index - 1):
                raise self.unexpected(index, CONDITIONAL)
        return self.end_of_value(index)

    def end_of_value(self, index: int) -> int:
        kind = self.code.kind(index)
        if kind == "newline" and self.in_one_line:
            raise self.unexpected(index, "; close this block on the line on which it begins")
        if kind == "newline":
            following = self.code.after_newlines(index)
            if self.code.kind(following) in _CONTINUING:
                raise self.unexpected(following)
        if kind == "}" and not self.in_one_line:
            raise self.unexpected(index)
        return index

    def bare_text(self, start: int) -> int | None:
        """:returns: the token after a value that is text without quotes, or None."""
        source, offset = self.code.source, self.code.tokens[start].start
        line = source.text[offset : source.end_of_line(offset)]
        if line.startswith("-----BEGIN "):
            raise source.unreadable(
                offset, "PEM is text: put it into a heredoc, or into a file that you name"
            )
        if (problem := without_quotes(line)) is None:
            return None
        end = start
        while self.code.kind(end) not in ("newline", "end", "}"):
            end += 1
        self.bare[start] = (end, problem)
        return end
