"""The reports of several workers, in one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from attrs import evolve

from mtlsgate.observe.shadow_status import (
    OutcomeCount,
    RuleUse,
    ShadowClient,
    ShadowReport,
    ShadowStatus,
)
from mtlsgate.observe.status_value import value_of
from mtlsgate.workers.shadow_summing import sum_reports, sum_shadows
from tests.kits.pki import NOW

STATUS = ShadowStatus(file="/next.hcl", set_by="ctl", since=NOW, handshakes=3, would_be_out=2)
CLIENT = ShadowClient(
    outcome="would_be_out", server="door", rule="rule", reason=None, server_then="door",
    rule_then=None, reason_then="denied", detail_then="denied", identity="aa", sha256="bb",
    subject="CN=x", address="192.0.2.1:1", first=NOW, last=NOW, count=2, connected=1,
)  # fmt: skip
COUNT = OutcomeCount(server="door", outcome="would_be_out", rule="rule", reason="denied", count=2)


def one(**other: Any) -> ShadowReport:
    facts: dict[str, Any] = {
        "status": STATUS, "live": 1, "waiting": 2, "identities": 2, "closed": 3, "kept": 4,
        "counts": (COUNT,), "clients": (CLIENT,), "left_out": 5,
        "uses": (RuleUse(server="door", rule="rule", count=1),),
        "changes": ("a change",), "not_counted": ("limits",), "seen": "11" * 8 + "22" * 8,
    }  # fmt: skip
    return ShadowReport(**(facts | other))


def test_everything_is_added() -> None:
    """A client that came to two workers is one, and so is its identity."""
    later = NOW + timedelta(seconds=1)
    other = one(
        clients=(evolve(CLIENT, last=later, address="192.0.2.2:2"),),
        seen="22" * 8 + "33" * 8,
        is_identities_full=True,
    )
    whole = sum_reports([one(), other])
    assert whole is not None
    assert (whole.live, whole.waiting, whole.closed, whole.kept) == (2, 4, 6, 8)
    assert (whole.identities, whole.is_identities_full, whole.seen) == (3, True, "")
    assert whole.counts == (evolve(COUNT, count=4),)
    assert whole.uses == (RuleUse(server="door", rule="rule", count=2),)
    assert (whole.changes, whole.not_counted) == (("a change",), ("limits",))
    [client] = whole.clients
    assert (client.count, client.connected, client.address) == (4, 2, "192.0.2.2:2")
    assert (client.first, client.last) == (NOW, later)
    assert (whole.status.handshakes, whole.status.would_be_out) == (6, 4)
    assert whole.left_out == 10


def test_nothing_in_the_shadow() -> None:
    """... is nothing of all of them."""
    assert sum_reports([]) is None
    assert sum_shadows([]) is None


def test_the_way_through_json() -> None:
    """A report is the same after it was sent."""
    report = one()
    assert value_of(ShadowReport, report.to_dict()) == report
