"""
What the configuration in the shadow has found out, for people.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator

from mtlsgate.admission import Rejection
from mtlsgate.admission.rules import missing_bundles
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.shadow import Outcome
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.fetches import ListFetch
from mtlsgate.observe.registry_status import RegistryStatus
from mtlsgate.observe.shadow_status import ShadowReport, ShadowStatus
from mtlsgate.observe.shadow_tally import IDENTITY_BYTES
from mtlsgate.run.registries.desk import State
from mtlsgate.run.shadow import InShadow, Shadowing
from mtlsgate.run.shadow_judging import ShadowJudge
from mtlsgate.text import printable

#: What it does not judge, of any configuration.
_NEVER_COUNTED = (
    "limits, PROXY headers, STARTTLS, protocols and targets are not compared",
    "a client that is rejected now has not proved that it has its certificate's key",
)


def shadow_status(now: InShadow) -> ShadowStatus:
    """:returns: what is in the shadow, in short."""
    tally = now.tally
    return ShadowStatus(
        file=printable(now.shadow.path),
        set_by=now.set_by,
        since=None if now.judge is None else now.since,
        problems=tuple(map(printable, now.shadow.problems)),
        handshakes=tally.handshakes,
        would_be_out=tally.count_of(Outcome.WOULD_BE_OUT),
        would_be_in=tally.count_of(Outcome.WOULD_BE_IN),
        not_judged=tally.count_of(Outcome.NOT_JUDGED),
    )


def reporting(
    shadowing: Shadowing, connections: Connections
) -> Generator[None, None, ShadowReport | None]:
    """
    Make the report in steps: there may be many connections.

    :returns: the report, without the differences from the configuration in force; None if
        nothing is in the shadow.
    """
    now = shadowing.now
    if now is None:
        return None
    if now.judge is None:
        return ShadowReport(status=shadow_status(now))
    connected = Counter[tuple[str, bytes | None]]()
    for entry in connections:
        if entry.admission is not None:
            leaf = entry.admission.leaf
            connected[entry.server, None if leaf is None else leaf.identity] += 1
            yield
    closed, kept = _of_reload(now, now.judge, connections)
    tally = now.tally
    return ShadowReport(
        status=shadow_status(now),
        live=tally.live,
        waiting=shadowing.waiting,
        identities=len(tally.identities),
        is_identities_full=tally.is_full,
        closed=closed,
        kept=kept,
        counts=tally.outcome_counts(),
        clients=tally.clients(connected),
        left_out=tally.left_out,
        uses=tally.rule_uses(_rules(now.judge.epoch)),
        not_counted=tuple(
            map(
                printable,
                (
                    *now.shadow.barred,
                    *_away(shadowing.registry_states()),
                    *_not_asked(now.judge.epoch),
                    *_NEVER_COUNTED,
                ),
            )
        ),
        seen=b"".join(sorted(tally.identities)).hex(),
    )


def identities_of(seen: str) -> set[str]:
    """
    :param seen: of a `ShadowReport`.
    :returns: the first bytes of each identity, in hex.
    """
    size = IDENTITY_BYTES * 2
    return {seen[start : start + size] for start in range(0, len(seen), size)}


def _of_reload(now: InShadow, judge: ShadowJudge, connections: Connections) -> tuple[int, int]:
    """:returns: how many connections a reload would close, and how many of those that
    would not be admitted it would keep."""
    closed = kept = 0
    for number in now.out:
        entry = connections.get(number)
        if entry is None or entry.admission is None:
            continue
        name = entry.admission.negotiated.server_name
        server = judge.handover.server_for(entry.arrival.listener, name)
        if isinstance(server, Rejection) or server.gate.terms.judged_on_reload:
            closed += 1
        else:
            kept += 1
    return closed, kept


def _rules(epoch: Epoch) -> Iterator[tuple[str, str]]:
    for server in epoch.servers:
        policy = server.gate.context.admission
        for name in [""] if policy is None else [rule.name for rule in policy.rules]:
            yield server.gate.name, name


def _away(registries: Iterable[RegistryStatus]) -> Iterator[str]:
    for one in registries:
        if one.state != State.FOLLOWING:
            yield f"registry {one.name} at {one.place}: {one.problem}"


def _not_asked(epoch: Epoch) -> Iterator[str]:
    for server in epoch.servers:
        if server.model.authorize is not None:
            authorizer = server.model.authorize.value
            yield f"server {server.gate.name}: authorize {authorizer} is not asked"
    for client in epoch.clients:
        yield f"client {client.gate.name}: client gates are not judged"
    for server in epoch.servers:
        policy = server.gate.context.admission
        for missing in missing_bundles(policy.rules if policy else ()):
            yield f"server {server.gate.name}: {missing.detail}: the shadow asks no agent"
    for fetch in epoch.fetches:
        if isinstance(fetch, ListFetch) and fetch.is_missing:
            yield f"the revocation list of {fetch.url} is not there: the shadow fetches nothing"
