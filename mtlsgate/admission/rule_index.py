"""
The rule index: finds the few rules that may admit a client.

A server may have thousands of rules and tens of thousands of pins.  The index
finds candidates by the client's leaf (for pins), by the CAs above it, and by
the names that ``allow`` blocks ask for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence, Set

from mtlsgate.admission.conditions import Clause, Condition, Leaf
from mtlsgate.admission.rules import Rule
from mtlsgate.admission.verdicts import Path

#: A rule's position in the server's list of rules.
Place = int

_Key = tuple[str, Hashable]


class RuleIndex:
    """
    Finds the rules of one server that may admit a client.  Every rule that it
    leaves out would reject the client.

    :ivar authorities: the digests of the CAs of all rules.
    :ivar _by_pin: the places of the rules with pins, by the digest of each pin.
    :ivar _by_authority: the rules without pins, by the digest of each CA.
    :ivar _without_pins: all rules without pins.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        """:param rules: in file order."""
        places = list(enumerate(rules))
        self.authorities = frozenset[bytes]().union(*(rule.authority_digests for rule in rules))
        self._by_pin: dict[bytes, tuple[Place, ...]] = {}
        for place, rule in places:
            for digest in rule.pin_digests:
                self._by_pin[digest] = (*self._by_pin.get(digest, ()), place)
        without_pins = [(place, rule) for place, rule in places if not rule.pins]
        by_authority: dict[bytes, list[tuple[Place, Rule]]] = {}
        for place, rule in without_pins:
            for digest in rule.authority_digests:
                by_authority.setdefault(digest, []).append((place, rule))
        self._by_authority = {digest: _ByCondition(found) for digest, found in by_authority.items()}
        self._without_pins = _ByCondition(without_pins)

    def candidates(self, path: Path, leaf: Leaf) -> list[Place]:
        """
        :param leaf: the path's leaf.
        :returns: the places of the rules that may admit the path, in order.
        """
        return self.candidates_by(leaf, {one.sha256 for one in path[1:]})

    def others(self, path: Path) -> Iterator[Place]:
        """:returns: the places of all rules without pins that name a CA of the
        path, in order.  This may include `candidates`."""
        found = [self._by_authority.get(one.sha256) for one in path[1:]]
        yield from sorted({place for one in found if one is not None for place in one.places})

    def candidates_by(self, leaf: Leaf, authorities: Set[bytes] | None) -> list[Place]:
        """
        :param authorities: the digests of the CAs that a path may run through;
            None means any CA.
        :returns: the places of the rules that may admit the leaf on such a path,
            in order.
        """
        found = set(self._by_pin.get(leaf.certificate.sha256, ()))
        # Rules without pins never admit a CA.
        if not leaf.certificate.is_ca:
            if authorities is None:
                found.update(self._without_pins.candidates(leaf))
            else:
                for digest in authorities:
                    if digest in self._by_authority:
                        found.update(self._by_authority[digest].candidates(leaf))
        return sorted(found)


class _ByCondition:
    """
    Finds rules by what their ``allow`` blocks ask for.

    :ivar places: the places of all its rules, in order.
    :ivar _always: the places of the rules without an ``allow`` block.
    :ivar _by_key: the places of the other rules, by attribute and then by key.
    """

    def __init__(self, rules: Iterable[tuple[Place, Rule]]) -> None:
        """:param rules: the rules with their places, in order."""
        given = list(rules)
        self.places = tuple(place for place, _ in given)
        self._always = [place for place, rule in given if not rule.allow]
        self._by_key: dict[str, dict[Hashable, list[Place]]] = {}
        common = Counter(
            key
            for _, rule in given
            for condition in rule.allow
            for clause in condition.clauses
            for key in _keys(clause)
        )
        for place, rule in given:
            # All clauses of a block must match, so indexing one of them is enough.
            rarest = [_rarest(condition, common) for condition in rule.allow]
            for attribute, key in {key for clause in rarest for key in _keys(clause)}:
                self._by_key.setdefault(attribute, {}).setdefault(key, []).append(place)

    def candidates(self, leaf: Leaf) -> set[Place]:
        """:returns: the places of the rules that may allow the leaf."""
        found = set(self._always)
        for attribute, by_key in self._by_key.items():
            for key in leaf.keys(attribute):
                found.update(by_key.get(key, ()))
        return found


def _keys(clause: Clause) -> Iterator[_Key]:
    for key in clause.keys:
        yield clause.attribute, key


def _rarest(condition: Condition, common: Mapping[_Key, int]) -> Clause:
    """:returns: the clause whose keys lead to the fewest rules."""
    return min(condition.clauses, key=lambda one: sum(common[key] for key in _keys(one)))
