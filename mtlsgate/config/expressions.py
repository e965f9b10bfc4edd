"""
What an expression stands for.

The environment and the files come in from outside (`Scope`).  An error names
variables, functions and types, never a value: that may be a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import evolve

from mtlsgate.config.functions import FUNCTIONS, called
from mtlsgate.config.operators import boolean, operated, signed
from mtlsgate.config.scope import Scope
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
    Template,
    Traversal,
    Unary,
    Variable,
    all_of,
)
from mtlsgate.config.values import (
    Data,
    ExpressionErrors,
    Fault,
    Value,
    as_number,
    as_text,
    failure,
    joined,
    kind_of,
)
from mtlsgate.errors import Position, did_you_mean
from mtlsgate.text import shown


def evaluate(expression: Expression, scope: Scope) -> Value:
    """
    Find what an expression stands for.

    :param expression: out of :func:`mtlsgate.config.syntax.parse`.
    :param scope: the environment and the files.
    :raises ExpressionErrors: with everything that is wrong in it.
    """
    scope.budget.spend(expression.at)
    match expression:
        case ForVariable(name):
            # A value keeps the place at which it was written.
            return scope.names[name]
        case Call():
            value = _call(expression, scope)
        case Conditional():
            value = _conditional(expression, scope)
        case Traversal():
            value = _traversal(expression, scope)
        case Splat():
            value = _splat(expression, scope)
        case _:
            return Value(_data(expression, scope), expression.at, expression)
    if isinstance(value.data, str):
        scope.budget.spend(expression.at, len(value.data) // 1024)
    return value


def _data(expression: Expression, scope: Scope) -> Data:
    match expression:
        case Literal(value):
            return value
        case Variable(name, at):
            return _variable(name, at, scope)
        case PeerField(name, at):
            raise failure(
                at, f"peer.{shown(name)} differs from client to client, and this must not"
            )
        case Template(parts, at):
            text = joined(_all(parts, scope), "a template")
            scope.budget.spend(at, len(text) // 1024)
            return text
        case ListExpression(items):
            return _all(items, scope)
        case ObjectExpression():
            return _object(expression, scope)
        case Unary():
            operand = evaluate(expression.operand, scope)
            return signed(operand, expression.operators, expression.at)
        case Operation():
            return _operation(expression, scope)
        case For():
            return _for(expression, scope)
        case Invalid(at, text):
            raise failure(at, text)
    raise AssertionError(expression)


def _all(expressions: Iterable[Expression], scope: Scope) -> tuple[Value, ...]:
    """Evaluate every expression, so that all their faults are known."""
    values = []
    faults: list[Fault] = []
    for expression in expressions:
        try:
            values.append(evaluate(expression, scope))
        except ExpressionErrors as errors:
            faults += errors.faults
            if scope.budget.left < 0:
                break
    if faults:
        raise ExpressionErrors(faults)
    return tuple(values)


def _variable(name: str, at: Position, scope: Scope) -> str:
    if name in scope.environ:
        return scope.environ[name]
    name = shown(name)
    text = (
        f"environment variable {name} is not set; set it, or give a fallback"
        f' with default(env.{name}, "...")'
    )
    raise ExpressionErrors([Fault(at, text, unset=True)])


def variables_of(expression: Expression | None) -> Iterator[str]:
    """Yield the names of the environment variables in an expression."""
    for one in () if expression is None else all_of(expression):
        if isinstance(one, Variable):
            yield one.name


def _object(expression: ObjectExpression, scope: Scope) -> Data:
    found: dict[str, Value] = {}
    places: dict[str, Position] = {}
    flat = [one for item in expression.items for one in item]
    faults: list[Fault] = []
    values = iter(_all(flat, scope))
    for key in values:
        value = next(values)
        text = as_text(key.data)
        if text is None:
            faults.append(Fault(key.at, f"a key is text, not {kind_of(key.data)}"))
        elif text in found:
            faults.append(
                Fault(
                    key.at,
                    f"{shown(text)} is given twice in one object; remove one"
                    f" (the first is in line {places[text].line})",
                )
            )
        else:
            found[text], places[text] = value, key.at
    if faults:
        raise ExpressionErrors(faults)
    return found


def _operation(expression: Operation, scope: Scope) -> Data:
    value = evaluate(expression.first, scope)
    for sign, operand in expression.rest:
        if sign in ("&&", "||"):
            # What decides alone is not asked again.
            decided = boolean(value, f'what "{sign}" takes') == (sign == "||")
            if not decided:
                right = evaluate(operand, scope)
                value = Value(boolean(right, f'what "{sign}" takes'), expression.at)
            else:
                value = Value(sign == "||", expression.at)
        else:
            value = Value(operated(value, sign, evaluate(operand, scope)), expression.at)
    return value.data


def _conditional(expression: Conditional, scope: Scope) -> Value:
    chosen, other = expression.yes, expression.no
    if not boolean(evaluate(expression.condition, scope), "a condition"):
        chosen, other = other, chosen
    value = evolve(evaluate(chosen, scope), origin=expression)
    if value.data is None:
        return value
    try:
        kinds = {kind_of(value.data), kind_of(evaluate(other, scope).data)} - {"null"}
    except ExpressionErrors:
        # What is not chosen may be wrong.
        return value
    if len(kinds) < 2:
        return value
    if kinds & {"a list", "an object"}:
        text = f"both results of a conditional are of one kind, not {' and '.join(sorted(kinds))}"
        raise failure(expression.at, text)
    return evolve(value, data=as_text(value.data))


# Lists, objects and what is in them


def _traversal(expression: Traversal, scope: Scope) -> Value:
    steps = expression.steps
    if isinstance(expression.root, ForVariable) and expression.root.name not in scope.names:
        # Only env is left: env[expression].
        name = as_text(evaluate(steps[0].key, scope).data)
        if name is None:
            raise failure(steps[0].at, "the name of an environment variable is text")
        value = Value(
            _variable(name, expression.at, scope), expression.at, Variable(name, expression.at)
        )
        steps = steps[1:]
    else:
        value = evaluate(expression.root, scope)
    return _stepped(value, steps, scope)


def _stepped(value: Value, steps: Iterable[Step], scope: Scope) -> Value:
    for step in steps:
        key = evaluate(step.key, scope).data
        match value.data:
            case dict(items):
                name = as_text(key)
                if name is None:
                    raise failure(step.at, f"a key is text, not {kind_of(key)}")
                if name not in items:
                    text = f"there is no {shown(name)} in this object{did_you_mean(name, items)}"
                    raise failure(step.at, text)
                value = items[name]
            case tuple(items):
                number = as_number(key)
                if not isinstance(number, int) or number < 0:
                    raise failure(step.at, "an index is a whole number, 0 or more")
                if number >= len(items):
                    text = f"there is no [{number}] in a list of {len(items)}"
                    raise failure(step.at, text)
                value = items[number]
            case data:
                raise failure(step.at, f"{kind_of(data)} has nothing in it to look up")
    return value


def _splat(expression: Splat, scope: Scope) -> Value:
    source = evaluate(expression.source, scope)
    if source.data is None:
        items: tuple[Value, ...] = ()
    else:
        items = source.data if isinstance(source.data, tuple) else (source,)
    found = tuple(_stepped(item, expression.steps, scope) for item in items)
    return Value(found, expression.at, expression)


def _for(expression: For, scope: Scope) -> Data:
    source = evaluate(expression.source, scope)
    match source.data:
        case tuple(listed):
            items = [(Value(index, source.at), item) for index, item in enumerate(listed)]
        case dict(mapped):
            items = [(Value(key, source.at), mapped[key]) for key in sorted(mapped)]
        case data:
            raise failure(source.at, f"for takes a list or an object, not {kind_of(data)}")
    results: list[tuple[str, Value]] = []
    for key, item in items:
        names = {**scope.names, expression.value: item}
        if expression.key is not None:
            names[expression.key] = key
        inner = evolve(scope, names=names)
        condition = expression.condition
        if condition is not None and not boolean(
            evaluate(condition, inner), "the condition of a for"
        ):
            continue
        name = ""
        if expression.result_key is not None:
            given = evaluate(expression.result_key, inner)
            text = as_text(given.data)
            if text is None:
                raise failure(given.at, f"a key is text, not {kind_of(given.data)}")
            name = text
        results.append((name, evaluate(expression.result, inner)))
    return _collected(expression, results, scope)


def _collected(expression: For, results: list[tuple[str, Value]], scope: Scope) -> Data:
    values = tuple(value for _, value in results)
    if expression.makes == "list":
        return values
    if expression.makes == "text":
        text = joined(values, "a template")
        scope.budget.spend(expression.at, len(text) // 1024)
        return text
    grouped: dict[str, list[Value]] = {}
    for name, value in results:
        grouped.setdefault(name, []).append(value)
    if expression.grouped:
        return {name: Value(tuple(found), expression.at) for name, found in grouped.items()}
    for name, found in grouped.items():
        if len(found) > 1:
            text = f"two items have the key {shown(name)}; group them with ... after the value"
            raise failure(expression.at, text)
    return {name: found[0] for name, found in grouped.items()}


# Functions


def _call(call: Call, scope: Scope) -> Value:
    if call.function in ("default", "coalesce"):
        return _default(call, scope)
    if call.function == "can":
        return Value(_can(call, scope), call.at, call)
    fault = called(call.function, len(call.arguments), call.at, spread=call.spread)
    faults = [] if fault is None else [fault]
    try:
        values = _all(call.arguments, scope)
    except ExpressionErrors as errors:
        raise ExpressionErrors([*faults, *errors.faults]) from None
    if faults:
        raise ExpressionErrors(faults)
    values = _spread(call, values)
    if call.spread and (fault := called(call.function, len(values), call.at)) is not None:
        raise ExpressionErrors([fault])
    found = FUNCTIONS[call.function].apply(values, scope.read_file, call.function)
    if isinstance(found, tuple):
        found = tuple(item if item.origin else evolve(item, origin=call) for item in found)
    return Value(found, call.at, call)


def _spread(call: Call, values: tuple[Value, ...]) -> tuple[Value, ...]:
    if not call.spread:
        return values
    last = values[-1]
    if not isinstance(last.data, tuple):
        raise failure(last.at, f'"..." follows a list, not {kind_of(last.data)}')
    return (*values[:-1], *last.data)


def _can(call: Call, scope: Scope) -> bool:
    if len(call.arguments) != 1 or call.spread:
        raise failure(call.at, "write can(expression)")
    try:
        evaluate(call.arguments[0], scope)
    except ExpressionErrors:
        if scope.budget.left < 0:
            raise
        return False
    return True


def _default(call: Call, scope: Scope) -> Value:
    """
    The first argument that is set and not empty, or else the last one.

    What comes after it is not evaluated.
    """
    fallback: Value | None = None
    nothing = f"write {call.function}(env.NAME, fallback); no arguments given here"
    missing = failure(call.at, nothing)
    for argument in call.arguments:
        try:
            fallback = evaluate(argument, scope)
        except ExpressionErrors as errors:
            if not errors.unset:
                raise
            fallback, missing = None, errors
            continue
        if fallback.data is not None and fallback.data != "":
            return fallback
    if fallback is None:
        raise missing
    return evolve(fallback, origin=call)


__all__ = ["Scope", "evaluate", "variables_of"]
