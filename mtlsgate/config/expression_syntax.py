"""
Tokens to expressions, by the grammar of the HCL native syntax specification.

What is not HCL raises `UnreadableError`.  What is HCL, but stands for nothing
here, becomes `Invalid` and is reported only if somebody asks for its value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Literal as Choice

from mtlsgate.config.source import Source
from mtlsgate.config.stream import TokenStream
from mtlsgate.config.template_syntax import TemplateReader
from mtlsgate.config.tokens import Token
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
from mtlsgate.errors import Position
from mtlsgate.text import looks_secret, quoted

#: From the tightest to the loosest.
_PRECEDENCE = (("*", "/", "%"), ("+", "-"), ("<", ">", "<=", ">="), ("==", "!="), ("&&",), ("||",))
_OPERATORS = frozenset(operator for level in _PRECEDENCE for operator in level)
_LITERALS = {"true": True, "false": False, "null": None}
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_COMMA = '; a "," may be missing'
_MISSING = "; a value is missing"
_IN_QUOTES = '; put text in "quotes"'


class ExpressionReader:
    """
    Reads expressions off tokens.

    :ivar tokens: where they are read from.
    """

    def __init__(self, source: Source) -> None:
        self.tokens = TokenStream(source)
        self._templates = TemplateReader(self.tokens, self)
        self._names: list[str] = []

    @contextmanager
    def declaring(self, *names: str | None) -> Iterator[None]:
        """Let expressions see the variables of a ``for``."""
        declared = [name for name in names if name is not None]
        self._names += declared
        yield
        del self._names[len(self._names) - len(declared) :]

    def expression(self) -> Expression:
        """
        :returns: the expression that the next tokens are.
        :raises UnreadableError: if they are none.
        """
        condition = self._operation()
        question = self.tokens.take("?")
        if question is None:
            return condition
        with self.tokens.nested(question):
            yes = self.expression()
            self.tokens.expect(":", "; a conditional is written condition ? yes : no")
            no = self.expression()
        return Conditional(condition, yes, no, condition.at)

    def string(self) -> Expression:
        """:returns: the quoted string or heredoc that the next token begins."""
        return self._templates.template()

    def _operation(self) -> Expression:
        """Operands with operators between them, grouped from the tightest operators on."""
        operands: list[tuple[str, Expression]] = [("", self._unary())]
        while (kind := self.tokens.peek().kind) in _OPERATORS:
            self.tokens.read()
            operands.append((kind, self._unary()))
        for level in _PRECEDENCE if len(operands) > 1 else ():
            groups: list[tuple[str, Expression, list[tuple[str, Expression]]]] = []
            for operator, operand in operands:
                if operator in level:
                    groups[-1][2].append((operator, operand))
                else:
                    groups.append((operator, operand, []))
            operands = [
                (operator, Operation(first, tuple(rest), first.at) if rest else first)
                for operator, first, rest in groups
            ]
        return operands[0][1]

    def _unary(self) -> Expression:
        at = self.tokens.at(self.tokens.peek())
        operators = ""
        while found := self.tokens.take("-") or self.tokens.take("!"):
            operators += found.kind
        operand = self._steps(self.tokens.peek())
        match operators, operand:
            case "", _:
                return operand
            case "-", Literal(value=int() | float() as value) if not isinstance(value, bool):
                return Literal(-value, at)
            case _:
                return Unary(operators, operand, at)

    # Terms

    def _steps(self, start: Token) -> Expression:
        """A term and the ``.name``, ``[key]`` and splats after it."""
        root = self._term()
        named = isinstance(root, ForVariable)
        steps: list[Step] = []
        while True:
            if dot := self.tokens.take("."):
                if self.tokens.take("*"):
                    root, steps = self._attribute_splat(self._joined(root, steps)), []
                else:
                    steps.append(self._attribute(dot))
            elif self.tokens.peek().kind == "[":
                bracket = self.tokens.read()
                with self.tokens.newlines(skipped=True):
                    if self.tokens.take("*"):
                        self.tokens.expect("]")
                        inner: list[Step] | None = None
                    else:
                        inner = [Step(self.expression(), self.tokens.at(bracket))]
                        self.tokens.expect("]", _COMMA)
                if inner is None:
                    root, steps = self._full_splat(self._joined(root, steps)), []
                else:
                    steps += inner
            else:
                break
        whole = self._joined(root, steps)
        return self._resolved(whole, start) if named else whole

    def _joined(self, root: Expression, steps: list[Step]) -> Expression:
        """The root with its steps; what is known as a variable becomes one."""
        free = isinstance(root, ForVariable) and root.name not in self._names
        if isinstance(root, ForVariable) and root.name in ("env", "peer") and steps and free:
            first = steps[0].key
            if isinstance(first, Literal) and isinstance(first.value, str):
                kind = Variable if root.name == "env" else PeerField
                root, steps = kind(first.value, root.at), steps[1:]
        return Traversal(root, tuple(steps), root.at) if steps else root

    def _attribute(self, dot: Token) -> Step:
        token = self.tokens.peek()
        at = self.tokens.at(dot)
        if token.kind == "number" and self.tokens.text(token).isdecimal():
            # The index of old, ``list.0``.
            self.tokens.read()
            return Step(self._number(token), at)
        name = self.tokens.expect("name", "; a name follows the dot")
        return Step(Literal(self.tokens.text(name), self.tokens.at(name)), at)

    def _attribute_splat(self, source: Expression) -> Expression:
        steps = []
        while dot := self.tokens.take("."):
            steps.append(self._attribute(dot))
        return Splat(source, tuple(steps), source.at)

    def _full_splat(self, source: Expression) -> Expression:
        steps = []
        while True:
            if dot := self.tokens.take("."):
                steps.append(self._attribute(dot))
            elif bracket := self.tokens.take("["):
                with self.tokens.newlines(skipped=True):
                    steps.append(Step(self.expression(), self.tokens.at(bracket)))
                    self.tokens.expect("]", _COMMA)
            else:
                return Splat(source, tuple(steps), source.at)

    def _resolved(self, whole: Expression, start: Token) -> Expression:
        """Refuse a name that stands for nothing, now that it is known to its end."""
        root = whole
        while isinstance(root, Traversal | Splat):
            root = root.root if isinstance(root, Traversal) else root.source
        if not isinstance(root, ForVariable) or root.name in self._names:
            return whole
        if root.name == "env" and whole is not root and isinstance(whole, Traversal):
            return whole
        end = self.tokens.peek().start
        written = self.tokens.source.text[start.start : end].strip()
        return Invalid(root.at, _unknown(root.name, written))

    def _term(self) -> Expression:
        token = self.tokens.peek()
        at = self.tokens.at(token)
        match token.kind:
            case "number":
                return self._number(self.tokens.read())
            case "name":
                return self._name(self.tokens.read(), at)
            case "quote" | "heredoc":
                return self._templates.template()
            case "(":
                self.tokens.read()
                with self.tokens.newlines(skipped=True):
                    inner = self.expression()
                    self.tokens.expect(")", _COMMA)
                # A name in parentheses is not the beginning of env.NAME.
                return inner
            case "[":
                return self._list(at)
            case "{":
                return self._object(at)
            case "newline" | "end":
                raise self.tokens.unexpected(_MISSING)
            case "*" | "/" | "." | "<" | "stray":
                raise self.tokens.unexpected(_IN_QUOTES)
        raise self.tokens.unexpected()

    def _number(self, token: Token) -> Expression:
        text, at = self.tokens.text(token), self.tokens.at(token)
        if not _NUMBER.fullmatch(text):
            return Invalid(at, 'this is not a number; put text in "quotes"')
        try:
            value = int(text) if text.isdecimal() else float(text)
            if isfinite(value):
                return Literal(value, at)
        except (ValueError, OverflowError):
            pass
        return Invalid(at, "this number is too large; use a smaller one")

    def _name(self, token: Token, at: Position) -> Expression:
        name = self.tokens.text(token)
        if self.tokens.peek().kind in ("(", "::"):
            return self._call(name, at)
        return Literal(_LITERALS[name], at) if name in _LITERALS else ForVariable(name, at)

    def _call(self, name: str, at: Position) -> Expression:
        namespaced = False
        while self.tokens.take("::"):
            namespaced = True
            self.tokens.expect("name")
        self.tokens.expect("(")
        arguments: list[Expression] = []
        spread = False
        with self.tokens.newlines(skipped=True):
            while self.tokens.peek().kind != ")" and not spread:
                arguments.append(self.expression())
                spread = self.tokens.take("...") is not None
                if spread or not self.tokens.take(","):
                    break
            self.tokens.expect(")", _COMMA)
        if namespaced:
            return Invalid(at, "a function has no namespace; remove what is up to the ::")
        return Call(name, tuple(arguments), at, spread)

    # Lists, objects and for

    def _list(self, at: Position) -> Expression:
        self.tokens.read()
        with self.tokens.newlines(skipped=True):
            if self.tokens.is_word("for"):
                return self._for("list", at, "]")
            items: list[Expression] = []
            while self.tokens.peek().kind != "]":
                items.append(self.expression())
                if not self.tokens.take(","):
                    break
            self.tokens.expect("]", _COMMA)
        return ListExpression(tuple(items), at)

    def _object(self, at: Position) -> Expression:
        self.tokens.read()
        with self.tokens.newlines(skipped=True):
            if self.tokens.is_word("for"):
                return self._for("object", at, "}")
        items: list[tuple[Expression, Expression]] = []
        with self.tokens.newlines(skipped=False):
            while True:
                while self.tokens.take("newline"):
                    pass
                if self.tokens.take("}"):
                    return ObjectExpression(tuple(items), at)
                key = self._key()
                if not (self.tokens.take("=") or self.tokens.take(":")):
                    raise self.tokens.unexpected('; after a key comes "=" and a value')
                items.append((key, self.expression()))
                if self.tokens.peek().kind not in (",", "newline", "}"):
                    raise self.tokens.unexpected('; a "," or a line end may be missing')
                self.tokens.take(",")

    def _key(self) -> Expression:
        """A plain name stands for itself as a key, and for nothing else."""
        token = self.tokens.peek()
        if token.kind == "name" and self.tokens.second() in ("=", ":"):
            return Literal(self.tokens.text(self.tokens.read()), self.tokens.at(token))
        return self.expression()

    def _for(self, makes: Choice["list", "object"], at: Position, closer: str) -> Expression:
        self.tokens.read()
        key, value, source = self.introduction()
        self.tokens.expect(":", '; a ":" follows what is iterated over')
        with self.declaring(key, value):
            result_key, result = None, self.expression()
            arrow = self.tokens.peek()
            if self.tokens.take("=>"):
                result_key, result = result, self.expression()
            grouped = self.tokens.take("...")
            condition = self.expression() if self.tokens.take_word("if") else None
        self.tokens.expect(closer)
        if makes == "list" and result_key is not None:
            raise self.tokens.source.unreadable(
                arrow.start, 'unexpected "=>"; a for in { } makes an object'
            )
        if makes == "list" and grouped:
            raise self.tokens.source.unreadable(
                grouped.start, 'unexpected "..."; only a for in { } groups'
            )
        if makes == "object" and result_key is None:
            raise self.tokens.source.unreadable(
                arrow.start, "a for in { } needs a key and a value: key => value"
            )
        return For(makes, key, value, source, result_key, result, condition, bool(grouped), at)

    def introduction(self) -> tuple[str | None, str, Expression]:
        """:returns: the variables of a ``for`` and what it iterates over."""
        hint = "; for is followed by a name, or two with a comma between them"
        key, value = None, self.tokens.text(self.tokens.expect("name", hint))
        if self.tokens.take(","):
            key, value = value, self.tokens.text(self.tokens.expect("name", hint))
        if not self.tokens.take_word("in"):
            raise self.tokens.unexpected('; "in" follows the names of a for')
        return key, value, self.expression()


def _unknown(name: str, written: str) -> str:
    if name == "env":
        return 'env stands for all variables; name one, as env.NAME or env["NAME"]'
    if name == "peer":
        return "peer stands for the client; name an attribute, as peer.common_name"
    if name.lower() in ("yes", "no", "on", "off", "true", "false"):
        return "this is not a value; write true or false"
    if name.lower() in ("nil", "none", "undefined"):
        return "this is not a value; write null, or remove the attribute"
    if looks_secret(written) or "\n" in written or len(written) > 60:
        return 'a bare name is not a value; put text in "quotes"'
    if re.fullmatch(r"[A-Z][A-Z0-9_]*", written):
        return f"there is no {written}; an environment variable is written env.{written}"
    if name in ("var", "local", "request", "backend_responses", "couper"):
        return f"there is no {name} here; what a value may depend on is env.NAME"
    if re.fullmatch(r"[\w.-]+", written):
        return f"a bare name is not a value; put text in quotes: {quoted(written)}"
    return 'a bare name is not a value; put text in "quotes"'
