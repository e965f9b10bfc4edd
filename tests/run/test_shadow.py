"""A configuration in the shadow judges every client, too, and changes nothing."""

from __future__ import annotations

import gc
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import ref

import pytest

from mtlsgate.clock import utc_now
from mtlsgate.observe.shadow_status import ShadowAttempt
from mtlsgate.run.shadow import PAUSE, SLICE, Shadowing
from mtlsgate.run.shadow_judging import ShadowJudge
from mtlsgate.run.shadow_seeing import Seeing
from mtlsgate.testing import Client, Credential, Version, self_signed
from mtlsgate.tls.forecast import Forecast
from tests.kits.gate import VERSIONS, Log
from tests.kits.logged import Logged
from tests.kits.revocation import crl, der
from tests.kits.service import (
    ALICE,
    AUDITED,
    EVE,
    ROOT,
    RULE,
    Documents,
    MemoryService,
    server,
    today,
)
from tests.kits.shadow import BOB, CAROL, ca, counts, next_one, put, report

NAMED = 'settings {\n  shadow = "next.hcl"\n}\n'
#: Bob is out.
WITHOUT_BOB = 'deny { common_names = ["bob"] }\n' + RULE


def try_in(running: MemoryService, who: Credential | None, version: Version, **more: Any) -> Client:
    """:returns: a client that has tried to talk."""
    client = running.connect(who, min_version=version, max_version=version, **more)
    client.send(b"knock")
    return client


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (server(), ("same", "rule", "")),
        (server(tls=WITHOUT_BOB), ("would_be_out", "rule", "denied")),
        (server(tls=ca("other")), ("would_be_out", "rule", "unknown_ca")),
        (server(tls=ca("ca")), ("other_rule", "rule", "")),
        (server(tls='client_authentication = "none"'), ("other_rule", "rule", "")),
        (server("elsewhere"), ("would_be_out", "rule", "server_removed")),
        (
            server("elsewhere").replace("unix:elsewhere.sock", "unix:door.sock"),
            ("other_server", "rule", ""),
        ),
    ],
)
def test_a_client_that_is_in(
    tmp_path: Path, log: Log, then: str, expected: tuple[str, str, str], version: Version
) -> None:
    """The report says what would become of it: it stays, by another rule, or is out."""
    running = today(tmp_path, server())
    assert put(running, then).succeeded
    client = try_in(running, BOB, version)
    assert client.receive() == b"knock"
    assert counts(running) == {expected: 1}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("who", "then", "expected"),
    [
        (CAROL, server(tls=ca("other")), ("would_be_in", "other", "unknown_ca")),
        (CAROL, server(), ("same", "", "")),
        (EVE, server(tls=ca("other")), ("same", "", "")),
        (None, server(), ("same", "", "")),
        (None, server(tls='client_authentication = "none"'), ("would_be_in", "", "no_certificate")),
        (EVE, server(tls='client_authentication = "none"'), ("would_be_in", "", "unknown_ca")),
    ],
)
def test_a_client_that_is_out(
    tmp_path: Path,
    log: Log,
    who: Credential | None,
    then: str,
    expected: tuple[str, str, str],
    version: Version,
) -> None:
    """Who is rejected now is judged, too: it might come in."""
    running = today(tmp_path, server())
    assert put(running, then).succeeded
    client = try_in(running, who, version)
    assert client.receive() == b""
    assert counts(running) == {expected: 1}


def test_denied_now_and_not_then(tmp_path: Path, log: Log) -> None:
    """A client whose path OpenSSL has verified, and a rule has rejected."""
    running = today(tmp_path, server(tls=WITHOUT_BOB))
    put(running, server())
    running.handshake(BOB)
    assert counts(running) == {("would_be_in", "rule", "denied"): 1}


