"""
From a located tree to frozen attrs classes.

Built-in blocks (`mtlsgate.config.model`) and those of protocol plugins are read
by this same code, so they get the same located errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from mtlsgate.config.convert import Mismatch, convert
from mtlsgate.config.expressions import Scope, evaluate
from mtlsgate.config.fields import (
    AlreadyReported,
    Field,
    Material,
    Remainder,
    fields_of,
    names_read,
)
from mtlsgate.config.material import material_from
from mtlsgate.config.peer import PeerText, peer_text
from mtlsgate.config.tree import Attribute, Block, Body, Expression, Literal, ObjectExpression
from mtlsgate.config.values import ExpressionErrors, Value
from mtlsgate.config.vocabulary import unknown_names
from mtlsgate.errors import Position, Report
from mtlsgate.text import holds_key_material, quoted

T = TypeVar("T")

#: What a field reads as: nothing usable is there; or a block that could not be built.
_ABSENT, _BROKEN = object(), object()


class Decoder:
    """
    Reads blocks into attrs classes and reports everything that is wrong.

    :ivar scope: what expressions may see.
    :ivar report: where problems go.
    :ivar unplaced: what was read in blocks that could not be built: heading, name, value.
    """

    def __init__(self, scope: Scope, report: Report) -> None:
        self.scope = scope
        self.report = report
        self.unplaced: list[tuple[str, str, object]] = []

    def decode(
        self,
        cls: type[T],
        body: Body,
        at: Position,
        where: str,
        labels: tuple[str, ...] = (),
    ) -> T | None:
        """
        :param cls: the attrs class to build.
        :param body: what stands between the block's braces.
        :param at: where the block begins.
        :param where: the block's heading, for messages.
        :param labels: the block's labels.
        :returns: the instance, or None if something that it cannot be built
            without is missing or wrong; the report then says what.
        """
        errors_before = len(self.report.errors)
        fields = fields_of(cls)
        reading = _Reading(self, fields, body, at, where)
        arguments: dict[str, object] = {}
        complete = True
        for one in fields:
            found = reading.read(one, labels)
            if found is _BROKEN or (found is _ABSENT and one.required):
                complete = False
            elif found is not _ABSENT:
                arguments[one.name] = found
        reading.refuse_unknown()
        if labels and not any(one.source == "label" for one in fields):
            self.report.error(at, where, "takes no label")
        if not complete:
            self.unplaced += [(where, name, found) for name, found in arguments.items()]
            return None
        try:
            instance = cls(**arguments)
        except (ValueError, TypeError) as error:
            text = str(error.args[0]) if error.args else type(error).__name__
            self.report.error(at, where, text)
            return None
        if len(self.report.errors) == errors_before and not reading.failed:
            self._report_own_problems(instance, reading, at, where)
        return instance

    def plain(self, body: Body, where: str) -> dict[str, Any]:
        """
        :returns: the attributes' values by name, as plain Python; null is None.
        :raises AlreadyReported: if an expression is in error, or there are blocks.
        """
        failed = bool(body.faults)
        self.report_faults(body, where)
        values = {}
        for attribute in body.attributes:
            try:
                values[attribute.name] = evaluate(attribute.expression, self.scope).plain()
            except ExpressionErrors as errors:
                failed = True
                self.report_expression(errors, attribute.name, where)
        for block in body.blocks:
            failed = True
            self.report.error(block.at, where, f"unknown block {quoted(block.type)}")
        if failed:
            raise AlreadyReported
        return values

    def report_faults(self, body: Body, where: str) -> None:
        """Report what is wrong with the names and labels in a body."""
        for at, text in body.faults:
            self.report.error(at, where, text)

    def report_expression(self, errors: ExpressionErrors, name: str, where: str) -> None:
        """Report what is wrong with the expression of an attribute."""
        for at, text in errors.errors:
            self.report.error(at, where, f"{name}: {text}")

    def _report_own_problems(
        self, instance: object, reading: _Reading, at: Position, where: str
    ) -> None:
        problems: Callable[[], Iterable[tuple[str | None, str]]] = getattr(
            instance, "problems", tuple
        )
        for name, text in problems():
            self.report.error(reading.position_of(name) or at, where, text)


class _Reading:
    """
    One block while it is read.

    :ivar attributes: its attributes by name.
    :ivar failed: whether something in it was in error.
    """

    def __init__(
        self, decoder: Decoder, fields: tuple[Field, ...], body: Body, at: Position, where: str
    ) -> None:
        self.decoder = decoder
        self.report = decoder.report
        self.fields = fields
        self.body = body
        self.at = at
        self.where = where
        self.attributes: dict[str, Attribute] = {one.name: one for one in body.attributes}
        self.failed = bool(body.faults)
        decoder.report_faults(body, where)

    def position_of(self, name: str | None) -> Position | None:
        found = self.attributes.get(name) if name is not None else None
        return None if found is None else found.at

    def read(self, one: Field, labels: tuple[str, ...]) -> object:
        """:returns: the field's value, or `_ABSENT` or `_BROKEN` after a report."""
        match one.source:
            case "position":
                return self.at
            case "body":
                return self.body
            case "remainder":
                return self._remainder()
            case "label":
                return self._label(one, labels)
            case "block":
                return self._block(one)
            case "blocks":
                return self._blocks(one)
            case "material":
                return self._material(one)
            case "peer_text":
                return self._peer_text(one)
            case "peer_texts":
                return self._peer_texts(one)
            case _:
                return self._attribute(one)

    def _label(self, one: Field, labels: tuple[str, ...]) -> object:
        if len(labels) > 1:
            self.report.error(self.at, self.where, "takes one label, not several")
        text = labels[0] if labels else ""
        if text and not holds_key_material(text):
            return text
        if text:
            self.report.error(self.at, self.where, f"the label is {quoted(text)}: write a name")
        elif labels:
            self.report.error(self.at, self.where, "the label is empty")
        elif one.required:
            self.report.error(self.at, self.where, f'needs a label: {self.where} "…" {{')
        return _ABSENT

    def _named(self, name: str) -> list[Block]:
        return [block for block in self.body.blocks if block.type == name]

    def _decode_block(self, hint: type, block: Block) -> object:
        decoded = self.decoder.decode(hint, block.body, block.at, block.heading, block.labels)
        return _BROKEN if decoded is None else decoded

    def _block(self, one: Field) -> object:
        blocks = self._named(one.name)
        if not blocks:
            if one.required and one.name not in self.attributes:
                self.report.error(self.at, self.where, f"the {one.name} block is missing")
            return _ABSENT
        self._refuse_others(one.name, blocks)
        return self._decode_block(one.hint, blocks[0])

    def _refuse_others(self, name: str, blocks: list[Block]) -> None:
        for block in blocks[1:]:
            self.report.error(
                block.at,
                block.heading,
                f"only one {name} block is allowed here; the first is in line {blocks[0].at.line}",
            )

    def _blocks(self, one: Field) -> object:
        blocks = self._named(one.name)
        if not blocks and one.required and one.name not in self.attributes:
            self.report.error(self.at, self.where, f"no {one.name} block")
            return _ABSENT
        first: dict[str, Block] = {}
        for block in blocks:
            for text in block.labels[:1]:
                if first.setdefault(text, block) is not block:
                    self.report.error(
                        block.at,
                        block.heading,
                        f"this label is taken by the block in line {first[text].at.line}",
                    )
        decoded = [self._decode_block(one.hint, block) for block in blocks]
        if _BROKEN not in decoded:
            return tuple(decoded)
        self.decoder.unplaced += [
            (self.where, one.name, found) for found in decoded if found is not _BROKEN
        ]
        return _BROKEN

    def _value(self, name: str) -> Value | None:
        """
        :returns: what the attribute evaluates to, or None if it is unset.
        :raises Mismatch: if its expression is in error, with no text, since
            the errors have been reported.
        """
        attribute = self.attributes.get(name)
        if attribute is None:
            return None
        try:
            value = evaluate(attribute.expression, self.decoder.scope)
        except ExpressionErrors as errors:
            self.failed = True
            self.decoder.report_expression(errors, name, self.where)
            raise Mismatch(attribute.at, None) from None
        return None if value.data is None else value

    def _converted(self, name: str, hint: Any) -> object:
        try:
            value = self._value(name)
            return _ABSENT if value is None else convert(hint, value)
        except Mismatch as mismatch:
            if mismatch.text is not None:
                self.report.error(mismatch.at, self.where, f"{name}: {mismatch.text}")
            raise

    def _attribute(self, one: Field) -> object:
        try:
            found = self._converted(one.name, one.hint)
        except Mismatch:
            return _ABSENT
        if found is _ABSENT and one.required and not self._named(one.name):
            self.report.error(self.at, self.where, f"{one.name} is missing")
        return found

    def _material(self, one: Field) -> object:
        inline, file = one.name, f"{one.name}_file"
        given: list[Material] = []
        wrong = False
        is_needed = bool(one.unless) and not any(
            name in self.attributes or self._named(name) for name in one.unless
        )
        for name in (inline, file):
            attribute = self.attributes.get(name)
            if attribute and attribute.is_empty_literal and one.empty_is_unset:
                continue
            try:
                found = self._converted(name, str)
            except Mismatch:
                wrong = True
                continue
            if found is _ABSENT:
                continue
            made = self._material_of(name, str(found), inline, file)
            wrong = wrong or made is None
            given += [] if made is None else [made]
        if wrong:
            # A rule is still read for further problems; an admin block whose token is
            # wrong must not be taken for one without a token.
            return _ABSENT if one.empty_is_unset and not is_needed else _BROKEN
        if len(given) == 2:
            self.report.error(
                given[1].at, self.where, f"{inline} and {file} are mutually exclusive"
            )
            return _ABSENT
        if not given and (one.required or is_needed):
            self.report.error(self.at, self.where, f"{inline} or {file} is missing")
        if not given and is_needed:
            return _BROKEN
        return given[0] if given else _ABSENT

    def _material_of(self, name: str, text: str, inline: str, file: str) -> Material | None:
        attribute = self.attributes[name]
        try:
            return material_from(name, text, attribute.at, inline, file)
        except ValueError as error:
            self.report.error(attribute.expression.at, self.where, f"{name}: {error}")
            return None

    def _text_of(
        self, name: str, expression: Expression, at: Position, where: str
    ) -> PeerText | None:
        try:
            return peer_text(expression, self.decoder.scope, at)
        except ExpressionErrors as errors:
            self.failed = True
            self.decoder.report_expression(errors, name, where)
            return None

    def _peer_text(self, one: Field) -> object:
        attribute = self.attributes.get(one.name)
        if attribute is None:
            if one.required:
                self.report.error(self.at, self.where, f"{one.name} is missing")
            return _ABSENT
        found = self._text_of(one.name, attribute.expression, attribute.at, self.where)
        return _ABSENT if found is None else found

    def _peer_texts(self, one: Field) -> object:
        """A block whose attributes have any names, or an object."""
        attribute, blocks = self.attributes.get(one.name), self._named(one.name)
        where = self.where
        entries: list[tuple[str, Position, Expression]] = []
        if attribute is not None:
            if not isinstance(attribute.expression, ObjectExpression):
                self.failed = True
                text = f"{one.name}: must be an object: {{ Name = value }}"
                self.report.error(attribute.at, where, text)
                return _ABSENT
            entries = self._named_items(one.name, attribute.expression)
        elif blocks:
            self._refuse_others(one.name, blocks)
            block, where = blocks[0], blocks[0].heading
            self.failed = self.failed or bool(block.body.faults)
            self.decoder.report_faults(block.body, where)
            entries = [(each.name, each.at, each.expression) for each in block.body.attributes]
            for inner in block.body.blocks:
                self.failed = True
                self.report.error(inner.at, where, f"unknown block {quoted(inner.type)}")
            if block.labels:
                self.failed = True
                self.report.error(block.at, where, "takes no label")
        elif one.required:
            self.report.error(self.at, where, f"the {one.name} block is missing")
            return _ABSENT
        else:
            return _ABSENT
        found = {
            name: self._text_of(name, expression, at, where) for name, at, expression in entries
        }
        return {name: text for name, text in found.items() if text is not None}

    def _named_items(
        self, name: str, expression: ObjectExpression
    ) -> list[tuple[str, Position, Expression]]:
        """:returns: an object's keys, where they are, and what they stand for."""
        keys = tuple((key, Literal(None, key.at)) for key, _ in expression.items)
        try:
            found = evaluate(ObjectExpression(keys, expression.at), self.decoder.scope).data
        except ExpressionErrors as errors:
            self.failed = True
            self.decoder.report_expression(errors, name, self.where)
            return []
        assert isinstance(found, dict)
        items = zip(found.items(), expression.items, strict=True)
        return [(text, value.at, item) for (text, value), (_, item) in items]

    def _remainder(self) -> Remainder:
        attributes, blocks = names_read(self.fields)
        rest = Body(
            tuple(one for one in self.body.attributes if one.name not in attributes),
            tuple(one for one in self.body.blocks if one.type not in blocks),
        )
        return Remainder(self.decoder, rest, self.at, self.where)

    def refuse_unknown(self) -> None:
        """Report every attribute and block that no field reads."""
        if any(one.source in ("body", "remainder") for one in self.fields):
            return
        for at, text in unknown_names(self.body, *names_read(self.fields)):
            self.report.error(at, self.where, text)
