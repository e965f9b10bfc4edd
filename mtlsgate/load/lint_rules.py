"""
Warnings about rules that other blocks leave without effect.

This module is pure, as `mtlsgate.load.lint` is.
"""

from __future__ import annotations

from collections.abc import Iterator

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.config.model import ClientCertificate
from mtlsgate.text import quoted


def among_rules(
    blocks: tuple[ClientCertificate, ...], policy: AdmissionPolicy
) -> Iterator[tuple[ClientCertificate, str]]:
    """
    :param blocks: the rules of a server as written.
    :param policy: the same rules.
    :returns: the blocks to warn of, and why.
    """
    yield from _shadowed(blocks, policy.rules)
    yield from _doubled(blocks, policy.rules)
    yield from _denying_itself(blocks, policy)


def _shadowed(
    blocks: tuple[ClientCertificate, ...], rules: tuple[Rule, ...]
) -> Iterator[tuple[ClientCertificate, str]]:
    """
    A rule without effect: another rule admits all its leaves anyway.  If it comes first
    and has a label, it does have an effect: `peer.rule` shows its name.
    """
    free = [
        (block, rule)
        for block, rule in zip(blocks, rules, strict=True)
        if not (rule.allow or rule.deny or rule.revocation or rule.bundles or rule.registry)
        and rule.max_depth is None
    ]
    wide = {
        digest: block for block, rule in free if not rule.pins for digest in rule.authority_digests
    }
    lone = {digest for _, rule in free if not rule.demands_ca for digest in _lasting_pins(rule)}
    lone_from = min((block.at for block, rule in free if not rule.demands_ca), default=None)
    for block, rule in zip(blocks, rules, strict=True):
        over = [wide.get(digest, block) for digest in rule.authority_digests]
        others = [one for one in over if one is not block]
        if others and len(others) == len(over):
            first = min(others, key=lambda one: one.at)
            if block.label is not None and block.at < first.at:
                continue
            yield (
                block,
                f"has no effect: {first.heading}{first.at.reference} admits every leaf of "
                "the same CA",
            )
        elif rule.authorities and rule.pins and lone.issuperset(rule.pin_digests):
            if block.label is not None and lone_from is not None and block.at < lone_from:
                continue
            yield block, "has no effect: a rule without a CA admits the same leaves"


def _lasting_pins(rule: Rule) -> Iterator[bytes]:
    for pin in rule.pins:
        if pin.not_before is None and pin.retire_after is None:
            yield pin.digest


def _doubled(
    blocks: tuple[ClientCertificate, ...], rules: tuple[Rule, ...]
) -> Iterator[tuple[ClientCertificate, str]]:
    """A rule that equals another except for its label."""
    seen: dict[object, ClientCertificate] = {}
    for block, rule in zip(blocks, rules, strict=True):
        same = (
            rule.authority_digests,
            tuple((one.trust_domain, one.agent) for one in rule.bundles),
            frozenset((pin.not_before, pin.retire_after, pin.digest) for pin in rule.pins),
            frozenset(rule.allow),
            frozenset(rule.deny),
            rule.registry,
            rule.max_depth,
            None if rule.revocation is None else rule.revocation.scope,
            block.crl and (block.crl.path, block.crl.text),
            block.crl_dir and block.crl_dir.value,
        )
        first = seen.setdefault(same, block)
        if first is not block:
            yield block, f"is {first.heading}{first.at.reference} but for its label"


def _denying_itself(
    blocks: tuple[ClientCertificate, ...], policy: AdmissionPolicy
) -> Iterator[tuple[ClientCertificate, str]]:
    """A rule whose own registry is in a deny block, too."""
    for block, rule in zip(blocks, policy.rules, strict=True):
        whole = {one.registry for one in (*policy.deny, *rule.deny) if not one.clauses}
        if rule.registry is not None and rule.registry in whole:
            yield (
                block,
                f"admits nobody: a deny block keeps out whoever registry "
                f"{quoted(rule.registry.label)} lists, active or not; without that block the rule "
                "still keeps out devices that are denied there",
            )
