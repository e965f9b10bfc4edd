"""
What an epoch needs of SPIFFE agents, and the epoch with what they have delivered.

Loading asks no agent: it takes what `mtlsgate.spiffe.agents` has.  `mtlsgate.run.agent_watch`
asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from attrs import evolve

from mtlsgate.admission.bundles import Bundle
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.expiry import expiries_of
from mtlsgate.load.fetches import Fetch, ListFetch
from mtlsgate.load.readiness import all_backends
from mtlsgate.load.servers import LoadedServer
from mtlsgate.spiffe.agents import Agents, SvidSource
from mtlsgate.spiffe.messages import Bundles
from mtlsgate.spiffe.subscription import Stream
from mtlsgate.tls.server import GateContext

#: A stream of an agent: the agent's socket, and the call.
Wanted = tuple[str, Stream]


def wanted(epoch: Epoch) -> frozenset[Wanted]:
    """:returns: the streams that an epoch needs."""
    return frozenset(_wanted(epoch))


def _wanted(epoch: Epoch) -> Iterator[Wanted]:
    for server in epoch.servers:
        for own in server.gate.context.policy.own:
            if isinstance(own.source, SvidSource):
                yield own.source.agent, Stream.SVIDS
        for bundle in _bundles(server):
            yield bundle.agent, Stream.BUNDLES
    for _, backends in all_backends(epoch.servers, epoch.clients):
        if backends.tls is not None:
            yield from backends.tls.wanted


def _bundles(server: LoadedServer, *, federated: bool = True) -> Iterator[Bundle]:
    admission = server.gate.context.policy.admission
    for rule in admission.rules if admission else ():
        # The rule's own trust domain is the first.
        yield from rule.bundles if federated else rule.bundles[:1]


def not_delivered(epoch: Epoch, now: datetime) -> str | None:
    """
    :param now: the time by which certificates are judged, aware.
    :returns: what a server waits for, in a few words; None if nothing is missing.  That a
        federated trust domain is missing does not keep a gate from serving its own.
    """
    for server in epoch.servers:
        for own in server.gate.context.policy.own:
            if isinstance(own.source, SvidSource):
                if isinstance(own, MissingCredential):
                    return "waiting for an X.509-SVID"
                if now.replace(microsecond=0) > own.chain[0].not_after:
                    return "the X.509-SVID has expired"
        for bundle in _bundles(server, federated=False):
            if all(now > one.not_after for one in bundle.authorities):
                return f"waiting for the bundle of {bundle.trust_domain}"
    return None


def without_bundle(epoch: Epoch, agent: str, delivered: Bundles) -> list[str]:
    """:returns: the trust domains that rules name and an agent has delivered no CA of."""
    named = {
        one.trust_domain
        for server in epoch.servers
        for one in _bundles(server)
        if one.agent == agent
    }
    return sorted(name for name in named if not delivered.get(name))


def supplied(epoch: Epoch, agents: Agents, now: datetime) -> Epoch:
    """
    :param epoch: the epoch in force.
    :param now: the time by which certificates are judged, aware.
    :returns: the epoch with what the agents have delivered; the same epoch if it has it.
    """
    version = agents.version
    if epoch.delivered == version:
        return epoch
    servers = tuple(_supplied(one, agents) for one in epoch.servers)
    names = {one.gate.name for one in servers}
    own = [
        expiry
        for server in servers
        for expiry in expiries_of(server.gate.name, server.gate.context.policy, now)
    ]
    others = [one for one in epoch.expiries if one.server not in names]
    return evolve(
        epoch,
        servers=servers,
        fetches=tuple(_with_authorities(one, servers) for one in epoch.fetches),
        expiries=(*own, *others),
        delivered=version,
    )


def _supplied(server: LoadedServer, agents: Agents) -> LoadedServer:
    """:returns: the server with what was delivered; the same server if it has it."""
    context = server.gate.context
    before = policy = context.policy
    policy = evolve(policy, own=tuple(_own(one, agents) for one in policy.own))
    if policy.admission is not None and any(_bundles(server)):
        rules = tuple(
            rule.with_bundles(
                tuple(agents.bundle(one.trust_domain, one.agent) for one in rule.bundles)
            )
            if rule.bundles
            else rule
            for rule in policy.admission.rules
        )
        policy = evolve(policy, admission=evolve(policy.admission, rules=rules))
    if policy == before:
        return server
    return evolve(server, gate=evolve(server.gate, context=GateContext(policy, context.now)))


def _own(
    one: ServerCredential | MissingCredential, agents: Agents
) -> ServerCredential | MissingCredential:
    return agents.credential(one.source) if isinstance(one.source, SvidSource) else one


def _with_authorities(fetch: Fetch, servers: tuple[LoadedServer, ...]) -> Fetch:
    """:returns: the fetch of revocation lists with the CAs that may have signed them now."""
    if not isinstance(fetch, ListFetch):
        return fetch
    policies = [one.gate.context.policy for one in servers]
    found = dict.fromkeys(
        authority
        for policy in policies
        for rule in (policy.admission.rules if policy.admission else ())
        if policy.strict == fetch.strict
        and rule.revocation is not None
        and fetch.url.text in rule.revocation.fetched
        for authority in rule.authorities
    )
    return evolve(fetch, authorities=tuple(found))
