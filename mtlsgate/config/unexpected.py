"""
What to say of a token that is not expected, without what the person wrote.
"""

from __future__ import annotations

from mtlsgate.config.source import UnreadableError
from mtlsgate.config.tokens import Code

#: What stands between two operands.
OPERATORS = frozenset(("*", "/", "%", "+", "-", "<", ">", "<=", ">=", "==", "!=", "&&", "||"))

AFTER_NAME = '; after a name comes "=" and a value, or "{" and a block'
COMMA_AT_END = "; attributes end with their line, without a comma"
CONDITIONAL = "; a conditional is written condition ? yes : no"
MISSING = "; a value is missing"
_AFTER_KEY = '; after a key comes "=" and a value'
_ALONE = "; a block on one line holds one attribute; put each on a line of its own"
_COLON = '; a ":" follows what is iterated over'
_COMMA = '; a "," may be missing'
_COMMA_OR_LINE = '; a "," or a line end may be missing'
_IN_QUOTES = '; put text in "quotes"'
_QUOTES = '; strings are written in "double quotes"'


def unexpected(code: Code, index: int, hint: str = "") -> UnreadableError:
    """
    :param hint: what to do about it, where the token itself does not tell.
    :returns: what is wrong with a token.
    """
    text = f"unexpected {_named(code, index)}{_own_hint(code.text(index)) or hint}"
    return code.source.unreadable(code.tokens[index].start, text)


def refused(
    code: Code, first: int, index: int, blocks: frozenset[int], kind: str, hint: str
) -> UnreadableError:
    """
    :param first: where what was parsed begins.
    :param index: the token that ``hcl2`` refused.
    :param blocks: the ``{`` of each block.
    :param kind: what the tokens are in: ``block`` for the file, ``(`` or ``[``.
    :param hint: what to do where an expression in a template is over before its ``}``.
    :returns: what is wrong, by what stands before the token.
    """
    opener = None
    following = first
    inner: list[int] = []
    while following < index:
        closer = code.closers.get(following)
        if closer is not None and closer >= index:
            opener, inner = following, []
            following += 1
        else:
            inner.append(following)
            following = code.after(following)
    kinds = [code.kind(one) for one in inner]
    if opener in blocks or (opener is None and kind == "block"):
        return unexpected(code, index, _in_body(code, index, inner, one_line=opener is not None))
    if opener is None and kind == "[":
        return unexpected(code, index, _for_names(code, index, inner, hint))
    words = [one for one in inner if code.kind(one) != "newline"]
    if opener is not None and words and code.text(words[0]) == "for" and code.kind(opener) != "(":
        return _in_for(code, opener, index, words)
    if index == first or not code.ends_operand(index - 1):
        return unexpected(code, index, _for_value(code, index))
    if kinds.count("?") > kinds.count(":"):
        return unexpected(code, index, CONDITIONAL)
    if opener is None:
        return unexpected(code, index, hint)
    if code.kind(opener) == "{":
        since = [kind for kind in kinds[_last(kinds, (",", "newline")) + 1 :] if kind in ("=", ":")]
        return unexpected(code, index, _COMMA_OR_LINE if since else _AFTER_KEY)
    return unexpected(code, index, _COMMA)


def _in_body(code: Code, index: int, inner: list[int], *, one_line: bool) -> str:
    """:returns: what to do about a token of the file or of a block."""
    kinds = [code.kind(one) for one in inner]
    line = kinds[_last(kinds, ("newline",)) + 1 :]
    one_line = one_line and "newline" not in kinds
    if "=" not in line[1:]:
        return AFTER_NAME if line else ""
    if not code.ends_operand(index - 1):
        return _for_value(code, index)
    if line.count("?") > line.count(":"):
        return CONDITIONAL
    if one_line:
        return _ALONE
    return COMMA_AT_END if code.kind(index) == "," else ""


def _in_for(code: Code, opener: int, index: int, inner: list[int]) -> UnreadableError:
    kinds = [code.kind(one) for one in inner]
    is_list = code.kind(opener) == "["
    kind = code.kind(index)
    if ":" not in kinds:
        return unexpected(code, index, _for_names(code, index, inner, _COLON))
    if not code.ends_operand(code.after(inner[-1]) - 1):
        return unexpected(code, index, _for_value(code, index))
    if kinds.count("?") >= kinds.count(":"):
        return unexpected(code, index, CONDITIONAL)
    if is_list and kind == "=>":
        return unexpected(code, index, "; a for in { } makes an object")
    if is_list and kind == "...":
        return unexpected(code, index, "; only a for in { } groups")
    if not is_list and kind == "}" and "=>" not in kinds:
        return code.source.unreadable(
            code.tokens[index].start, "a for in { } needs a key and a value: key => value"
        )
    return unexpected(code, index)


def _for_names(code: Code, index: int, written: list[int], hint: str) -> str:
    """
    :param written: the tokens from ``for`` to the one that is not expected.
    :param hint: what to do after a ``for … in`` with a value.
    :returns: what to do about a token before the colon of a ``for``.
    """
    kinds = [code.kind(one) for one in written]
    if kinds in (["name"], ["name", "name", ","]):
        return "; for is followed by a name, or two with a comma between them"
    if "in" not in [code.text(one) for one in written[2:]]:
        return '; "in" follows the names of a for'
    if not code.ends_operand(code.after(written[-1]) - 1) or code.text(written[-1]) == "in":
        return _for_value(code, index)
    return hint


def _for_value(code: Code, index: int) -> str:
    """:returns: what to do where a value should begin."""
    if code.kind(index - 1) == ".":
        return "; a name follows the dot"
    kind = code.kind(index)
    if kind in ("newline", "end"):
        return MISSING
    return _IN_QUOTES if kind in ("*", "/", ".", "<", "stray") else ""


def _last(kinds: list[str], wanted: tuple[str, ...]) -> int:
    """:returns: the last place of one of the kinds, or -1."""
    return max((place for place, kind in enumerate(kinds) if kind in wanted), default=-1)


def _named(code: Code, index: int) -> str:
    match code.kind(index):
        case "end":
            return "end of file"
        case "newline":
            return "end of line"
        case "quote" | "end quote":
            return "string"
        case "heredoc" | "name" | "number" as kind:
            return kind
    character = code.text(index)
    if character.isascii() and character.isprintable():
        return f'"{character}"'
    return f"character U+{ord(character):04X}"


def _own_hint(text: str) -> str:
    if text in {"'", "“", "”", "‘", "’", "`"}:  # noqa: RUF001
        return _QUOTES
    if text == ";":
        return '; there is no ";" in HCL: remove it'
    if text == "::":
        return "; functions have no namespace here"
    return ""
