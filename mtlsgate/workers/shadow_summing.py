"""
Makes one report on the shadow of those of all workers.  Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import evolve

from mtlsgate.observe.shadow_status import (
    MOST_CLIENTS,
    OutcomeCount,
    RuleUse,
    ShadowClient,
    ShadowReport,
    ShadowStatus,
)
from mtlsgate.observe.shadow_tally import TOLD
from mtlsgate.run.shadow_report import identities_of


def sum_shadows(found: Sequence[ShadowStatus]) -> ShadowStatus | None:
    """:returns: what is in the shadow of all workers; None if nothing is."""
    if not found:
        return None
    began = [one.since for one in found if one.since is not None]
    return evolve(
        found[0],
        since=min(began, default=None),
        handshakes=sum(one.handshakes for one in found),
        would_be_out=sum(one.would_be_out for one in found),
        would_be_in=sum(one.would_be_in for one in found),
        not_judged=sum(one.not_judged for one in found),
    )


def sum_reports(found: Sequence[ShadowReport]) -> ShadowReport | None:
    """:returns: the report of all workers, for people; None if nothing is in the shadow."""
    status = sum_shadows([one.status for one in found])
    if status is None:
        return None
    clients, left_out = _clients(found)
    identities = set[str]().union(*(identities_of(one.seen) for one in found))
    return evolve(
        found[0],
        status=status,
        live=sum(one.live for one in found),
        waiting=sum(one.waiting for one in found),
        identities=len(identities),
        is_identities_full=any(one.is_identities_full for one in found),
        closed=sum(one.closed for one in found),
        kept=sum(one.kept for one in found),
        counts=_counts(found),
        clients=clients,
        left_out=left_out,
        uses=_uses(found),
        seen="",
    )


def _counts(found: Sequence[ShadowReport]) -> tuple[OutcomeCount, ...]:
    counts = Counter[OutcomeCount]()
    for report in found:
        for one in report.counts:
            counts[evolve(one, count=0)] += one.count
    return tuple(evolve(one, count=count) for one, count in counts.most_common())


def _uses(found: Sequence[ShadowReport]) -> tuple[RuleUse, ...]:
    uses = Counter[RuleUse]()
    for report in found:
        for one in report.uses:
            uses[evolve(one, count=0)] += one.count
    return tuple(evolve(one, count=count) for one, count in uses.items())


def _clients(found: Sequence[ShadowReport]) -> tuple[tuple[ShadowClient, ...], int]:
    """:returns: the clients of all, each once for each outcome, and how many verdicts were on
    others."""
    merged: dict[tuple[str, str, str | None], ShadowClient] = {}
    for report in found:
        for one in report.clients:
            key = one.outcome, one.server, one.identity
            known = merged.get(key)
            merged[key] = one if known is None else _merged(known, one)
    left_out, clients = sum(report.left_out for report in found), list[ShadowClient]()
    for outcome in TOLD:
        same = [one for one in merged.values() if one.outcome == outcome.value]
        same.sort(key=lambda one: one.last, reverse=True)
        clients += same[:MOST_CLIENTS]
        left_out += sum(one.count for one in same[MOST_CLIENTS:])
    return tuple(clients), left_out


def _merged(one: ShadowClient, other: ShadowClient) -> ShadowClient:
    latest = max(one, other, key=lambda each: each.last)
    return evolve(
        latest,
        first=min(one.first, other.first),
        count=one.count + other.count,
        connected=one.connected + other.connected,
    )
