"""
What the parser did not expect, in a person's words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsgate.config.masking import Source, UnreadableError

if TYPE_CHECKING:
    from lark.exceptions import UnexpectedInput


def unexpected(source: Source, masked: str, error: UnexpectedInput) -> UnreadableError:
    """
    :param source: the file.
    :param masked: what was parsed of it.
    :param error: the parser's.
    :returns: what is at its place, without what the person wrote there.
    """
    from lark.exceptions import UnexpectedCharacters, UnexpectedToken

    text = source.text
    if isinstance(error, UnexpectedToken):
        ended = error.token.type == "$END"
        offset = len(text) if ended else error.token.start_pos or 0
        expected = set(error.expected)
    elif isinstance(error, UnexpectedCharacters):
        offset, expected = error.pos_in_stream, set(error.allowed or ())
    else:
        offset, expected = len(text), set()
    offset += len(masked[offset:]) - len(masked[offset:].lstrip(" \t"))
    if expected == {"LBRACE"} and masked[:offset].rstrip(" \t").endswith("\n"):
        # The grammar takes a "{" in a later line too; what is missing is missing in this one.
        offset = len(masked[:offset].rstrip())

    found = text[offset : offset + 1]
    if not masked[offset:].strip():
        what = "end of file"
    elif masked[offset] in " \t\n":
        what = "end of line"
    elif found == '"':
        what = "string"
    elif text.startswith("<<", offset):
        what = "heredoc"
    elif found.isascii() and (found.isalpha() or found == "_"):
        what = "name"
    elif found.isascii() and found.isdigit():
        what = "number"
    elif found.isascii() and found.isprintable():
        what = f'"{found}"'
    else:
        what = f"character U+{ord(found):04X}"

    if found in {"'", "“", "”", "‘", "’"}:  # noqa: RUF001
        hint = '; strings are written in "double quotes"'
    elif expected == {"COLONS"} or text.startswith("::", offset):
        hint = "; functions have no namespace here"
    elif found == "~":
        hint = "; strip markers are not supported"
    elif {"EQ", "LBRACE"} <= expected or expected == {"LBRACE"}:
        hint = '; after a name comes "=" and a value, or "{" and a block'
    elif {"COMMA", "RSQB"} <= expected or {"COMMA", "RPAR"} <= expected:
        hint = '; a "," may be missing'
    elif "LSQB" in expected and what.startswith("end of"):
        hint = "; a value is missing"
    else:
        hint = ""
    return source.unreadable(offset, f"unexpected {what}{hint}")
