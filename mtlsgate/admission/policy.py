"""
Who is let in.

Read `AdmissionPolicy.judge` and `verdict_of` from top to bottom to learn why a
client was rejected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from datetime import datetime
from heapq import merge

from attrs import field, frozen
from cryptography import x509

from mtlsgate.admission.conditions import Condition, Leaf, leaf_of
from mtlsgate.admission.facts import Facts
from mtlsgate.admission.rules import Admitted, Pin, Rule
from mtlsgate.admission.shelf import Shelf
from mtlsgate.admission.verdicts import Path, Rejection
from mtlsgate.certificates.parsing import UNPARSABLE, sha256
from mtlsgate.reasons import Reason

#: In the order in which a rule is gone through: of several rules that reject,
#: the one that a client came furthest with is the one to tell of.
_STAGES = (
    Reason.UNKNOWN_CA,
    Reason.LEAF_MISMATCH,
    Reason.CA_AS_LEAF,
    Reason.DENIED,
    Reason.PIN_NOT_YET_VALID,
    Reason.PIN_RETIRED,
    Reason.PATH_TOO_LONG,
    Reason.NOT_ALLOWED,
    Reason.CRL_MISSING,
    Reason.CRL_INVALID,
    Reason.CRL_EXPIRED,
    Reason.REVOKED,
)

_NOT_ALLOWED = _STAGES.index(Reason.NOT_ALLOWED)
_REVOCATION = (Reason.CRL_MISSING, Reason.CRL_INVALID, Reason.CRL_EXPIRED, Reason.REVOKED)


def _stage(rejection: Rejection) -> int:
    return _STAGES.index(rejection.reason) if rejection.reason in _STAGES else len(_STAGES)


@frozen
class AdmissionPolicy:
    """
    The rules of one server.

    :ivar rules: in file order; a client is admitted if at least one holds.
    :ivar deny: of which none may hold, whatever the rules say.
    """

    rules: tuple[Rule, ...]
    deny: tuple[Condition, ...] = ()
    #: The places of the rules by what they are found by, so that a verdict
    #: costs a few look-ups, however many rules and pins there are: rules with
    #: pins by the digest of each pin, the others by that of each CA, and all
    #: together.
    _by_pin: Mapping[bytes, tuple[int, ...]] = field(init=False, repr=False, eq=False)
    _by_authority: Mapping[bytes, Shelf] = field(init=False, repr=False, eq=False)
    _without_pins: Shelf = field(init=False, repr=False, eq=False)
    _authorities: frozenset[bytes] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if not all(rule.authorities or rule.pins for rule in self.rules):
            raise ValueError("a rule demands neither a CA nor a leaf")
        places = list(enumerate(self.rules))
        without_pins = [(n, rule) for n, rule in places if not rule.pins]
        by_authority: dict[bytes, list[tuple[int, Rule]]] = {}
        for place, rule in without_pins:
            for digest in rule.authority_digests:
                by_authority.setdefault(digest, []).append((place, rule))
        shelves = {digest: Shelf(found) for digest, found in by_authority.items()}
        object.__setattr__(self, "_by_pin", _places((n, rule.pin_digests) for n, rule in places))
        object.__setattr__(self, "_by_authority", shelves)
        object.__setattr__(self, "_without_pins", Shelf(without_pins))
        authorities = frozenset[bytes]().union(*(rule.authority_digests for rule in self.rules))
        object.__setattr__(self, "_authorities", authorities)

    def judge(
        self,
        path: Path,
        now: datetime,
        objection: Callable[[Path], Rejection | None] = lambda path: None,
    ) -> Admitted | Rejection:
        """
        :param path: as OpenSSL verified it, leaf first; at least the leaf.
        :param now: the time to judge by, aware.
        :param objection: says what else there is against a path by which a
            rule would admit; then the next rule is heard.
        :returns: the verdict.  A certificate that does not parse is a
            rejection, too; nothing is raised for what a client sent.
        """
        try:
            leaf = leaf_of(path[0])
            return self.unfit(leaf, now) or self._judge(path, leaf, now, objection)
        except UNPARSABLE as error:
            return Rejection(
                Reason.MALFORMED_CERTIFICATE,
                str(error).partition("\n")[0] or type(error).__name__,
                0,
            )

    def unfit(self, leaf: Leaf, now: datetime) -> Rejection | None:
        """
        What holds for every leaf, whatever the rules say.

        :returns: why it cannot be admitted, or None.
        """
        return _unfit(leaf.facts, now) or _denied(self.deny, leaf)

    def _judge(
        self,
        path: Path,
        leaf: Leaf,
        now: datetime,
        objection: Callable[[Path], Rejection | None],
    ) -> Admitted | Rejection:
        shelves: list[Shelf] = []
        # No rule without pins admits a CA.
        if self._by_authority and not leaf.facts.is_ca:
            above = map(self._by_authority.get, map(sha256, path[1:]))
            shelves = [found for found in above if found is not None]
        asked: Iterable[int] = self._by_pin.get(leaf.facts.digest, ())
        if shelves:
            asked = sorted({*asked, *(n for shelf in shelves for n in shelf.candidates(leaf))})
        rejections = {}
        for place in asked:
            verdict = verdict_of(self.rules[place], path, leaf, now)
            if isinstance(verdict, Admitted):
                against = objection(verdict.path)
                if against is None:
                    return verdict
                rejections[place] = against
            else:
                rejections[place] = verdict
        furthest = max(map(_stage, rejections.values()), default=0)
        # The others allow somebody else, and say so unless they say less: that
        # matters only as long as nobody has said as much.
        for place in merge(*(shelf.places for shelf in shelves)):
            if furthest >= _NOT_ALLOWED:
                break
            if place not in rejections:
                verdict = verdict_of(self.rules[place], path, leaf, now)
                assert isinstance(verdict, Rejection)
                rejections[place] = verdict
                furthest = max(furthest, _stage(verdict))
        every = [rejections[place] for place in sorted(rejections)]
        if leaf.facts.is_ca:
            every.append(_ca_as_leaf())
        elif self._authorities.isdisjoint(map(sha256, path[1:])):
            every.append(_no_known_ca(path))
        else:
            every.append(_stranger_to_its_ca())
        return max(every, key=_stage)

    def hopes(
        self, path: Path, now: datetime, among: Set[bytes] | None = None
    ) -> tuple[x509.Certificate, ...]:
        """
        :param among: the digests of the CAs that matter; None for all.
        :returns: the CAs, in file order, of rules that this path does not
            satisfy but another path to one of these might.
        """
        try:
            return tuple(self._hopes(path, leaf_of(path[0]), now, among))
        except UNPARSABLE:
            return ()

    def is_hopeful(self, path: Path, now: datetime) -> bool:
        """:returns: whether there are any `hopes`."""
        try:
            return any(True for _ in self._hopes(path, leaf_of(path[0]), now, None))
        except UNPARSABLE:
            return False

    def _hopes(
        self, path: Path, leaf: Leaf, now: datetime, among: Set[bytes] | None
    ) -> Iterator[x509.Certificate]:
        if self.unfit(leaf, now) is not None:
            return
        passed, seen = {sha256(one) for one in path[1:]}, set[bytes]()
        for place in self._may_be_hoped_of(leaf, among):
            rule = self.rules[place]
            # To a CA that the path runs through, too, if all that is wrong
            # is what lies between.
            may_mislead = rule.max_depth is not None or rule.revocation is not None
            left = rule.authority_digests - seen
            left = left if among is None else left & among
            left = left if may_mislead else left - passed
            if not left or not _may_hold(rule, leaf, now):
                continue
            if may_mislead and not _misled(verdict_of(rule, path, leaf, now)):
                left -= passed
            for digest, authority in rule.authority_by_digest.items():
                if digest in left:
                    seen.add(digest)
                    yield authority

    def _may_be_hoped_of(self, leaf: Leaf, among: Set[bytes] | None) -> Iterable[int]:
        """:returns: the places of the rules to look at, in order."""
        pinned = self._by_pin.get(leaf.facts.digest, ())
        if among is None:
            return merge(pinned, self._without_pins.candidates(leaf))
        shelves = [found for one in among if (found := self._by_authority.get(one))]
        return sorted({*pinned, *(n for shelf in shelves for n in shelf.candidates(leaf))})


def _places(found: Iterable[tuple[int, Iterable[bytes]]]) -> dict[bytes, tuple[int, ...]]:
    index: dict[bytes, tuple[int, ...]] = {}
    for place, digests in found:
        alone = (place,)
        for digest in digests:
            index[digest] = index.get(digest, ()) + alone
    return index


def verdict_of(rule: Rule, path: Path, leaf: Leaf, now: datetime) -> Admitted | Rejection:
    """
    :param leaf: the leaf of the path.
    :returns: what one rule says of a path whose leaf is fit.
    """
    position = _position(rule, path) if rule.authorities else None
    if rule.authorities and position is None:
        return _no_known_ca(path)
    pins = rule.pins_of(leaf.facts.digest)
    if rule.pins and not pins:
        return _ca_as_leaf() if leaf.facts.is_ca else _stranger_to_its_ca()
    if not rule.pins and leaf.facts.is_ca:
        return _ca_as_leaf()
    denied = _denied(rule.deny, leaf)
    if denied is not None:
        return denied
    pin = _current(pins, now)
    if isinstance(pin, Rejection):
        return pin
    if position is not None and rule.max_depth is not None:
        # Self-issued ones do not count (RFC 5280, 4.2.1.9).
        count = sum(one.subject != one.issuer for one in path[1:position])
        if count > rule.max_depth:
            return Rejection(
                Reason.PATH_TOO_LONG,
                f"{count} intermediates, where the rule allows {rule.max_depth}",
                position,
            )
    if rule.allow and not any(condition.allows(leaf) for condition in rule.allow):
        return Rejection(Reason.NOT_ALLOWED, "none of the rule's allow blocks holds", 0)
    if rule.revocation is not None and position is not None:
        objection = rule.revocation.judge(path[: position + 1], now)
        if objection is not None:
            return objection
    # Above a pin that is its own anchor stands what the client sent along, and
    # nobody vouches for that.
    return Admitted(rule, path if rule.authorities else path[:1], pin)


def _position(rule: Rule, path: Path) -> int | None:
    """:returns: at which depth the rule's CA is, the nearest where there are several."""
    for depth in range(1, len(path)):
        if sha256(path[depth]) in rule.authority_digests:
            return depth
    return None