@pytest.mark.parametrize("version", VERSIONS)
def test_an_older_tls(tmp_path: Path, log: Log, version: Version) -> None:
    """A client that speaks TLS 1.2 only would be out, where 1.3 is demanded."""
    running = today(tmp_path, server())
    put(running, server(tls=RULE + '\n    min_version = "1.3"'))
    try_in(running, BOB, version)
    out = ("would_be_out", "rule", "unsupported_tls")
    assert counts(running) == {out if version == "1.2" else ("same", "rule", ""): 1}


def test_a_name_that_is_gone(tmp_path: Path, log: Log) -> None:
    """The server is chosen by the name that the client asks for."""
    names = server(more='server_names = ["a.example"]')
    running = today(tmp_path, names)
    put(running, names.replace("a.example", "b.example"))
    running.handshake(BOB, server_name="a.example")
    assert counts(running) == {("would_be_out", "rule", "unknown_server_name"): 1}


# It changes nothing.


_AUDITED = (
    "event", "connection", "server", "tls_version", "subject", "rule", "reason", "detail",
)  # fmt: skip


class Everything:
    """Clients of all kinds, and what they and the operator see of it."""

    def __init__(self, running: MemoryService) -> None:
        self.running = running
        self.seen: list[tuple[object, ...]] = []
        for version in VERSIONS:
            for who, more in (
                (BOB, {}),
                (BOB, {"alpn": ["h2"]}),
                (EVE, {}),
                (CAROL, {}),
                (None, {}),
                (ROOT.issue("late", not_after=utc_now() - timedelta(hours=1)), {}),
                (ROOT.issue("server", usages=["server_auth"]), {}),
                (BOB, {"chain": [EVE.certificate]}),
            ):
                self.meet(try_in(running, who, version, **more))
        sessions = running.connect(BOB, max_version="1.2")
        sessions.send(b"knock")
        self.meet(sessions)
        self.meet(running.connect(BOB, session=sessions.session))

    def meet(self, client: Client) -> None:
        client.send(b"more")
        self.seen.append(
            (
                client.established,
                client.error,
                client.receive(),
                client.disconnected,
                client.close_notified,
                client.connection.get_protocol_version_name(),
            )
        )

    def told(self) -> list[tuple[object, ...]]:
        """:returns: what the audit log has of the clients."""
        lines = (one for one in self.running.audited() if one["event"] in ("admitted", "rejected"))
        return [tuple(one.get(name) for name in _AUDITED) for one in lines]

    def counted(self) -> dict[str, float]:
        """:returns: the metrics of the real thing."""
        left_out = ("shadow", "process_", "seconds", "reactor", "timestamp", "_bytes")
        return {
            key: value
            for key, value in self.running.metrics().items()
            if not any(one in key for one in left_out)
        }


def _broken(*_: object) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize("is_broken", [False, True])
def test_nobody_notices(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, is_broken: bool
) -> None:
    """Clients and operators see the same with and without a shadow, whatever it thinks, and
    also if it fails."""
    text = AUDITED + server(tls=f"{RULE}\n    session_resumption = true")
    found = []
    for name in ("without", "with"):
        (tmp_path / name).mkdir()
        running = today(tmp_path / name, text)
        if name == "with":
            put(running, server(tls=ca("other")))
            if is_broken:
                monkeypatch.setattr(ShadowJudge, "at_sight", _broken)
        everything = Everything(running)
        running.reactor.advance(PAUSE)
        found.append((everything.seen, everything.told(), everything.counted()))
    assert found[0] == found[1]
    if is_broken:
        # Once, and not for each client.
        log.expect_failure(ZeroDivisionError)


@pytest.mark.parametrize(
    ("where", "name"), [(ShadowJudge, "at_sight"), (Seeing, "sent"), (Shadowing, "_note")]
)
def test_a_failure_is_counted(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch, where: type, name: str
) -> None:
    """The client is in; that it was not judged stands in the report."""
    running = today(tmp_path, server())
    put(running, server())
    monkeypatch.setattr(where, name, _broken)
    running.enter(BOB)
    running.enter(BOB)
    assert counts(running) == {("not_judged", "", "internal_error"): 2}
    log.expect_failure(ZeroDivisionError)


