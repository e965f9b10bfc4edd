"""
The trees of ``hcl2`` to expressions.

What stands for nothing here becomes `Invalid` and is reported only if somebody asks
for its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from typing import Protocol as Interface

from mtlsgate.config.bare_text import unknown_name
from mtlsgate.config.source import UnreadableError
from mtlsgate.config.template_syntax import TemplateReader
from mtlsgate.config.tokens import MAXIMUM_DEPTH, TOO_DEEP, Code
from mtlsgate.config.tree import (
    Call,
    Conditional,
    Expression,
    For,
    ForVariable,
    Invalid,
    ListExpression,
    Literal,
    ObjectExpression,
    Operation,
    PeerField,
    Splat,
    Step,
    Traversal,
    Unary,
    Variable,
)
from mtlsgate.config.unexpected import unexpected
from mtlsgate.errors import Position

if TYPE_CHECKING:
    from lark import Token, Tree

    Node: TypeAlias = Tree[Token]

_LEVELS = (("*", "/", "%"), ("+", "-"), ("<", ">", "<=", ">="), ("==", "!="), ("&&",), ("||",))
_LEVEL = {operator: level for level, operators in enumerate(_LEVELS) for operator in operators}
_LITERALS = {"true": True, "false": False, "null": None}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_LINKS = {
    "attr_splat_expr_term",
    "full_splat_expr_term",
    "get_attr_expr_term",
    "index_expr_term",
}


class ParsedExpression(NamedTuple):
    """
    What ``hcl2`` made of some tokens.

    :ivar node: the tree, or a part of it.
    :ivar base: the offset in the file of the text that it was made of.
    """

    node: Node
    base: int


class Parser(Interface):
    """Calls ``hcl2`` for what is in templates."""

    def expression(self, first: int, last: int, hint: str) -> ParsedExpression:
        """
        :param first: the first token.
        :param last: the token after the last.
        :param hint: what to do if it is over before that.
        :returns: the expression.
        """

    def introduction(self, first: int, last: int, hint: str) -> ParsedExpression:
        """:returns: the same for ``for NAME in LIST``."""


def children(node: Node) -> list[Node]:
    """:returns: the rules among the children of a node, without line ends."""
    return [
        child
        for child in node.children
        if not isinstance(child, str) and child.data != "new_line_or_comment"
    ]


def terminals(node: Node) -> list[Token]:
    """:returns: the terminals among the children of a node."""
    return [child for child in node.children if isinstance(child, str)]


class ExpressionReader:
    """
    Makes expressions of trees.

    :ivar code: the tokens that the trees were made of.
    """

    def __init__(self, code: Code, parser: Parser) -> None:
        self.code = code
        self._parser = parser
        self._names: list[str] = []
        self._depth = 0
        self._templates = TemplateReader(code, self)

    def read(self, parsed: ParsedExpression) -> Expression:
        """
        :returns: the expression that a tree is.
        :raises UnreadableError: if something in its templates is none.
        """
        return _Walk(self, parsed.base).expression(parsed.node)

    def expression(self, first: int, last: int, hint: str) -> Expression:
        """:returns: the expression that tokens of a template are."""
        return self.read(self._parser.expression(first, last, hint))

    def introduction(self, first: int, last: int, hint: str) -> tuple[str | None, str, Expression]:
        """:returns: the variables of a ``for`` and what it iterates over."""
        parsed = self._parser.introduction(first, last, hint)
        return _Walk(self, parsed.base).introduction(parsed.node)

    def template(self, index: int) -> Expression:
        """:returns: the quoted string or heredoc that a token begins."""
        return self._templates.template(index)

    @contextmanager
    def declaring(self, *names: str | None) -> Iterator[None]:
        """Let expressions see the variables of a ``for``."""
        declared = [name for name in names if name is not None]
        self._names += declared
        yield
        del self._names[len(self._names) - len(declared) :]

    @contextmanager
    def nested(self, index: int) -> Iterator[None]:
        """
        Count one level more of what nests without brackets.

        :raises UnreadableError: if that is one too many.
        """
        self._depth += 1
        if self._depth > MAXIMUM_DEPTH:
            raise self.code.source.unreadable(self.code.tokens[index].start, TOO_DEEP)
        yield
        self._depth -= 1

    def declares(self, name: str) -> bool:
        """:returns: whether a ``for`` around here declares a variable."""
        return name in self._names


class _Walk:
    """
    Walks one tree.

    :ivar base: the offset in the file of the text that it was made of.
    """

    def __init__(self, reader: ExpressionReader, base: int) -> None:
        self.reader = reader
        self.code = reader.code
        self.base = base

    def index(self, node: Node | Token) -> int:
        """:returns: the token that a part of the tree begins with."""
        start = node.start_pos if isinstance(node, str) else node.meta.start_pos
        assert start is not None
        written = self.code.source.text
        offset = start + self.base
        while written[offset] in " \t\n":
            # The grammar has blanks in its colons.
            offset += 1
        return self.code.index(offset)

    def at(self, node: Node | Token) -> Position:
        return self.code.at(self.index(node))

    def text(self, node: Node) -> str:
        return self.code.text(self.index(node))

    def unexpected(self, index: int, hint: str = "") -> UnreadableError:
        return unexpected(self.code, index, hint)

    def expression(self, node: Node) -> Expression:
        match str(node.data):
            case "conditional":
                return self.conditional(node)
            case "binary_op":
                return self.operation(node)
            case "unary_op":
                return self.unary(node)
        return self.steps(node)

    def conditional(self, node: Node) -> Expression:
        condition, yes, no = children(node)
        test = self.expression(condition)
        with self.reader.nested(self.index(terminals(node)[0])):
            return Conditional(test, self.expression(yes), self.expression(no), test.at)

    def operation(self, node: Node) -> Expression:
        """The grammar nests ``a + b + c`` to the left; here it is one operation."""
        operands: list[tuple[str, Node]] = []
        while node.data == "binary_op":
            node, term = children(node)
            sign, operand = children(term)
            operands.append((str(terminals(sign)[0]).strip(), operand))
        result = self.expression(node)
        rest: list[tuple[str, Expression]] = []
        level = _LEVEL[operands[-1][0]]
        for operator, right in reversed(operands):
            if _LEVEL[operator] != level:
                result, rest = Operation(result, tuple(rest), result.at), []
                level = _LEVEL[operator]
            rest.append((operator, self.expression(right)))
        return Operation(result, tuple(rest), result.at)

    def unary(self, node: Node) -> Expression:
        first = self.index(terminals(node)[0])
        operators, index = "", first
        while self.code.kind(index) in ("-", "!", "newline"):
            operators += self.code.text(index).strip()
            index += 1
        operand = self.expression(children(node)[0])
        match operators, operand:
            case "-", Literal(value=int() | float() as value) if not isinstance(value, bool):
                return Literal(-value, self.code.at(first))
        return Unary(operators, operand, self.code.at(first))

    # Terms

    def steps(self, node: Node) -> Expression:
        """A term and the ``.name``, ``[key]`` and splats after it."""
        whole, links = node, []
        while len(node.children) == 1 and (link := children(node)[0]).data in _LINKS:
            node, last = children(link)
            links.append(last)
        root = self.term(node)
        named = isinstance(root, ForVariable)
        steps: list[Step] = []
        splat = ""
        for link in reversed(links):
            if link.data not in ("attr_splat", "full_splat"):
                steps.append(self.step(link))
                continue
            if splat == "full_splat" or splat == link.data:
                raise self.unexpected(self.index(link) + 1, "; a name follows the dot")
            splat = str(link.data)
            source, steps = self.joined(root, steps), []
            inner = children(link)
            end = len(inner)
            if splat == "attr_splat":
                # An index after ``.*`` is one of the result.
                end = next(
                    (place for place, one in enumerate(inner) if one.data == "braces_index"), end
                )
            root = Splat(source, tuple(map(self.step, inner[:end])), source.at)
            steps += map(self.step, inner[end:])
        joined = self.joined(root, steps)
        return self.resolved(joined, whole) if named else joined

    def step(self, node: Node) -> Step:
        """``.name``, ``.0`` or ``[key]``."""
        first = self.index(node)
        at = self.code.at(first)
        if node.data == "braces_index":
            return Step(self.expression(children(node)[0]), at)
        name = self.code.after_newlines(first + 1)
        if self.code.kind(name) == "name":
            return Step(Literal(self.code.text(name), self.code.at(name)), at)
        if not self.code.text(name).isdecimal():
            raise self.unexpected(name, "; a name follows the dot")
        # The index of old, ``list.0``.
        return Step(self.number(name), at)

    def joined(self, root: Expression, steps: list[Step]) -> Expression:
        """The root with its steps; what is known as a variable becomes one."""
        free = isinstance(root, ForVariable) and not self.reader.declares(root.name)
        if isinstance(root, ForVariable) and root.name in ("env", "peer") and steps and free:
            first = steps[0].key
            if isinstance(first, Literal) and isinstance(first.value, str):
                kind = Variable if root.name == "env" else PeerField
                root, steps = kind(first.value, root.at), steps[1:]
        return Traversal(root, tuple(steps), root.at) if steps else root

    def resolved(self, whole: Expression, node: Node) -> Expression:
        """Refuse a name that stands for nothing, now that it is known to its end."""
        root = whole
        while isinstance(root, Traversal | Splat):
            root = root.root if isinstance(root, Traversal) else root.source
        if not isinstance(root, ForVariable) or self.reader.declares(root.name):
            return whole
        if root.name == "env" and whole is not root and isinstance(whole, Traversal):
            return whole
        start, end = node.meta.start_pos + self.base, node.meta.end_pos + self.base
        return Invalid(root.at, unknown_name(root.name, self.code.source.text[start:end].strip()))

    def term(self, node: Node) -> Expression:
        (inner,) = children(node)
        if len(node.children) > 1:
            # In parentheses; a name in them is not the beginning of env.NAME.
            return self.expression(inner)
        index = self.index(inner)
        at = self.code.at(index)
        match str(inner.data):
            case "int_lit":
                return self.number(index)
            case "string":
                return self.reader.template(index)
            case "literal_value":
                return Literal(_LITERALS[self.code.text(index)], at)
            case "identifier":
                return ForVariable(self.code.text(index), at)
            case "function_call":
                return self.call(inner)
            case "tuple":
                return ListExpression(tuple(map(self.expression, children(inner))), at)
            case "object":
                return self.object(inner)
        return self.comprehension(inner)

    def number(self, index: int) -> Expression:
        text, at = self.code.text(index), self.code.at(index)
        if not _NUMBER.fullmatch(text):
            return Invalid(at, 'this is not a number; put text in "quotes"')
        try:
            value = int(text) if text.isdecimal() else float(text)
            if isfinite(value):
                return Literal(value, at)
        except (ValueError, OverflowError):
            pass
        return Invalid(at, "this number is too large; use a smaller one")

    def call(self, node: Node) -> Expression:
        index = self.index(node)
        at = self.code.at(index)
        _, *rest = children(node)
        arguments = tuple(map(self.expression, children(rest[0]))) if rest else ()
        if self.code.kind(index + 1) == "::":
            return Invalid(at, "a function has no namespace; remove what is up to the ::")
        spread = any(token.type == "ELLIPSIS" for one in rest for token in terminals(one))
        return Call(self.code.text(index), arguments, at, spread)

    # Objects and for

    def object(self, node: Node) -> Expression:
        items: list[tuple[Expression, Expression]] = []
        for item in children(node):
            key, value = children(item)
            items.append((self.key(key), self.expression(value)))
        return ObjectExpression(tuple(items), self.at(node))

    def key(self, node: Node) -> Expression:
        """A plain name stands for itself as a key, and for nothing else."""
        index = self.index(node)
        if self.code.kind(index) == "name" and self.code.kind(index + 1) in ("=", ":"):
            return Literal(self.code.text(index), self.code.at(index))
        return self.expression(children(node)[0])

    def comprehension(self, node: Node) -> Expression:
        """``[for …]`` or ``{for …}``."""
        introduction, *results = children(node)
        condition = results.pop() if results[-1].data == "for_cond" else None
        name, value, source = self.introduction(introduction)
        with self.reader.declaring(name, value):
            first, *second = map(self.expression, results)
            tested = None if condition is None else self.expression(children(condition)[0])
        grouped = any(token.type == "ELLIPSIS" for token in terminals(node))
        at = self.at(node)
        if second:
            return For("object", name, value, source, first, second[0], tested, grouped, at)
        return For("list", name, value, source, None, first, tested, grouped, at)

    def introduction(self, node: Node) -> tuple[str | None, str, Expression]:
        """:returns: the variables of a ``for`` and what it iterates over."""
        *names, source = children(node)
        words = [self.text(name) for name in names]
        return (words[0] if len(words) == 2 else None), words[-1], self.expression(source)
