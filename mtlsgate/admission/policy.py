"""
The decision: which clients get in.

To learn why a client was rejected, read `AdmissionPolicy.judge` and `verdict_of`
from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from datetime import datetime

from attrs import Factory, evolve, field, frozen

from mtlsgate.admission.bundles import bundle_for
from mtlsgate.admission.conditions import Condition, Leaf, leaf_of
from mtlsgate.admission.devices import Device
from mtlsgate.admission.leaf import unfit
from mtlsgate.admission.listings import (
    NOT_ASKED,
    Answers,
    denied_by_registry,
    listed,
    questions_of,
)
from mtlsgate.admission.rule_index import RuleIndex
from mtlsgate.admission.rules import Admitted, Pin, Rule, missing_bundles
from mtlsgate.admission.verdicts import Path, Rejection
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.reasons import Reason
from mtlsgate.text import first_line

#: The order of the checks in a rule.  If several rules reject, the log shows the
#: rejection that comes last in this order: it came closest to admitting.
_STAGES = (
    Reason.UNKNOWN_CA,
    Reason.LEAF_MISMATCH,
    Reason.BUNDLE_MISSING,
    Reason.SVID_INVALID,
    Reason.WRONG_TRUST_DOMAIN,
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
    Reason.NOT_REGISTERED,
    Reason.REGISTRY_UNAVAILABLE,
    Reason.REGISTRY_DENIED,
)

_NOT_ALLOWED = _STAGES.index(Reason.NOT_ALLOWED)
_REVOCATION = (Reason.CRL_MISSING, Reason.CRL_INVALID, Reason.CRL_EXPIRED, Reason.REVOKED)


def _stage(rejection: Rejection) -> int:
    return _STAGES.index(rejection.reason) if rejection.reason in _STAGES else len(_STAGES)


def _agrees(path: Path) -> None:
    """No objection."""


@frozen
class AdmissionPolicy:
    """
    The rules of one server.

    :ivar rules: in file order; a client is admitted if one of them admits it.
    :ivar deny: a client that matches one of these is rejected, whatever the rules say.
    """

    rules: tuple[Rule, ...]
    deny: tuple[Condition, ...] = ()
    _index: RuleIndex = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: RuleIndex(self.rules), takes_self=True),
    )

    def __attrs_post_init__(self) -> None:
        if not all(rule.demands_ca or rule.pins for rule in self.rules):
            raise ValueError("a rule demands neither a CA nor a leaf")

    @property
    def registries(self) -> frozenset[str]:
        """The labels of the registries that its rules and ``deny`` blocks ask."""
        conditions = (*self.deny, *(one for rule in self.rules for one in rule.deny))
        named = (*(one.registry for one in conditions), *(rule.registry for rule in self.rules))
        return frozenset(one.label for one in named if one is not None)

    def judge(
        self,
        path: Path,
        now: datetime,
        objection: Callable[[Path], Rejection | None] = _agrees,
        answers: Answers = NOT_ASKED,
    ) -> Admitted | Rejection:
        """
        :param path: as OpenSSL verified it, leaf first; at least the leaf.
        :param now: the time to judge by, aware.
        :param objection: called with a path that a rule admits.  If it returns
            a rejection, the next rule is tried.
        :param answers: what registries say.  A question without an answer counts as
            favourable: see `Admitted.questions`.
        :returns: the verdict.  Bad input never raises: if the verdict needs a
            field that cannot be read, the client is rejected.
        """
        for depth, one in enumerate(path):
            if not one.has_known_version:
                return Rejection(
                    Reason.MALFORMED_CERTIFICATE, "its version is none that exists", depth
                )
        try:
            leaf = leaf_of(path[0])
            return (
                unfit(path[0], now)
                or denied(self.deny, leaf)
                or denied_by_registry(self.deny, leaf, answers)
                or self._by_rules(path, leaf, now, objection, answers)
            )
        except UNPARSABLE as error:
            return malformed(error, 0)

    def confirmed(self, verdict: Admitted, now: datetime, answers: Answers) -> Admitted | None:
        """
        Add what registries say to a verdict that was given without it.

        :param verdict: of this policy, given so recently that time changes nothing in it.
        :param now: the time to judge by, aware.
        :param answers: as for `judge`.
        :returns: the verdict that `judge` would give, if it is by the same rule: answers can
            only turn a rule against a client.  None if it must be judged anew.
        """
        leaf = leaf_of(verdict.path[0])
        if denied_by_registry(self.deny, leaf, answers) is not None:
            return None
        device = _by_registries(verdict.rule, leaf, now, answers)
        if isinstance(device, Rejection):
            return None
        return Admitted(verdict.rule, verdict.path, verdict.pin, verdict.questions, device)

    def _by_rules(
        self,
        path: Path,
        leaf: Leaf,
        now: datetime,
        objection: Callable[[Path], Rejection | None],
        answers: Answers,
    ) -> Admitted | Rejection:
        rejections = dict[int, Rejection]()
        for place in self._index.candidates(path, leaf):
            verdict = verdict_of(self.rules[place], path, leaf, now, answers)
            if isinstance(verdict, Admitted):
                against = objection(verdict.path)
                if against is None:
                    asked = tuple(questions_of(None, self.deny, leaf))
                    if asked:
                        return evolve(verdict, questions=(*asked, *verdict.questions))
                    return verdict
                verdict = against
            rejections[place] = verdict
        return self._closest(path, leaf, now, rejections, answers)

    def _closest(
        self,
        path: Path,
        leaf: Leaf,
        now: datetime,
        rejections: dict[int, Rejection],
        answers: Answers,
    ) -> Rejection:
        """:returns: the rejection that came closest to admitting."""
        furthest = max(map(_stage, rejections.values()), default=0)
        if not leaf.certificate.is_ca:
            # The other rules on these CAs allow other clients.  One such
            # rejection is enough.
            for place in self._index.others(path):
                if furthest >= _NOT_ALLOWED:
                    break
                if place not in rejections:
                    verdict = verdict_of(self.rules[place], path, leaf, now, answers)
                    assert isinstance(verdict, Rejection)
                    rejections[place] = verdict
                    furthest = max(furthest, _stage(verdict))
        every = [rejections[place] for place in sorted(rejections)]
        every += missing_bundles(self.rules)[:1]
        if leaf.certificate.is_ca:
            every.append(_ca_as_leaf())
        elif self._index.authorities.isdisjoint(one.sha256 for one in path[1:]):
            every.append(_no_known_ca(path))
        else:
            every.append(_no_pin())
        return max(every, key=_stage)

    def hopes(
        self,
        path: Path,
        now: datetime,
        among: Set[bytes] | None = None,
        answers: Answers = NOT_ASKED,
    ) -> Iterator[Certificate]:
        """
        Find the CAs to which another path may help.

        :param path: a path that is not admitted, leaf first.
        :param among: the digests of the CAs to consider; None means all.
        :param answers: as for `judge`.
        :returns: CAs of rules that may admit the same leaf on another path to
            that CA, in file order.
        """
        leaf = leaf_of(path[0])
        try:
            if unfit(path[0], now) or denied(self.deny, leaf):
                return
            if denied_by_registry(self.deny, leaf, answers):
                return
            passed, seen = {one.sha256 for one in path[1:]}, set[bytes]()
            for place in self._index.candidates_by(leaf, among):
                rule = self.rules[place]
                trusted = _trusted(rule, leaf)
                if isinstance(trusted, Rejection):
                    continue
                wanted = trusted - seen
                wanted = wanted if among is None else wanted & among
                if not wanted or not _may_admit(rule, leaf, now, answers):
                    continue
                judges_path = rule.max_depth is not None or rule.revocation is not None
                if not (judges_path and _blames_path(verdict_of(rule, path, leaf, now, answers))):
                    # Another path to the same CA would not change the rule's verdict.
                    wanted -= passed
                for digest, authority in rule.authority_by_digest.items():
                    if digest in wanted:
                        seen.add(digest)
                        yield authority
        except UNPARSABLE:
            return


def verdict_of(
    rule: Rule, path: Path, leaf: Leaf, now: datetime, answers: Answers = NOT_ASKED
) -> Admitted | Rejection:
    """
    :param leaf: the leaf of the path; it has passed `unfit`.
    :param answers: as for `AdmissionPolicy.judge`.
    :returns: one rule's verdict on a path.
    """
    trusted = _trusted(rule, leaf)
    if isinstance(trusted, Rejection):
        return trusted
    depth = _depth_of(trusted, path)
    if rule.demands_ca and depth is None:
        if _depth_of(rule.authority_digests, path) is None:
            return _no_known_ca(path)
        return Rejection(
            Reason.WRONG_TRUST_DOMAIN,
            "its path ends in the bundle of another trust domain than its SPIFFE ID is in",
            0,
        )
    pins = rule.pins_of(leaf.certificate.sha256)
    if rule.pins and not pins:
        return _ca_as_leaf() if leaf.certificate.is_ca else _no_pin()
    if not rule.pins and leaf.certificate.is_ca:
        return _ca_as_leaf()
    rejection = denied(rule.deny, leaf)
    if rejection is not None:
        return rejection
    pin = _current(pins, now)
    if isinstance(pin, Rejection):
        return pin
    if depth is not None and rule.max_depth is not None:
        # Self-issued intermediates do not count (RFC 5280, 4.2.1.9).
        count = sum(one.subject.key != one.issuer.key for one in path[1:depth])
        if count > rule.max_depth:
            return Rejection(
                Reason.PATH_TOO_LONG,
                f"{count} intermediates, where the rule allows {rule.max_depth}",
                depth,
            )
    if not _is_allowed(rule, leaf):
        return Rejection(Reason.NOT_ALLOWED, "none of the rule's allow blocks matches", 0)
    if rule.revocation is not None and depth is not None:
        rejection = rule.revocation.judge(path[: depth + 1], now)
        if rejection is not None:
            return rejection
    # Without a CA nothing verifies what the client sent above the pin: drop it.
    path = path if rule.demands_ca else path[:1]
    if not rule.asks:
        return Admitted(rule, path, pin)
    device = _by_registries(rule, leaf, now, answers)
    if isinstance(device, Rejection):
        return device
    return Admitted(rule, path, pin, tuple(questions_of(rule.registry, rule.deny, leaf)), device)


def _by_registries(
    rule: Rule, leaf: Leaf, now: datetime, answers: Answers
) -> Device | Rejection | None:
    """:returns: the device that a rule's registry lists; None if there is none to be asked,
    or it was not asked; or why the rule's registries do not let the leaf in."""
    rejection = denied_by_registry(rule.deny, leaf, answers)
    if rejection is not None or rule.registry is None or not answers:
        return rejection
    return listed(rule.registry, leaf.certificate, now, answers)


