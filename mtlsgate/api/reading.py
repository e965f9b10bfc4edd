"""
From values in Python to the blocks that a configuration file would hold.

The blocks are those of `mtlsgate.config.model`, with the same checks and the same
messages; `PythonReport` puts the messages into the words of Python.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, TypeVar, get_origin

import attrs

from mtlsgate.api.material import material_of
from mtlsgate.api.values import Allow, Deny, Pin, Registry, Rule, Svid
from mtlsgate.config import Located, Material, model
from mtlsgate.config.convert import Mismatch, convert
from mtlsgate.config.fields import fields_of
from mtlsgate.config.tree import Body
from mtlsgate.config.values import Value
from mtlsgate.errors import NOWHERE, Position, Report

T = TypeVar("T")

#: What the classes of the blocks are called in Python; the gate's own need no name.
_HEADINGS = {
    "client_certificate": "Rule",
    "pin": "Pin",
    "registry": "Registry",
    "allow": "Allow",
    "deny": "Deny",
    "server_certificate": "",
    "server": "",
    "tls": "",
}
_HEADING = re.compile(r'([a-z_]+)(?: "(.*)")?', re.DOTALL)
#: How messages write what has another name in Python.
_WORDS = (
    (re.compile(r'\bclient_certificate "([^"]*)"'), r"Rule '\1'"),
    (re.compile(r"\bclient_certificate block"), "Rule"),
    (re.compile(r"\b(ca|leaf)_certificate(?!_dir)(?:_file|\(_file\))?"), r"\1"),
    (re.compile(r"\bcrl_file\b"), "crl"),
    (re.compile(r"\bthis allow block"), "this Allow"),
    (re.compile(r": see line 0, column \d+"), ""),
)


class PythonReport(Report):
    """A report about values in Python: it names no file and no line."""

    def error(self, at: Position, where: str, text: str) -> None:
        """Note something that keeps the gate from being made."""
        super().error(at, _heading(where), _in_words(text))

    def warn(self, at: Position, where: str, text: str) -> None:
        """Note something that is surely not meant."""
        super().warn(at, _heading(where), _in_words(text))


def _heading(where: str) -> str:
    found = _HEADING.fullmatch(where)
    if found is None:
        return where
    name = _HEADINGS.get(found[1], found[1])
    return name if found[2] is None or not name else f"{name} '{found[2]}'"


def _in_words(text: str) -> str:
    for pattern, words in _WORDS:
        text = pattern.sub(words, text)
    return text


class BlockReader:
    """
    Reads the values of one gate.

    :ivar report: where problems go.
    :ivar registries: those that rules name, by name.
    """

    def __init__(self, report: Report) -> None:
        self.report = report
        self._blocks = 0
        self.registries: dict[str, model.Registry] = {}
        self._given: dict[str, Registry] = {}

    def server(
        self,
        name: str,
        certificate: object,
        rules: object,
        options: Mapping[str, object],
    ) -> model.Server | None:
        """
        :param certificate: one pair of certificate and key, or a list of them.
        :param rules: who may come in.
        :param options: by the names of the attributes of `server` and `tls`.
        :returns: the server, with a placeholder for where it listens and for what
            stands behind it; None if the report says what is wrong.
        """
        errors_before = len(self.report.errors)
        of_certificates = {
            name: options.get(name) for name in ("private_key_passphrase", "ocsp_stapling")
        }
        tls = self._block(
            model.Tls,
            "tls",
            errors_before,
            options,
            server_certificate=tuple(self._server_certificates(certificate, of_certificates)),
            client_certificate=self._blocks_of(rules, Rule, "rules", "", self._rule),
            deny=self._blocks_of(options.get("deny"), Deny, "deny", "", self._condition),
        )
        authorize = options.get("authorize")
        named = authorize if isinstance(authorize, str) else None
        asked = authorize if named is None else None
        return self._block(
            model.Server,
            "server",
            errors_before,
            {
                **options,
                "authorize": named if asked is None else _ASKED,
                "count_in": self._registry(options.get("count_in"), "", "count_in"),
            },
            label=name,
            # Where it will listen, and what stands behind it, are not known yet.
            hosts=(Located("unix:", NOWHERE),),
            protocol=model.Protocol(name="Python", at=NOWHERE, body=Body((), ())),
            # Without one, what is wrong with the server can be told all the same.
            tls=tls or model.Tls(at=NOWHERE),
        )

    def _rule(self, rule: Rule) -> model.ClientCertificate | None:
        where = f'client_certificate "{rule.name}"'
        errors_before = len(self.report.errors)
        for name, given in (("pin", rule.pin), ("allow", rule.allow)):
            # By a list that some other code left empty nobody must get in.
            if isinstance(given, Sequence) and not len(given):
                text = f"{name}: is an empty list: leave it out to admit without it"
                self.report.error(NOWHERE, where, text)
        return self._block(
            model.ClientCertificate,
            where,
            errors_before,
            {
                **attrs.asdict(rule, recurse=False),
                **_paths(rule),
                "registry": self._registry(rule.registry, where, "registry"),
            },
            label=self._name(rule.name, where),
            ca_certificate=self._material("ca", rule.ca, where),
            leaf_certificate=self._material("leaf", rule.leaf, where),
            crl=self._material("crl", rule.crl, where),
            pin=self._blocks_of(rule.pin, Pin, "pin", where, self._pin),
            allow=self._blocks_of(rule.allow, Allow, "allow", where, self._condition),
            deny=self._blocks_of(rule.deny, Deny, "deny", where, self._condition),
        )

    def _pin(self, pin: Pin) -> model.PinBlock | None:
        where = f'pin "{pin.name}"'
        errors_before = len(self.report.errors)
        leaf = self._material("leaf", pin.leaf, where)
        if leaf is None:
            self.report.error(NOWHERE, where, "leaf is missing")
            return None
        return self._block(
            model.PinBlock,
            where,
            errors_before,
            {"not_before": pin.not_before, "retire_after": pin.retire_after},
            label=self._name(pin.name, where),
            leaf_certificate=leaf,
        )

    def _condition(self, condition: Allow | Deny) -> model.ConditionBlock | None:
        where = type(condition).__name__.lower()
        values = attrs.asdict(condition, recurse=False)
        errors_before = len(self.report.errors)
        if not isinstance(condition, Deny):
            return self._block(model.ConditionBlock, where, errors_before, values)
        values["registry"] = self._registry(condition.registry, where, "registry")
        return self._block(model.DenyBlock, where, errors_before, values)

    def _registry(self, given: object, where: str, name: str) -> str | None:
        """:returns: the name of a registry, whose block is read; None if there is none, or
        the report says what is wrong."""
        if given is None:
            return None
        if not isinstance(given, Registry):
            text = f"{name}: must be a Registry, not {type(given).__name__}"
            self.report.error(NOWHERE, where, text)
            return None
        known = self._given.setdefault(given.name, given)
        if known != given:
            text = f"{name}: two different registries are called {given.name!r}"
            self.report.error(NOWHERE, where, text)
        if known is not given or given.name in self.registries:
            return given.name
        heading = f'registry "{given.name}"'
        password = given.password
        block = self._block(
            model.Registry,
            heading,
            len(self.report.errors),
            attrs.asdict(given, recurse=False),
            label=self._name(given.name, heading),
            password=None if password is None else Material("password", NOWHERE, password),
        )
        if block is not None:
            self.registries[given.name] = block
        return given.name

    def _server_certificates(
        self, given: object, options: Mapping[str, object]
    ) -> Iterator[model.ServerCertificate]:
        """:param options: what holds for each of them."""
        where = "server_certificate"
        pairs = given if isinstance(given, list) else [given]
        if not pairs:
            self.report.error(NOWHERE, where, "certificate: is empty: pass (certificate, key)")
        for pair in pairs:
            errors_before = len(self.report.errors)
            if isinstance(pair, Svid):
                values = {**options, **attrs.asdict(pair)}
                block = self._block(model.ServerCertificate, where, errors_before, values)
                if block is not None:
                    yield block
                continue
            if not (isinstance(pair, tuple) and len(pair) == 2):
                text = "certificate: must be a pair (certificate, key), a Svid, or a list of these"
                self.report.error(NOWHERE, where, text)
                continue
            chain = self._material("certificate", pair[0], "")
            key = self._material("key", pair[1], "")
            if chain is None or key is None:
                text = "certificate: must be a pair (certificate, key); one of them is None"
                self.report.error(NOWHERE, where, text)
                continue
            block = self._block(
                model.ServerCertificate,
                where,
                errors_before,
                options,
                public_key=chain,
                private_key=key,
            )
            if block is not None:
                yield block

    def _name(self, name: object, where: str) -> str:
        if not isinstance(name, str) or not name:
            self.report.error(NOWHERE, where, "the name must be a string that is not empty")
        return str(name)

    def _blocks_of(
        self, given: object, kind: type[Any], name: str, where: str, read: Any
    ) -> tuple[Any, ...]:
        """:returns: the blocks of what must be a list of one kind."""
        if given is None:
            return ()
        # Not just anything that can be iterated: a reload reads it again.
        if not isinstance(given, Sequence) or isinstance(given, str | bytes):
            text = f"{name}: must be a list of {kind.__name__}, not {type(given).__name__}"
            self.report.error(NOWHERE, where, text)
            return ()
        blocks = []
        seen: set[object] = set()
        for one in given:
            if not isinstance(one, kind):
                text = f"{name}: must hold {kind.__name__}s, not {type(one).__name__}"
                self.report.error(NOWHERE, where, text)
                continue
            label = getattr(one, "name", None)
            if label is not None and label in seen:
                text = f"{name}: two of them are called {label!r}"
                self.report.error(NOWHERE, where, text)
            seen.add(label)
            if (block := read(one)) is not None:
                blocks.append(block)
        return tuple(blocks)

    def _block(
        self,
        cls: type[T],
        where: str,
        errors_before: int,
        values: Mapping[str, object],
        **given: object,
    ) -> T | None:
        """
        :param errors_before: how many there were before anything of the block was
            read; what follows from an error in it is not told.
        :param values: of the attributes, by name, as they came; others are ignored.
        :param given: what was read already.
        :returns: the block, or None if the report says what is wrong.
        """
        self._blocks += 1
        # The first block comes first, as that of a file would.
        at = Position(0, self._blocks)
        arguments = {name: value for name, value in given.items() if value is not None}
        for one in fields_of(cls):
            if one.source == "position":
                arguments[one.name] = at
            elif one.source == "attribute" and one.name not in given:
                value = values.get(one.name)
                if value is not None:
                    try:
                        arguments[one.name] = convert(one.hint, _value(value, one.hint, at))
                    except (Mismatch, ValueError) as error:
                        text = getattr(error, "text", None) or str(error)
                        self.report.error(at, where, f"{one.name}: {text}")
        if len(self.report.errors) != errors_before:
            return None
        block = cls(**arguments)
        for _, text in getattr(block, "problems", tuple)():
            self.report.error(at, where, text)
        return block

    def _material(self, name: str, given: object, where: str) -> Material | None:
        """:returns: a certificate, key or list, or None if there is none or the
        report says what is wrong."""
        try:
            return material_of(name, given)
        except ValueError as error:
            self.report.error(NOWHERE, where, f"{name}: {error}")
            return Material(name, NOWHERE, "")


#: Stands for an authorizer that is no name.
_ASKED = "the object given"


def _paths(rule: Rule) -> dict[str, object]:
    names = ("leaf_certificate_dir", "crl_dir")
    found = {name: getattr(rule, name) for name in names}
    return {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in found.items()
    }


def _value(given: object, hint: object, at: Position) -> Value:
    """
    :param hint: what the attribute should be.
    :returns: the value as a configuration file would have it.
    :raises ValueError: if a file could not have it, or it is empty.
    """
    match given:
        case "":
            raise ValueError("is empty")
        case timedelta():
            return Value(_seconds(given.total_seconds()), at)
        case int() | float() if get_origin(hint) is Annotated and not isinstance(given, bool):
            return Value(_seconds(given), at)
        case str() | bool() | int() | float():
            return Value(given, at)
        case datetime():
            return Value(given.isoformat(), at)
        case Sequence() if not isinstance(given, bytes | bytearray):
            return Value(tuple(_value(one, None, at) for one in given), at)
    raise ValueError(f"cannot be of type {type(given).__name__}")


def _seconds(number: float) -> str:
    """:returns: a duration as a configuration file would have it."""
    return f"{number:f}".rstrip("0").rstrip(".") + "s"
