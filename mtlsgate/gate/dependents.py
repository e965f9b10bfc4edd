"""
Which live connections depend on what a registry says of which keys.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from mtlsgate.admission.listings import Question


class Dependents:
    """
    Connections, by the registries and keys that their admission depends on.  A change of a
    key that no connection depends on costs one look-up.
    """

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str], set[int]] = {}
        self._by_registry: dict[str, dict[int, None]] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def add(self, number: int, questions: Iterable[Question]) -> None:
        """:param number: the connection's."""
        for question in questions:
            self._by_registry.setdefault(question.registry, {})[number] = None
            for key in question.keys:
                self._by_key.setdefault((question.registry, key), set()).add(number)

    def remove(self, number: int, questions: Iterable[Question]) -> None:
        """:param questions: those with which it was added."""
        for question in questions:
            self._by_registry.get(question.registry, {}).pop(number, None)
            for key in question.keys:
                numbers = self._by_key.get((question.registry, key))
                if numbers is not None:
                    numbers.discard(number)
                    if not numbers:
                        del self._by_key[question.registry, key]

    def of(self, registry: str, keys: Collection[str] | None) -> Iterator[int]:
        """
        :param keys: those that changed; None for all.
        :returns: the connections that depend on them.
        """
        if keys is None:
            yield from tuple(self._by_registry.get(registry, ()))
            return
        for key in keys:
            yield from tuple(self._by_key.get((registry, key), ()))
