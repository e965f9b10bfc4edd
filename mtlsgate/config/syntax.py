"""
HCL text to a located tree.

The text is read in three steps: `mtlsgate.config.tokens` makes tokens of
characters, `mtlsgate.config.expression_syntax` and
`mtlsgate.config.template_syntax` make expressions of tokens, and this module
makes attributes and blocks of both.  The grammar is HashiCorp's (HCL Native
Syntax Specification); what it does not allow is refused.
"""

from __future__ import annotations

import re

from mtlsgate.config.expression_syntax import ExpressionReader
from mtlsgate.config.foreign import foreign_format
from mtlsgate.config.source import Source, UnreadableError, decode
from mtlsgate.config.tokens import Token
from mtlsgate.config.tree import Attribute, Block, Body, Expression, Invalid, Literal
from mtlsgate.errors import Position, Report
from mtlsgate.text import looks_secret, quoted, shown

_AFTER_NAME = '; after a name comes "=" and a value, or "{" and a block'
_BRACE = '; the "{" of a block stands on the line of its name'
_ONE_LINE = "; a block on one line holds one attribute; put each on a line of its own"
_OWN_LINE = "; each attribute and block begins on a line of its own"


def parse(data: bytes, report: Report, path: str = "") -> Body | None:
    """
    Read a configuration file.

    :param data: the file, UTF-8; a byte order mark and CRLF are fine.
    :param report: gets the problem, if the text cannot be read as a whole.
        Expressions that stand for nothing are `Invalid` in the result, and wrong
        names and labels are `Body.faults`: whoever asks for them reports them.
    :param path: the file, where the configuration is made of several.
    :returns: the tree, or None if the text cannot be read as a whole.
    """
    try:
        source = decode(data, path)
        if (found := foreign_format(source.text)) is not None:
            raise source.unreadable(*found)
        return _BodyReader(source).file()
    except UnreadableError as error:
        report.error(error.at, "syntax", error.text)
        return None


