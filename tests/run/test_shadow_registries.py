"""The registries of a configuration in the shadow are asked, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from twisted.internet.defer import Deferred

from mtlsgate.clock import utc_now
from mtlsgate.gate.registries import NOTHING_GIVEN, Givens
from mtlsgate.run import shadow_asking
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.shadow import PAUSE
from mtlsgate.run.shadow_judging import Seen
from mtlsgate.testing import Version
from tests.kits.gate import VERSIONS, Log
from tests.kits.registry import RegisteredService
from tests.kits.service import ALICE, ROOT, RULE, server
from tests.kits.shadow import BOB, CAROL, ca, counts, put, report

STORES = "".join(
    f'registry "{name}" {{\n  url = "redis://{name}"\n}}\n' for name in ("devices", "stolen")
)
LISTED = RULE.replace("\n    }", '\n      registry = "devices"\n    }')
STOLEN = 'deny { registry = "stolen" }\n'


@pytest.fixture
def running(tmp_path: Path, log: Log) -> Iterator[RegisteredService]:
    """A service that asks no registry."""
    one = RegisteredService(tmp_path, server(), now=utc_now)
    yield one
    one.service.shadowing.stop()


def begin(running: RegisteredService, tls: str) -> None:
    """Put rules in the shadow, and let their registries be followed."""
    assert put(running, STORES + server(tls=tls)).problems == ()
    running.run()


def settle(running: RegisteredService) -> None:
    """Let clients be judged, registries answer, and clients be judged again."""
    running.run(4 * PAUSE)


@pytest.mark.parametrize("version", VERSIONS)
def test_who_is_not_listed_would_be_out(running: RegisteredService, version: Version) -> None:
    """And who is listed would not."""
    begin(running, LISTED)
    running.store.list(ALICE)
    for who in (ALICE, BOB):
        assert running.is_in(running.try_in(who, min_version=version, max_version=version))
    settle(running)
    assert counts(running) == {
        ("same", "rule", ""): 1,
        ("would_be_out", "rule", "not_registered"): 1,
    }


def test_who_is_denied_would_be_out(running: RegisteredService) -> None:
    """By the state that a registry lists, and by being listed where deny names it."""
    begin(running, STOLEN + LISTED)
    running.store.list(ALICE)
    running.stolen.list(ALICE)
    running.store.deny(BOB)
    for who in (ALICE, BOB):
        running.try_in(who)
    settle(running)
    assert counts(running) == {("would_be_out", "rule", "registry_denied"): 2}


def test_another_rule_may_admit_who_is_not_listed(running: RegisteredService) -> None:
    """As when it comes in."""
    begin(running, LISTED + "\n" + ca("ca"))
    running.try_in(BOB)
    settle(running)
    assert counts(running) == {("other_rule", "rule", ""): 1}


def test_who_is_rejected_now_would_be_in_if_it_is_listed(running: RegisteredService) -> None:
    """It has shown its certificate; a path is verified before any registry is asked."""
    others = 'client_certificate "other" {\n  ca_certificate_file = "other.crt"\n'
    others += '  registry = "devices"\n}'
    begin(running, RULE + "\n" + others)
    running.try_in(CAROL)
    settle(running)
    assert counts(running) == {("same", "", ""): 1}
    running.store.list(CAROL)
    running.try_in(CAROL)
    settle(running)
    assert counts(running)["would_be_in", "other", "unknown_ca"] == 1


def test_who_a_registry_keeps_out_now_is_judged(tmp_path: Path, log: Log) -> None:
    """By the other registry of the next configuration, or by none."""
    in_force = RULE.replace("\n    }", '\n      registry = "stolen"\n    }')
    running = RegisteredService(tmp_path, STORES + server(tls=in_force), now=utc_now)
    put(running, server())
    running.try_in(BOB)
    settle(running)
    assert counts(running) == {("would_be_in", "rule", "not_registered"): 1}
    begin(running, LISTED)
    running.try_in(BOB)
    settle(running)
    assert counts(running) == {("same", "", ""): 1}


def test_connected_clients_are_judged_by_registries(running: RegisteredService) -> None:
    """And the report says whom a reload would close."""
    alice, bob = running.try_in(ALICE), running.try_in(BOB)
    running.store.list(ALICE)
    begin(running, LISTED)
    settle(running)
    told = report(running)
    assert (told.live, told.status.handshakes) == (2, 0)
    assert told.closed == 1
    assert running.is_in(alice)
    assert running.is_in(bob)


def test_a_store_that_does_not_answer_makes_no_verdict(running: RegisteredService) -> None:
    """The report says what is wrong with it, and the client is admitted as ever."""
    running.store.cut()
    begin(running, LISTED)
    assert running.is_in(running.try_in(BOB))
    settle(running)
    assert counts(running) == {("not_judged", "rule", "not_asked"): 1}
    [why] = [one for one in report(running).not_counted if one.startswith("registry devices ")]
    assert why.endswith(": the store is down")
    running.store.mend()
    running.run(1)
    running.try_in(BOB)
    settle(running)
    assert counts(running)["would_be_out", "rule", "not_registered"] == 1
    assert not [one for one in report(running).not_counted if one.startswith("registry ")]


def test_nobody_waits_for_a_slow_store(
    running: RegisteredService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not too many are asked about at once; the report says how many are not judged yet."""
    monkeypatch.setattr(shadow_asking, "AT_ONCE", 2)
    begin(running, LISTED)
    running.store.is_held = True
    clients = [ROOT.issue(f"client {number}") for number in range(5)]
    assert all(running.is_in(running.try_in(one)) for one in clients)
    settle(running)
    assert report(running).waiting == 5
    assert sum(map(len, running.store.asked)) == 2
    running.store.is_held = False
    for _ in clients:
        running.store.answer()
        settle(running)
    assert counts(running) == {("would_be_out", "rule", "not_registered"): 5}
    assert report(running).waiting == 0


def test_what_the_gate_remembers_stays_as_it_is(tmp_path: Path, log: Log) -> None:
    """The shadow has connections of its own, and closes them when it ends."""
    in_force = RULE.replace("\n    }", '\n      registry = "stolen"\n    }')
    running = RegisteredService(tmp_path, STORES + server(tls=in_force), now=utc_now)
    running.stolen.list(ALICE)
    running.try_in(ALICE)
    assert running.registries is not None
    before = running.registries.states()
    begin(running, LISTED)
    running.try_in(ALICE)
    settle(running)
    after = {one.name: one.misses for one in running.registries.states()}
    assert after == {one.name: one.misses for one in before}
    closed = running.store.closed
    running.service.shadowing.end()
    running.run()
    assert running.store.closed == closed + 1
    assert running.is_in(running.try_in(ALICE))


def test_an_answer_for_an_earlier_shadow_counts_for_no_later_one() -> None:
    """It may come when another configuration is in the shadow already."""
    underway: list[Deferred[Givens]] = []

    class SlowRegistries:
        def ask(self, questions: object) -> Deferred[Givens]:
            underway.append(Deferred())
            return underway[-1]

        def turn_to(self, registries: object) -> None:
            """Questions end later."""

    asking = shadow_asking.Asking(cast(Desks, SlowRegistries()), lambda: None)
    client = shadow_asking.Asked(cast(Seen, "a client"))
    assert asking.ask(client, ())
    asking.clear()
    underway[0].callback(NOTHING_GIVEN)
    assert len(asking) == 0
