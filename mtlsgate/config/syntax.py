"""
HCL text to a located tree, by the grammar of ``hcl2``.

The text is read in four steps.  `mtlsgate.config.tokens` makes tokens of characters;
`mtlsgate.config.lines` checks what HashiCorp's HCL asks of lines and ``hcl2`` does
not; `mtlsgate.config.masking` writes the tokens as a text without names and strings,
in the dialect of ``hcl2``; and ``hcl2`` parses that.  This module makes attributes
and blocks of its tree, `mtlsgate.config.expression_tree` makes expressions of it, and
`mtlsgate.config.template_syntax` reads the strings, whose expressions go the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsgate.config.expression_tree import (
    ExpressionReader,
    ParsedExpression,
    children,
    terminals,
)
from mtlsgate.config.foreign import foreign_format
from mtlsgate.config.lines import Lines, read_lines
from mtlsgate.config.masking import mask
from mtlsgate.config.source import UnreadableError, decode
from mtlsgate.config.tokens import Code, scan
from mtlsgate.config.tree import Attribute, Block, Body, Expression, Invalid, Literal
from mtlsgate.config.unexpected import refused, unexpected
from mtlsgate.errors import Position, Report
from mtlsgate.text import shown

if TYPE_CHECKING:
    from mtlsgate.config.expression_tree import Node

#: How many trees of expressions in templates are kept for the next of the same shape.
_MAXIMUM_TREES = 1000


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
        code = scan(source)
        lines = read_lines(code)
        parser = _Parser(code, lines)
        return _BodyReader(code, lines, parser).body(parser.file())
    except UnreadableError as error:
        report.error(error.at, "syntax", error.text)
        return None


class _Parser:
    """Calls ``hcl2``, for the file and for the expressions in its templates."""

    def __init__(self, code: Code, lines: Lines) -> None:
        self.code = code
        self.lines = lines
        self.trees: dict[str, Node] = {}

    def file(self) -> Node:
        """
        :returns: the body that the file is.
        :raises UnreadableError: for what comes first of the errors of lines and grammar.
        """
        last = len(self.code.tokens) - 1
        fault = self.lines.fault
        try:
            tree = self.tree("", 0, last, "", "block", "")
        except UnreadableError as error:
            if fault is None or (error.at.line, error.at.column) < (fault.at.line, fault.at.column):
                raise
        if fault is not None:
            raise fault
        return children(tree)[0]

    def expression(self, first: int, last: int, hint: str) -> ParsedExpression:
        """
        :param first: the first token.
        :param last: the token after the last.
        :param hint: what to do if it is over before that.
        :returns: the expression.
        """
        tree = self.tree("x=(", first, last, ")", "(", hint)
        ((attribute,),) = map(children, children(tree))
        _, parentheses = children(attribute)
        return ParsedExpression(
            children(parentheses)[0], self.code.tokens[first].start - len("x=(")
        )

    def introduction(self, first: int, last: int, hint: str) -> ParsedExpression:
        """:returns: the same for ``for NAME in LIST``."""
        tree = self.tree("x=[", first, last, ":x]", "[", hint)
        ((attribute,),) = map(children, children(tree))
        _, term = children(attribute)
        parsed = ParsedExpression(
            children(children(term)[0])[0], self.code.tokens[first].start - len("x=[")
        )
        colon = (terminals(parsed.node)[-1].end_pos or 0) - 1 + parsed.base
        if colon < self.code.tokens[last].start:
            # The colon must be ours, not one of the person's.
            raise unexpected(self.code, self.code.index(colon), hint)
        return parsed

    def tree(self, before: str, first: int, last: int, after: str, kind: str, hint: str) -> Node:
        masked = mask(self.code, self.lines, first, last, kind)
        text = f"{before}{masked}{after}"
        if (known := self.trees.get(text)) is not None:
            return known

        # Only here, because the import takes a tenth of a second.
        import hcl2
        from lark.exceptions import LarkError, UnexpectedInput, UnexpectedToken

        tokens = self.code.tokens
        try:
            tree: Node = hcl2.parses_to_tree(text)
        except UnexpectedInput as error:
            ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
            place = len(text) if ended else int(error.pos_in_stream or 0)
            place = max(place - len(before), 0)
            # The grammar has blanks in some of its tokens.
            place += len(masked[place:]) - len(masked[place:].lstrip(" "))
            found = self.code.index(tokens[first].start + place)
            index = found if place < len(masked) else last
            raise refused(self.code, first, index, self.lines.blocks, kind, hint) from None
        except (LarkError, RuntimeError):
            raise self.code.source.unreadable(
                tokens[first].start, "this cannot be read; simplify it"
            ) from None
        if len(self.trees) < _MAXIMUM_TREES:
            self.trees[text] = tree
        return tree


class _BodyReader:
    """Makes attributes and blocks of the tree."""

    def __init__(self, code: Code, lines: Lines, parser: _Parser) -> None:
        self.code = code
        self.lines = lines
        self.base = code.tokens[0].start
        self.expressions = ExpressionReader(code, parser)

    def body(self, node: Node) -> Body:
        """The file, or what is between the braces of a block."""
        gathered = _Gathered()
        for item in children(node):
            if item.data == "attribute":
                gathered.attribute(self.attribute(item))
            else:
                gathered.block(self.block(item, gathered))
        return gathered.body()

    def index(self, node: Node) -> int:
        return self.code.index(node.meta.start_pos + self.base)

    def attribute(self, node: Node) -> Attribute:
        name, value = children(node)
        index = self.index(name)
        if (bare := self.lines.bare.get(index + 2)) is not None:
            expression: Expression = Invalid(self.code.at(index + 2), bare[1])
        else:
            expression = self.expressions.read(ParsedExpression(value, self.base))
        return Attribute(self.code.text(index), self.code.at(index), expression)

    def block(self, node: Node, outer: _Gathered) -> Block:
        name, *labels, body = children(node)
        index = self.index(name)
        texts = tuple(self.label(self.index(label), outer) for label in labels)
        return Block(self.code.text(index), texts, self.code.at(index), self.body(body))

    def label(self, index: int, outer: _Gathered) -> str:
        if self.code.kind(index) == "name":
            return self.code.text(index)
        match self.expressions.template(index):
            case Literal(value=str() as text):
                return text
            case Invalid(at, text):
                outer.fault(at, text)
            case _:
                text = "a label is a name or a quoted string without ${ }"
                outer.fault(self.code.at(index), text)
        # A refused label stays unlike the others, so that nobody reports a duplicate.
        return f" {self.code.tokens[index].start}"


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
