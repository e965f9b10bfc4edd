"""
Text that came from outside, made safe to print on one line.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Importing this at runtime would slow down every command.
    from twisted.internet.interfaces import IAddress


def printable(text: str) -> str:
    """
    Escape characters that could forge or hide something in a log line or a terminal:
    control characters, line and paragraph separators, direction overrides,
    surrogates (CWE-117).

    :returns: the text with each such character as ``\\xNN``, ``\\uNNNN`` or
        ``\\UNNNNNNNN``.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


#: The most characters of an outside value in a log line.
MAX_LOGGED = 256


def cut(text: str, most: int) -> str:
    """:returns: the text; if it is longer than ``most``, its beginning and its length."""
    if len(text) <= most:
        return text
    mark = length_mark(text)
    return text[: most - len(mark)] + mark


def length_mark(text: str) -> str:
    """:returns: the mark at the end of a text that was cut."""
    return f"… ({len(text)} characters)"


def loggable(text: str) -> str:
    """
    Make a value from outside fit for a log line.

    :returns: the text, `printable` and cut to `MAX_LOGGED` characters.
    """
    # Escapes make it longer, so it is cut before and after.
    shown = printable(text[:MAX_LOGGED])
    if len(shown) <= MAX_LOGGED and len(text) <= MAX_LOGGED:
        return shown
    mark = length_mark(text)
    return shown[: MAX_LOGGED - len(mark)] + mark


def first_line(error: object) -> str:
    """:returns: the first line of an exception's message, or its type if it has none."""
    return str(error).partition("\n")[0] or type(error).__name__


def safe_line(error: object) -> str:
    """:returns: `first_line`, unless that contains what looks like a secret."""
    text = first_line(error)
    return "it looks like a secret" if looks_secret(text) else text


_PEM = re.compile(r"-----BEGIN |PRIVATE KEY")
_UUID = re.compile(r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}")
_HEX = re.compile(r"[0-9A-Fa-f]{32,}")
_RUN = re.compile(r"[A-Za-z0-9+_=-]{20,}")


def looks_secret(text: str) -> bool:
    """
    :returns: whether a text may be a key, a certificate or a token: PEM, long hex,
        or a long run of letters of both cases and digits, mixed as in base64.
    """
    if _PEM.search(text) or any(len(set(run)) > 7 for run in _HEX.findall(text)):
        return True
    runs = _RUN.findall(_UUID.sub("", text))
    return any(map(_is_random, [*runs, *(part for run in runs for part in re.split("[-_]", run))]))


def holds_key_material(text: str) -> bool:
    """:returns: whether a text looks secret, and not only because it holds a fingerprint."""
    return looks_secret(text) and looks_secret(_HEX.sub("", text))


def _is_random(run: str) -> bool:
    if len(run) < 20:
        return False
    kinds = [
        "0" if one.isdigit() else "a" if one.islower() else "A" for one in run if one.isalnum()
    ]
    changes = sum(one != other for one, other in pairwise(kinds))
    return len(set(kinds)) > 1 and changes * 3 > len(kinds)


def shown(text: str) -> str:
    """
    Make a name from a file fit for a message.

    :returns: the name, short, printable and without quotes in it.  If it looks like
        a secret, only its length.
    """
    if looks_secret(text):
        return _hidden(text)
    short = text if len(text) <= 40 else text[:39] + "…"
    return _quoted(short)[1:-1]


def quoted(text: str) -> str:
    """
    :returns: the text in double quotes, printable and on one line.  If it looks like
        a secret, only its length.
    """
    return _hidden(text) if looks_secret(text) else _quoted(text)


def _hidden(text: str) -> str:
    return f"(what looks like a secret, {len(text)} characters)"


def _quoted(text: str) -> str:
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def address_text(address: IAddress) -> str:
    """:returns: ``host:port``, ``[host]:port``, or another text for other addresses."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None or port is None:
        name = getattr(address, "name", None)
        # A proxy chooses the name.
        return cut(f"unix:{printable(name.decode(errors='replace')) if name else ''}", MAX_LOGGED)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
