"""
The located tree of a configuration file, before anything in it is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal as Choice
from typing import TypeAlias

from attrs import frozen

from mtlsgate.errors import Position
from mtlsgate.text import shown


@frozen
class Literal:
    """
    A value as written.

    :ivar value: text, a number, a boolean, or None for ``null``.
    """

    value: str | int | float | bool | None
    at: Position


@frozen
class Template:
    """
    A string or heredoc with at least one interpolation or directive.

    :ivar parts: texts and expressions, in order; never a lone interpolation,
        which stands for itself.
    """

    parts: tuple[Expression, ...]
    at: Position


@frozen
class ListExpression:
    """``[a, b]``."""

    items: tuple[Expression, ...]
    at: Position


@frozen
class ObjectExpression:
    """
    ``{ key = value }``.

    :ivar items: keys and their values; a key that is a plain name is a literal.
    """

    items: tuple[tuple[Expression, Expression], ...]
    at: Position


@frozen
class Variable:
    """
    ``env.NAME`` or ``env["NAME"]``.

    :ivar name: the environment variable, as ``NAME``.
    """

    name: str
    at: Position


@frozen
class PeerField:
    """
    ``peer.NAME`` or ``peer["NAME"]``, which only some attributes take.

    :ivar name: the attribute of the client, as ``NAME``; whether it exists,
        `mtlsgate.config.peer` finds out.
    """

    name: str
    at: Position


@frozen
class ForVariable:
    """A variable that an enclosing ``for`` declares, or ``env`` before ``[``."""

    name: str
    at: Position


@frozen
class Call:
    """
    ``function(arguments)``; whether there is such a function, the evaluation
    finds out.

    :ivar spread: whether the last argument is followed by ``...``.
    """

    function: str
    arguments: tuple[Expression, ...]
    at: Position
    spread: bool = False


@frozen
class Step:
    """
    One ``.name`` or ``[key]`` after a value.

    :ivar key: what is looked up; a name is a literal.
    """

    key: Expression
    at: Position


@frozen
class Traversal:
    """
    A value followed by steps into it.

    :ivar root: the value.
    """

    root: Expression
    steps: tuple[Step, ...]
    at: Position


@frozen
class Splat:
    """
    ``list[*].name`` or ``list.*.name``.

    :ivar source: the list.
    :ivar steps: what is looked up in each of its items.
    """

    source: Expression
    steps: tuple[Step, ...]
    at: Position


@frozen
class Unary:
    """
    ``-a`` or ``!a``.

    :ivar operators: one or more, from left to right.
    """

    operators: str
    operand: Expression
    at: Position


@frozen
class Operation:
    """
    Operators of one precedence, as ``a + b - c``.

    :ivar first: the first operand.
    :ivar rest: each operator with the operand after it.
    """

    first: Expression
    rest: tuple[tuple[str, Expression], ...]
    at: Position


@frozen
class Conditional:
    """``condition ? yes : no``, and the template directive ``if``."""

    condition: Expression
    yes: Expression
    no: Expression
    at: Position


@frozen
class For:
    """
    A ``for`` expression, and the template directive ``for``.

    :ivar makes: what it builds.
    :ivar key: the variable that gets the index or key, or None.
    :ivar value: the variable that gets the item.
    :ivar source: what is iterated over.
    :ivar result_key: for an object, the key of each result.
    :ivar result: what is built of each item.
    :ivar condition: whether the item counts; None for always.
    :ivar grouped: whether results of one key are collected in a list.
    """

    makes: Choice["list", "object", "text"]
    key: str | None
    value: str
    source: Expression
    result_key: Expression | None
    result: Expression
    condition: Expression | None
    grouped: bool
    at: Position


@frozen
class Invalid:
    """
    Stands where an expression was refused.

    :ivar text: what is wrong with it.
    """

    at: Position
    text: str


Expression: TypeAlias = (
    Literal
    | Template
    | ListExpression
    | ObjectExpression
    | Variable
    | PeerField
    | ForVariable
    | Call
    | Traversal
    | Splat
    | Unary
    | Operation
    | Conditional
    | For
    | Invalid
)


def parts_of(expression: Expression) -> Iterator[Expression]:
    """Yield the expressions that an expression is made of."""
    match expression:
        case Template(parts=parts) | ListExpression(items=parts) | Call(arguments=parts):
            yield from parts
        case ObjectExpression(items=items):
            for key, value in items:
                yield from (key, value)
        case Traversal(root=first, steps=steps) | Splat(source=first, steps=steps):
            yield first
            yield from (step.key for step in steps)
        case Unary(operand=operand):
            yield operand
        case Operation(first=first, rest=rest):
            yield first
            yield from (operand for _, operand in rest)
        case Conditional(condition=condition, yes=yes, no=no):
            yield from (condition, yes, no)
        case For(source=source, result_key=key, result=result, condition=filtered):
            yield from (one for one in (source, key, result, filtered) if one is not None)


def all_of(expression: Expression) -> Iterator[Expression]:
    """Yield the expression and everything in it."""
    waiting = [expression]
    while waiting:
        one = waiting.pop()
        yield one
        waiting += parts_of(one)


@frozen
class Attribute:
    """
    ``name = expression``.

    :ivar at: where the name is.
    """

    name: str
    at: Position
    expression: Expression

    @property
    def is_empty_literal(self) -> bool:
        """Whether the value stands there as ``""``."""
        return isinstance(self.expression, Literal) and self.expression.value == ""


@frozen
class Block:
    """
    ``type "label" { ... }``.

    :ivar at: where the type is.
    """

    type: str
    labels: tuple[str, ...]
    at: Position
    body: Body

    @property
    def heading(self) -> str:
        """The block in one line, as ``client_certificate "IOT"``."""
        return heading(self.type, *self.labels)


@frozen
class Body:
    """
    What is in a block, or in the file.

    :ivar attributes: in order, no two of one name.
    :ivar blocks: in order, none with the name of an attribute.
    :ivar faults: what is wrong with its names and labels; whoever reads the
        body reports it.
    """

    attributes: tuple[Attribute, ...]
    blocks: tuple[Block, ...]
    faults: tuple[tuple[Position, str], ...] = ()


def heading(block: str, *labels: str) -> str:
    """:returns: a block's type and labels, as messages name it."""
    return " ".join([shown(block), *(f'"{shown(label)}"' for label in labels)])


def labelled(block: str, label: str | None) -> str:
    """:returns: the same for a block whose label is optional."""
    return heading(block) if label is None else heading(block, label)
