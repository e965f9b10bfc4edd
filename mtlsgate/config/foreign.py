"""
Files that are not HCL, told by how they begin.
"""

from __future__ import annotations

import re

_HCL = "the configuration is HCL: name = value, and name { … }"
_FIRST = re.compile(r"(?:\s|\#[^\n]*\n|//[^\n]*\n)*")
_FORMATS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r'\{\s*(?:"|\}|$)'), f"this is JSON; {_HCL}"),
    (
        re.compile(r"\[\[?[\w.\"' -]+\]\]?[ \t]*(?:\#[^\n]*)?(?:\n|$)"),
        f"this is TOML or INI; {_HCL}",
    ),
    (re.compile(r"---[ \t]*\n|%YAML|[\w-]+:[ \t]*\n[ \t]+[\w-]"), f"this is YAML; {_HCL}"),
    (re.compile(r"<\?xml|<[A-Za-z]+[ >]"), f"this is XML; {_HCL}"),
    (
        re.compile(r"-----BEGIN "),
        f"this is PEM, a certificate or a key; {_HCL}",
    ),
)


def foreign_format(text: str) -> tuple[int, str] | None:
    """:returns: where a text begins that is not HCL, and what it is; None if
    nothing tells."""
    found = _FIRST.match(text)
    start = found.end() if found is not None else 0
    return next(((start, what) for pattern, what in _FORMATS if pattern.match(text, start)), None)
