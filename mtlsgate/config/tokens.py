"""
Text to tokens, as HashiCorp's scanner makes them (``scan_tokens.rl`` in hclsyntax).

The scanner stands before ``hcl2``, which never sees what is in a string.  It keeps
a stack of what is open, not recursion, and reads every character a bounded number
of times.  It finds what is not closed and what nests too deep, so that whoever
walks the tree may recurse.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

from attrs import frozen

from mtlsgate.config.source import Source
from mtlsgate.errors import Position

#: How deep blocks, lists, objects, parentheses and interpolations may nest.
MAXIMUM_DEPTH = 32


class Token(NamedTuple):
    """
    :ivar kind: an operator or delimiter as it is written, or one of ``name``,
        ``number``, ``newline``, ``quote`` and ``end quote``, ``heredoc`` and
        ``end heredoc``, ``text`` (in a string), ``end template`` (the ``}`` of
        a ``${`` or ``%{``), ``stray`` (no token of HCL) and ``end`` (of the file).
    """

    kind: str
    start: int
    end: int


#: What an operand may end with.
_OPERAND_ENDS = frozenset(("name", "number", "end quote", "end heredoc", ")", "]", "}"))


class Code:
    """
    The tokens of a file.

    A line end is a token only where it may mean something: in blocks and objects.

    :ivar source: the text that they are of.
    :ivar tokens: the last is ``end``; comments are left out.
    :ivar closers: for each token that opens something, the one that closes it.
    """

    def __init__(self, source: Source, tokens: list[Token], closers: dict[int, int]) -> None:
        self.source = source
        self.tokens = tokens
        self.closers = closers
        self._starts = [token.start for token in tokens]

    def index(self, offset: int) -> int:
        """:returns: the token that a character is in, or else the one before it."""
        return bisect_right(self._starts, offset) - 1

    def kind(self, index: int) -> str:
        """:returns: the kind of a token; empty outside the file."""
        return self.tokens[index].kind if 0 <= index < len(self.tokens) else ""

    def text(self, index: int) -> str:
        """:returns: a token as written."""
        token = self.tokens[index]
        return self.source.text[token.start : token.end]

    def at(self, index: int) -> Position:
        """:returns: where a token begins."""
        return self.source.position(self.tokens[index].start)

    def after(self, index: int) -> int:
        """:returns: the token after one, or after what that one opens."""
        return self.closers.get(index, index) + 1

    def after_newlines(self, index: int) -> int:
        """:returns: the first token from here on that is no line end."""
        while self.kind(index) == "newline":
            index += 1
        return index

    def ends_operand(self, index: int) -> bool:
        """:returns: whether a value may end with a token, as with the star of ``a.*``."""
        kind = self.kind(index)
        return kind in _OPERAND_ENDS or (kind == "*" and self.kind(index - 1) == ".")


_CODE = re.compile(
    r"""(?P<space>[ \t]+|(?:\#|//)[^\n]*|/\*.*?\*/)
      | (?P<newline>\n)
      | (?P<name>[A-Za-z_][A-Za-z0-9_-]*)
      | (?P<number>[0-9](?:(?:[0-9.]|[eE][+-]?[0-9])*(?:[0-9]|[eE][+-]?[0-9]))?)
      | (?P<quote>")
      | (?P<broken>/\*)
      | (?P<heredoc><<-?)
      | (?P<open>[(\[{])
      | (?P<strip>~\})
      | (?P<close>[)\]}])
      | (?P<operator>==|!=|>=|<=|&&|\|\||::|\.\.\.|=>|[-.,*/%+=<>!?:])""",
    re.VERBOSE | re.DOTALL,
)
_STRING = re.compile(
    r"""(?P<text>(?:[^"\\$%\n]|\\[^\n]|\$\$\{|%%\{|[$%](?!\{))+)
      | (?P<open>[$%]\{~?)
      | (?P<end>")""",
    re.VERBOSE,
)
_HEREDOC = re.compile(r"(?P<text>(?:[^$%\n]|\$\$\{|%%\{|[$%](?!\{))*\n?)")
_TEMPLATE = re.compile(r"[$%]\{~?")

_CLOSER = {"(": ")", "[": "]", "{": "}", "${": "}", "%{": "}", '"': '"'}


@frozen
class _Opening:
    """
    Something open.

    :ivar opener: what opened it, ``<<`` for a heredoc.
    :ivar offset: where that is.
    :ivar index: its token.
    :ivar marker: the name that closes a heredoc.
    """

    opener: str
    offset: int
    index: int
    marker: str = ""


def is_name_start(one: str) -> bool:
    """:returns: whether a character may begin a name (ID_Start of UAX #31)."""
    return one.isidentifier()


def name_end(text: str, start: int) -> int:
    """:returns: where the name ends that begins at an offset."""
    end = start + 1
    while end < len(text) and (text[end] == "-" or f"a{text[end]}".isidentifier()):
        end += 1
    return end


def scan(source: Source) -> Code:
    """
    :returns: the tokens of a text.
    :raises UnreadableError: if something is not closed, or too deep.
    """
    return _Scanner(source).run()


class _Scanner:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.text = source.text
        self.tokens: list[Token] = []
        self.closers: dict[int, int] = {}
        self.stack: list[_Opening] = []
        self.depth = 0

    def run(self) -> Code:
        offset = 0
        while offset < len(self.text):
            match self.stack[-1].opener if self.stack else "":
                case '"':
                    offset = self.string(offset)
                case "<<":
                    offset = self.heredoc(offset)
                case _:
                    offset = self.code(offset)
        if self.stack:
            self.refuse_unclosed(self.stack[-1])
        self.tokens.append(Token("end", offset, offset))
        return Code(self.source, self.tokens, self.closers)

    def refuse_unclosed(self, left: _Opening) -> None:
        match left.opener:
            case "<<":
                text = "this heredoc is not closed; close it with its name on a line of its own"
                if self.text.rpartition("\n")[2].strip() == left.marker:
                    text += ", and a line end after that"
            case '"':
                text = _UNCLOSED_STRING
            case token:
                text = f'this "{token}" is not closed; a "{_CLOSER[token]}" is missing'
        raise self.source.unreadable(left.offset, text)

    def add(self, kind: str, start: int, end: int) -> int:
        self.tokens.append(Token(kind, start, end))
        return end

    def push(self, token: str, offset: int, marker: str = "") -> None:
        self.stack.append(_Opening(token, offset, len(self.tokens), marker))

    def pop(self) -> _Opening:
        """:returns: what the next token closes."""
        opening = self.stack.pop()
        self.closers[opening.index] = len(self.tokens)
        return opening

    def open(self, token: str, offset: int) -> None:
        self.push(token, offset)
        self.depth += 1
        if self.depth > MAXIMUM_DEPTH:
            raise self.source.unreadable(offset, TOO_DEEP)

    def close(self, start: int, end: int) -> int:
        token = self.text[end - 1]
        if not self.stack:
            raise self.source.unreadable(
                start, f'unexpected "{token}"; nothing is open that it could close'
            )
        stray = end - start == 2 and len(self.stack[-1].opener) == 1
        if stray:
            # Of a "~}" that closes no template.
            self.add("stray", start, start + 1)
        opening = self.pop()
        self.depth -= 1
        if _CLOSER[opening.opener] != token:
            at = self.source.position(opening.offset)
            raise self.source.unreadable(
                start,
                f'unexpected "{token}"; the "{opening.opener}" at {at.line}:{at.column}'
                " is not closed",
            )
        if len(opening.opener) == 2:
            return self.add("end template", start, end)
        return self.add(token, end - 1, end)

    def code(self, offset: int) -> int:
        found = _CODE.match(self.text, offset)
        if found is None:
            if is_name_start(self.text[offset]):
                return self.add("name", offset, name_end(self.text, offset))
            return self.add("stray", offset, offset + 1)
        end = found.end()
        match found.lastgroup:
            case "space":
                return end
            case "name" if end < len(self.text) and not self.text[end].isascii():
                return self.add("name", offset, name_end(self.text, offset))
            case "newline" if self.stack and self.stack[-1].opener != "{":
                return end
            case "name" | "newline" | "number" as kind:
                return self.add(kind, offset, end)
            case "quote":
                self.push('"', offset)
                return self.add("quote", offset, end)
            case "open":
                self.open(found.group(), offset)
            case "close" | "strip":
                return self.close(offset, end)
            case "heredoc":
                return self.open_heredoc(offset, end)
            case "broken":
                raise self.source.unreadable(
                    offset, 'this comment is not closed; close it with "*/"'
                )
        return self.add(found.group(), offset, end)

    def open_heredoc(self, offset: int, start: int) -> int:
        text = self.text
        end = name_end(text, start) if text[start : start + 1].isidentifier() else start
        if end == start or text[end : end + 1] != "\n":
            raise self.source.unreadable(
                offset,
                "a heredoc starts with << and a name, such as <<EOT, at the end of a line",
            )
        self.push("<<", offset, text[start:end])
        return self.add("heredoc", offset, end + 1)

    def string(self, offset: int) -> int:
        found = _STRING.match(self.text, offset)
        if found is None:
            # A line end, or a backslash before one.
            raise self.source.unreadable(self.stack[-1].offset, _UNCLOSED_STRING)
        if found.lastgroup == "text":
            return self.add("text", offset, found.end())
        if found.lastgroup == "end":
            self.pop()
            return self.add("end quote", offset, found.end())
        self.open(found.group()[:2], offset)
        return self.add(found.group()[:2], offset, found.end())

    def heredoc(self, offset: int) -> int:
        """One piece of a heredoc: at most a line, so that each can be dedented."""
        marker = self.stack[-1].marker
        if self.text[offset - 1] == "\n":
            end = self.text.find("\n", offset)
            if end >= 0 and self.text[offset:end].strip() == marker:
                self.pop()
                return self.add("end heredoc", offset, end)
        if opened := _TEMPLATE.match(self.text, offset):
            self.open(opened.group()[:2], offset)
            return self.add(opened.group()[:2], offset, opened.end())
        found = _HEREDOC.match(self.text, offset)
        assert found is not None
        return self.add("text", offset, found.end())


_UNCLOSED_STRING = (
    "this string is not closed on its line; add the quote that is missing,"
    " or use a heredoc for several lines"
)

TOO_DEEP = f"nested too deep; at most {MAXIMUM_DEPTH} levels of brackets are read"
