"""Who comes in, and who must go, by what registries say: the whole gate, in memory."""

from __future__ import annotations

import sys
import types
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import formatEvent

from mtlsgate.admission import AdmissionPolicy, Rule
from mtlsgate.admission.devices import Device
from mtlsgate.admission.key_kinds import KeyKind, RegistryName
from mtlsgate.admission.listings import NOT_ASKED, Answers, question_of
from mtlsgate.certificates.certificate import view
from mtlsgate.gate.listener import Listener
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.load.overview import describe_rule
from mtlsgate.observe.explanation import explain
from mtlsgate.observe.registry_status import sum_registries
from mtlsgate.reasons import Cause, Reason
from mtlsgate.registry.store import StoreError, StoreUnavailable
from mtlsgate.run.registries.desks import Desks
from mtlsgate.run.registries.memory import Memory, Unknown
from mtlsgate.testing import Authority, Client, Version
from tests.kits.gate import Log
from tests.kits.logged import Logged
from tests.kits.memory_stores import DOWN
from tests.kits.pki import site
from tests.kits.registry import RegisteredService
from tests.kits.service import ALICE, ROOT, server

DEVICES = 'registry "devices" { url = "redis://devices" }\n'
STOLEN = 'registry "stolen" { url = "redis://stolen" }\n'
LISTED = """client_certificate "listed" {
      ca_certificate_file = "ca.crt"
      registry            = "devices"
    }"""
ANYONE = 'client_certificate "anyone" { ca_certificate_file = "ca.crt" }'
BUT_STOLEN = 'deny { registry = "stolen" }\n    ' + ANYONE

NOW = datetime.now(UTC)
BOB = ROOT.issue("bob")


def options(**stated: str) -> str:
    """:returns: the block, with these attributes."""
    inside = "\n".join(f'  {name} = "{value}"' for name, value in stated.items())
    return f'registry "devices" {{\n  url = "redis://devices"\n{inside}\n}}\n'


@pytest.fixture
def running(tmp_path: Path, log: Log) -> RegisteredService:
    """:returns: a service with one rule that asks one registry."""
    return service(tmp_path)


def service(
    directory: Path, tls: str = LISTED, blocks: str = DEVICES, more: str = "", **rest: Any
) -> RegisteredService:
    """:returns: a service with these rules and registries."""
    text = blocks + server(tls=tls, more=more)
    return RegisteredService(directory, text, now=lambda: datetime.now(UTC), **rest)


def ends_when_stale(running: RegisteredService, client: Client) -> None:
    """The client stays until its registry has been away for ten seconds."""
    running.run_well(20, running.store)
    assert running.is_in(client)
    running.store.cut()
    running.run(9.5)
    assert running.is_in(client)
    running.run(1)
    client.pump()
    assert client.disconnected
    assert running.endings.found[0][1].startswith("registry_unavailable: ")


def reasons(log: Log) -> list[Any]:
    """:returns: why clients were rejected, in order."""
    return [event["reason"] for event in log.events if event.get("reason")]


def test_a_listed_client_is_admitted(running: RegisteredService, version: Version) -> None:
    """In either version of TLS."""
    running.store.list(ALICE)
    client = running.try_in(ALICE, min_version=version, max_version=version)
    assert running.is_in(client)


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (None, Reason.NOT_REGISTERED),
        ({"state": "denied"}, Reason.REGISTRY_DENIED),
        ({"not_before": NOW + timedelta(hours=1)}, Reason.NOT_REGISTERED),
        ({"not_after": NOW - timedelta(hours=1)}, Reason.NOT_REGISTERED),
    ],
)
def test_others_are_rejected(
    running: RegisteredService, log: Log, version: Version, what: Any, reason: Reason
) -> None:
    """Whatever the version: the client is cut off, and the application never hears of it."""
    if what is not None:
        running.store.list(ALICE, **what)
    client = running.try_in(ALICE, min_version=version, max_version=version)
    assert client.disconnected
    assert client.receive() == b""
    assert reasons(log) == [reason]


