"""
The differences between two epochs, in words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from attrs import evolve

from mtlsgate.admission import Pin, Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.crl import RevocationList
from mtlsgate.gate.terms import Terms
from mtlsgate.load.admin_endpoint import AdminEndpoint
from mtlsgate.load.clients import LoadedClient
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.listen_addresses import Host
from mtlsgate.load.overview import describe_rule
from mtlsgate.load.registries import LoadedRegistry
from mtlsgate.load.servers import LoadedServer
from mtlsgate.observe.leaf_names import subject_of
from mtlsgate.text import printable

#: How many pins of a rule, and serial numbers, are named; the others are counted.
_NAMED = 10
#: In a CRL with more entries than this, new entries are not searched.
_MOST_ENTRIES = 200_000


def epoch_diff(before: Epoch, after: Epoch) -> tuple[str, ...]:
    """:returns: what changes for clients, in lines.  Servers and rules are compared by
    name."""
    return tuple(map(printable, _lines(before, after)))


def _lines(before: Epoch, after: Epoch) -> Iterator[str]:
    old = {server.gate.name: server for server in before.servers}
    new = {server.gate.name: server for server in after.servers}
    for name in sorted(old.keys() - new.keys()):
        yield f"server {name}: removed"
    for name, server in new.items():
        if name not in old:
            yield f"server {name}: added"
        else:
            for line in _server(old[name], server):
                yield f"server {name}: {line}"
    yield from _clients(before, after)
    yield from _registries(before.registries, after.registries)
    yield from _admin(before.admin, after.admin)


def _registries(before: Iterable[LoadedRegistry], after: Iterable[LoadedRegistry]) -> Iterator[str]:
    old = {registry.name: registry for registry in before}
    new = {registry.name: registry for registry in after}
    for name in sorted(old.keys() - new.keys()):
        yield f"registry {name}: removed"
    for name, registry in new.items():
        if name not in old:
            yield f"registry {name}: added, at {registry.place}"
        elif registry != old[name]:
            yield f"registry {name}: another, at {registry.place}; nothing of it is remembered"


def _clients(before: Epoch, after: Epoch) -> Iterator[str]:
    old = {client.gate.name: client for client in before.clients}
    new = {client.gate.name: client for client in after.clients}
    for name in sorted(old.keys() - new.keys()):
        yield f"client {name}: removed"
    for name, client in new.items():
        if name not in old:
            yield f"client {name}: added"
        else:
            for line in _client(old[name], client):
                yield f"client {name}: {line}"


def _client(before: LoadedClient, after: LoadedClient) -> Iterator[str]:
    yield from _hosts(before.hosts, after.hosts)
    old, new = before.gate, after.gate
    if old.targets != new.targets:
        names = ", ".join(target.text for target in new.targets)
        yield f"connects to {names}, and no longer to {', '.join(one.text for one in old.targets)}"
    own = [one and one.chain for one in (old.tls.credential, new.tls.credential)]
    if own[0] != own[1]:
        yield "another client certificate"
    if (old.tls.anchors, old.tls.pins) != (new.tls.anchors, new.tls.pins):
        yield "other CAs or pins for its targets"
    if old.tls.server_name != new.tls.server_name:
        yield "another server_name"
    if old.uids != new.uids:
        yield "other allow_uids"
    yield from _terms(old.terms, new.terms)


def _terms(before: Terms, after: Terms) -> Iterator[str]:
    if evolve(before, log_admitted=after.log_admitted) != after:
        yield "other limits"
    if before.log_admitted != after.log_admitted:
        yield f"{'logs' if after.log_admitted else 'no longer logs'} who is admitted"


def _hosts(before: tuple[Host, ...], after: tuple[Host, ...]) -> Iterator[str]:
    old_hosts, new_hosts = ([host.text for host in hosts] for hosts in (before, after))
    if old_hosts != new_hosts:
        yield f"listens on {', '.join(new_hosts)}, and no longer on {', '.join(old_hosts)}"


def _admin(before: AdminEndpoint | None, after: AdminEndpoint | None) -> Iterator[str]:
    if str(before) != str(after):
        yield "no admin endpoint" if after is None else f"admin endpoint at {after}"
    elif before != after:
        yield f"admin endpoint at {after}, which is another"


def _server(before: LoadedServer, after: LoadedServer) -> Iterator[str]:
    yield from _hosts(before.hosts, after.hosts)
    old_leaves = [one.chain[0] for one in before.gate.context.policy.credentials]
    new_leaves = [one.chain[0] for one in after.gate.context.policy.credentials]
    if old_leaves != new_leaves:
        yield "another server certificate"
    yield from _terms(before.gate.terms, after.gate.terms)
    if before.model.protocol.name != after.model.protocol.name:
        yield f"protocol {after.model.protocol.name}, and no longer {before.model.protocol.name}"
    old_policy, new_policy = before.gate.context.admission, after.gate.context.admission
    if (old_policy is None) != (new_policy is None):
        yield "lets in anyone" if new_policy is None else "asks for a certificate"
    elif old_policy and new_policy and old_policy.deny != new_policy.deny:
        yield "another deny"
    old_rules = {rule.name: rule for rule in (old_policy.rules if old_policy else ())}
    new_rules = {rule.name: rule for rule in (new_policy.rules if new_policy else ())}
    yield from _rules(old_rules, new_rules)


def _rules(before: Mapping[str, Rule], after: Mapping[str, Rule]) -> Iterator[str]:
    for name in sorted(before.keys() - after.keys()):
        yield f"rule {name} removed"
    for name, rule in after.items():
        if name not in before:
            yield f"{describe_rule(rule)} added"
            continue
        old = before[name]
        changes = (
            *_pins(old, rule),
            *_revocations(old.revocation, rule.revocation),
            *_bundles(old, rule),
        )
        for line in changes:
            yield f"rule {name}: {line}"
        if _rest(old) != _rest(rule):
            yield f"{describe_rule(rule)} changed"


def _rest(rule: Rule) -> tuple[object, ...]:
    """:returns: the parts of a rule that have no line of their own."""
    return (
        () if rule.bundles else rule.authority_digests,
        [(one.trust_domain, one.agent) for one in rule.bundles],
        rule.allow,
        rule.deny,
        rule.registry,
        rule.max_depth,
        rule.revocation and rule.revocation.scope,
        {(pin.digest, pin.not_before, pin.retire_after) for pin in rule.pins if pin.name},
    )


def _bundles(before: Rule, after: Rule) -> Iterator[str]:
    old = {one.trust_domain: one for one in before.bundles}
    for bundle in after.bundles:
        was = old.get(bundle.trust_domain, bundle).digests
        if was == bundle.digests:
            continue
        added, removed = len(bundle.digests - was), len(was - bundle.digests)
        line = f"bundle of {bundle.trust_domain}: CAs added: {added}, removed: {removed}"
        yield line if bundle.digests else f"{line}: there is none, and it admits nobody"


def _pins(before: Rule, after: Rule) -> Iterator[str]:
    old = {pin.digest: pin for pin in before.pins}
    new = {pin.digest: pin for pin in after.pins}
    yield from _listed("added", [pin for digest, pin in new.items() if digest not in old])
    yield from _listed("removed", [pin for digest, pin in old.items() if digest not in new])


def _listed(word: str, pins: Iterable[Pin]) -> Iterator[str]:
    found = list(pins)
    for pin in found[:_NAMED]:
        subject = subject_of(pin.certificate)
        name = f" {pin.name}" if pin.name else ""
        yield f"pin{name} {word}: {subject} sha256={pin.digest.hex()}"
    if len(found) > _NAMED:
        yield f"{len(found) - _NAMED} more pins {word}"


def _revocations(before: Revocation | None, after: Revocation | None) -> Iterator[str]:
    old, new = _by_issuer(before), _by_issuer(after)
    for name in sorted(old.keys() - new.keys()):
        yield f"CRL of {name} removed"
    for name, lists in new.items():
        if name not in old:
            yield f"CRL of {name} added: {_counted(sum(len(one.revoked) for one in lists))}"
        elif {one.age for one in old[name]} != {one.age for one in lists}:
            yield f"CRL of {name} replaced: {_entries(old[name], lists)}"


def _by_issuer(revocation: Revocation | None) -> dict[str, list[RevocationList]]:
    found: dict[str, list[RevocationList]] = {}
    for one in revocation.lists if revocation else ():
        found.setdefault(one.issuer.rfc4514_string(), []).append(one)
    return found


def _entries(before: list[RevocationList], after: list[RevocationList]) -> str:
    counts = [sum(len(one.revoked) for one in lists) for lists in (before, after)]
    if max(counts) > _MOST_ENTRIES:
        return f"{_counted(counts[1])}, and no longer {counts[0]}"
    old, new = (
        {entry.serial for one in lists for entry in one.revoked} for lists in (before, after)
    )
    parts = [
        f"{_counted(len(serials))} {word}: {_serials(serials)}"
        for word, serials in (("added", new - old), ("removed", old - new))
        if serials
    ]
    return "; ".join(parts) or f"the same {_counted(counts[1])}"


def _counted(number: int) -> str:
    return f"{number} {'entry' if number == 1 else 'entries'}"


def _serials(serials: Iterable[int]) -> str:
    found = sorted(serials)
    named = ", ".join(f"{serial:x}" for serial in found[:_NAMED])
    more = len(found) - _NAMED
    return f"{named} and {more} more" if more > 0 else named