class _BodyReader:
    """Makes attributes and blocks of tokens."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.expressions = ExpressionReader(source)
        self.tokens = self.expressions.tokens

    def file(self) -> Body:
        body = self.body("end")
        self.tokens.expect("end")
        return body

    def body(self, end: str) -> Body:
        """What stands up to the end of the file, or the ``}`` of a block."""
        gathered = _Gathered()
        while self.tokens.peek().kind != end:
            if self.tokens.take("newline"):
                continue
            name = self.name()
            if self.tokens.take("="):
                gathered.attribute(self.attribute(name))
                self.end_of_line("attribute")
            else:
                gathered.block(self.block(name, gathered))
                self.end_of_line("block")
        return gathered.body()

    def name(self) -> Token:
        token = self.tokens.peek()
        if token.kind == "quote":
            raise self.tokens.unexpected("; names are written without quotes")
        return self.tokens.expect("name")

    def end_of_line(self, what: str) -> None:
        token = self.tokens.peek()
        if token.kind in ("newline", "end"):
            return
        if token.kind == ",":
            raise self.tokens.unexpected("; attributes end with their line, without a comma")
        if token.kind == "name" or what == "block":
            raise self.tokens.unexpected(_OWN_LINE)
        raise self.tokens.unexpected()

    def attribute(self, name: Token) -> Attribute:
        return Attribute(self.tokens.text(name), self.tokens.at(name), self.value())

    def value(self) -> Expression:
        start = self.tokens.peek().start
        line = self.source.text[start : self.source.end_of_line(start)]
        if line.startswith("-----BEGIN "):
            raise self.source.unreadable(
                start, "PEM is text: put it into a heredoc, or into a file that you name"
            )
        if (bare := _bare_text(line)) is None:
            return self.expressions.expression()
        while self.tokens.peek().kind not in ("newline", "end", "}"):
            self.tokens.read()
        return Invalid(self.source.position(start), bare)

    def block(self, name: Token, outer: _Gathered) -> Block:
        labels: list[str] = []
        while (token := self.tokens.peek()).kind != "{":
            if token.kind == "name":
                labels.append(self.tokens.text(self.tokens.read()))
            elif token.kind == "quote":
                labels.append(self.label(outer))
            elif token.kind == "newline" and self.tokens.after_newlines() == "{":
                raise self.source.unreadable(token.start, f"unexpected end of line{_BRACE}")
            else:
                raise self.tokens.unexpected(_AFTER_NAME)
        self.tokens.read()
        if self.tokens.peek().kind in ("newline", "}", "end"):
            body = self.body("}")
        else:
            body = self.single_attribute()
        self.tokens.expect("}")
        return Block(self.tokens.text(name), tuple(labels), self.tokens.at(name), body)

    def single_attribute(self) -> Body:
        """What stands between the braces of a block on one line."""
        name = self.name()
        if self.tokens.peek().kind in ("{", "name", "quote"):
            raise self.tokens.unexpected(_ONE_LINE)
        self.tokens.expect("=", _AFTER_NAME)
        attribute = self.attribute(name)
        token = self.tokens.peek()
        if token.kind == "newline":
            raise self.tokens.unexpected("; close this block on the line on which it begins")
        if token.kind != "}":
            raise self.tokens.unexpected(_ONE_LINE)
        return Body((attribute,), ())

    def label(self, outer: _Gathered) -> str:
        token = self.tokens.peek()
        match self.expressions.string():
            case Literal(value=str() as text):
                return text
            case Invalid(at, text):
                outer.fault(at, text)
            case _:
                text = "a label is a name or a quoted string without ${ }"
                outer.fault(self.tokens.at(token), text)
        # A refused label stays unlike the others, so that nobody reports a duplicate.
        return self.tokens.text(token).strip('"') + f" {token.start}"


class _Gathered:
    """The attributes and blocks of one body, and what is wrong with their names."""

    def __init__(self) -> None:
        self.attributes: list[Attribute] = []
        self.blocks: list[Block] = []
        self.faults: list[tuple[Position, str]] = []
        self.seen: dict[str, Attribute | Block] = {}

    def fault(self, at: Position, text: str) -> None:
        self.faults.append((at, text))

    def attribute(self, one: Attribute) -> None:
        first = self.seen.setdefault(one.name, one)
        if first is one:
            self.attributes.append(one)
        elif isinstance(first, Block):
            self.mixed(one.name, one.at, first)
        else:
            self.fault(
                one.at,
                f"{shown(one.name)} is given twice; remove one"
                f" (the first is in line {first.at.line})",
            )

    def block(self, one: Block) -> None:
        first = self.seen.setdefault(one.type, one)
        if isinstance(first, Block):
            self.blocks.append(one)
        else:
            self.mixed(one.type, one.at, first)

    def mixed(self, name: str, at: Position, first: Attribute | Block) -> None:
        self.fault(
            at,
            f"{shown(name)} is an attribute and a block; remove one"
            f" (the first is in line {first.at.line})",
        )

    def body(self) -> Body:
        return Body(tuple(self.attributes), tuple(self.blocks), tuple(self.faults))


_BARE = re.compile(r"[\w./:~@$*\\+-]+")
_NUMBER = r"\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_ARITHMETIC = re.compile(rf"[-+*/]*{_NUMBER}(?:[-+*/]+{_NUMBER})*")
#: What the expressions know more of: a name, a literal, a path of names.
_NAME = re.compile(r"[-]*[^\W\d][\w-]*(\.[^\W\d][\w-]*)*")


def _bare_text(line: str) -> str | None:
    """
    :param line: from the beginning of a value to the end of its line.
    :returns: what is wrong with it, if it is text without quotes.
    """
    found = _BARE.match(line)
    if found is None or line.startswith(("env.", "peer.", "//")):
        return None
    text, rest = found.group(), line[found.end() :].strip()
    semicolon = rest.startswith(";")
    if rest.removeprefix(";").lstrip() and not rest.removeprefix(";").lstrip().startswith(
        ("#", "//")
    ):
        return None
    if _ARITHMETIC.fullmatch(text) or (not semicolon and _NAME.fullmatch(text)):
        return None
    remedy = 'put text in "quotes"' if looks_secret(text) else f"put text in quotes: {quoted(text)}"
    nginx = ' (and there is no ";" in HCL)' if semicolon else ""
    return f"this is not a value; {remedy}{nginx}"
