"""
Tokens to templates: what is in quotes and heredocs, which ``hcl2`` does not see.

Text, interpolations and directives come first as a list of pieces, because strip
markers and the indentation of ``<<-`` heredocs work on neighbours.  Then the pieces
become an expression.
"""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

from attrs import define, field

from mtlsgate.config.source import UnreadableError
from mtlsgate.config.tokens import Code
from mtlsgate.config.tree import Conditional, Expression, For, Invalid, Literal, Template
from mtlsgate.config.unexpected import unexpected
from mtlsgate.errors import Position

_ESCAPE = re.compile(
    r"""\\(?P<simple>[nrt"\\])
      | \\u(?P<short>[0-9A-Fa-f]{4})
      | \\U(?P<long>[0-9A-Fa-f]{8})
      | (?P<wrong>\\)
      | (?P<doubled>\$\$\{|%%\{)""",
    re.VERBOSE,
)
_DOUBLED = re.compile(r"(?P<doubled>\$\$\{|%%\{)")
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}
_NO_ESCAPE = (
    r"""this is not an escape; these are \n \r \t \" \\ \uNNNN \UNNNNNNNN"""
    r" with a character of Unicode; a backslash is written \\"
)
_LITERAL_INTERPOLATION = '; a "}" is missing, or a literal ${ is meant, which is written $${'
_LITERAL_DIRECTIVE = '; a "}" is missing, or a literal %{ is meant, which is written %%{'


class Expressions(Protocol):
    """What reads the expressions in a template."""

    def expression(self, first: int, last: int, hint: str) -> Expression:
        """
        :param first: the first token.
        :param last: the token after the last.
        :param hint: what to do if it is over before that.
        :returns: the expression.
        """

    def introduction(self, first: int, last: int, hint: str) -> tuple[str | None, str, Expression]:
        """:returns: the variables of a ``for`` and what it iterates over."""

    def declaring(self, *names: str | None) -> AbstractContextManager[None]:
        """Let expressions see the variables of a ``for``."""

    def nested(self, index: int) -> AbstractContextManager[None]:
        """Count one level more of what nests without brackets."""


@define
class _Text:
    """A stretch of text, which its neighbours may shorten."""

    text: str


@define
class _If:
    at: Position
    condition: Expression
    yes: list[_Piece] = field(factory=list)
    no: list[_Piece] = field(factory=list)


@define
class _For:
    at: Position
    key: str | None
    value: str
    source: Expression
    body: list[_Piece] = field(factory=list)


_Piece: TypeAlias = "_Text | _If | _For | Expression"


class TemplateReader:
    """
    Reads quoted strings and heredocs.

    :ivar code: the tokens of the file.
    :ivar expressions: reads what is in their interpolations.
    """

    def __init__(self, code: Code, expressions: Expressions) -> None:
        self.code = code
        self.expressions = expressions

    def template(self, opening: int) -> Expression:
        """:returns: the template that a token, a quote or ``<<``, begins."""
        at = self.code.at(opening)
        pieces = _Pieces(self.code, self.expressions, opening)
        parts = pieces.read()
        if self.code.text(opening).startswith("<<-"):
            _dedent(pieces.flat)
        if len(parts) == 1 and not isinstance(parts[0], _Text | _If | _For):
            # What an interpolation makes empty was not written as an empty literal.
            empty = isinstance(parts[0], Literal) and parts[0].value == ""
            return Template((parts[0],), at) if empty else parts[0]
        return _template(parts, at)


