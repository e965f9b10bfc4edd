"""
The located tree of a configuration file, before anything in it is evaluated.
"""

from __future__ import annotations

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
    A string or heredoc with at least one interpolation.

    :ivar parts: texts and expressions, in order; never a lone expression of a
        quoted string, which stands for itself.
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

    :ivar items: keys (always text, each once) and their values.
    """

    items: tuple[tuple[Literal, Expression], ...]
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

    :ivar name: the attribute of the client, as ``NAME``; whether there is such
        a one, `mtlsgate.config.peer` finds out.
    """

    name: str
    at: Position


@frozen
class Call:
    """
    ``function(arguments)``; whether there is such a function, the evaluation
    finds out.
    """

    function: str
    arguments: tuple[Expression, ...]
    at: Position


@frozen
class Invalid:
    """Stands where an expression was refused and reported."""

    at: Position


Expression: TypeAlias = (
    Literal | Template | ListExpression | ObjectExpression | Variable | PeerField | Call | Invalid
)


@frozen
class Attribute:
    """
    ``name = expression``.

    :ivar at: where the name is.
    """

    name: str
    at: Position
    expression: Expression


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
    """

    attributes: tuple[Attribute, ...]
    blocks: tuple[Block, ...]


def heading(block: str, *labels: str) -> str:
    """:returns: a block's type and labels, as messages name it."""
    return " ".join([shown(block), *(f'"{shown(label)}"' for label in labels)])


def labelled(block: str, label: str | None) -> str:
    """:returns: the same for a block whose label is optional."""
    return heading(block) if label is None else heading(block, label)