def test_nothing_of_it_is_built_bound_or_written(tmp_path: Path, log: Log) -> None:
    """Code of users is not imported, addresses are not bound, files are not opened."""
    running = today(tmp_path, server())
    bound = running.listens()
    tried = (
        'settings {\n  audit { file = "next-audit.log" }\n  log { file = "next.log" }\n'
        '  state_dir = "next-state"\n  shadow = "gate.hcl"\n}\n'
        'admin { listen = "unix:next-admin.sock" }\n'
        + server("more")
        + server(more='authorize = "nobody_has_this:no"').replace(
            'protocol "echo" {}', 'protocol "custom" { factory = "nobody_has_that:no" }'
        )
    )
    assert put(running, tried).problems == ()
    running.enter(BOB)
    assert running.listens() == bound
    assert {one.name for one in tmp_path.iterdir() if "next" in one.name} == {"next.hcl"}
    told = report(running)
    assert "server door: authorize nobody_has_this:no is not asked" in told.not_counted
    assert [(one.server, one.count) for one in told.uses] == [("more", 0), ("door", 1)]


# Who waits.


def above(running: MemoryService, version: str = "") -> None:
    """Trust the intermediate alone now, and the root above it in the shadow."""
    running.site.write("middle.crt", MIDDLE.pem)
    running.configure(server(tls=ca("middle")))
    assert running.reload().problems == ()
    put(running, server(tls=ca("ca")))


MIDDLE = ROOT.intermediate("Middle")


