"""
Near misses: what a rejected client lacks to satisfy a rule.

These hints are for people.  They look at more than a verdict does, and they
decide nothing.  This module is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from mtlsgate.admission.bundles import bundle_for
from mtlsgate.admission.conditions import Clause, Condition, Leaf
from mtlsgate.admission.rules import Rule
from mtlsgate.admission.verdicts import Rejection
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.certificates.signatures import issued
from mtlsgate.text import printable


def near_misses(rule: Rule, chain: Sequence[Certificate], now: datetime) -> Iterator[str]:
    """
    :param chain: as presented, the leaf first.
    :returns: what the chain lacks to satisfy the rule, one line each, the
        likeliest cause first.
    """
    leaf = Leaf(chain[0])
    yield from _validity(leaf.certificate, now)
    if rule.bundles and isinstance(bundle_for(leaf.certificate, rule.bundles), Rejection):
        # What is wrong with it as an X.509-SVID is the verdict itself.
        return
    missing = list(_authority(rule, chain)) if rule.authorities else []
    yield from missing
    if rule.pins and not rule.pins_of(leaf.certificate.sha256) and not missing:
        # Suggest pinning a leaf only if the rule's CA issued it.
        yield from _pin(rule, leaf.certificate)
    for condition in rule.deny:
        if condition.denies(leaf):
            yield f"denied by {_stated(condition)}"
    if rule.allow and not any(condition.allows(leaf) for condition in rule.allow):
        for condition in rule.allow:
            yield from _allowed(condition, leaf)


def _validity(leaf: Certificate, now: datetime) -> Iterator[str]:
    if now > leaf.not_after:
        yield f"expired {_span(leaf.not_after, now)} ago"
    elif now < leaf.not_before:
        yield f"valid in {_span(now, leaf.not_before)}"


def _span(earlier: datetime, later: datetime) -> str:
    seconds = int((later - earlier).total_seconds())
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        count = seconds // size
        if count or unit == "second":
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError


def _authority(rule: Rule, chain: Sequence[Certificate]) -> Iterator[str]:
    """The first link that is missing or wrong between the leaf and a CA of the rule."""
    current, walked = chain[0], set[bytes]()
    while True:
        walked.add(current.sha256)
        namesakes = [
            one
            for one in (*rule.authorities, *chain[1:])
            if one.subject.key == current.issuer.key and one.sha256 not in walked
        ]
        issuer = next((one for one in namesakes if issued(one, current)), None)
        if issuer is None:
            yield _dead_end(current, namesakes, rule)
            return
        if issuer.sha256 in rule.authority_digests:
            return
        current = issuer


def _dead_end(current: Certificate, namesakes: Sequence[Certificate], rule: Rule) -> str:
    """:param namesakes: certificates that have the issuer's name, but did not issue it."""
    if any(one.sha256 in rule.authority_digests for one in namesakes):
        return "issued by a CA with the configured name but another key"
    if namesakes:
        return f"not issued by the {_name(namesakes[0])} that was sent along"
    if current.issuer.key == current.subject.key:
        if current.sha256 in rule.authority_digests:
            return "it is the rule's CA itself, and not a client that the CA issued"
        return f"{_name(current)} is self-signed, and no CA of the rule"
    return f"chain lacks the intermediate {_issuer(current)}, or it is another CA's"


def _pin(rule: Rule, leaf: Certificate) -> Iterator[str]:
    remedy = f"pin it with leaf_certificate; its sha256 is {leaf.sha256.hex()}"
    key, namesake = leaf.spki, False
    for pin in rule.pins:
        pinned = pin.certificate
        if pinned.spki == key:
            yield f"same key, another serial: a renewed certificate? {remedy}"
            return
        namesake = namesake or pinned.subject.key == leaf.subject.key
    if namesake:
        yield f"same subject as a pin, another key: a new key? {remedy}"
    else:
        yield f"none of the pins of the rule ({len(rule.pins)}); if it should be: {remedy}"


def _allowed(condition: Condition, leaf: Leaf) -> Iterator[str]:
    for clause in condition.clauses:
        if not clause.matches(leaf):
            yield _clause(clause, leaf)


def _clause(clause: Clause, leaf: Leaf) -> str:
    wanted = " or ".join(map(printable, clause.written[:3]))
    if len(clause.written) > 3:
        wanted += f" or {len(clause.written) - 3} more"
    found = ", ".join(map(printable, _found(clause.attribute, leaf)[:3]))
    return f"allowed {clause.attribute}: {wanted}; this has {found or 'none'}"


def _stated(condition: Condition) -> str:
    return ", ".join(clause.attribute for clause in condition.clauses)


def _found(attribute: str, leaf: Leaf) -> list[str]:
    if attribute == "issuers":
        return [leaf.certificate.issuer.rfc4514_string()]
    return [
        f"{value:x}" if isinstance(value, int) else str(value) for value in leaf.values(attribute)
    ]


def _name(certificate: Certificate) -> str:
    return printable(certificate.subject.rfc4514_string())


def _issuer(certificate: Certificate) -> str:
    return printable(certificate.issuer.rfc4514_string())
