from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, LogEvent, capturedLogs, globalLogPublisher

from mtlsgate.gate.events import Reload
from mtlsgate.gate.listener import BoundSocket
from mtlsgate.load.addresses import Address, HostError
from mtlsgate.observe.connection_status import ConnectionSelection
from mtlsgate.protocols.echo import Echo
from mtlsgate.reasons import Reason
from mtlsgate.testing import Client, Version
from tests.kits.gate import Log
from tests.kits.pki import NOW, pki
from tests.kits.revocation import crl, der
from tests.kits.service import ISSUING, PINNED, MemoryService, MemorySockets, a_server

PIN = (
    'client_certificate "c" {\nca_certificate_file = "issuing.crt"\n'
    'pin "a" {\nleaf_certificate_file = "client.crt"%s\n}\n}'
)
STRANGERS = 'client_certificate "strangers" { leaf_certificate_file = "stranger.crt" }'


def is_out(running: MemoryService, who: str = "client") -> bool:
    client = running.connect(getattr(pki(), who))
    client.send(b"knock")
    return client.receive() == b""


def closes(log: list[LogEvent]) -> list[str]:
    return [str(event["cause"]) for event in log if event["log_namespace"] == "mtlsgate.closes"]


@pytest.fixture
def events(log: Log) -> Iterator[list[LogEvent]]:
    """Every event, of whatever namespace, in order."""
    found: list[LogEvent] = []
    observer = cast(ILogObserver, found.append)
    globalLogPublisher.addObserver(observer)
    yield found
    globalLogPublisher.removeObserver(observer)


# Taking over


def test_another_epoch_takes_over(tmp_path: Path, log: Log, version: Version) -> None:
    """... in one step, on the port that is open."""
    running = MemoryService(tmp_path, a_server())
    assert running.service.runner.number == 1
    running.enter(pki().other, min_version=version, max_version=version)
    report = running.reload(a_server(rules=PINNED))
    assert (report.problems, report.number, running.service.runner.number) == ((), 2, 2)
    assert is_out(running, "other")
    running.enter(pki().client, min_version=version, max_version=version)
    assert running.listens() == ["door.sock"]


@pytest.mark.parametrize(
    "broken",
    [
        "server {",
        a_server(rules=ISSUING.replace("issuing", "nowhere")),
        a_server(rules=""),
        a_server() + a_server(),
    ],
)
def test_what_is_wrong_never_takes_over(tmp_path: Path, log: Log, broken: str) -> None:
    """The old epoch stays in force; the report and the log say what is wrong, and where."""
    running = MemoryService(tmp_path, a_server())
    live = running.enter(pki().client)
    report = running.reload(broken)
    assert report.problems
    assert all(line.startswith(str(running.site.config)) for line in report.problems)
    assert (report.number, running.service.runner.number, report.changes) == (1, 1, ())
    live.send(b"still")
    assert live.receive() == b"still"
    running.enter(pki().other)
    assert running.service.reloader.last == report
    assert running.reload(a_server(rules=PINNED)).number == 2


def test_a_file_that_vanished(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, a_server())
    (tmp_path / "issuing.crt").unlink()
    [problem] = running.reload().problems
    assert problem.endswith('ca_certificate_file: "issuing.crt" no such file')


def test_addresses_open_and_close(tmp_path: Path, log: Log) -> None:
    """What stays is not touched; clients of what goes are no longer admitted."""
    running = MemoryService(tmp_path, a_server("one") + a_server("two"))
    one, two = running.enter(pki().client, "one"), running.enter(pki().client, "two")
    running.reload(a_server("one") + a_server("three"))
    assert running.listens() == ["one.sock", "two.sock", "three.sock"]
    one.send(b"x")
    two.pump()
    assert (one.receive(), two.disconnected) == (b"x", True)
    running.enter(pki().client, "three")


def test_nothing_happens_if_an_address_cannot_be_had(tmp_path: Path, log: Log) -> None:
    """What was opened before it is closed again."""
    running = MemoryService(tmp_path, a_server())
    taken = 'server {\nhosts = ["192.0.2.1:443"]\nprotocol "echo" {}\ntls {\n%s\n}\n}' % (
        'server_certificate {\npublic_key_file = "server.crt"\nprivate_key_file = "server.key"\n}\n'
        + ISSUING
    )
    [problem] = running.reload(a_server(rules=PINNED) + taken).problems
    assert "cannot listen on 192.0.2.1:443" in problem
    assert running.service.runner.number == 1
    running.enter(pki().other)


