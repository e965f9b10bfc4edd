"""
Server names: which of several things a ClientHello's SNI asks for.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping
from typing import Generic, TypeVar

from attrs import frozen

T = TypeVar("T")

#: ASCII only: ``str.lower`` makes a "k" of the Kelvin sign, too.
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def canonical(name: str) -> str:
    """:returns: the name as it is compared: lower case, no trailing dot (RFC 6066, 3)."""
    return name.translate(_LOWER).removesuffix(".")


def same_name(one: str | None, other: str | None) -> bool:
    """:returns: whether two server names, or their absence, are the same."""
    if one is None or other is None:
        return one is other
    return canonical(one) == canonical(other)


@frozen
class NameTable(Generic[T]):
    """
    Looks names up, an exact one before a wildcard.

    :ivar _entries: by canonical name; ``*.b.example`` stands for one label in
        front of ``.b.example`` (RFC 9525, 6.3).
    """

    _entries: Mapping[str, T]

    def find(self, name: str | None) -> T | None:
        """
        :param name: as the ClientHello has it, or None where it has none.
        :returns: what is registered for it, or None.
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
        """:returns: everything that is registered."""
        return self._entries.values()


def first_by_name(offers: Iterable[tuple[Iterable[str], T]]) -> NameTable[T]:
    """:returns: a table in which the first to offer a name has it."""
    entries: dict[str, T] = {}
    for names, offer in offers:
        for name in names:
            entries.setdefault(canonical(name), offer)
    return NameTable(entries)