def test_a_path_that_must_be_verified_is_verified_later(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handshake does not wait for it."""
    running = today(tmp_path, server())
    above(running)
    leaf = MIDDLE.issue("leaf")
    running.enter(leaf)
    status = running.taker.take().service.shadow
    assert status is not None
    assert (running.service.shadowing.waiting, status.handshakes) == (1, 0)
    assert counts(running) == {("other_rule", "middle", ""): 1}
    # The verdict is kept: the same client is judged without another search.
    monkeypatch.setattr(Forecast, "searched", _broken)
    running.enter(leaf)
    assert counts(running) == {("other_rule", "middle", ""): 2}


def test_not_all_can_wait(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rejected clients fewer than of others: anybody can be one."""
    monkeypatch.setattr("mtlsgate.run.shadow.MOST_WAITING", 4)
    running = today(tmp_path, server())
    above(running)
    for number in range(4):
        running.handshake(ROOT.issue(f"rejected {number}"))
    assert running.service.shadowing.waiting == 2
    for number in range(4):
        running.enter(MIDDLE.issue(f"admitted {number}"))
    assert running.service.shadowing.waiting == 4
    assert counts(running) == {
        ("would_be_in", "ca", "unknown_ca"): 2,
        ("other_rule", "middle", ""): 2,
        ("not_judged", "", "busy"): 4,
    }


def test_searches_take_a_small_share_of_the_time(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends what takes long to verify makes the pause longer."""
    running = today(tmp_path, server())
    above(running)
    for number in range(3):
        running.handshake(ROOT.issue(f"slow {number}"))
    whole, searched = Forecast.searched, list[float]()

    def slow(self: Forecast, *arguments: Any) -> Any:
        searched.append(running.reactor.seconds())
        running.reactor.rightNow += SLICE * 10
        return whole(self, *arguments)

    monkeypatch.setattr(Forecast, "searched", slow)
    began = running.reactor.seconds()
    for _ in range(100):
        running.reactor.advance(PAUSE)
    assert len(searched) == 3
    assert searched[-1] - began >= PAUSE + 2 * 10 * PAUSE


# Who is connected.


@pytest.mark.parametrize(("then", "closed", "kept"), [("judge", 2, 0), ("keep", 0, 2)])
def test_connected_clients_are_judged_once(
    tmp_path: Path, log: Log, then: str, closed: int, kept: int
) -> None:
    """When the shadow begins; the report says how many a reload would close."""
    running = today(tmp_path, AUDITED + server())
    clients = [running.enter(who) for who in (BOB, ALICE, BOB)]
    put(running, server(tls=WITHOUT_BOB, more=f'on_reload = "{then}"'))
    told = report(running)
    assert (told.live, told.status.handshakes) == (3, 0)
    assert (told.closed, told.kept) == (closed, kept)
    [row] = told.clients
    assert (row.subject, row.count, row.connected) == ("CN=bob", 2, 2)
    clients[0].close()
    running.reactor.pump([0.0] * 5)
    told = report(running)
    assert (told.closed, told.kept) == (min(closed, 1), min(kept, 1))
    assert told.clients[0].connected == 1
    events = [one for one in running.audited() if one["event"] == "shadow"]
    assert [one["live"] for one in events] == [True, True]


def test_who_left_before_the_verdict_is_not_remembered_as_connected(
    tmp_path: Path, log: Log
) -> None:
    """Many connections end before they are judged."""
    running = today(tmp_path, server())
    put(running, server(tls=WITHOUT_BOB))
    running.enter(BOB).close()
    running.reactor.pump([0.0] * 5)
    stays = running.enter(BOB)
    assert report(running).closed == 1
    now = running.service.shadowing.now
    assert now is not None
    assert len(now.out) == 1
    stays.close()
    running.reactor.pump([0.0] * 5)
    assert now.out == set()


def test_a_reload_does_what_the_report_said(tmp_path: Path, log: Log) -> None:
    """The connections that it would close are closed, and then nothing differs."""
    running = today(tmp_path, NAMED + server())
    next_one(running, NAMED + server(tls=WITHOUT_BOB))
    assert running.reload().problems == ()
    bob, alice = running.enter(BOB), running.enter(ALICE)
    assert report(running).closed == 1
    running.reload(NAMED + server(tls=WITHOUT_BOB))
    running.reactor.advance(PAUSE)
    for client in (bob, alice):
        client.pump()
    assert (bob.disconnected, alice.disconnected) == (True, False)
    told = report(running)
    assert (told.changes, told.closed) == ((), 0)
    assert counts(running) == {("same", "rule", ""): 1}


# What puts it there.


def test_the_settings_name_it(tmp_path: Path, log: Log) -> None:
    """From the start on, and until a reload without it."""
    (tmp_path / "next.hcl").write_text(server(tls=WITHOUT_BOB))
    running = today(tmp_path, NAMED + server())
    running.enter(BOB)
    assert counts(running) == {("would_be_out", "rule", "denied"): 1}
    status = running.taker.take().service.shadow
    assert status is not None
    assert (status.set_by, status.would_be_out) == ("settings", 1)
    assert status.file == str(tmp_path / "next.hcl")
    running.reload(server())
    assert running.taker.take().service.shadow is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "next.hcl:1:1: configuration: no such file"),
        ("server {", "syntax"),
        (server(tls=ca("gone")), '"gone.crt" no such file'),
    ],
)
def test_a_broken_one_is_a_warning(
    tmp_path: Path, log: Log, text: str | None, expected: str
) -> None:
    """The gate starts and reloads; it says that nobody is judged, and why."""
    if text is not None:
        (tmp_path / "next.hcl").write_text(text)
    running = today(tmp_path, NAMED + server())
    running.enter(BOB)
    status = running.taker.take().service
    assert status.shadow is not None
    assert (status.shadow.since, status.shadow.handshakes) == (None, 0)
    assert expected in "\n".join(status.shadow.problems)
    [warning] = status.warnings
    assert "gate.hcl:2:12: settings: shadow: no client is judged by next.hcl: " in warning
    assert expected in warning
    told = running.metrics()
    assert (told["mtlsgate_shadow_broken"], told["mtlsgate_shadow_judging"]) == (1, 0)
    next_one(running, server())
    assert running.reload().problems == ()
    assert running.taker.take().service.warnings == ()
    told = running.metrics()
    assert (told["mtlsgate_shadow_broken"], told["mtlsgate_shadow_judging"]) == (0, 1)


def test_a_broken_one_is_not_put_there(tmp_path: Path, log: Log) -> None:
    """What is there stays."""
    running = today(tmp_path, server())
    put(running, server(tls=WITHOUT_BOB))
    attempt = put(running, server(tls="nonsense {}"))
    assert not attempt.succeeded
    assert "next.hcl:10:5" in attempt.problems[0]
    running.enter(BOB)
    assert counts(running) == {("would_be_out", "rule", "denied"): 1}


@pytest.mark.parametrize("name", ["/etc/passwd", "gate.key", "nothing"])
def test_only_a_configuration_is_tried(tmp_path: Path, log: Log, name: str) -> None:
    """The errors in another file could tell what stands in it."""
    running = today(tmp_path, server())
    found: list[ShadowAttempt] = []
    running.shadow.put(name).addCallback(found.append)
    [problem] = found[0].problems
    assert "only a file that ends in .hcl" in problem


def test_what_somebody_has_put_there_stays(tmp_path: Path, log: Log) -> None:
    """A reload does not end it, but counts anew if it changes something for clients."""
    running = today(tmp_path, server())
    put(running, server(tls=WITHOUT_BOB))
    running.enter(BOB).close()
    running.reload()
    assert counts(running) == {("would_be_out", "rule", "denied"): 1}
    running.reload(server(tls=ca("ca")))
    assert counts(running) == {}
    running.enter(BOB)
    assert counts(running) == {("would_be_out", "ca", "denied"): 1}


def test_what_the_settings_name_is_read_again(tmp_path: Path, log: Log) -> None:
    """Counts stay if its files are the same, and begin anew if not."""
    (tmp_path / "next.hcl").write_text(server(tls=WITHOUT_BOB))
    running = today(tmp_path, NAMED + server())
    running.enter(BOB).close()
    running.reload()
    assert counts(running) == {("would_be_out", "rule", "denied"): 1}
    next_one(running, server(tls=ca("other")))
    running.reload()
    assert counts(running) == {}
    running.enter(BOB)
    assert counts(running) == {("would_be_out", "rule", "unknown_ca"): 1}


def test_it_is_ended(tmp_path: Path, log: Log) -> None:
    """What the settings name comes back with the next reload."""
    (tmp_path / "next.hcl").write_text(server())
    running = today(tmp_path, NAMED + server())
    assert running.shadow.end() == str(tmp_path / "next.hcl")
    assert running.shadow.end() is None
    running.enter(BOB)
    assert running.taker.take().service.shadow is None
    running.reload()
    status = running.taker.take().service.shadow
    assert status is not None
    assert status.handshakes == 0


# What is told.


def test_each_verdict_is_audited_and_each_client_logged_once(tmp_path: Path, log: Log) -> None:
    """A fleet must not flood the log."""
    running = today(tmp_path, AUDITED + server())
    put(running, server(tls=ca("other")))
    with Logged("mtlsgate.shadow") as logged:
        for _ in range(3):
            running.enter(BOB).close()
            running.handshake(CAROL)
            running.handshake(EVE)
            running.reactor.advance(PAUSE)
    told = logged.events
    assert [one["outcome"] for one in told] == ["would_be_out", "would_be_in"]
    assert [one["subject"] for one in told] == ["CN=bob", "CN=carol"]
    assert "door: by next.hcl " in told[0]["text"]
    lines = [one for one in running.audited() if one["event"] == "shadow"]
    assert [one["outcome"] for one in lines] == ["would_be_out", "would_be_in"] * 3
    assert lines[0]["reason_then"] == "unknown_ca"
    assert lines[1]["rule_then"] == "other"
    assert lines[0]["fingerprint"] == BOB.sha256
    key = (
        'mtlsgate_shadow_verdicts_total{outcome="would_be_out",reason="unknown_ca",'
        'rule="rule",server="door"}'
    )
    assert running.metrics()[key] == 3


def test_no_client_fills_the_memory(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limited number is remembered, of each outcome by itself, and the report says how many
    are left out."""
    for name in ("MOST_CLIENTS", "MOST_IDENTITIES"):
        monkeypatch.setattr(f"mtlsgate.observe.shadow_tally.{name}", 2)
    running = today(tmp_path, server())
    put(running, server(tls='client_authentication = "none"'))
    for number in range(4):
        running.handshake(self_signed(f"stranger {number}"))
    running.enter(BOB)
    told = report(running)
    assert [(one.outcome, one.count) for one in told.clients] == [
        ("would_be_in", 1), ("would_be_in", 1), ("other_rule", 1),
    ]  # fmt: skip
    assert told.left_out == 2
    assert (told.identities, told.is_identities_full) == (2, True)
    assert sum(one.count for one in told.counts) == 5


def test_who_has_not_used_a_rule(tmp_path: Path, log: Log) -> None:
    """The report says which rules of the shadow nobody has needed."""
    running = today(tmp_path, server())
    put(running, server(tls=f"{ca('ca')}\n{ca('other')}"))
    running.enter(BOB)
    assert [(one.rule, one.count) for one in report(running).uses] == [("ca", 1), ("other", 0)]


# What nobody can tell.


def test_authorizers_are_not_asked(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whom one rejects now is judged only if the shadow has none."""
    module = ModuleType("asked_in_shadow")
    module.no = lambda peer: False  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "asked_in_shadow", module)
    asking = server(more='authorize = "asked_in_shadow:no"')
    running = today(tmp_path, asking)
    put(running, asking)
    running.handshake(BOB)
    assert counts(running) == {("not_judged", "", "not_asked"): 1}
    put(running, server())
    running.handshake(BOB)
    assert counts(running) == {("would_be_in", "rule", "not_authorized"): 1}


def test_lists_that_are_fetched(tmp_path: Path, log: Log) -> None:
    """The shadow fetches nothing; it has the lists that the gate fetches for itself."""
    url = "http://ca.example/ca.crl"
    listed = RULE.replace("\n    }", f'\n crl_url = "{url}"\n}}')
    documents = Documents()
    documents.found[url] = der(crl(ROOT, [BOB], now=utc_now()))
    running = MemoryService(tmp_path, server(), now=utc_now, documents=documents)
    running.service.fetcher.startService()
    put(running, server(tls=listed))
    running.enter(BOB).close()
    running.reactor.advance(10)
    assert counts(running) == {("not_judged", "rule", "not_fetched"): 1}
    assert documents.asked == []
    told = report(running).not_counted
    assert f"the revocation list of {url} is not there: the shadow fetches nothing" in told
    # The gate itself has another rule with the list.
    second = listed.replace('"rule"', '"second"')
    running.reload(server(tls=f"{RULE}\n{second}"))
    running.reactor.advance(10)
    running.enter(BOB)
    assert counts(running) == {("would_be_out", "rule", "revoked"): 1}


@pytest.mark.parametrize("version", VERSIONS)
def test_other_rejections_are_not_judged(tmp_path: Path, log: Log, version: Version) -> None:
    """What is no TLS, or is over a limit, says nothing of a certificate."""
    running = today(tmp_path, server(more="max_connections = 1"))
    put(running, server(tls='client_authentication = "none"'))
    running.enter(BOB, min_version=version, max_version=version)
    running.handshake(ALICE, min_version=version, max_version=version)
    assert counts(running) == {("other_rule", "rule", ""): 1}


def test_what_is_replaced_is_freed(tmp_path: Path, log: Log) -> None:
    """Neither an earlier shadow nor an earlier configuration stays in memory."""
    running = today(tmp_path, server())
    put(running, server(tls=WITHOUT_BOB))
    report(running)
    runner, now = running.service.runner, running.service.shadowing.now
    assert now is not None
    before: list[Any] = [ref(runner.epoch), ref(now.shadow), ref(now.shadow.epoch)]
    del now
    running.enter(BOB).close()
    report(running)
    put(running, server())
    running.reload(server(tls=ca("ca")))
    report(running)
    gc.collect()
    assert [one() for one in before] == [None, None, None]