def test_handshakes_under_way_are_judged_by_what_is_in_force(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """A client that began under the old rules is not let in by them any more."""
    running = MemoryService(tmp_path, a_server())
    options = {"min_version": version, "max_version": version}
    out, still = running.connect(pki().other, **options), running.connect(pki().client, **options)
    for client in (out, still):
        client.step()
        client.step()
    running.reload(a_server(rules=PINNED))
    for client in (out, still):
        client.send(b"knock")
    assert (out.receive(), still.receive()) == (b"", b"knock")
    assert Reason.LEAF_MISMATCH in [event.get("reason") for event in log.events]


def test_handshakes_under_way_are_judged_by_the_newest_of_several(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """... and not by the one that came next after that under which they began."""
    running = MemoryService(tmp_path, a_server())
    client = running.connect(pki().other, min_version=version, max_version=version)
    client.step()
    client.step()
    running.reload(a_server(rest='idle_timeout = "1h"'))
    running.reload(a_server(rules=PINNED))
    client.send(b"knock")
    assert client.receive() == b""
    assert log.events[-1]["reason"] == Reason.LEAF_MISMATCH


def test_handshakes_under_way_at_an_address_that_goes(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, a_server("one") + a_server("two"))
    client = running.connect(pki().client, "two")
    client.step()
    client.step()
    running.reload(a_server("one"))
    client.send(b"knock")
    assert client.receive() == b""
    assert log.events[-1]["reason"] == Reason.SERVER_REMOVED


def test_sessions_of_an_earlier_epoch_do_not_resume(tmp_path: Path, log: Log) -> None:
    text = a_server(rules="session_resumption = true\n" + ISSUING)
    running = MemoryService(tmp_path, text)
    session = running.enter(pki().client).session
    assert session is not None
    running.reload()
    running.enter(pki().client, session=session)
    assert log.events[-1]["resumed"] is False


def test_one_at_a_time(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, a_server())
    found: list[int] = []
    for _ in range(3):
        running.service.reloader.reload().addCallback(lambda report: found.append(report.number))
    assert found == [2, 3, 4]


def test_the_application_ends_with_its_last_connection(tmp_path: Path, log: Log) -> None:
    """Not when another epoch takes over, and not twice."""
    calls: list[str] = []
    running = MemoryService(tmp_path, a_server())
    application = running.service.runner.epoch.servers[0].gate.application
    application.stopFactory = lambda: calls.append("stop")  # type: ignore[attr-defined]
    client = running.enter(pki().client)
    running.reload()
    assert calls == []
    client.send(b"still there")
    assert client.receive() == b"still there"
    client.close()
    assert calls == ["stop"]


FAILING = """
from twisted.internet.protocol import Factory, Protocol

class Failing(Factory):
    noisy = False
    def startFactory(self): raise RuntimeError("no such luck")

def factory(): return Failing.forProtocol(Protocol)
"""


def test_a_protocol_that_fails_to_start(tmp_path: Path, log: Log) -> None:
    """Nothing has changed, and what was bound for the new epoch is given back."""
    running = MemoryService(tmp_path, a_server())
    running.site.write("failing.py", FAILING)
    text = a_server(rules=PINNED).replace(
        'protocol "echo" {}', 'protocol "custom" { factory = "failing:factory" }'
    )
    before = len(os.listdir("/proc/self/fd"))
    [problem] = running.reload(text).problems
    assert "no such luck" in problem
    assert running.service.runner.number == 1
    assert len(os.listdir("/proc/self/fd")) <= before
    running.enter(pki().other)
    log.failures.clear()


def test_an_address_that_cannot_be_had_gives_the_others_back(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were taken before it."""
    running = MemoryService(tmp_path, a_server())
    whole, taken = MemorySockets.take, list[BoundSocket]()

    def fail_second(self: MemorySockets, address: Address) -> BoundSocket:
        if taken:
            raise HostError("no such luck")
        taken.append(whole(self, address))
        return taken[0]

    monkeypatch.setattr(MemorySockets, "take", fail_second)
    text = a_server(rules=PINNED) + "".join(
        a_server(name).replace(f"unix:{name}.sock", "127.0.0.1:0") for name in ("b", "c", "d")
    )
    before = len(os.listdir("/proc/self/fd"))
    [problem] = running.reload(text).problems
    assert problem.endswith(": no such luck")
    assert len(os.listdir("/proc/self/fd")) <= before
    assert taken[0].sock.fileno() == -1
    running.enter(pki().other)


def test_a_protocol_that_fails_to_stop(tmp_path: Path, log: Log) -> None:
    """The new epoch is in force all the same."""
    running = MemoryService(tmp_path, a_server())

    def fail() -> None:
        raise RuntimeError("boom")

    running.service.runner.epoch.servers[0].gate.application.stopFactory = fail  # type: ignore[attr-defined]
    assert running.reload(a_server(rules=PINNED)).problems == ()
    running.enter(pki().client)
    log.expect_failure(RuntimeError)


def test_asked_again_and_again(tmp_path: Path, log: Log) -> None:
    """However often it is asked for while one is under way, there is one more, of which
    all are told who asked since the first began."""
    running = MemoryService(tmp_path, a_server())
    loads: list[tuple[Callable[[], object], Deferred[object]]] = []

    def later(function: Callable[[], object]) -> Deferred[object]:
        loads.append((function, Deferred()))
        return loads[-1][1]

    running.service.reloader._in_thread = later  # type: ignore[assignment]
    reports: list[Reload] = []
    for number in range(50):
        if number == 30:
            running.site.write("gate.hcl", a_server(rules=PINNED))
        running.service.reloader.reload().addCallback(reports.append)
    assert len(loads) == 1
    for count in (1, 50):
        function, loading = loads[-1]
        loading.callback(function())
        assert len(reports) == count
    assert len(loads) == 2
    assert {report.number for report in reports[1:]} == {3}
    running.service.reloader.reload().addCallback(reports.append)
    assert len(loads) == 3
    loads[-1][1].callback(loads[-1][0]())
    assert reports[-1].number == 4


def test_protocols_that_started_in_vain_are_stopped(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that share an address with one that fails to start."""
    text = "".join(
        a_server(name, rest=f'server_names = ["{name}.example"]').replace(f"{name}.sock", "x.sock")
        for name in ("one", "two", "three")
    )
    running = MemoryService(tmp_path, text)
    calls: list[str] = []

    def start(self: Any) -> None:
        if self.protocol is Echo:
            calls.append("start")
            if len(calls) == 3:
                raise RuntimeError("boom")

    def stop(self: Any) -> None:
        if self.protocol is Echo:
            calls.append("stop")

    monkeypatch.setattr(Factory, "startFactory", start)
    monkeypatch.setattr(Factory, "stopFactory", stop)
    [problem] = running.reload(text.replace("one.example", "1.example")).problems
    assert problem.endswith("a protocol failed to start: RuntimeError: boom")
    assert calls == ["start", "start", "start", "stop", "stop"]
    log.expect_failure(RuntimeError)


#: Whatever stands between the port and TLS.
whatever_is_in_front = pytest.mark.parametrize(
    "rest",
    [
        "",
        'proxy_protocol = "required"\ntrusted_proxies = ["127.0.0.1"]',
        'server_names = ["a.example"]\ndefault_server = true',
    ],
)


@whatever_is_in_front
def test_a_protocol_is_not_stopped_before_its_last_connection(
    tmp_path: Path, log: Log, rest: str
) -> None:
    """... is over, nor before those are of which nothing was read yet."""
    running = MemoryService(tmp_path, a_server(rest=rest))
    stopped: list[str] = []
    application: Any = running.service.runner.epoch.servers[0].gate.application
    application.stopFactory = lambda: stopped.append("stopped")
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n" if "proxy" in rest else b""
    clients = [running.connect(pki().client), running.connect(pki().client)]
    running.reload(a_server(rest=rest + "\nmax_connections = 77"))
    assert not stopped
    for client in clients:
        if header:
            client.raw_send(header)
        client.send(b"knock")
        assert client.receive() == b"knock"
    assert not stopped
    for client in clients:
        assert not stopped
        client.close()
    assert stopped == ["stopped"]


@whatever_is_in_front
def test_a_protocol_is_stopped_where_nobody_gets_that_far(
    tmp_path: Path, log: Log, rest: str
) -> None:
    running = MemoryService(tmp_path, a_server(rest=rest))
    stopped: list[str] = []
    application: Any = running.service.runner.epoch.servers[0].gate.application
    application.stopFactory = lambda: stopped.append("stopped")
    gone, wrong = running.connect(pki().client), running.connect(pki().client)
    running.reload(a_server(rest=rest + "\nmax_connections = 77"))
    assert not stopped
    gone.reset()
    assert not stopped
    wrong.raw_send(b"GET / HTTP/1.1\r\n\r\n")
    wrong.pump()
    assert stopped == ["stopped"]


# Clients that are connected


def test_an_epoch_that_is_no_longer_in_force_judges_nobody(tmp_path: Path, log: Log) -> None:
    """Two in one turn: whom the latter does not admit goes, though the former does."""
    running = MemoryService(tmp_path, a_server())
    clients = [running.enter(one) for one in (pki().client, pki().other)]
    grace = 'revoke_grace = "10s"'
    running.site.write("gate.hcl", a_server(rest=grace))
    running.service.reloader.reload()
    running.site.write("gate.hcl", a_server(rules=STRANGERS, rest=grace))
    running.service.reloader.reload()
    running.reactor.pump([0.0] * 50)
    running.reactor.advance(11)
    for client in clients:
        client.pump()
        assert client.disconnected


def test_they_are_judged_again(
    tmp_path: Path, log: Log, version: Version, events: list[LogEvent]
) -> None:
    """Who is no longer admitted is closed at once, and the log says why."""
    running = MemoryService(tmp_path, a_server())
    options = {"min_version": version, "max_version": version}
    staying = running.enter(pki().client, **options)
    going = running.enter(pki().other, **options)
    report = running.reload(a_server(rules=PINNED))
    going.pump()
    assert going.disconnected
    staying.send(b"still")
    assert staying.receive() == b"still"
    [closed] = [event for event in events if event["log_namespace"] == "mtlsgate.closes"]
    assert closed["cause"] == "no_longer_admitted"
    assert "leaf_mismatch" in closed["detail"]
    assert closed["fingerprint"] == pki().other.sha256
    assert report.changes == (
        "server door: rule fleet removed",
        "server door: rule pinned (CA CN=Issuing CA, 1 pin) added",
    )


@pytest.mark.parametrize(
    "rules",
    [
        f'deny {{ sha256 = ["{"%s"}"] }}\n{ISSUING}',
        ISSUING.replace("}", 'deny { common_names = ["client"] }\n}'),
        STRANGERS,
    ],
)
def test_by_whatever_the_rules_say(tmp_path: Path, log: Log, rules: str) -> None:
    running = MemoryService(tmp_path, a_server())
    client = running.enter(pki().client)
    text = a_server(rules=rules.replace("%s", pki().client.sha256))
    assert running.reload(text).problems == ()
    client.pump()
    assert client.disconnected


def test_revocation_ends_connections(tmp_path: Path, log: Log) -> None:
    """A new list, and nothing else, is new."""
    text = a_server(rules=ISSUING.replace("}", 'crl_file = "issuing.crl"\n}'))
    lists = tmp_path / "issuing.crl"
    lists.write_bytes(der(crl(pki().issuing, now=NOW)))
    running = MemoryService(tmp_path, text)
    going, staying = running.enter(pki().client), running.enter(pki().other)
    lists.write_bytes(der(crl(pki().issuing, [pki().client], now=NOW)))
    assert running.reload().problems == ()
    going.pump()
    staying.pump()
    assert (going.disconnected, staying.disconnected) == (True, False)


LONE = 'client_certificate "lone" { leaf_certificate_file = "%s" }'


@pytest.mark.parametrize(
    ("rules", "stays"),
    [
        (LONE % "client.crt", True),
        (LONE % "stranger.crt", False),
        (LONE % "clients.crt" + "\n" + PINNED.replace("client.crt", "stranger.crt"), True),
        (ISSUING.replace("issuing.crt", "root.crt"), True),
        (LONE % "client.crt" + '\ndeny { common_names = ["client"] }', False),
    ],
)
def test_pins_without_a_ca_judge_again(tmp_path: Path, log: Log, rules: str, stays: bool) -> None:
    """By the path that was kept, which ends in the CA of that time."""
    running = MemoryService(tmp_path, a_server())
    client = running.enter(pki().client)
    assert running.reload(a_server(rules=rules)).problems == ()
    client.pump()
    assert client.disconnected is not stays


def test_a_client_admitted_again_in_its_grace_stays(tmp_path: Path, log: Log) -> None:
    """Who is admitted again meanwhile stays."""
    running = MemoryService(tmp_path, a_server())
    one, two = running.enter(pki().other), running.enter(pki().client)
    denied = a_server(rules=STRANGERS, rest='revoke_grace = "30s"')
    running.reload(denied)
    running.reactor.advance(20)
    running.reload(a_server(rules=PINNED, rest='revoke_grace = "30s"'))
    running.reactor.advance(9)
    one.pump()
    assert not one.disconnected
    running.reactor.advance(2)
    one.pump()
    two.pump()
    assert (one.disconnected, two.disconnected) == (True, False)


def test_grace_is_not_given_twice(tmp_path: Path, log: Log) -> None:
    """However often the configuration is loaded anew meanwhile, and says so again."""
    running = MemoryService(tmp_path, a_server())
    client = running.enter(pki().client)
    for grace in ("30s", "31s", "32s", "1h"):
        running.reload(a_server(rules=STRANGERS, rest=f'revoke_grace = "{grace}"'))
        assert not client.disconnected
        running.reactor.advance(9)
    running.reactor.advance(0)
    client.pump()
    assert client.disconnected


def test_grace_may_be_cut_short(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, a_server())
    client = running.enter(pki().client)
    running.reload(a_server(rules=STRANGERS, rest='revoke_grace = "1h"'))
    running.reload(a_server(rules=STRANGERS, rest='revoke_grace = "2s"'))
    running.reactor.advance(3)
    client.pump()
    assert client.disconnected


@pytest.mark.parametrize("rules", [STRANGERS, ISSUING])
def test_who_is_to_go_is_not_kept(tmp_path: Path, log: Log, rules: str) -> None:
    """... by an epoch that judges nobody, unless it does admit them."""
    running = MemoryService(tmp_path, a_server())
    client = running.enter(pki().client)
    running.reload(a_server(rules=STRANGERS, rest='revoke_grace = "30s"'))
    running.reactor.advance(10)
    running.reload(a_server(rules=rules, rest='on_reload = "keep"'))
    running.reactor.advance(19)
    client.pump()
    assert not client.disconnected
    running.reactor.advance(2)
    client.pump()
    assert client.disconnected is (rules == STRANGERS)


def under_way(running: MemoryService, version: Version) -> Client:
    """:returns: a client in the middle of its handshake."""
    client = running.connect(pki().client, min_version=version, max_version=version)
    client.step()
    client.step()
    return client


@pytest.mark.parametrize("on_reload", ["judge", "keep"])
def test_handshakes_under_way_are_held_to_what_is_in_force(
    tmp_path: Path, log: Log, version: Version, on_reload: str
) -> None:
    """The pin's new end, and the new limits, count for them, too."""
    running = MemoryService(tmp_path, a_server(rules=PIN % ""))
    client = under_way(running, version)
    end = NOW + timedelta(seconds=30)
    rest = f'on_reload = "{on_reload}"\nidle_timeout = "1h"'
    rules = PIN % f'\nretire_after = "{end.isoformat()}"'
    running.reload(a_server("other", rules=rules, rest=rest).replace("other.sock", "door.sock"))
    client.send(b"knock")
    assert client.receive() == b"knock"
    [entry] = running.connections
    assert (entry.server, entry.terms.idle_timeout) == ("other", 3600.0)
    assert running.connections.tallies["other"].counts == {"handshakes": 0, "admitted": 1}
    running.now = lambda: end + timedelta(seconds=1)
    running.reactor.advance(1.0)
    client.pump()
    assert client.disconnected
    assert running.connections.tallies["other"].counts == {"handshakes": 0, "admitted": 0}
    assert set(running.connections.tallies["door"].counts.values()) == {0}


def test_handshakes_under_way_when_limits_are_lowered(
    tmp_path: Path, log: Log, version: Version
) -> None:
    running = MemoryService(tmp_path, a_server())
    running.enter(pki().client)
    client = under_way(running, version)
    running.reload(a_server(rest="max_connections_per_identity = 1"))
    client.send(b"knock")
    assert client.receive() == b""
    assert log.events[-1]["reason"] == Reason.TOO_MANY_OF_IDENTITY


def test_on_reload_keep(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, a_server())
    client = running.enter(pki().other)
    running.reload(a_server(rules=PINNED, rest='on_reload = "keep"'))
    client.send(b"still")
    assert client.receive() == b"still"
    assert is_out(running, "other")


def test_settings_are_what_servers_say_nothing_else_than(tmp_path: Path, log: Log) -> None:
    settings = 'settings {\non_reload = "keep"\nidle_timeout = "5m"\nmax_handshakes = 7\n}\n'
    running = MemoryService(
        tmp_path, settings + a_server() + a_server("two", rest='idle_timeout = "1h"')
    )
    one, two = (server.gate.terms for server in running.service.runner.epoch.servers)
    assert (one.idle_timeout, two.idle_timeout) == (300.0, 3600.0)
    assert not one.judged_on_reload
    assert one.limits.max_handshakes == two.limits.max_handshakes == 7
    assert one.limits.handshake_bytes == 131072


def test_a_pin_that_is_to_end_earlier(tmp_path: Path, log: Log) -> None:
    """New terms count for clients that are connected."""
    running = MemoryService(tmp_path, a_server(rules=PIN % ""))
    client = running.enter(pki().client)
    end = NOW + timedelta(seconds=30)
    running.reload(a_server(rules=PIN % f'\nretire_after = "{end.isoformat()}"'))
    running.now = lambda: end + timedelta(seconds=1)
    running.reactor.advance(1.0)
    client.pump()
    assert client.disconnected


# A trial


def test_a_trial_changes_nothing(tmp_path: Path, log: Log) -> None:
    """It tells what would change, and who would be dropped."""
    running = MemoryService(tmp_path, a_server())
    client, other = running.enter(pki().client), running.enter(pki().other)
    report = running.reload(a_server(rules=PINNED), is_trial=True)
    assert report.is_trial
    assert running.service.runner.number == report.number == 1
    [dropped] = report.dropped
    assert dropped.startswith("door: 127.0.0.1:50000: leaf_mismatch: ")
    assert dropped.endswith(f" [connection=2 subject=CN=other sha256={pki().other.sha256}]")
    assert len(report.changes) == 2
    for one in (client, other):
        one.send(b"still")
        assert one.receive() == b"still"
    assert running.service.reloader.last is None


def test_a_trial_does_not_hold_others_up(tmp_path: Path, log: Log) -> None:
    """Clients are judged in turn with whatever else there is to do."""
    running = MemoryService(tmp_path, a_server())
    running.enter(pki().client)
    running.enter(pki().other)
    found: list[Reload] = []
    running.site.write("gate.hcl", a_server(rules=PINNED))
    running.service.reloader.reload(is_trial=True).addCallback(found.append)
    assert found == []
    running.reactor.pump([0.0] * 5)
    [report] = found
    assert len(report.dropped) == 1


ADMINS = """
client_certificate "admins" {
  ca_certificate_file = "issuing.crt"
  allow {
    common_names = ["%s"]
  }
}
client_certificate "users" {
  ca_certificate_file = "issuing.crt"
}
"""


def test_what_is_told_is_the_rule_by_which_a_client_stays(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """After a reload that takes a client out of rule admins: in the status, in the log
    and in the audit log."""
    audited = 'settings {\n  audit {\n    file = "audit.log"\n  }\n}\n'
    name = pki().client.certificate.subject.rfc4514_string().removeprefix("CN=")
    running = MemoryService(tmp_path, audited + a_server(rules=ADMINS % name))
    client = running.enter(pki().client, min_version=version, max_version=version)

    def told() -> list[str | None]:
        return [one.rule for one in running.taker.take(ConnectionSelection()).connections]

    assert told() == ["admins"]
    running.reload(audited + a_server(rules=ADMINS % "somebody else"))
    client.send(b"still")
    assert client.receive() == b"still"
    assert told() == ["users"]
    with capturedLogs() as events:
        running.service.runner.close_all()
        client.pump()
    [closed] = [one for one in events if one["log_namespace"] == "mtlsgate.closes"]
    assert closed["rule"] == "users"
    rules = [(one["event"], one["rule"]) for one in running.audited() if "rule" in one]
    assert rules == [("admitted", "admins"), ("closed", "users")]


# Ending


def test_a_drain_closes_what_is_left_at_its_end(tmp_path: Path, log: Log) -> None:
    """Connections have their time, and then they have not."""
    running = MemoryService(tmp_path, 'settings { drain_timeout = "30s" }\n' + a_server())
    one, two = running.enter(pki().client), running.enter(pki().other)
    done = running.stop()
    assert running.service.runner.is_draining
    one.close()
    running.reactor.advance(29)
    assert not done
    two.send(b"still")
    assert two.receive() == b"still"
    running.reactor.advance(2)
    two.pump()
    assert two.disconnected
    assert done


def test_draining_nobody(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, a_server())
    assert running.stop()
    assert running.reactor.getDelayedCalls() == []


def test_time_goes_on_while_it_drains(tmp_path: Path, log: Log) -> None:
    """A certificate that expires meanwhile ends its connection all the same."""
    running = MemoryService(tmp_path, 'settings { drain_timeout = "1h" }\n' + a_server())
    client = running.enter(pki().client)
    done = running.stop()
    running.now = lambda: pki().client.certificate.not_valid_after_utc + timedelta(seconds=2)
    running.reactor.advance(1.0)
    client.pump()
    assert client.disconnected
    assert done
    assert running.reactor.getDelayedCalls() == []


def test_the_second_time_at_once(tmp_path: Path, log: Log, events: list[LogEvent]) -> None:
    running = MemoryService(tmp_path, 'settings { drain_timeout = "1h" }\n' + a_server())
    client, knocking = running.enter(pki().client), running.connect(pki().client)
    done = running.stop()
    running.service.runner.close_all()
    client.pump()
    knocking.pump()
    assert client.disconnected
    assert knocking.disconnected
    assert done
    assert closes(events) == ["drained"]


def test_no_epoch_takes_over_while_draining(tmp_path: Path, log: Log) -> None:
    running = MemoryService(tmp_path, 'settings { drain_timeout = "1h" }\n' + a_server())
    client = running.enter(pki().client)
    running.stop()
    assert running.reload().problems == ("the gate is ending",)
    client.close()


@pytest.mark.slow
def test_file_descriptors_are_not_leaked(tmp_path: Path, log: Log) -> None:
    """Two hundred reloads, with real sockets, open no more than one does."""
    text = a_server().replace("unix:door.sock", "127.0.0.1:0")
    running = MemoryService(tmp_path, text)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        assert running.reload(a_server(rules=PINNED if number % 2 else ISSUING)).problems == ()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.parametrize(
    ("settings", "of_server", "is_logged"),
    [("false", "", False), ("false", "true", True), ("true", "false", False)],
)
def test_who_is_admitted_is_logged_if_the_configuration_says_so(
    tmp_path: Path, log: Log, settings: str, of_server: str, is_logged: bool
) -> None:
    """A server's own word counts, and a reload changes it."""
    stated = f"log_admitted = {of_server}" if of_server else ""
    text = f"settings {{ log_admitted = {settings} }}\n" + a_server(rest=stated)
    running = MemoryService(tmp_path, text)
    for expected in (is_logged, True):
        log.events.clear()
        running.enter(pki().client)
        assert [event["rule"] for event in log.events] == ["fleet"] * expected
        assert running.reload(a_server()).problems == ()
