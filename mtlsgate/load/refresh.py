"""
An epoch with another document that was fetched.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from datetime import datetime

from attrs import evolve

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.certificates.crl import RevocationList, parse_crls
from mtlsgate.certificates.ocsp import Stapling
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.errors import CredentialError
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.expiry import expiries_of
from mtlsgate.load.fetches import Fetch, ListFetch
from mtlsgate.load.servers import LoadedServer
from mtlsgate.tls.server import GateContext, TlsPolicy


def refreshed(epoch: Epoch, key: Hashable, data: bytes, now: datetime) -> Epoch:
    """
    :param epoch: the epoch in force.
    :param key: of the document, see `Fetch.key`.
    :param data: the document, as it came.
    :param now: the time to judge by, aware.
    :returns: the epoch with the new document in place of the earlier one; the same epoch
        if it needs no such document.
    :raises CredentialError: if the document must not replace the earlier one.
    """
    fetch = next((one for one in epoch.fetches if one.key == key), None)
    if fetch is None:
        return epoch
    if isinstance(fetch, ListFetch):
        lists = _replacement(fetch, data, now)
        servers = tuple(_with_lists(one, fetch, lists) for one in epoch.servers)
        after: Fetch = evolve(fetch, lists=lists)
    else:
        stapling = fetch.stapling.responded(data, now)
        servers = tuple(_with_staple(one, stapling) for one in epoch.servers)
        after = evolve(fetch, stapling=stapling)
    fetches = tuple(after if one is fetch else one for one in epoch.fetches)
    return evolve(_with_servers(epoch, servers, now), fetches=fetches)


def renewed(epoch: Epoch, credential: ServerCredential | MissingCredential, now: datetime) -> Epoch:
    """
    :param epoch: the epoch in force.
    :param credential: a certificate of the gate's own, with its source.
    :param now: the time to judge by, aware.
    :returns: the epoch with that in place of the earlier one from the same source; the
        same epoch if that changes nothing.
    """
    servers = tuple(_with_credential(one, credential) for one in epoch.servers)
    if all(one is another for one, another in zip(servers, epoch.servers, strict=True)):
        return epoch
    return _with_servers(epoch, servers, now)


def _with_servers(epoch: Epoch, servers: tuple[LoadedServer, ...], now: datetime) -> Epoch:
    names = {one.gate.name for one in servers}
    others = [one for one in epoch.expiries if one.server not in names]
    own = [
        expiry
        for server in servers
        for expiry in expiries_of(server.gate.name, server.gate.context.policy, now)
    ]
    return evolve(epoch, servers=servers, expiries=(*own, *others))


def _with_credential(
    server: LoadedServer, credential: ServerCredential | MissingCredential
) -> LoadedServer:
    """:returns: the server with another certificate of its own; the same server if it has
    that, or none from this source."""
    policy = server.gate.context.policy
    own = tuple(
        credential if one.source == credential.source and not _is_same(one, credential) else one
        for one in policy.own
    )
    if all(one is another for one, another in zip(own, policy.own, strict=True)):
        return server
    return _with_policy(server, evolve(policy, own=own))


def _is_same(
    one: ServerCredential | MissingCredential, another: ServerCredential | MissingCredential
) -> bool:
    if isinstance(one, ServerCredential) and isinstance(another, ServerCredential):
        return one.chain == another.chain
    return one == another


def with_lists_of(epoch: Epoch, other: Epoch) -> Epoch:
    """
    :returns: an epoch with the revocation lists that another one has fetched from the same
        URLs; the same epoch if they are no others.
    """
    there = {one.key: one for one in other.fetches if isinstance(one, ListFetch)}
    for fetch in epoch.fetches:
        found = there.get(fetch.key)
        if isinstance(fetch, ListFetch) and found and found.version != fetch.version:
            servers = tuple(_with_lists(one, fetch, found.lists) for one in epoch.servers)
            after = evolve(fetch, lists=found.lists)
            fetches = tuple(after if one is fetch else one for one in epoch.fetches)
            epoch = evolve(epoch, servers=servers, fetches=fetches)
    return epoch


def _replacement(fetch: ListFetch, data: bytes, now: datetime) -> tuple[RevocationList, ...]:
    """:raises CredentialError: if one of the lists must not be used."""
    lists = parse_crls(data, strict=fetch.strict)
    now = now.replace(microsecond=0)
    for one in lists:
        if one.is_delta:
            raise CredentialError(f"has {one}: a complete one is needed")
        _check_signature(one, fetch)
        if now < one.this_update:
            raise CredentialError(f"has {one}, which is not yet valid")
        if now > one.next_update:
            raise CredentialError(f"has {one}, which expired at {one.next_update.isoformat()}")
        # Somebody in the network may repeat a list in which a certificate was not revoked.
        newer = [each for each in fetch.lists if each.kind == one.kind and each.age > one.age]
        if newer:
            raise CredentialError(f"has {one}, which is older than {newer[0]}")
    return lists


def _check_signature(one: RevocationList, fetch: ListFetch) -> None:
    """:raises CredentialError: if it is known that the list is forged, or if nothing
    speaks for it."""
    namesakes = [each for each in fetch.authorities if each.subject.key == one.issuer.key]
    faults = [one.fault(each) for each in namesakes]
    if namesakes and None not in faults:
        raise CredentialError(f"has {one}, which {faults[0]}")
    if not namesakes and not fetch.url.is_https:
        # An intermediate's: clients bring its certificate, so it is verified then.  A
        # forged one would admit nobody, but it would keep everybody out.
        raise CredentialError(
            f"has {one}, which is by none of the rule's CAs and cannot be verified yet: fetch it "
            "by https"
        )


def _with_lists(
    server: LoadedServer, fetch: ListFetch, lists: tuple[RevocationList, ...]
) -> LoadedServer:
    """:returns: the server with the new lists; the same server if it has no use for them."""
    context = server.gate.context
    admission = context.policy.admission
    if admission is None or context.policy.strict != fetch.strict:
        return server
    rules = tuple(_rules(admission.rules, fetch.url.text, lists))
    if all(one is another for one, another in zip(rules, admission.rules, strict=True)):
        return server
    policy = evolve(context.policy, admission=AdmissionPolicy(rules, admission.deny))
    return _with_policy(server, policy)


def _with_policy(server: LoadedServer, policy: TlsPolicy) -> LoadedServer:
    context = GateContext(policy, server.gate.context.now)
    return evolve(server, gate=evolve(server.gate, context=context))


def _with_staple(server: LoadedServer, stapling: Stapling) -> LoadedServer:
    """:returns: the server with the new response; the same server if it shows another
    certificate."""
    policy = server.gate.context.policy
    own = tuple(
        evolve(one, stapling=stapling)
        if isinstance(one, ServerCredential)
        and one.stapling is not None
        and one.stapling.leaf == stapling.leaf
        else one
        for one in policy.own
    )
    if all(one is another for one, another in zip(own, policy.own, strict=True)):
        return server
    return _with_policy(server, evolve(policy, own=own))


def _rules(rules: Iterable[Rule], url: str, lists: tuple[RevocationList, ...]) -> Iterable[Rule]:
    for rule in rules:
        if rule.revocation is None or url not in rule.revocation.fetched:
            yield rule
        else:
            yield evolve(rule, revocation=rule.revocation.refreshed(url, lists))
