"""
Numbers in words, and what a reload changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtlsgate.text import printable

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))
_PREFIXES = ("kB", "MB", "GB", "TB")


def duration(seconds: float) -> str:
    """:returns: as ``12 s``, ``3 min``, ``5 h``, ``2 d``, rounded down."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds / size)} {unit}"
    return f"{int(max(0.0, seconds))} s"


def size(octets: float) -> str:
    """:returns: as ``900 B`` or ``1.2 MB``, in thousands."""
    if octets < 999.5:
        return f"{octets:.0f} B"
    scaled, prefix = octets, ""
    for prefix in _PREFIXES:
        scaled /= 1000
        if scaled < 999.95:
            return f"{scaled:.1f} {prefix}"
    return f"{scaled:.1f} {prefix}"


def counted(number: int, word: str) -> str:
    """:returns: as ``1 pin`` or ``2 pins``."""
    return f"{number} {word}{'' if number == 1 else 's'}"


def moment(text: str) -> str:
    """:returns: an RFC 3339 time of UTC to the second, as ``2027-01-31 12:00:00Z``."""
    return f"{text[:10]} {text[11:19]}Z"


def changes(reload: Mapping[str, Any]) -> list[str]:
    """
    :param reload: the gate's answer to a reload or a dry run.
    :returns: what has changed, or would change, in lines.
    """
    stays = f"epoch {reload['epoch']} stays in force"
    if not reload["succeeded"]:
        return [f"{counted(len(reload['problems']), 'problem')}: {stays}"]
    lines = [printable(change) for change in reload["changes"]] or ["nothing changes for clients"]
    if reload["is_trial"]:
        dropped = [f"would be dropped: {printable(one)}" for one in reload["dropped"]]
        return [*lines, *dropped, f"a trial: {stays}"]
    return [*lines, f"epoch {reload['epoch']} is in force, loaded in {reload['seconds']:.2f} s"]
