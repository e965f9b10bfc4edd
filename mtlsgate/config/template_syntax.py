"""
Tokens to templates: what is in quotes and heredocs.

Text, interpolations and directives come first as a list of pieces, because strip
markers and the indentation of ``<<-`` heredocs work on neighbours.  Then the pieces
become an expression.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, TypeAlias

from attrs import define, field

from mtlsgate.config.tree import Conditional, Expression, For, Invalid, Literal, Template
from mtlsgate.errors import Position

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from mtlsgate.config.stream import TokenStream
    from mtlsgate.config.tokens import Token

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

    def expression(self) -> Expression:
        """:returns: the expression that the next tokens are."""

    def introduction(self) -> tuple[str | None, str, Expression]:
        """:returns: the variables of a ``for`` and what it iterates over."""

    def declaring(self, *names: str | None) -> AbstractContextManager[None]:
        """Let expressions see the variables of a ``for``."""


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

    :ivar tokens: where they are read from.
    :ivar expressions: reads what is in their interpolations.
    """

    def __init__(self, tokens: TokenStream, expressions: Expressions) -> None:
        self.tokens = tokens
        self.expressions = expressions

    def template(self) -> Expression:
        """:returns: the template that the next token, a quote or ``<<``, begins."""
        opening = self.tokens.read()
        at = self.tokens.at(opening)
        pieces = _Pieces(self.tokens, self.expressions, in_heredoc=opening.kind == "heredoc")
        parts = pieces.read()
        if self.tokens.text(opening).startswith("<<-"):
            _dedent(pieces.flat)
        if len(parts) == 1 and not isinstance(parts[0], _Text | _If | _For):
            # What an interpolation makes empty was not written as an empty literal.
            empty = isinstance(parts[0], Literal) and parts[0].value == ""
            return Template((parts[0],), at) if empty else parts[0]
        return _template(parts, at)


class _Pieces:
    """
    The pieces of one template.

    :ivar flat: its texts, in order, with None for everything between them.
    """

    def __init__(self, tokens: TokenStream, expressions: Expressions, *, in_heredoc: bool) -> None:
        self.tokens = tokens
        self.expressions = expressions
        self.in_heredoc = in_heredoc
        self.end = "end heredoc" if in_heredoc else "end quote"
        self.flat: list[_Text | None] = []
        self.strip_next = False

    def read(self) -> list[_Piece]:
        """:returns: all pieces up to the end of the template."""
        parts: list[_Piece] = []
        ended = self.until(parts)
        if ended is not None:
            token, word = ended
            raise self.tokens.source.unreadable(
                token.start, f'unexpected "{word}"; no directive is open that it belongs to'
            )
        return parts

    def until(self, parts: list[_Piece]) -> tuple[Token, str] | None:
        """
        Read pieces up to an ``else``, ``endif`` or ``endfor``, or to the end.

        :returns: the directive that ended it, or None at the template's end.
        """
        while True:
            token = self.tokens.read()
            if token.kind == self.end:
                return None
            if token.kind == "text":
                parts.append(self.text(token))
                continue
            self.strip_before(token)
            if token.kind == "${":
                with self.tokens.newlines(skipped=True):
                    parts.append(self.expressions.expression())
                    self.finish(_LITERAL_INTERPOLATION)
            elif word := self.directive(token, parts):
                return token, word

    def text(self, token: Token) -> _Piece:
        written, strip = self.tokens.text(token), self.strip_next
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
                at = self.tokens.source.position(token.start + found.start())
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

    def strip_before(self, token: Token) -> None:
        if token.end - token.start == 3 and self.flat and (before := self.flat[-1]) is not None:
            before.text = before.text.rstrip()
        self.flat.append(None)
        self.strip_next = False

    def finish(self, hint: str) -> None:
        """Read the end of an interpolation or directive."""
        end = self.tokens.expect("end template", hint)
        self.strip_next = end.end - end.start == 2

    def directive(self, token: Token, parts: list[_Piece]) -> str | None:
        """:returns: the directive's name, if it ends what another began."""
        at = self.tokens.at(token)
        with self.tokens.newlines(skipped=True):
            name = self.tokens.expect("name", _LITERAL_DIRECTIVE)
            word = self.tokens.text(name)
            if word == "if":
                condition = self.expressions.expression()
            elif word == "for":
                key, value, source = self.expressions.introduction()
            elif word not in ("else", "endif", "endfor"):
                raise self.tokens.source.unreadable(
                    name.start,
                    "there is no such directive; there are if, else, endif, for and endfor"
                    " (a literal %{ is written %%{)",
                )
            self.finish(_LITERAL_DIRECTIVE)
        if word == "if":
            with self.tokens.nested(token):
                parts.append(self.alternatives(token, _If(at, condition)))
        elif word == "for":
            with self.tokens.nested(token), self.expressions.declaring(key, value):
                repeated = _For(at, key, value, source)
                self.closed_by("endfor", token, self.until(repeated.body))
                parts.append(repeated)
        else:
            return word
        return None

    def alternatives(self, token: Token, chosen: _If) -> _If:
        ended = self.until(chosen.yes)
        if ended is not None and ended[1] == "else":
            ended = self.until(chosen.no)
        self.closed_by("endif", token, ended)
        return chosen

    def closed_by(self, word: str, opening: Token, ended: tuple[Token, str] | None) -> None:
        if ended is None:
            raise self.tokens.source.unreadable(
                opening.start, f"this directive is not closed; close it with %{{ {word} }}"
            )
        if ended[1] != word:
            raise self.tokens.source.unreadable(
                ended[0].start, f'unexpected "{ended[1]}"; a %{{ {word} }} is missing before it'
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