class _Pieces:
    """
    The pieces of one template.

    :ivar index: the next token.
    :ivar flat: its texts, in order, with None for everything between them.
    """

    def __init__(self, code: Code, expressions: Expressions, opening: int) -> None:
        self.code = code
        self.expressions = expressions
        self.in_heredoc = code.kind(opening) == "heredoc"
        self.index = opening + 1
        self.end = code.closers[opening]
        self.flat: list[_Text | None] = []
        self.strip_next = False

    def read(self) -> list[_Piece]:
        """:returns: all pieces up to the end of the template."""
        parts: list[_Piece] = []
        ended = self.until(parts)
        if ended is not None:
            raise self.unreadable(
                ended, f'unexpected "{self.word(ended)}"; no directive is open that it belongs to'
            )
        return parts

    def unreadable(self, index: int, text: str) -> UnreadableError:
        return self.code.source.unreadable(self.code.tokens[index].start, text)

    def word(self, opening: int) -> str:
        """:returns: which directive a ``%{`` begins."""
        return self.code.text(opening + 1)

    def until(self, parts: list[_Piece]) -> int | None:
        """
        Read pieces up to an ``else``, ``endif`` or ``endfor``, or to the end.

        :returns: the directive that ended it, or None at the template's end.
        """
        while (index := self.index) < self.end:
            self.index = self.code.after(index)
            if self.code.kind(index) == "text":
                parts.append(self.text(index))
                continue
            self.strip_around(index)
            if self.code.kind(index) == "${":
                end = self.code.closers[index]
                parts.append(self.expressions.expression(index + 1, end, _LITERAL_INTERPOLATION))
            elif self.directive(index, parts):
                return index
        return None

    def text(self, index: int) -> _Piece:
        written, strip = self.code.text(index), self.strip_next
        self.strip_next = False
        pattern = _DOUBLED if self.in_heredoc else _ESCAPE
        wrong: list[Invalid] = []

        def resolve(found: re.Match[str]) -> str:
            if found["doubled"]:
                return found.group()[1:]
            if found["simple"]:
                return _SIMPLE[found["simple"]]
            code = int(found["short"] or found["long"] or "-1", 16)
            if found["wrong"] or 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
                start = self.code.tokens[index].start
                at = self.code.source.position(start + found.start())
                wrong.append(Invalid(at, _NO_ESCAPE))
                return ""
            return chr(code)

        text = pattern.sub(resolve, written)
        if wrong:
            self.flat.append(None)
            return wrong[0]
        piece = _Text(text.lstrip() if strip else text)
        self.flat.append(piece)
        return piece

    def strip_around(self, opening: int) -> None:
        """Do what the strip markers of an interpolation or directive ask for."""
        if self.code.text(opening).endswith("~") and self.flat:
            before = self.flat[-1]
            if before is not None:
                before.text = before.text.rstrip()
        self.flat.append(None)
        self.strip_next = self.code.text(self.code.closers[opening]).startswith("~")

    def directive(self, opening: int, parts: list[_Piece]) -> bool:
        """:returns: whether it ends what another began."""
        at = self.code.at(opening)
        name, end = opening + 1, self.code.closers[opening]
        if self.code.kind(name) != "name":
            raise unexpected(self.code, name, _LITERAL_DIRECTIVE)
        match self.word(opening):
            case "if":
                condition = self.expressions.expression(name + 1, end, _LITERAL_DIRECTIVE)
                with self.expressions.nested(opening):
                    parts.append(self.alternatives(opening, _If(at, condition)))
            case "for":
                key, value, source = self.expressions.introduction(name, end, _LITERAL_DIRECTIVE)
                repeated = _For(at, key, value, source)
                with self.expressions.nested(opening), self.expressions.declaring(key, value):
                    self.closed_by("endfor", opening, self.until(repeated.body))
                parts.append(repeated)
            case "else" | "endif" | "endfor":
                if name + 1 != end:
                    raise unexpected(self.code, name + 1, _LITERAL_DIRECTIVE)
                return True
            case _:
                raise self.unreadable(
                    name,
                    "there is no such directive; there are if, else, endif, for and endfor"
                    " (a literal %{ is written %%{)",
                )
        return False

    def alternatives(self, opening: int, chosen: _If) -> _If:
        ended = self.until(chosen.yes)
        if ended is not None and self.word(ended) == "else":
            ended = self.until(chosen.no)
        self.closed_by("endif", opening, ended)
        return chosen

    def closed_by(self, word: str, opening: int, ended: int | None) -> None:
        if ended is None:
            raise self.unreadable(
                opening, f"this directive is not closed; close it with %{{ {word} }}"
            )
        if self.word(ended) != word:
            raise self.unreadable(
                ended, f'unexpected "{self.word(ended)}"; a %{{ {word} }} is missing before it'
            )


def _dedent(flat: list[_Text | None]) -> None:
    """
    Take the indentation off a ``<<-`` heredoc, as HashiCorp's HCL does.

    The smallest indentation of the lines that are not blank is removed.  A line
    that begins with an interpolation has none.  Blank lines stay as they are
    (``flushHeredocTemplateParts`` in hclsyntax).
    """
    leading: list[_Text] = []
    indentations: list[int] = []
    at_start = True
    for piece in flat:
        if at_start:
            at_start = False
            if piece is None:
                indentations.append(0)
            elif not (piece.text.endswith("\n") and not piece.text.strip()):
                leading.append(piece)
                indentations.append(len(piece.text) - len(piece.text.lstrip()))
        at_start = at_start or (piece is not None and piece.text.endswith("\n"))
    for piece in leading:
        piece.text = piece.text[min(indentations) :]


def _template(pieces: list[_Piece], at: Position) -> Expression:
    """:returns: the pieces as one expression that is a text."""
    parts: list[Expression] = []
    text = ""
    for piece in pieces:
        if isinstance(piece, _Text):
            text += piece.text
            continue
        if text:
            parts.append(Literal(text, at))
            text = ""
        parts.append(_part(piece))
    if text or not parts:
        parts.append(Literal(text, at))
    if len(parts) == 1 and isinstance(parts[0], Literal) and isinstance(parts[0].value, str):
        return parts[0]
    return Template(tuple(parts), at)


def _part(piece: _If | _For | Expression) -> Expression:
    match piece:
        case _If(at, condition, yes, no):
            return Conditional(condition, _template(yes, at), _template(no, at), at)
        case _For(at, key, value, source, body):
            result = _template(body, at)
            return For("text", key, value, source, None, result, None, False, at)
        case expression:
            return expression