def _may_hold(rule: Rule, leaf: Leaf, now: datetime) -> bool:
    """Whether nothing but the path keeps the rule from holding."""
    pins = rule.pins_of(leaf.facts.digest)
    if rule.pins and isinstance(_current(pins, now), Rejection):
        return False
    if not rule.pins and leaf.facts.is_ca:
        return False
    return _denied(rule.deny, leaf) is None and (
        not rule.allow or any(condition.allows(leaf) for condition in rule.allow)
    )


def _misled(verdict: Admitted | Rejection) -> bool:
    """Whether another path to the same CA may fare better."""
    if isinstance(verdict, Admitted) or verdict.depth == 0:
        return False
    return verdict.reason is Reason.PATH_TOO_LONG or verdict.reason in _REVOCATION


def _denied(conditions: tuple[Condition, ...], leaf: Leaf) -> Rejection | None:
    for condition in conditions:
        if condition.denies(leaf):
            stated = ", ".join(clause.attribute for clause in condition.clauses)
            return Rejection(Reason.DENIED, f"a deny block names it by {stated}", 0)
    return None


def _current(pins: tuple[Pin, ...], now: datetime) -> Pin | Rejection | None:
    """:returns: the first of a leaf's pins that counts now; None where there are none."""
    refusal = None
    for pin in pins:
        if pin.not_before is not None and now < pin.not_before:
            refusal = refusal or Rejection(
                Reason.PIN_NOT_YET_VALID, f"pinned from {pin.not_before.isoformat()} on", 0
            )
        elif pin.retire_after is not None and now > pin.retire_after:
            refusal = Rejection(
                Reason.PIN_RETIRED, f"the pin was retired at {pin.retire_after.isoformat()}", 0
            )
        else:
            return pin
    return refusal


def _no_known_ca(path: Path) -> Rejection:
    return Rejection(Reason.UNKNOWN_CA, "the path runs through no configured CA", len(path) - 1)


def _stranger_to_its_ca() -> Rejection:
    return Rejection(
        Reason.LEAF_MISMATCH,
        "the CA is a configured one, but the client's certificate is none of its pins",
        0,
    )


def _ca_as_leaf() -> Rejection:
    return Rejection(
        Reason.CA_AS_LEAF, "the client's certificate is a CA, and is not itself pinned", 0
    )


def _unfit(leaf: Facts, now: datetime) -> Rejection | None:
    """
    What is always checked, pinned or not (RFC 5280, 4.1.2.5 and 4.2.1.12).

    Validity counts in whole seconds, both ends included.
    """
    now = now.replace(microsecond=0)
    if now > leaf.not_after:
        return Rejection(Reason.EXPIRED, f"expired at {leaf.not_after.isoformat()}", 0)
    if now < leaf.not_before:
        return Rejection(Reason.NOT_YET_VALID, f"valid from {leaf.not_before.isoformat()}", 0)
    if not leaf.is_for_clients:
        return Rejection(
            Reason.WRONG_PURPOSE, "its extended key usage does not include clientAuth", 0
        )
    return None
