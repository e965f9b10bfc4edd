"""
Expressions whose value depends on the client: ``peer.NAME``.

They are checked when the configuration is loaded, and all that does not depend on
the client is evaluated then.  What is left cannot fail while the gate runs.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias

from attrs import field, frozen

from mtlsgate.config.expressions import Scope, evaluate
from mtlsgate.config.tree import (
    Call,
    Expression,
    ListExpression,
    Literal,
    ObjectExpression,
    PeerField,
    Step,
    Template,
    Traversal,
    all_of,
)
from mtlsgate.config.values import ExpressionErrors, Fault, joined
from mtlsgate.errors import Position, did_you_mean
from mtlsgate.text import address_text, shown

#: What an expression stands for, once the client is known.
Rendered: TypeAlias = "str | tuple[str, ...] | None"
Kind = typing.Literal["text", "list"]

#: The attributes of `IVerifiedPeer` that have a text, or a list of them.
PEER_FIELDS: Mapping[str, Kind] = MappingProxyType(
    {
        "address": "text",
        "alpn": "text",
        "cipher": "text",
        "common_name": "text",
        "dns_names": "list",
        "email_addresses": "list",
        "group": "text",
        "ip_addresses": "list",
        "issuer": "text",
        "not_after": "text",
        "not_before": "text",
        "resumed": "text",
        "rule": "text",
        "serial": "text",
        "server_name": "text",
        "sha256": "text",
        "spiffe_id": "text",
        "subject": "text",
        "tls_version": "text",
        "uris": "list",
    }
)
_CERTIFICATES = ("leaf", "path")
#: Has texts by names that only the registry knows.
_ATTRIBUTES = "attributes"
_CONVERSIONS: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "lower": str.lower,
        "to_lower": str.lower,
        "to_upper": str.upper,
        "trim": str.strip,
        "trimspace": str.strip,
        "upper": str.upper,
    }
)
_USAGES = {
    "coalesce": "coalesce(peer.NAME, fallback)",
    "default": "default(peer.NAME, fallback)",
    "join": "join(separator, list)",
    **{name: f"{name}(text)" for name in _CONVERSIONS},
}


def peer_value(peer: object, name: str) -> Rendered:
    """
    :param peer: an `IVerifiedPeer`, or None for a client without a certificate.
    :param name: one of `PEER_FIELDS`.
    :returns: the attribute as text, as `IVerifiedPeer.to_dict` has it: times as
        RFC 3339, the serial number in hex, the address as ``host:port``.
    """
    match None if peer is None else getattr(peer, name):
        case None | str() as value:
            return value
        case tuple() as values:
            return tuple(map(str, values))
        case bool(truth):
            return "true" if truth else "false"
        case int(number):
            return f"{number:x}"
        case datetime() as time:
            return time.isoformat()
        case address:
            return address_text(address)


@frozen
class PeerText:
    """
    Text, or a list of texts, that depends on the client.

    :ivar at: where it is written.
    """

    at: Position = field(eq=False)
    _node: _Node

    def of(self, peer: object) -> Rendered:
        """
        :param peer: the connection's `IVerifiedPeer`, or None.
        :returns: what the expression stands for: a text; a tuple where it is a
            list; None where it is, or as a template has a part that is, nothing.
        """
        return self._node.of(peer)

    @property
    def constant(self) -> bool:
        """Whether it is the same for all clients."""
        return isinstance(self._node, _Constant)


@frozen
class _Constant:
    value: Rendered

    def of(self, peer: object) -> Rendered:
        return self.value

    @property
    def kind(self) -> Kind:
        return "list" if isinstance(self.value, tuple) else "text"


@frozen
class _Field:
    name: str

    def of(self, peer: object) -> Rendered:
        return peer_value(peer, self.name)

    @property
    def kind(self) -> Kind:
        return PEER_FIELDS[self.name]


@frozen
class _Attribute:
    """What a registry knows of the client: ``peer.attributes.NAME``."""

    name: str
    kind: Kind = "text"

    def of(self, peer: object) -> Rendered:
        attributes: Mapping[str, str] = {} if peer is None else getattr(peer, _ATTRIBUTES)
        return attributes.get(self.name)


@frozen
class _Template:
    parts: tuple[_Node, ...]
    kind: Kind = "text"

    def of(self, peer: object) -> Rendered:
        texts = [part.of(peer) for part in self.parts]
        # Half a text may be somebody else's.
        return None if None in texts else "".join(map(str, texts))


@frozen
class _List:
    items: tuple[_Node, ...]
    kind: Kind = "list"

    def of(self, peer: object) -> Rendered:
        return tuple(str(text) for item in self.items if (text := item.of(peer)) is not None)


@frozen
class _Join:
    separator: _Node
    items: _Node
    kind: Kind = "text"

    def of(self, peer: object) -> Rendered:
        separator, items = self.separator.of(peer), self.items.of(peer)
        # As for an attribute: no names are nothing, and not an empty name.
        return str(separator).join(items) if separator is not None and items else None


@frozen
class _Converted:
    text: _Node
    conversion: Callable[[str], str]
    kind: Kind = "text"

    def of(self, peer: object) -> Rendered:
        text = self.text.of(peer)
        return None if text is None else self.conversion(str(text))


@frozen
class _Default:
    choices: tuple[_Node, ...]
    kind: Kind = "text"

    def of(self, peer: object) -> Rendered:
        values = [choice.of(peer) for choice in self.choices]
        return next((value for value in values if value not in (None, "")), values[-1])


_Node: TypeAlias = (
    _Constant | _Field | _Attribute | _Template | _List | _Join | _Converted | _Default
)


def peer_text(expression: Expression, scope: Scope, at: Position) -> PeerText:
    """
    :param expression: out of :func:`mtlsgate.config.syntax.parse`.
    :param scope: the environment and the files, for what does not depend on
        the client.
    :param at: where the attribute is written.
    :raises ExpressionErrors: with everything that is wrong in it.
    """
    compiler = _Compiler(scope)
    node = compiler.node(expression)
    if compiler.faults:
        raise ExpressionErrors(compiler.faults)
    return PeerText(at, node)


def _mentions_peer(expression: Expression) -> bool:
    return any(isinstance(one, PeerField) for one in all_of(expression))


class _Compiler:
    """
    Makes nodes of expressions, and notes what is wrong.

    :ivar faults: what that is.
    """

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.faults: list[Fault] = []

    def wrong(self, at: Position, text: str) -> _Node:
        self.faults.append(Fault(at, text))
        return _Constant(None)

    def node(self, expression: Expression) -> _Node:
        """:returns: the node; if it is in error, any."""
        if not _mentions_peer(expression):
            return self.constant(expression)
        match expression:
            case PeerField(name, at):
                return self.field(name, at)
            case Traversal(PeerField(name), (Step(Literal(str() as key)),)) if name == _ATTRIBUTES:
                return _Attribute(key)
            case Template(parts):
                return _Template(self.texts(parts, "a template", 'join(", ", …)'))
            case ListExpression(items):
                return _List(self.texts(items, "a list", 'join(", ", …)'))
            case Call():
                return self.call(expression)
            case ObjectExpression(at=at):
                return self.wrong(at, "an object has no text; use text or a list")
            case _:
                return self.wrong(
                    expression.at,
                    "operators, conditionals, for and indexes cannot depend on the client;"
                    " templates, lists and some functions can",
                )

    def constant(self, expression: Expression) -> _Node:
        try:
            value = evaluate(expression, self.scope)
            match value.data:
                case None:
                    return _Constant(None)
                case tuple(items):
                    return _Constant(tuple(joined([item], "a list here") for item in items))
                case dict():
                    return self.wrong(value.at, "an object has no text; use text or a list")
                case _:
                    return _Constant(joined([value], "text"))
        except ExpressionErrors as errors:
            self.faults += errors.faults
            return _Constant(None)

    def field(self, name: str, at: Position) -> _Node:
        if name in PEER_FIELDS:
            return _Field(name)
        if name in _CERTIFICATES:
            return self.wrong(at, f"peer.{name} is no text; there is peer.sha256 for a fingerprint")
        if name == _ATTRIBUTES:
            return self.wrong(at, "peer.attributes is no text; write peer.attributes.NAME")
        known = ", ".join((*PEER_FIELDS, "attributes.NAME"))
        hint = did_you_mean(name, PEER_FIELDS) or f"; there are {known}"
        return self.wrong(at, f"there is no peer.{shown(name)}{hint}")

    def texts(
        self, expressions: Iterable[Expression], where: str, instead: str
    ) -> tuple[_Node, ...]:
        nodes = []
        for one in expressions:
            node = self.node(one)
            if node.kind == "list":
                node = self.wrong(one.at, f"a list cannot be part of {where}; use {instead}")
            nodes.append(node)
        return tuple(nodes)

    def call(self, call: Call) -> _Node:
        name, arguments = call.function, call.arguments
        if name not in _USAGES:
            known = ", ".join(_USAGES)
            return self.wrong(
                call.at, f"{shown(name)} cannot depend on the client; the functions are {known}"
            )
        if call.spread:
            return self.wrong(call.at, '"..." cannot depend on the client')
        falls_back = name in ("coalesce", "default")
        nodes = [self.node(one) for one in self.settled(arguments, falls_back)]
        if falls_back:
            kinds = {node.kind for node in nodes if node != _Constant(None)}
            if len(kinds) > 1:
                return self.wrong(call.at, f"{name} takes texts or lists, not both")
            return _Default(tuple(nodes), kinds.pop() if kinds else "text")
        wanted: tuple[Kind, ...] = ("text", "list") if name == "join" else ("text",)
        if len(nodes) != len(wanted):
            return self.wrong(call.at, f"write {_USAGES[name]}; {len(nodes)} given here")
        for argument, node, kind in zip(arguments, nodes, wanted, strict=True):
            if node.kind != kind:
                said = "a list" if node.kind == "list" else "text"
                return self.wrong(argument.at, f"write {_USAGES[name]}; this is {said}")
        if name == "join":
            return _Join(nodes[0], nodes[1])
        return _Converted(nodes[0], _CONVERSIONS[name])

    def settled(
        self, arguments: tuple[Expression, ...], unset_allowed: bool
    ) -> Iterable[Expression]:
        """Yield the arguments without environment variables that ``default`` passes over."""
        for number, one in enumerate(arguments, 1):
            if unset_allowed and number < len(arguments) and not _mentions_peer(one):
                try:
                    evaluate(one, self.scope)
                except ExpressionErrors as errors:
                    if errors.unset:
                        continue
            yield one
