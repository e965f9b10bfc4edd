"""
What an expression stands for: ``env.NAME``, templates, the few functions.

The environment and the files come in from outside (:class:`Scope`).  An error
names variables, functions and types, never a value: that may be a secret.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import NoReturn, TypeAlias

from attrs import frozen

from mtlsgate.config.tree import (
    Call,
    Expression,
    Invalid,
    ListExpression,
    Literal,
    ObjectExpression,
    PeerField,
    Template,
    Variable,
)
from mtlsgate.errors import CredentialError, Position, did_you_mean
from mtlsgate.text import shown

#: Ordinary Python, as :meth:`Value.plain` gives it.
Plain: TypeAlias = "str | int | float | bool | list[Plain] | dict[str, Plain] | None"
Data: TypeAlias = "str | int | float | bool | tuple[Value, ...] | dict[str, Value] | None"

_KINDS: dict[type, str] = {str: "text", tuple: "a list"}


@frozen
class Value:
    """
    What an expression stands for.

    :ivar data: text, a number, a boolean, None, or values in a tuple or dict.
    :ivar at: what to point at when the value turns out to be wrong.
    """

    data: Data
    at: Position

    def plain(self) -> Plain:
        """
        :returns: ordinary Python, with lists and dicts.
        """
        match self.data:
            case tuple(items):
                return [item.plain() for item in items]
            case dict(items):
                return {key: item.plain() for key, item in items.items()}
            case data:
                return data


@frozen
class Scope:
    """
    What expressions can reach.

    :ivar environ: the environment variables.
    :ivar read_file: reads a file, whose path it gets as written; raises
        `CredentialError` with what is wrong, in words that follow its name.
    """

    environ: Mapping[str, str]
    read_file: Callable[[str], bytes]


@frozen
class Fault:
    """
    What is wrong with an expression.

    :ivar unset: whether this is an unset variable, for which ``default`` helps.
    """

    at: Position
    text: str
    unset: bool = False


class ExpressionErrors(Exception):
    """
    An expression that stands for nothing.

    :ivar faults: all there are; none if the expression was reported as invalid
        before.
    :ivar errors: where they are, and their texts.
    """

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)
        self.errors: tuple[tuple[Position, str], ...] = tuple(
            (fault.at, fault.text) for fault in self.faults
        )
        super().__init__(*(text for _, text in self.errors))

    @property
    def unset(self) -> bool:
        """Whether nothing is wrong but that variables are not set."""
        return bool(self.faults) and all(fault.unset for fault in self.faults)


def evaluate(expression: Expression, scope: Scope) -> Value:
    """
    Find what an expression stands for.

    :param expression: out of :func:`mtlsgate.config.syntax.parse`.
    :param scope: the environment and the files.
    :raises ExpressionErrors: with everything that is wrong in it.
    """
    match expression:
        case Literal(value, at):
            return Value(value, at)
        case Variable(name, at):
            if name in scope.environ:
                return Value(scope.environ[name], at)
            name = shown(name)
            raise ExpressionErrors(
                [
                    Fault(
                        at,
                        f"environment variable {name} is not set; set it, or give a fallback"
                        f' with default(env.{name}, "...")',
                        unset=True,
                    )
                ]
            )
        case PeerField(name, at):
            text = f"peer.{shown(name)} differs from client to client, and this must not"
            raise ExpressionErrors([Fault(at, text)])
        case Template(parts, at):
            return Value(joined(_all(parts, scope), "a template"), at)
        case ListExpression(items, at):
            return Value(_all(items, scope), at)
        case ObjectExpression(items, at):
            values = _all([item for _, item in items], scope)
            keys = (str(key.value) for key, _ in items)
            return Value(dict(zip(keys, values, strict=True)), at)
        case Call():
            return _call(expression, scope)
        case Invalid():
            raise ExpressionErrors


def _all(expressions: Iterable[Expression], scope: Scope, *faults: Fault) -> tuple[Value, ...]:
    """
    Evaluate every expression, so that all their faults are known.

    :param faults: what is known to be wrong already.
    """
    values = []
    found = list(faults)
    failed = bool(faults)
    for expression in expressions:
        try:
            values.append(evaluate(expression, scope))
        except ExpressionErrors as errors:
            failed = True
            found += errors.faults
    if failed:
        raise ExpressionErrors(found)
    return tuple(values)


def _kind(value: Value) -> str:
    match value.data:
        case None:
            return "null"
        case str():
            return "text"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case tuple():
            return "a list"
        case dict():
            return "an object"


def joined(values: Iterable[Value], where: str, separator: str = "") -> str:
    """
    Join values as HCL does: numbers and booleans become text.

    :param where: what they become part of, for messages.
    :raises ExpressionErrors: for values that are neither.
    """
    texts = []
    faults = []
    for value in values:
        match value.data:
            case str(text):
                texts.append(text)
            case bool(truth):
                texts.append("true" if truth else "false")
            case int(number):
                texts.append(str(number))
            case float(number):
                # 1e3 is 1000 and 1e-7 is 0.0000001: HCL has one kind of number.
                text = format(Decimal(repr(number)), "f")
                texts.append(text.rstrip("0").rstrip(".") if "." in text else text)
            case _:
                faults.append(
                    Fault(
                        value.at,
                        f"{_kind(value)} cannot be part of {where}; use text or numbers",
                    )
                )
    if faults:
        raise ExpressionErrors(faults)
    return separator.join(texts)


def _call(call: Call, scope: Scope) -> Value:
    if call.function == "default":
        return _default(call, scope)
    text, items = ("text", str), ("list", tuple)
    separator, path = ("separator", str), ("path", str)
    known: dict[str, tuple[Callable[..., Data], tuple[tuple[str, type], ...]]] = {
        "base64_decode": (_base64_decode, (text,)),
        "file": (partial(_file, scope), (path,)),
        "join": (_join, (separator, items)),
        "split": (_split, (separator, text)),
        "trim": (_trim, (text,)),
    }
    if call.function not in known:
        names = sorted([*known, "default"])
        hint = did_you_mean(call.function, names) or f"; there are {', '.join(names)}"
        fault = Fault(call.at, f"there is no function {shown(call.function)}{hint}")
        return _refused(call, scope, fault)

    function, parameters = known[call.function]
    usage = f"{call.function}({', '.join(name for name, _ in parameters)})"
    if len(call.arguments) != len(parameters):
        count = len(call.arguments)
        given = f"{count or 'no'} argument{'' if count == 1 else 's'}"
        return _refused(call, scope, Fault(call.at, f"write {usage}; {given} given here"))

    values = _all(call.arguments, scope)
    faults = [
        Fault(value.at, f"write {usage}; the {name} here is {_kind(value)}, not {_KINDS[type]}")
        for value, (name, type) in zip(values, parameters, strict=True)
        if not isinstance(value.data, type)
    ]
    if faults:
        raise ExpressionErrors(faults)
    return Value(function(*values), call.at)


def _refused(call: Call, scope: Scope, fault: Fault) -> NoReturn:
    """Report a call, together with what is wrong in its arguments."""
    _all(call.arguments, scope, fault)
    raise AssertionError("a fault was given")


def _default(call: Call, scope: Scope) -> Value:
    """The first argument that is set; what comes after it is not evaluated."""
    fallback: Value | None = None
    nothing = "write default(env.NAME, fallback); no arguments given here"
    missing = ExpressionErrors([Fault(call.at, nothing)])
    for argument in call.arguments:
        try:
            fallback = evaluate(argument, scope)
        except ExpressionErrors as errors:
            if not errors.unset:
                raise
            fallback, missing = None, errors
            continue
        if fallback.data is not None:
            return fallback
    if fallback is None:
        raise missing
    return fallback


def _base64_decode(text: Value) -> Data:
    try:
        octets = b64decode("".join(str(text.data).split()), validate=True)
    except ValueError:
        raise _failure(text, "this is not base64; it takes A-Z a-z 0-9 + / and = padding") from None
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise _failure(
            text, "what this base64 encodes is not UTF-8 text; use a ..._file attribute for it"
        ) from None


def _file(scope: Scope, path: Value) -> Data:
    try:
        return scope.read_file(str(path.data)).decode()
    except CredentialError as error:
        problem = f"the file {error}; its path is relative to this one"
    except UnicodeDecodeError:
        problem = "the file is not UTF-8 text; use a ..._file attribute for it"
    raise _failure(path, problem)


def _join(separator: Value, items: Value) -> Data:
    assert isinstance(items.data, tuple)
    return joined(items.data, "what is joined", str(separator.data))


def _split(separator: Value, text: Value) -> Data:
    whole, mark = str(text.data), str(separator.data)
    # As in HCL, an empty separator splits into characters.
    return tuple(Value(piece, text.at) for piece in (whole.split(mark) if mark else whole))


def _trim(text: Value) -> Data:
    return str(text.data).strip()


def _failure(value: Value, text: str) -> ExpressionErrors:
    return ExpressionErrors([Fault(value.at, text)])
