"""
The functions of expressions: Couper's, and the most common ones of HashiCorp's tools.

``default``, ``coalesce`` and ``can`` see their arguments before they are evaluated,
and so live with the evaluation in `mtlsgate.config.expressions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from mtlsgate.config import list_functions as lists
from mtlsgate.config import text_functions as texts
from mtlsgate.config.values import (
    LONGEST,
    Data,
    ExpressionErrors,
    Fault,
    Value,
    as_number,
    as_text,
    failure,
    kind_of,
)
from mtlsgate.errors import Position, did_you_mean
from mtlsgate.text import shown

#: What a parameter takes, by its name; any other takes anything.
_KINDS: Mapping[str, type] = {
    "separator": str,
    "text": str,
    "old": str,
    "new": str,
    "path": str,
    "list": tuple,
    "object": dict,
    "offset": int,
    "length": int,
    "key": str,
}
_NAMES: Mapping[type, str] = {
    str: "text",
    tuple: "a list",
    dict: "an object",
    int: "a whole number",
}


@frozen
class Function:
    """
    :ivar parameters: their names, which say what they take (`_KINDS`); the last
        one, where it ends in ``…``, may be given more than once.
    :ivar body: gets the values, and returns what the call stands for.
    :ivar reads: whether it gets what reads files, too, as its first argument.
    """

    parameters: tuple[str, ...]
    body: Callable[..., Data]
    reads: bool = False

    def usage(self, name: str) -> str:
        """:returns: how a call is written."""
        written = [one for one in self.parameters if not one.endswith("…")]
        if self.repeats:
            last = self.parameters[-1].rstrip("…")
            written += ["…"] if last in written else [last, "…"]
        return f"{name}({', '.join(written)})"

    @property
    def repeats(self) -> bool:
        """Whether the last argument may be given more than once."""
        return self.parameters[-1].endswith("…")

    def apply(self, values: Sequence[Value], read_file: texts.ReadFile, name: str) -> Data:
        """
        :returns: what the call stands for.
        :raises ExpressionErrors: if an argument is not what the function takes.
        """
        arguments: list[Value] = []
        faults: list[Fault] = []
        for number, value in enumerate(values):
            parameter = self.parameters[min(number, len(self.parameters) - 1)].rstrip("…")
            wanted = _KINDS.get(parameter)
            data = _converted(value.data, wanted)
            if wanted is not None and data is None:
                faults.append(
                    Fault(
                        value.at,
                        f"write {self.usage(name)}; the {parameter} here is"
                        f" {kind_of(value.data)}, not {_NAMES[wanted]}",
                    )
                )
            else:
                arguments.append(Value(value.data if wanted is None else data, value.at))
        if faults:
            raise ExpressionErrors(faults)
        result = self.body(*([read_file] if self.reads else []), *arguments)
        if isinstance(result, str) and len(result) > LONGEST:
            raise failure(values[0].at, "the text that this makes is too long")
        return result


def _converted(data: Data, wanted: type | None) -> Data:
    if wanted is str:
        return as_text(data)
    if wanted is int:
        number = as_number(data)
        return number if isinstance(number, int) else None
    return data if wanted is None or isinstance(data, wanted) else None


def called(name: str, count: int, at: Position, *, spread: bool = False) -> Fault | None:
    """:returns: what is wrong with a call of so many arguments, if anything."""
    if name not in FUNCTIONS:
        names = sorted([*FUNCTIONS, "can", "coalesce", "default"])
        hint = did_you_mean(name, names) or f"; there are {', '.join(names)}"
        return Fault(at, f"there is no function {shown(name)}{hint}")
    function = FUNCTIONS[name]
    fixed = len(function.parameters) - function.repeats
    if (count > fixed and not function.repeats) or (count < fixed and not spread):
        given = f"{count or 'no'} argument{'' if count == 1 else 's'}"
        return Fault(at, f"write {function.usage(name)}; {given} given here")
    return None


#: Every function but ``can``, ``coalesce`` and ``default``.
FUNCTIONS: Mapping[str, Function] = {
    "base64_decode": Function(("text",), texts.base64_decode),
    "base64_encode": Function(("text",), texts.base64_encode),
    "concat": Function(("list", "list…"), lists.concat),
    "contains": Function(("list", "value"), lists.contains),
    "file": Function(("path",), texts.file, reads=True),
    "filebase64": Function(("path",), texts.filebase64, reads=True),
    "join": Function(("separator", "list", "list…"), texts.join),
    "json_decode": Function(("text",), lists.json_decode),
    "json_encode": Function(("value",), lists.json_encode),
    "keys": Function(("object",), lists.keys),
    "length": Function(("value",), lists.length),
    "lookup": Function(("object", "key", "default"), lists.lookup),
    "lower": Function(("text",), texts.lower),
    "merge": Function(("value…",), lists.merge),
    "relative_url": Function(("text",), texts.relative_url),
    "replace": Function(("text", "old", "new"), texts.replace),
    "set_intersection": Function(("list", "list…"), lists.set_intersection),
    "split": Function(("separator", "text"), texts.split),
    "substr": Function(("text", "offset", "length"), texts.substr),
    "to_lower": Function(("text",), texts.lower),
    "to_number": Function(("value",), texts.to_number),
    "to_upper": Function(("text",), texts.upper),
    "trim": Function(("text",), texts.trim),
    "trimspace": Function(("text",), texts.trim),
    "upper": Function(("text",), texts.upper),
    "url_decode": Function(("text",), texts.url_decode),
    "url_encode": Function(("text",), texts.url_encode),
    "values": Function(("object",), lists.values),
}
