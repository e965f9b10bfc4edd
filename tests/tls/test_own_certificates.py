"""Certificates of the gate itself that are missing, or renewed by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from attrs import evolve

from mtlsgate.admission import Rule
from mtlsgate.certificates.parsing import MissingCredential, ServerCredential
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Client, Version
from mtlsgate.tls.server import GateContext, TlsPolicy
from tests.kits.gate import (
    VERSIONS,
    Log,
    MemoryGate,
    admitted,
    rejected,
    rule,
    server_credential,
)

ROOT = Authority.create("Root")
ALICE = ROOT.issue("alice")
A = server_credential("a.example")
NO_B = MissingCredential("agent", ("b.example",), "it has not come yet")
NONE = MissingCredential("agent", (), "it has not come yet")
MISSING = rejected(Reason.NO_SERVER_CERTIFICATE, None)


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> Version:
    version: Version = request.param
    return version


@pytest.mark.parametrize("rules", [[rule(ca=ROOT)], None])
def test_a_gate_without_any_certificate_admits_nobody(
    log: Log, version: Version, rules: list[Rule] | None
) -> None:
    gate = MemoryGate(rules, log, credentials=[NONE])
    for name in ("a.example", None):
        client = gate.connect(ALICE, version, server_name=name)
        assert gate.judge(client) == MISSING
        assert "it has not come yet" in log.events[-1]["detail"]
        assert client.server_certificate is None


def test_the_missing_one_is_not_replaced_by_another(log: Log, version: Version) -> None:
    """Who asks for its name is told so; all others get the one that is there."""
    both: list[list[ServerCredential | MissingCredential]] = [[A, NO_B], [NO_B, A]]
    for own in both:
        gate = MemoryGate([rule(ca=ROOT)], log, credentials=own)
        assert gate.try_in(ALICE, version, server_name="b.example") == MISSING
        for name in ("a.example", "c.example", None):
            client = gate.connect(ALICE, version, server_name=name)
            assert gate.judge(client) == admitted()
            assert client.server_certificate == A.chain[0].x509


def gate_at(
    log: Log, own: ServerCredential, now: list[datetime], lifetime: float | None = None
) -> MemoryGate:
    """:returns: a gate whose time is what is in the list."""
    return MemoryGate(
        [rule(ca=ROOT)],
        log,
        credentials=[own],
        now=lambda: now[0],
        session_lifetime=lifetime,
    )


def test_one_that_is_renewed_by_itself_is_shown_to_its_last_second(
    log: Log, version: Version
) -> None:
    own = evolve(A, source="agent")
    end = own.chain[0].not_after
    now = [end + timedelta(microseconds=999_999)]
    gate = gate_at(log, own, now)
    assert own.chain[0].x509 == shown(gate.connect(ALICE, version, server_name="a.example"))
    now[0] = end + timedelta(seconds=1)
    assert gate.try_in(ALICE, version, server_name="a.example") == MISSING
    assert "expired at" in log.events[-1]["detail"]


def shown(client: Client) -> object:
    """:returns: the certificate that the gate shows, whatever becomes of the client."""
    client.send(b"")
    return client.server_certificate


def test_one_of_a_file_is_shown_also_when_it_has_expired(log: Log, version: Version) -> None:
    """Its clients judge it; whoever put it there may have a reason."""
    now = [A.chain[0].not_after + timedelta(days=1)]
    gate = gate_at(log, A, now)
    assert shown(gate.connect(ALICE, version, server_name="a.example")) == A.chain[0].x509


def test_a_session_is_no_way_around_an_expired_one(log: Log, version: Version) -> None:
    own = evolve(A, source="agent")
    now = [datetime.now(UTC)]
    gate = gate_at(log, own, now, 10.0**9)
    earlier = gate.connect(ALICE, version, server_name="a.example")
    assert gate.judge(earlier) == admitted()
    now[0] = own.chain[0].not_after + timedelta(seconds=1)
    again = gate.connect(ALICE, version, server_name="a.example", session=earlier.session)
    assert gate.judge(again) == MISSING


def test_a_policy_tells_which_certificates_are_there() -> None:
    policy = TlsPolicy((NO_B, A), None)
    assert policy.credentials == (A,)
    assert GateContext(policy).policy is policy
