"""
HCL text to a located tree; the only importer of ``hcl2``.

The text is read in three steps.  :mod:`~mtlsgate.config.masking` makes
characters of bytes, and of these a text of the same shape in which strings,
heredocs and comments are blanked out.  ``hcl2`` parses that, and
:class:`_Reader` walks its tree and takes the strings from the original, at the
same offsets.

What HCL has and this module does not is refused, never guessed.
"""

from __future__ import annotations

import re
from math import isfinite
from typing import TYPE_CHECKING, TypeAlias

from attrs import evolve, frozen

from mtlsgate.config.masking import Mask, Source, UnreadableError, decode
from mtlsgate.config.tree import (
    Attribute,
    Block,
    Body,
    Call,
    Expression,
    Invalid,
    ListExpression,
    Literal,
    ObjectExpression,
    PeerField,
    Template,
    Variable,
    heading,
)
from mtlsgate.config.unexpected import unexpected
from mtlsgate.errors import START, Position, Report
from mtlsgate.text import shown

if TYPE_CHECKING:
    from lark import Token, Tree

    Node: TypeAlias = Tree[Token]

_SUPPORTED = (
    "supported are text, numbers, true, false, null, lists, objects, env.NAME and function calls"
)


def parse(data: bytes, report: Report) -> Body | None:
    """
    Read a configuration file.

    :param data: the file, UTF-8; a byte order mark and CRLF are fine.
    :param report: takes every problem found.  Expressions that were refused
        are :class:`Invalid` in the result.
    :returns: the tree, or None if the text cannot be read as a whole.
    """
    try:
        text = decode(data)
        tree = _tree(text)
    except UnreadableError as error:
        report.error(error.at, "syntax", error.text)
        return None
    return _Reader(Source(text), report, "configuration").body(_nodes(tree)[0])


# Masked text to lark's tree


def _tree(text: str) -> Node:
    masked = Mask(text).run()

    import hcl2
    from lark.exceptions import LarkError, UnexpectedInput

    try:
        tree: Node = hcl2.parses_to_tree(masked)
    except UnexpectedInput as error:
        raise unexpected(Source(text), masked, error) from None
    except (LarkError, RuntimeError):
        raise UnreadableError(START, "the file cannot be read; simplify it") from None
    return tree


# Lark's tree to ours

_IN_LITERAL = re.compile(
    r"""\\(?P<simple>[nrt"\\])
      | \\u(?P<short>[0-9A-Fa-f]{4})
      | \\U(?P<long>[0-9A-Fa-f]{8})
      | (?P<wrong>\\)
      | (?P<escaped>\$\$\{|%%\{)(?P<closed>(?:(?![$%]\{)[^}"\\])*\})?
      | (?P<directive>%\{)""",
    re.VERBOSE,
)
_SIMPLE = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\"}

_REFUSED = {
    "attr_splat_expr_term": "a splat",
    "binary_op": "an operator",
    "conditional": "a conditional",
    "for_object_expr": "a for expression",
    "for_tuple_expr": "a for expression",
    "full_splat_expr_term": "a splat",
    "get_attr_expr_term": "an attribute access",
    "index_expr_term": "an index",
}