def _trusted(rule: Rule, leaf: Leaf) -> Set[bytes] | Rejection:
    """:returns: the digests of the CAs that may vouch for a leaf; or why a rule that names
    trust domains does not admit it."""
    if not rule.bundles:
        return rule.authority_digests
    if leaf.certificate.is_ca:
        return _ca_as_leaf()
    bundle = bundle_for(leaf.certificate, rule.bundles)
    return bundle if isinstance(bundle, Rejection) else bundle.digests


def _depth_of(trusted: Set[bytes], path: Path) -> int | None:
    """:returns: the lowest depth at which the path has one of these CAs."""
    for depth in range(1, len(path)):
        if path[depth].sha256 in trusted:
            return depth
    return None


def _is_allowed(rule: Rule, leaf: Leaf) -> bool:
    return not rule.allow or any(condition.allows(leaf) for condition in rule.allow)


def _may_admit(rule: Rule, leaf: Leaf, now: datetime, answers: Answers) -> bool:
    """Whether the rule admits this leaf if the path is right."""
    pins = rule.pins_of(leaf.certificate.sha256)
    if rule.pins and (not pins or isinstance(_current(pins, now), Rejection)):
        return False
    if not rule.pins and leaf.certificate.is_ca:
        return False
    if rule.asks and isinstance(_by_registries(rule, leaf, now, answers), Rejection):
        return False
    return denied(rule.deny, leaf) is None and _is_allowed(rule, leaf)