@pytest.mark.parametrize("is_known", [False, True])
def test_what_registries_say_costs_no_further_judgement(
    running: RegisteredService, monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    """The verdict of the handshake is confirmed at hand-over, if no second has passed."""
    running.store.list(ALICE)
    if is_known:
        running.try_in(ALICE)
    judged: list[bool] = []
    judge = AdmissionPolicy.judge

    def counting(
        self: AdmissionPolicy, path: Any, now: Any, objection: Any, answers: Answers = NOT_ASKED
    ) -> Any:
        judged.append(bool(answers))
        return judge(self, path, now, objection, answers)

    monkeypatch.setattr("mtlsgate.gate.candidate._has_time_passed", lambda client, now: False)
    monkeypatch.setattr(AdmissionPolicy, "judge", counting)
    assert running.is_in(running.try_in(ALICE))
    assert judged == [False]


def test_only_clients_that_a_rule_may_admit_are_asked_about(
    running: RegisteredService, log: Log
) -> None:
    """A stranger costs the store nothing."""
    stranger = Authority.create("elsewhere").issue("x")
    client = running.try_in(stranger)
    assert client.disconnected
    assert running.store.asked == []


def test_an_answer_is_remembered(running: RegisteredService) -> None:
    """The next connection of this client is let in without asking; also a denial."""
    running.store.list(ALICE)
    for _ in range(3):
        assert running.is_in(running.try_in(ALICE))
        assert running.try_in(BOB).disconnected
    assert len(running.store.asked) == 2


def test_questions_of_one_turn_go_together(running: RegisteredService) -> None:
    """One round trip for all, and one question for each key."""
    running.store.list(ALICE)
    assert running.registries is not None
    name = RegistryName("devices", KeyKind.IDENTITY)
    alice, bob = (question_of(name, view(one.certificate)) for one in (ALICE, BOB))
    asked = [running.registries.ask([one]) for one in (alice, bob, alice)]
    running.run()
    assert [len(keys) for keys in running.store.asked] == [2]
    answers = [next(iter(one.result.values())).answer for one in asked]  # type: ignore[attr-defined]
    assert [len(one) for one in answers] == [1, 0, 1]


def test_a_denial_ends_live_connections(running: RegisteredService, log: Log) -> None:
    """At once, and nobody else's."""
    running.store.list(ALICE)
    running.store.list(BOB)
    alice, bob = running.try_in(ALICE), running.try_in(BOB)
    running.store.deny(ALICE)
    running.run()
    alice.pump()
    assert alice.disconnected
    assert running.is_in(bob)
    [(cause, detail)] = running.endings.found
    assert (cause, running.endings.reasons) == (Cause.NO_LONGER_ADMITTED, [Reason.REGISTRY_DENIED])
    assert detail.startswith("registry_denied: ")


def test_a_denial_does_not_wait_for_the_grace_of_reloads(tmp_path: Path, log: Log) -> None:
    """``revoke_grace`` is for new configurations."""
    running = service(tmp_path, more='revoke_grace = "1h"')
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.store.deny(ALICE)
    running.run()
    alice.pump()
    assert alice.disconnected


def test_an_emptied_store_is_a_change_like_any_other(running: RegisteredService, log: Log) -> None:
    """FLUSHALL and TRUNCATE put everybody out."""
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.store.empty()
    running.run()
    alice.pump()
    assert alice.disconnected
    assert running.endings.found[0][1].startswith("not_registered: ")


def test_whoever_is_allowed_again_comes_in(running: RegisteredService) -> None:
    """A remembered refusal ends with the change that is told."""
    assert running.try_in(ALICE).disconnected
    running.store.list(ALICE)
    assert running.is_in(running.try_in(ALICE))


def test_changes_of_others_ask_nothing(running: RegisteredService) -> None:
    """However many: nobody depends on them."""
    running.store.list(ALICE)
    running.try_in(ALICE)
    asked = len(running.store.asked)
    running.store.tell([f"{number:064x}" for number in range(10_000)])
    running.run()
    assert len(running.store.asked) == asked


def test_a_listing_ends_at_its_time(tmp_path: Path, log: Log) -> None:
    """While the client is connected, without any change in the store."""
    clock = [datetime.now(UTC)]
    text = DEVICES + server(tls=LISTED)
    running = RegisteredService(tmp_path, text, now=lambda: clock[0])
    running.store.list(ALICE, not_after=clock[0] + timedelta(seconds=30))
    alice = running.try_in(ALICE)
    assert running.is_in(alice)
    clock[0] += timedelta(seconds=31)
    running.run(1.1)
    alice.pump()
    assert alice.disconnected
    assert running.endings.found[0][1].startswith("not_registered: it was listed until")
    assert running.endings.reasons == [Reason.NOT_REGISTERED]


def test_a_deny_block_puts_out_whoever_is_listed(tmp_path: Path, log: Log) -> None:
    """Before the connection, and during it."""
    running = service(tmp_path, BUT_STOLEN, STOLEN)
    alice = running.try_in(ALICE)
    assert running.is_in(alice)
    running.stolen.list(ALICE)
    running.run()
    alice.pump()
    assert alice.disconnected
    assert running.try_in(ALICE).disconnected
    assert reasons(log) == [Reason.REGISTRY_DENIED]
    assert running.is_in(running.try_in(BOB))


def test_another_rule_admits_whom_the_registry_does_not(tmp_path: Path, log: Log) -> None:
    """A denial in one rule's registry moves the client to the next rule."""
    running = service(tmp_path, LISTED + "\n    " + ANYONE)
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    [entry] = running.connections
    assert entry.admission is not None
    assert entry.admission.peer is not None
    assert entry.admission.peer.rule == "listed"
    running.store.deny(ALICE)
    running.run()
    assert running.is_in(alice)
    assert entry.admission.peer.rule == "anyone"


def test_attributes_reach_the_application_as_they_change(running: RegisteredService) -> None:
    """What the store knows of the device, without a new connection."""
    running.store.list(ALICE, attributes={"tenant": "north"})
    running.try_in(ALICE)
    [entry] = running.connections
    peer = IVerifiedPeer(entry.connection)
    assert dict(peer.attributes) == {"tenant": "north"}
    assert peer.to_dict()["attributes"] == {"tenant": "north"}
    running.store.list(ALICE, attributes={"tenant": "south"})
    running.run()
    assert dict(IVerifiedPeer(entry.connection).attributes) == {"tenant": "south"}


# What happens while a question is underway.


def test_a_change_between_question_and_answer_is_asked_again(
    running: RegisteredService, log: Log
) -> None:
    """The answer is older than the change."""
    running.store.list(ALICE)
    running.store.is_held = True
    client = running.try_in(ALICE)
    running.store.deny(ALICE)
    running.store.answer()
    running.run()
    assert running.store.asked[0] == running.store.asked[1]
    running.store.answer()
    running.run()
    client.pump()
    assert client.disconnected
    assert reasons(log) == [Reason.REGISTRY_DENIED]


def test_a_denial_between_two_registries_counts(tmp_path: Path, log: Log) -> None:
    """One has answered, the other is still asked."""
    running = service(tmp_path, 'deny { registry = "stolen" }\n    ' + LISTED, DEVICES + STOLEN)
    running.store.list(ALICE)
    running.stolen.is_held = True
    client = running.try_in(ALICE)
    running.store.deny(ALICE)
    running.stolen.is_held = False
    running.stolen.answer()
    running.run()
    client.pump()
    assert client.disconnected
    assert reasons(log) == [Reason.REGISTRY_DENIED]


def test_a_client_that_leaves_while_asked(running: RegisteredService, log: Log) -> None:
    """The log says when it left; a later answer finds nobody."""
    running.store.is_held = True
    client = running.try_in(ALICE)
    client.reset()
    running.run()
    assert reasons(log) == [Reason.PEER_GONE]
    assert "while a registry was asked" in log.events[-1]["detail"]
    running.store.answer()
    running.run()
    assert len(running.connections) == 0


def test_a_slow_store_is_as_bad_as_one_that_is_down(running: RegisteredService, log: Log) -> None:
    """The client waits for the time limit and no longer."""
    running.store.is_held = True
    client = running.try_in(ALICE)
    assert not client.disconnected
    running.run(1.1)
    client.pump()
    assert client.disconnected
    assert reasons(log) == [Reason.REGISTRY_UNAVAILABLE]


# Outages.


def test_a_gate_that_stood_still_asks_again(running: RegisteredService, log: Log) -> None:
    """As while its machine is moved: the store answered in time, and the gate did not look.
    A store that says nothing then, either, is as bad as one that is down."""
    running.store.list(ALICE)
    running.store.is_held = True
    alice = running.try_in(ALICE)
    running.store.is_held = False
    running.reactor.pump([3.0])
    running.run()
    assert running.is_in(alice)
    running.store.is_held = True
    carol = running.try_in(ROOT.issue("carol"))
    running.reactor.pump([3.0])
    running.run(1.1)
    carol.pump()
    assert carol.disconnected
    assert reasons(log) == [Reason.REGISTRY_UNAVAILABLE]


def test_while_it_is_down_new_clients_are_rejected_and_live_ones_stay(
    running: RegisteredService, log: Log
) -> None:
    """``on_outage = "reject"``; afterwards all is as before, by itself."""
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.store.cut()
    assert running.try_in(ALICE).disconnected
    assert reasons(log) == [Reason.REGISTRY_UNAVAILABLE]
    running.run(5)
    assert running.is_in(alice)
    running.store.mend()
    running.run(2)
    assert running.is_in(running.try_in(ALICE))
    assert running.is_in(alice)


def test_last_known_answers_count(tmp_path: Path, log: Log) -> None:
    """Of clients that were known when it went away; not of others."""
    running = service(tmp_path, blocks=options(on_outage="last_known", max_staleness="10s"))
    running.store.list(ALICE)
    running.try_in(ALICE)
    running.store.cut()
    assert running.is_in(running.try_in(ALICE))
    assert running.try_in(BOB).disconnected
    running.run(10.5)
    assert running.try_in(ALICE).disconnected
    assert set(reasons(log)) == {Reason.REGISTRY_UNAVAILABLE}


@pytest.mark.parametrize("on_outage", ["reject", "last_known"])
def test_after_max_staleness_live_connections_end(tmp_path: Path, log: Log, on_outage: str) -> None:
    """Not before: it counts from the last moment at which all was well."""
    running = service(tmp_path, blocks=options(on_outage=on_outage, max_staleness="10s"))
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    ends_when_stale(running, alice)


def test_without_its_channel_answers_count_and_remembered_ones_do_not(
    running: RegisteredService,
) -> None:
    """Each client is asked about again."""
    running.store.list(ALICE)
    assert running.is_in(running.try_in(ALICE))
    running.store.cut(None, is_mute=True)
    for _ in range(2):
        assert running.is_in(running.try_in(ALICE))
    assert len(running.store.asked) == 3
    running.store.deny(ALICE)
    assert running.try_in(ALICE).disconnected


def test_after_an_outage_everything_live_is_judged_again(
    running: RegisteredService, log: Log
) -> None:
    """What changed meanwhile was not told."""
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.store.cut()
    running.store.deny(ALICE)
    running.run(1)
    assert running.is_in(alice)
    running.store.mend()
    running.run(2.1)
    alice.pump()
    assert alice.disconnected
    assert running.endings.found[0][1].startswith("registry_denied: ")


def test_it_connects_again_soon_and_then_less_often(running: RegisteredService) -> None:
    """Within 0.2 s at first, and within 0.8 s later: what changed is heard within a second of
    the store's return."""
    before = running.store.followed
    running.store.cut()
    running.run(0.2)
    assert running.store.followed == before + 1
    running.run(60)
    assert 70 <= running.store.followed - before <= 80


def test_the_log_says_why_it_is_away_and_what_does_not_pass_by_itself(
    running: RegisteredService,
) -> None:
    """Each reason once: whoever mends the first one reads what else is wrong."""
    refused, slow = StoreUnavailable("it refuses connections"), StoreUnavailable("it is slow")
    without = StoreError("there is no table")
    with Logged("mtlsgate.registries") as log:
        running.store.cut(refused)
        for problem in (refused, slow, without, refused, without):
            running.store.problem = problem
            running.run(3)
    texts = [str(formatEvent(event)) for event in log.events]
    assert [text.partition("followed: ")[2].partition(";")[0] for text in texts] == [
        "it refuses connections",
        "there is no table",
    ]


def test_a_silent_channel_is_lost(running: RegisteredService) -> None:
    """A half-open connection, even if the store's client does not notice."""
    before = running.store.followed
    running.run_well(5, running.store)
    assert running.store.followed == before
    running.run(3)
    assert running.store.followed > before


def test_a_denial_is_not_forgotten_while_the_store_does_not_answer(
    running: RegisteredService, log: Log
) -> None:
    """Its channel told of a change, but the question failed: it is asked again."""
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.store.problem = DOWN
    running.store.deny(ALICE)
    running.run(0.2)
    running.store.alive()
    assert running.is_in(alice)
    running.store.problem = None
    running.run(1)
    alice.pump()
    assert alice.disconnected
    assert running.endings.found[0][1].startswith("registry_denied: ")


def test_a_store_that_pushes_but_does_not_answer_becomes_stale(tmp_path: Path, log: Log) -> None:
    """Both must be good: nobody stays for ever on an answer that cannot be had."""
    running = service(tmp_path, blocks=options(max_staleness="10s"))
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.store.problem = StoreError("no permission to read the table")
    running.store.deny(ALICE)
    running.run_well(9, running.store)
    assert running.is_in(alice)
    running.run_well(3, running.store)
    alice.pump()
    assert alice.disconnected
    running.store.mend()
    running.store.list(ALICE)
    running.run_well(2, running.store)
    assert running.is_in(running.try_in(ALICE))


def test_a_gate_starts_without_its_store(tmp_path: Path, log: Log) -> None:
    """It rejects, and recovers by itself."""
    running = service(tmp_path)
    running.store.cut()
    assert running.try_in(ALICE).disconnected
    running.store.mend()
    running.store.list(ALICE)
    running.run(2.1)
    assert running.is_in(running.try_in(ALICE))


def test_what_is_stored_by_hand_and_not_understood_is_out(
    running: RegisteredService, log: Log
) -> None:
    """The detail says what is wrong with it."""
    key = running.store.list(ALICE)
    running.store.listed[key] = Device.unreadable(key, 'state: must be "active" or "denied"')
    assert running.try_in(ALICE).disconnected
    assert reasons(log) == [Reason.REGISTRY_DENIED]
    assert "state: must be" in log.events[-1]["detail"]


# Reloads.


def test_a_reload_keeps_what_did_not_change(running: RegisteredService) -> None:
    """No new connection to the store, and no storm of questions."""
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    asked, followed = len(running.store.asked), running.store.followed
    running.reload(DEVICES + server(tls=LISTED + "\n    " + ANYONE))
    running.run()
    assert running.is_in(alice)
    assert (len(running.store.asked), running.store.followed) == (asked, followed)
    assert running.store.closed == 0


def test_a_new_rule_asks_about_live_clients(tmp_path: Path, log: Log) -> None:
    """They stay while they are asked about, and then only those that are listed."""
    running = service(tmp_path, ANYONE, "")
    alice, bob = running.try_in(ALICE), running.try_in(BOB)
    running.store.list(ALICE)
    running.reload(DEVICES + server(tls=LISTED))
    running.run(0.1)
    bob.pump()
    assert running.is_in(alice)
    assert bob.disconnected


@pytest.mark.parametrize(
    ("after", "is_admitted"),
    [
        (server(tls=ANYONE), True),
        (options(cache_time="1m") + server(tls=LISTED), True),
        (DEVICES + STOLEN + server(tls=BUT_STOLEN), False),
    ],
    ids=["without it", "with another block", "with one that denies"],
)
def test_a_client_that_is_asked_about_during_a_reload_is_judged_by_what_counts_then(
    tmp_path: Path, log: Log, version: Version, after: str, is_admitted: bool
) -> None:
    """What was asked before is no reason to reject it, and none to admit it."""
    running = service(tmp_path)
    running.store.list(ALICE)
    running.stolen.list(ALICE)
    running.store.is_held = True
    alice = running.try_in(ALICE, min_version=version, max_version=version)
    running.store.is_held = False
    running.reload(after)
    running.store.answer()
    running.run(0.2)
    alice.pump()
    assert running.is_in(alice) is is_admitted
    assert reasons(log) == ([] if is_admitted else [Reason.REGISTRY_DENIED])


#: Rules that do not admit a client of the CA, whatever registries say.
NO_LONGER = LISTED.replace("}", '  allow { common_names = ["nobody"] }\n    }')


LEFT = pytest.mark.parametrize("more", ['on_reload = "keep"', 'revoke_grace = "1h"'])


@LEFT
def test_a_denial_ends_a_client_that_a_reload_has_left(tmp_path: Path, log: Log, more: str) -> None:
    """The new rules do not admit it, and it may stay or has time: no longer if it is denied."""
    running = service(tmp_path, more=more)
    for who in (ALICE, BOB):
        running.store.list(who)
    alice, bob = running.try_in(ALICE), running.try_in(BOB)
    running.reload(DEVICES + server(tls=NO_LONGER, more=more))
    running.store.list(ALICE, note="it is still active")
    running.run()
    assert running.is_in(alice)
    running.store.deny(ALICE)
    running.run()
    alice.pump()
    assert alice.disconnected
    assert running.endings.found[0][1] == 'registry_denied: registry "devices" denies it'
    assert running.is_in(bob)


@LEFT
def test_a_denial_ends_a_client_that_a_reload_has_left_before_it_was_told(
    tmp_path: Path, log: Log, more: str
) -> None:
    """Two reloads, and the store is slow: the answer still counts."""
    running = service(tmp_path, tls=ANYONE, more=more)
    alice, bob = running.try_in(ALICE), running.try_in(BOB)
    running.store.list(BOB)
    running.store.deny(ALICE)
    running.store.is_held = True
    running.reload(DEVICES + server(tls=LISTED))
    running.run()
    running.reload(DEVICES + server(tls=NO_LONGER, more=more))
    running.store.answer()
    running.run()
    alice.pump()
    assert alice.disconnected
    assert running.is_in(bob)


@LEFT
def test_a_client_that_a_reload_has_left_stays_as_long_as_its_registry_is_known(
    tmp_path: Path, log: Log, more: str
) -> None:
    """It ends when others end whose registry is away."""
    blocks = options(max_staleness="10s")
    running = service(tmp_path, blocks=blocks, more=more)
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.reload(blocks + server(tls=NO_LONGER, more=more))
    ends_when_stale(running, alice)


def test_a_registry_that_is_removed_is_closed(running: RegisteredService) -> None:
    """After the switch; what it said no longer matters."""
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.reload(server(tls=ANYONE))
    running.run()
    assert running.store.closed == 1
    running.store.deny(ALICE)
    running.run()
    assert running.is_in(alice)


def test_live_connections_survive_a_changed_block(running: RegisteredService) -> None:
    """They are judged again by the new store's answers."""
    running.store.list(ALICE)
    alice = running.try_in(ALICE)
    running.reload(options(timeout="2s") + server(tls=LISTED))
    running.run(0.1)
    assert running.is_in(alice)
    running.store.deny(ALICE)
    running.run()
    alice.pump()
    assert alice.disconnected


@pytest.fixture
def authorizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
    """:returns: the answers that the authorizer ``slow:ask`` is waited for."""
    waiting: list[Any] = []

    def ask(peer: Any) -> Any:
        waiting.append(Deferred())
        return waiting[-1]

    module = types.ModuleType("slow_authorizer_of_a_test")
    module.ask = ask  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return waiting


def test_a_denial_while_the_authorizer_is_asked_counts(
    tmp_path: Path, log: Log, authorizer: list[Any]
) -> None:
    """What counts is what is known at hand-over; the authorizer is asked once."""
    running = service(tmp_path, more='authorize = "slow_authorizer_of_a_test:ask"')
    running.store.list(ALICE)
    running.store.list(BOB)
    alice, bob = running.try_in(ALICE), running.try_in(BOB)
    running.store.deny(ALICE)
    for answer in authorizer:
        answer.callback(True)
    running.run()
    alice.pump()
    assert alice.disconnected
    assert running.is_in(bob)
    assert reasons(log) == [Reason.REGISTRY_DENIED]
    assert len(authorizer) == 2


# What is told.


def test_the_status_and_the_metrics_tell_of_registries(running: RegisteredService) -> None:
    """Without secrets: state, memory, questions and failures."""
    running.store.list(ALICE)
    for _ in range(3):
        running.try_in(ALICE)
    [one] = running.taker.take().service.registries
    assert (one.name, one.place, one.state) == ("devices", "redis://devices:6379/0", "following")
    assert (one.remembered, one.misses, one.questions, one.failures) == (1, 1, 1, 0)
    assert one.hits > 0
    assert one.problem is None
    found = running.metrics()
    assert found['mtlsgate_registry_away{registry="devices"}'] == 0
    assert found['mtlsgate_registry_question_seconds_count{registry="devices"}'] == 1
    running.store.cut()
    running.try_in(ALICE)
    [one] = running.taker.take().service.registries
    assert (one.state, one.failures, one.problem) == ("away", 1, "the store is down")
    assert running.metrics()['mtlsgate_registry_away{registry="devices"}'] == 1


def test_readiness_waits_for_registries_if_asked_to(tmp_path: Path, log: Log) -> None:
    """By default a gate without its store is ready: it may have other servers."""
    running = service(tmp_path, blocks='settings { readiness = "registries" }\n' + DEVICES)
    assert running.service.not_ready is None
    running.store.cut()
    assert running.service.not_ready == "registry devices is away"
    running.reload(DEVICES + server(tls=LISTED))
    assert running.service.not_ready is None


def test_what_is_remembered_makes_ready_while_it_counts(tmp_path: Path, log: Log) -> None:
    """A gate that has never reached its store knows nobody; one that has is ready until what
    it knows is too old."""
    ready = 'settings { readiness = "registries" }\n'
    running = service(tmp_path, blocks=ready + options(on_outage="last_known"))
    running.store.cut()
    assert running.service.not_ready is None
    running.run(301)
    assert running.service.not_ready == "registry devices is stale"
    # Of another block the store has never been reached.
    other = options(on_outage="last_known", max_staleness="10m")
    running.reload(ready + other + server(tls=LISTED))
    assert running.service.not_ready == "registry devices is away"
    running.store.mend()
    running.run(1)
    assert running.service.not_ready is None


def test_workers_are_as_bad_as_the_worst(running: RegisteredService) -> None:
    """What is counted is added."""
    [good] = running.taker.take().service.registries
    bad = evolve(good, state="away", problem="down", questions=2, failures=2)
    [one] = sum_registries([[good], [bad]])
    assert (one.state, one.problem) == ("away", "down")
    assert one.questions == good.questions + 2


def test_a_device_that_is_no_clients_is_told(running: RegisteredService) -> None:
    """Whoever denies one by hand learns that it keeps nobody out; a flood of them is told
    once."""
    with Logged("mtlsgate.registries") as log:
        running.store.deny(ALICE)
        running.store.tell(("AB" * 32, "cd" * 32))
        running.store.tell(("no digest",))
        running.run_well(10, running.store)
        running.store.tell(("no digest",))
    beginning = "registry devices: no client is found by"
    assert [formatEvent(event) for event in log.events] == [
        f'{beginning} "{"AB" * 32}": key: write it as {"ab" * 32}',
        f'{beginning} "no digest": key: is no identity: 64 hex digits',
    ]


def test_memory_does_not_grow_with_the_number_of_devices() -> None:
    """Whatever is asked for: the oldest answers go."""
    memory = Memory(1000, 60)
    for number in range(100_000):
        memory.put(str(number), None, 0)
    assert len(memory) == 1000
    assert memory.get("99999", 1) is None
    assert isinstance(memory.get("0", 1), Unknown)
    assert isinstance(memory.get("99999", 60), Unknown)


def test_explain_says_what_a_registry_must_say(running: RegisteredService) -> None:
    """It asks none: the verdict depends on it."""
    [place] = running.service.runner.epoch.servers
    found = explain(place.gate, (view(ALICE.certificate),), datetime.now(UTC))
    text = "\n".join(found.lines())
    assert 'admitted by rule listed, if registry "devices" lists it as active' in text
    assert running.store.asked == []


def test_a_reload_tells_of_changed_registries(running: RegisteredService) -> None:
    """Those that came, went, or are elsewhere; and which rule asks one."""
    changed = running.reload(options(timeout="2s") + STOLEN + server(tls=BUT_STOLEN)).changes
    lines = "\n".join(changed)
    assert "registry devices: another, at redis://devices:6379/0" in lines
    assert "registry stolen: added, at redis://stolen:6379/0" in lines
    assert "server door: another deny" in lines
    assert "registry devices" in describe_rule(
        Rule("r", (view(ROOT.certificate),), registry=RegistryName("devices", KeyKind.IDENTITY))
    )


def test_a_resumed_session_is_judged_by_what_registries_say_now(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """A session that began while the client was listed lets in nobody afterwards."""
    tls = "session_resumption = true\n    " + LISTED
    running = service(tmp_path, tls)
    running.store.list(ALICE)
    first = running.try_in(ALICE, min_version=version, max_version=version)
    assert running.is_in(first)
    second = running.try_in(ALICE, session=first.session)
    assert running.is_in(second)
    assert second.resumed
    running.store.deny(ALICE)
    running.run()
    assert running.try_in(ALICE, session=first.session).disconnected
    assert reasons(log)[-1] == Reason.REGISTRY_DENIED
    assert log.events[-1]["subject"] == "CN=alice"


def test_a_leaf_may_come_by_another_path_if_its_registry_does_not_list_it(
    tmp_path: Path, log: Log
) -> None:
    """The rules fall through to a CA that only another path leads to."""
    middle = ROOT.intermediate("middle")
    device = middle.issue("device")
    tls = f"""client_certificate "listed" {{
      ca_certificate_file = "middle.crt"
      registry            = "devices"
    }}
    {ANYONE}"""
    site(tmp_path).write("middle.crt", middle.pem)
    running = service(tmp_path, tls)
    client = running.try_in(device)
    assert running.is_in(client)
    [entry] = running.connections
    assert entry.admission is not None
    assert entry.admission.peer is not None
    assert entry.admission.peer.rule == "anyone"
    running.store.list(device)
    assert running.is_in(running.try_in(device))
    names = [one.admission.peer.rule for one in running.connections]  # type: ignore[union-attr]
    # Both: what changes for a live client is the first rule in file order that admits it.
    assert names == ["listed", "listed"]


def test_a_gate_that_cannot_listen_follows_nothing(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application may go on after its gate failed to listen."""

    def refused(self: Listener) -> None:
        raise OSError("no")

    turned: list[object] = []
    monkeypatch.setattr(Desks, "turn_to", lambda self, registries: turned.append(registries))
    monkeypatch.setattr(Listener, "startListening", refused)
    with pytest.raises(SystemExit):
        service(tmp_path)
    assert turned == []
