"""
Finding, among many rules, those that may allow a leaf.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping

from mtlsgate.admission.conditions import Clause, Condition, Leaf
from mtlsgate.admission.rules import Rule
from mtlsgate.certificates.parsing import UNPARSABLE

_Key = tuple[str, Hashable]


class Shelf:
    """
    Some rules, looked up by what their ``allow`` blocks name, so that a leaf
    that none of a thousand allows is not compared with each.

    It only leaves out what `Condition.allows` would say no to.

    :ivar places: of the rules, in order.
    :ivar _always: the places of those that allow whom their CA issued.
    :ivar _by_key: the places of the others by attribute and then by key.
    """

    def __init__(self, rules: Iterable[tuple[int, Rule]]) -> None:
        """:param rules: with their places, in order."""
        shelved = list(rules)
        self.places = tuple(place for place, _ in shelved)
        self._always = [place for place, rule in shelved if not rule.allow]
        self._by_key: dict[str, dict[Hashable, list[int]]] = {}
        common = Counter(
            key
            for _, rule in shelved
            for condition in rule.allow
            for clause in condition.clauses
            for key in _keys(clause)
        )
        for place, rule in shelved:
            # All clauses of a block must hold, so it is found by one of them.
            rarest = [_rarest(condition, common) for condition in rule.allow]
            for attribute, key in {key for clause in rarest for key in _keys(clause)}:
                self._by_key.setdefault(attribute, {}).setdefault(key, []).append(place)

    def candidates(self, leaf: Leaf) -> tuple[int, ...]:
        """:returns: the places of the rules that may allow the leaf, in order."""
        if not self._by_key:
            return self.places
        found = set(self._always)
        try:
            for attribute, by_key in self._by_key.items():
                for key in leaf.keys(attribute):
                    found.update(by_key.get(key, ()))
        except UNPARSABLE:
            # It is for the first rule that looks at it to say so.
            return self.places
        return tuple(sorted(found))


def _keys(clause: Clause) -> Iterator[_Key]:
    for key in clause.keys:
        yield clause.attribute, key


def _rarest(condition: Condition, common: Mapping[_Key, int]) -> Clause:
    """:returns: the clause that the fewest rules are found by."""
    return min(condition.clauses, key=lambda one: sum(common[key] for key in _keys(one)))
