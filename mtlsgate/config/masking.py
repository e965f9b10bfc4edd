"""
Tokens to a text of the same shape that ``hcl2`` reads as HashiCorp's tools read the file.

Names become underscores, numbers a digit and strings empty, so that the parser
never sees what a person wrote.  What HashiCorp's grammar allows and the grammar of
``hcl2`` does not is written in another way of the same length.
"""

from __future__ import annotations

from attrs import define

from mtlsgate.config.lines import Lines
from mtlsgate.config.tokens import Code

#: What no token of the grammar begins with.
_NOTHING = "@"


@define
class _Context:
    """
    Something open.

    :ivar kind: ``block``, ``object``, ``for``, ``(`` or ``[``.
    :ivar after_value: whether it follows a value, as an index does.
    :ivar count: how many tokens stand in it so far, and not deeper.
    :ivar place_of_in: which token the ``in`` of a ``for`` is.
    """

    kind: str
    after_value: bool = False
    count: int = 0
    place_of_in: int = 3


def mask(code: Code, lines: Lines, first: int, last: int, kind: str) -> str:
    """
    :param first: the first token.
    :param last: the token after the last.
    :param kind: what they are in: ``block`` for the file, ``(`` or ``[``.
    :returns: a text for ``hcl2``; what begins at an offset of the file begins
        at the same offset here, counted from the first token.
    """
    return _Mask(code, lines, first, last, kind).run()


class _Mask:
    def __init__(self, code: Code, lines: Lines, first: int, last: int, kind: str) -> None:
        self.code = code
        self.lines = lines
        self.first = first
        self.last = last
        self.base = code.tokens[first].start
        self.written = [" "] * (code.tokens[last].start - self.base)
        self.contexts = [_Context(kind)]
        # Whether the token before this one ends a value.
        self.after_value = False
        self.after_sign = False

    def run(self) -> str:
        index = self.first
        while index < self.last:
            index = self.token(index)
        return "".join(self.written)

    def write(self, index: int, text: str) -> None:
        start = self.code.tokens[index].start - self.base
        self.written[start : start + len(text)] = text

    def token(self, index: int) -> int:
        """:returns: the token to go on with."""
        context = self.contexts[-1]
        if self.code.kind(index) == "newline":
            self.newline(index, context)
            return index + 1
        context.count += 1
        impossible = self.impossible(index, context)
        following = self.shape(index, context)
        if impossible:
            self.write(index, _NOTHING)
        return following

    def impossible(self, index: int, context: _Context) -> bool:
        """
        :returns: whether HashiCorp's grammar has no such token here, but that of ``hcl2``
            has: a second item of an object without a comma, or ``for`` as a key.
        """
        kind = self.code.kind(index)
        if context.kind == "for":
            return context.count == 2 and kind != "name"
        if context.kind != "object" or not self.after_value:
            return False
        if kind == "(":
            return self.code.kind(index - 1) != "name"
        return kind in ("name", "number", "quote", "heredoc", "{", "!")

    def shape(self, index: int, context: _Context) -> int:
        """
        Write a token.

        :returns: the token to go on with.
        """
        code, kind = self.code, self.code.kind(index)
        after_value, self.after_value = self.after_value, code.ends_operand(index)
        after_sign, self.after_sign = self.after_sign, False
        if index in self.lines.bare:
            end = self.lines.bare[index][0]
            length = code.tokens[end - 1].end - code.tokens[index].start
            self.write(index, "_" * length)
            self.after_value = True
            return end
        match kind:
            case "quote" | "heredoc":
                end = code.closers[index]
                inside = code.tokens[end].end - code.tokens[index].start - 2
                self.write(index, f'"{"_" * inside}"')
                self.after_value = True
                return end + 1
            case "name":
                return self.name(index, context, after_value)
            case "number":
                # The grammar has numbers with a sign; this way it reads none.
                length = len(code.text(index))
                self.write(index, " " * (length - 1) + "1")
            case "-" | "!" if not after_value:
                # One stands for all: the grammar allows no more.
                self.after_sign = True
                if not after_sign:
                    self.write(index, kind)
            case "*":
                return self.star(index, context)
            case "," if context.kind == "for" and context.count == 3:
                context.place_of_in = 5
                self.write(index, kind)
            case "(" | "[" | "{":
                self.write(index, kind)
                role = {"{": "block" if index in self.lines.blocks else "object"}.get(kind, kind)
                self.contexts.append(_Context(role, after_value))
            case ")" | "]" | "}":
                self.write(index, kind)
                self.contexts.pop()
            case "stray":
                self.write(index, _NOTHING)
            case _:
                self.write(index, kind)
        return index + 1

    def newline(self, index: int, context: _Context) -> None:
        if context.kind == "block":
            self.write(index, "\n")
        elif context.kind == "object":
            # A line end separates as a comma does, which the grammar does not insist on.
            self.after_value = False
            before = self.code.kind(index - 1)
            self.write(index, " " if before in ("{", ",", "newline") else ",")

    def name(self, index: int, context: _Context, after_value: bool) -> int:
        code = self.code
        name = code.text(index)
        before, following = code.kind(index - 1), code.kind(index + 1)
        if name == "for" and context.count == 1 and context.kind in ("[", "object"):
            context.kind = "for"
            return self.keyword(index)
        in_for = context.kind == "for"
        if in_for and name == "in" and context.count == context.place_of_in:
            return self.keyword(index)
        if in_for and name == "if" and (after_value or before == "..."):
            return self.keyword(index)
        declared = in_for and context.count in (2, context.place_of_in - 1)
        literal = name in ("true", "false", "null")
        if literal and before != "." and following not in ("(", "::") and not declared:
            self.write(index, name)
        else:
            self.write(index, "_" * len(name))
        return self.namespaced(index) if following == "::" else index + 1

    def keyword(self, index: int) -> int:
        self.after_value = False
        self.write(index, self.code.text(index))
        return index + 1

    def namespaced(self, index: int) -> int:
        """:returns: the token after the names of a call, of which one is written."""
        end = index + 1
        while self.code.kind(end) == "::" and self.code.kind(end + 1) == "name":
            end += 2
        return end if self.code.kind(end) == "(" else index + 1

    def star(self, index: int, context: _Context) -> int:
        """
        Write a splat without spaces.

        :returns: the token to go on with.
        """
        code, place = self.code, self.code.tokens[index].start - self.base
        if code.kind(index - 1) == ".":
            self.write(index - 1, " ")
            self.written[place - 1 : place + 1] = ".*"
        elif code.kind(index - 1) == "[" and code.kind(index + 1) == "]" and context.after_value:
            self.write(index - 1, " ")
            self.written[place - 1 : place + 2] = "[*]"
            self.contexts.pop()
            self.after_value = True
            return index + 2
        else:
            self.write(index, "*")
        return index + 1
