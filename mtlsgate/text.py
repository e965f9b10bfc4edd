"""
Text that came from outside, made safe to print on one line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # Which takes a while to import, and every command waits for it.
    from twisted.internet.interfaces import IAddress


def printable(text: str) -> str:
    """
    Escape whatever could forge or hide something in a log line or a terminal:
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


#: Characters of a value from outside in a log line, at most.
MAX_LOGGED = 256


def cut(text: str, most: int) -> str:
    """:returns: the text, or its beginning and how long it is, in that many characters."""
    if len(text) <= most:
        return text
    mark = length_mark(text)
    return text[: most - len(mark)] + mark


def length_mark(text: str) -> str:
    """:returns: what stands at the end of a text that is cut."""
    return f"… ({len(text)} characters)"


def loggable(text: str) -> str:
    """
    :returns: a value that a client, or anybody outside, has chosen, fit for a log
        line: `printable`, and cut to `MAX_LOGGED` characters.
    """
    # Escapes make it longer, so it is cut before and after.
    shown = printable(text[:MAX_LOGGED])
    if len(shown) <= MAX_LOGGED and len(text) <= MAX_LOGGED:
        return shown
    mark = length_mark(text)
    return shown[: MAX_LOGGED - len(mark)] + mark


def shown(text: str) -> str:
    """
    :returns: a name out of a file, fit to stand in a message, with quotes
        around it or without: short, printable, and without a quote of its own.
    """
    short = text if len(text) <= 40 else text[:39] + "…"
    return quoted(short)[1:-1]


def quoted(text: str) -> str:
    """:returns: the text in double quotes, printable and on one line."""
    return '"' + printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def address_text(address: IAddress) -> str:
    """:returns: ``host:port``, ``[host]:port``, or what the address has to say of itself."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None or port is None:
        name = getattr(address, "name", None)
        # A proxy may say whatever it likes.
        return f"unix:{printable(name.decode(errors='replace')) if name else ''}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
