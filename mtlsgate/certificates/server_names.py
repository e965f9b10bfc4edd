"""
Server names: comparing them, and finding what a ClientHello's SNI asks for.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")

#: ASCII only: ``str.lower`` would also turn the Kelvin sign into a "k".
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def canonical(name: str) -> str:
    """:returns: the name for comparison: lower case, no trailing dot (RFC 6066, 3)."""
    return name.translate(_LOWER).removesuffix(".")


def same_name(one: str | None, other: str | None) -> bool:
    """:returns: whether two server names are the same, or both are missing."""
    if one is None or other is None:
        return one is other
    return canonical(one) == canonical(other)


@frozen
class NameTable(Generic[T]):
    """
    Looks up server names, exact ones before wildcards.

    :ivar _entries: the entries by canonical name.  In ``*.b.example`` the ``*``
        matches one label (RFC 9525, 6.3).
    """

    _entries: Mapping[str, T]

    def find(self, name: str | None) -> T | None:
        """
        :param name: the name in the ClientHello, or None if there is none.
        :returns: the entry for this name, or None.
        """
        if name is None:
            return None
        exact = canonical(name)
        found = self._entries.get(exact)
        if found is None:
            label, dot, parent = exact.partition(".")
            found = self._entries.get(f"*.{parent}") if label and dot else None
        return found

    def values(self) -> Iterable[T]:
        """:returns: all entries."""
        return self._entries.values()


def first_by_name(offers: Iterable[tuple[Iterable[str], T]]) -> NameTable[T]:
    """:returns: a table in which each name belongs to the first that offers it."""
    entries: dict[str, T] = {}
    for names, offer in offers:
        for name in names:
            entries.setdefault(canonical(name), offer)
    return NameTable(entries)
