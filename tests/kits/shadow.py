"""A configuration in the shadow of a service in memory."""

from __future__ import annotations

from mtlsgate.observe.shadow_status import ShadowAttempt, ShadowReport
from mtlsgate.run.shadow import PAUSE
from mtlsgate.testing import Authority
from tests.kits.service import ROOT, MemoryService

BOB = ROOT.issue("bob")
OTHER = Authority.create("Next")
CAROL = OTHER.issue("carol")


def next_one(running: MemoryService, text: str) -> str:
    """Write the next configuration."""
    running.site.write("other.crt", OTHER.pem)
    running.site.write("next.hcl", text)
    return "next.hcl"


def put(running: MemoryService, text: str) -> ShadowAttempt:
    """Put a configuration in the shadow, as ctl does."""
    found: list[ShadowAttempt] = []
    running.shadow.put(next_one(running, text)).addCallback(found.append)
    [attempt] = found
    running.reactor.advance(PAUSE)
    return attempt


def report(running: MemoryService) -> ShadowReport:
    """:returns: what the shadow has found out."""
    running.reactor.advance(PAUSE)
    found: list[ShadowReport | None] = []
    running.shadow.report().addCallback(found.append)
    running.reactor.pump([0.0] * 20)
    [told] = found
    assert told is not None
    return told


def counts(running: MemoryService) -> dict[tuple[str, str, str], int]:
    """:returns: how many verdicts there were, by outcome, rule and reason."""
    return {(one.outcome, one.rule, one.reason): one.count for one in report(running).counts}


def ca(name: str) -> str:
    """:returns: a rule on a CA."""
    return f'client_certificate "{name}" {{ ca_certificate_file = "{name}.crt" }}'