def _blames_path(verdict: Admitted | Rejection) -> bool:
    """Whether another path to the same CA may be admitted."""
    if isinstance(verdict, Admitted) or verdict.depth == 0:
        return False
    return verdict.reason is Reason.PATH_TOO_LONG or verdict.reason in _REVOCATION


def denied(conditions: tuple[Condition, ...], leaf: Leaf) -> Rejection | None:
    """:returns: a rejection if a ``deny`` block matches the leaf, or None."""
    for condition in conditions:
        if condition.denies(leaf):
            stated = ", ".join(clause.attribute for clause in condition.clauses)
            return Rejection(Reason.DENIED, f"a deny block names it by {stated}", 0)
    return None


def malformed(error: Exception, depth: int) -> Rejection:
    """:returns: the rejection of a certificate that cannot be parsed."""
    detail = first_line(error)
    return Rejection(Reason.MALFORMED_CERTIFICATE, detail, depth)


def _current(pins: tuple[Pin, ...], now: datetime) -> Pin | Rejection | None:
    """:returns: the first of a leaf's pins that is valid now, or why none is; None
    if there are no pins."""
    rejection = None
    for pin in pins:
        if pin.not_before is not None and now < pin.not_before:
            rejection = rejection or Rejection(
                Reason.PIN_NOT_YET_VALID, f"pinned from {pin.not_before.isoformat()} on", 0
            )
        elif pin.retire_after is not None and now > pin.retire_after:
            rejection = Rejection(
                Reason.PIN_RETIRED, f"the pin was retired at {pin.retire_after.isoformat()}", 0
            )
        else:
            return pin
    return rejection


def _no_known_ca(path: Path) -> Rejection:
    return Rejection(Reason.UNKNOWN_CA, "the path runs through no configured CA", len(path) - 1)


def _no_pin() -> Rejection:
    return Rejection(
        Reason.LEAF_MISMATCH,
        "the CA is a configured one, but the client's certificate is none of its pins",
        0,
    )


def _ca_as_leaf() -> Rejection:
    return Rejection(
        Reason.CA_AS_LEAF, "the client's certificate is a CA, and is not itself pinned", 0
    )