@frozen
class _Reader:
    """
    Makes our tree of lark's.

    :ivar where: the heading of the block that is being read.
    """

    source: Source
    report: Report
    where: str

    def refuse(self, at: Position, text: str) -> Invalid:
        self.report.error(at, self.where, text)
        return Invalid(at)

    def at(self, node: Node) -> Position:
        return self.source.position(node.meta.start_pos)

    def body(self, tree: Node) -> Body:
        """The file, or what is between the braces of a block."""
        attributes: dict[str, Attribute] = {}
        blocks: list[Block] = []
        seen: dict[str, Attribute | Block] = {}
        for node in _nodes(tree):
            entry = self.attribute(node) if node.data == "attribute" else self.block(node)
            name = entry.type if isinstance(entry, Block) else entry.name
            first = seen.setdefault(name, entry)
            if type(first) is not type(entry):
                self.refuse(
                    entry.at,
                    f"{shown(name)} is an attribute and a block; remove one"
                    f" (the first is in line {first.at.line})",
                )
            elif isinstance(entry, Block):
                blocks.append(entry)
            elif first is entry:
                attributes[name] = entry
            else:
                self.refuse(
                    entry.at,
                    f"{shown(name)} is given twice; remove one"
                    f" (the first is in line {first.at.line})",
                )
        return Body(tuple(attributes.values()), tuple(blocks))

    def attribute(self, tree: Node) -> Attribute:
        name, value = _nodes(tree)
        return Attribute(_word(name), self.at(name), self.expression(value))

    def block(self, tree: Node) -> Block:
        name, *labels, body = _nodes(tree)
        texts = tuple(map(self.label, labels))
        inner = evolve(self, where=heading(_word(name), *texts))
        return Block(_word(name), texts, self.at(name), inner.body(body))

    def label(self, tree: Node) -> str:
        if tree.data != "string":
            return _word(tree)
        text = self.plain(tree, "a label is a name or a quoted string without ${ }")
        # A refused label stays unlike the others, so that nobody reports a duplicate.
        written = self.source.text[tree.meta.start_pos : tree.meta.end_pos]
        return written.partition("\n")[0].strip('"') if text is None else text

    def plain(self, tree: Node, otherwise: str) -> str | None:
        """The text of a quoted string that has no interpolation."""
        heredoc = self.source.text[tree.meta.start_pos] == "<"
        if heredoc or any(tree.find_data("interpolation")):
            self.refuse(self.at(tree), otherwise)
            return None
        value = self.string(tree)
        return str(value.value) if isinstance(value, Literal) else None

    def expression(self, tree: Node) -> Expression:
        at = self.at(tree)
        match str(tree.data):
            case "expr_term":
                return self.expression(_nodes(tree)[0])
            case "literal_value":
                return Literal({"true": True, "false": False, "null": None}[_word(tree)], at)
            case "int_lit" | "float_lit":
                return self.number(_word(tree), at)
            case "unary_op":
                return self.unary(tree, at)
            case "string":
                return self.string(tree)
            case "tuple":
                return ListExpression(tuple(map(self.expression, _nodes(tree))), at)
            case "object":
                return self.object(tree, at)
            case "function_call":
                return self.call(tree, at)
            case "get_attr_expr_term" | "index_expr_term":
                return self.variable(tree, at)
            case "identifier":
                return self.refuse(
                    at, f'a bare name is not a value; put text in "quotes"; {_SUPPORTED}'
                )
            case other:
                what = _REFUSED.get(other, "this")
                return self.refuse(at, f"{what} is not supported; {_SUPPORTED}")

    def number(self, text: str, at: Position) -> Expression:
        try:
            value = int(text) if text.lstrip("-").isdigit() else float(text)
            if isfinite(value):
                return Literal(value, at)
        except (ValueError, OverflowError):
            pass
        return self.refuse(at, "this number is too large; use a smaller one")

    def unary(self, tree: Node, at: Position) -> Expression:
        operator = str(tree.children[0])
        operand = self.expression(_nodes(tree)[0])
        match operand:
            case Invalid():
                return operand
            case Literal(value=int() | float() as value) if operator == "-" and not isinstance(
                value, bool
            ):
                return Literal(-value, at)
            case _:
                return self.refuse(
                    at, f'"{operator}" is only supported before a number, as "-"; {_SUPPORTED}'
                )

    def object(self, tree: Node, at: Position) -> Expression:
        items: dict[str, tuple[Literal, Expression]] = {}
        complete = True
        for element in _nodes(tree):
            key, value = _nodes(element)
            name, place, expression = self.key(key), self.at(key), self.expression(value)
            if name is None:
                complete = False
            elif name in items:
                line = items[name][0].at.line
                self.refuse(
                    place,
                    f"{shown(name)} is given twice in one object; remove one"
                    f" (the first is in line {line})",
                )
            else:
                items[name] = (Literal(name, place), expression)
        return ObjectExpression(tuple(items.values()), at) if complete else Invalid(at)

    def key(self, tree: Node) -> str | None:
        otherwise = "an object key is a name or a quoted string without ${ }"
        (node,) = _nodes(tree)
        if node.data == "expr_term" and len(node.children) == 1:
            (node,) = _nodes(node)
        if node.data in {"identifier", "keyword", "literal_value"}:
            return _word(node)
        if node.data == "string":
            return self.plain(node, otherwise)
        self.refuse(self.at(node), otherwise)
        return None

    def call(self, tree: Node, at: Position) -> Expression:
        name, *rest = _nodes(tree)
        if rest and rest[0].data == "identifier":
            return self.refuse(at, "a function has no namespace; remove what is up to the ::")
        if any(child == "..." for node in rest for child in node.children):
            return self.refuse(at, 'arguments cannot be spread with "..."; write them one by one')
        arguments = _nodes(rest[0]) if rest else []
        return Call(_word(name), tuple(map(self.expression, arguments)), at)

    def variable(self, tree: Node, at: Position) -> Expression:
        root, access = _nodes(tree)
        kinds: dict[str, type[Variable | PeerField]] = {"env": Variable, "peer": PeerField}
        names = [_word(node) for node in _nodes(root) if node.data == "identifier"]
        kind = kinds.get(names[0]) if len(names) == 1 else None
        if kind is not None:
            if access.data == "get_attr":
                return kind(_word(_nodes(access)[0]), at)
            if any(node.data == "string" for index in _nodes(access) for node in _nodes(index)):
                match self.expression(_nodes(access)[0]):
                    case Literal(value=str() as name):
                        return kind(name, at)
                    case Invalid():
                        return Invalid(at)
        what = _REFUSED[tree.data]
        return self.refuse(
            at,
            f'{what} is only supported as env.NAME or env["NAME"], and as peer.NAME where an '
            "attribute takes it",
        )

    def string(self, tree: Node) -> Expression:
        """A quoted string, or a heredoc, which is masked as one."""
        text, at = self.source.text, self.at(tree)
        start, end = tree.meta.start_pos + 1, tree.meta.end_pos - 1
        heredoc = text[start - 1] == "<"
        if heredoc:
            start, end = text.index("\n", start) + 1, text.rindex("\n", start - 1, end) + 1
        parts: list[str | Expression] = []
        for part in _nodes(tree):
            if interpolations := _nodes(part):
                parts.append(self.expression(_nodes(interpolations[0])[0]))
            elif stretch := text[
                (first := max(part.meta.start_pos, start)) : min(part.meta.end_pos, end)
            ]:
                parts.append(self.text(first, stretch, heredoc))
        if text.startswith("<<-", tree.meta.start_pos):
            parts = _dedent(parts)
        if all(isinstance(part, str) for part in parts):
            return Literal("".join(map(str, parts)), at)
        expressions = [Literal(part, at) if isinstance(part, str) else part for part in parts]
        return expressions[0] if len(expressions) == 1 else Template(tuple(expressions), at)

    def text(self, start: int, written: str, heredoc: bool) -> str | Invalid:
        """Resolve the escapes in a stretch of a string."""
        invalid: list[Invalid] = []

        def wrong(found: re.Match[str], text: str) -> str:
            invalid.append(self.refuse(self.source.position(start + found.start()), text))
            return ""

        def resolve(found: re.Match[str]) -> str:
            if found["directive"]:
                return wrong(
                    found, "template directives are not supported; a literal %{ is written %%{"
                )
            if found["escaped"]:
                if heredoc or found["closed"]:
                    return found.group()[1:]
                return wrong(
                    found,
                    f"{found['escaped']} takes plain text up to a }} in the same string;"
                    " move the text into a heredoc",
                )
            if heredoc:
                return found.group()
            if found["simple"]:
                return _SIMPLE[found["simple"]]
            code = int(found["short"] or found["long"] or "-1", 16)
            if found["wrong"] or 0xD800 <= code <= 0xDFFF or code > 0x10FFFF:
                return wrong(
                    found,
                    r"""this is not an escape; these are \n \r \t \" \\ \uNNNN \UNNNNNNNN"""
                    r" with a character of Unicode; a backslash is written \\",
                )
            return chr(code)

        text = _IN_LITERAL.sub(resolve, written)
        return invalid[0] if invalid else text


def _dedent(parts: list[str | Expression]) -> list[str | Expression]:
    """
    Take the indentation off a ``<<-`` heredoc, as HashiCorp's HCL does.

    What is taken is the smallest indentation of the lines that are not blank.
    An interpolation is not blank.  Blank lines stay as they are, and the line
    of the closing marker does not count (HCL Native Syntax Specification,
    "Template Expressions"; ``flushHeredocTemplateParts`` in hclsyntax).
    """
    # No file has a NUL in it, so that it can stand for the interpolations.
    whole = "".join(part if isinstance(part, str) else "\0" for part in parts)
    lines = whole.split("\n")
    cut = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    dedented = "\n".join(line[cut:] if line.strip() else line for line in lines)
    expressions = (part for part in parts if not isinstance(part, str))
    return [
        next(expressions) if piece == "\0" else piece
        for piece in re.split("(\0)", dedented)
        if piece
    ]


def _nodes(tree: Node) -> list[Node]:
    """The rules among the children, without line ends."""
    from lark import Tree

    return [
        child
        for child in tree.children
        if isinstance(child, Tree) and child.data != "new_line_or_comment"
    ]


def _word(tree: Node) -> str:
    """The only token of a rule."""
    return str(tree.children[0])
