from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from mtlsgate.gate.events import Reload
from mtlsgate.protocols.echo import Echo
from mtlsgate.reasons import Reason
from mtlsgate.run import epoch_runner
from mtlsgate.run.listening import Listener, ListenError, Switch, listen
from mtlsgate.testing import Client, Version
from tests.kits.gate import Log
from tests.kits.pki import NOW, pki
from tests.kits.revocation import crl, der
from tests.kits.service import ISSUING, PINNED, House, a_server

PIN = (
    'client_certificate "c" { ca_certificate_file = "issuing.crt"\n'
    'pin "a" { leaf_certificate_file = "client.crt"%s }}'
)
STRANGERS = 'client_certificate "strangers" { leaf_certificate_file = "stranger.crt" }'


def is_out(house: House, who: str = "client") -> bool:
    client = house.connect(getattr(pki(), who))
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
    house = House(tmp_path, a_server())
    assert house.service.runner.number == 1
    house.enter(pki().other, min_version=version, max_version=version)
    report = house.reload(a_server(rules=PINNED))
    assert (report.problems, report.number, house.service.runner.number) == ((), 2, 2)
    assert is_out(house, "other")
    house.enter(pki().client, min_version=version, max_version=version)
    assert house.listens() == ["door.sock"]


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
    house = House(tmp_path, a_server())
    live = house.enter(pki().client)
    report = house.reload(broken)
    assert report.problems
    assert all(line.startswith(str(house.site.config)) for line in report.problems)
    assert (report.number, house.service.runner.number, report.changes) == (1, 1, ())
    live.send(b"still")
    assert live.receive() == b"still"
    house.enter(pki().other)
    assert house.service.reloader.last == report
    assert house.reload(a_server(rules=PINNED)).number == 2


def test_a_file_that_vanished(tmp_path: Path, log: Log) -> None:
    house = House(tmp_path, a_server())
    (tmp_path / "issuing.crt").unlink()
    [problem] = house.reload().problems
    assert problem.endswith('ca_certificate_file: "issuing.crt" no such file')


def test_addresses_open_and_close(tmp_path: Path, log: Log) -> None:
    """What stays is not touched; clients of what goes are no longer admitted."""
    house = House(tmp_path, a_server("one") + a_server("two"))
    one, two = house.enter(pki().client, "one"), house.enter(pki().client, "two")
    house.reload(a_server("one") + a_server("three"))
    assert house.listens() == ["one.sock", "two.sock", "three.sock"]
    one.send(b"x")
    two.pump()
    assert (one.receive(), two.disconnected) == (b"x", True)
    house.enter(pki().client, "three")


def test_nothing_happens_if_an_address_cannot_be_had(tmp_path: Path, log: Log) -> None:
    """What was opened before it is closed again."""
    house = House(tmp_path, a_server())
    taken = 'server { hosts = ["192.0.2.1:443"]\nprotocol "echo" {}\ntls {\n%s\n} }' % (
        'server_certificate { public_key_file = "server.crt"\nprivate_key_file = "server.key" }\n'
        + ISSUING
    )
    [problem] = house.reload(a_server(rules=PINNED) + taken).problems
    assert "cannot listen on 192.0.2.1:443" in problem
    assert house.service.runner.number == 1
    house.enter(pki().other)


def test_handshakes_under_way_are_judged_by_what_is_in_force(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """A client that began under the old rules is not let in by them any more."""
    house = House(tmp_path, a_server())
    options = {"min_version": version, "max_version": version}
    out, still = house.connect(pki().other, **options), house.connect(pki().client, **options)
    for client in (out, still):
        client.step()
        client.step()
    house.reload(a_server(rules=PINNED))
    for client in (out, still):
        client.send(b"knock")
    assert (out.receive(), still.receive()) == (b"", b"knock")
    assert Reason.LEAF_MISMATCH in [event.get("reason") for event in log.events]


def test_handshakes_under_way_are_judged_by_the_newest_of_several(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """... and not by the one that came next after that under which they began."""
    house = House(tmp_path, a_server())
    client = house.connect(pki().other, min_version=version, max_version=version)
    client.step()
    client.step()
    house.reload(a_server(rest='idle_timeout = "1h"'))
    house.reload(a_server(rules=PINNED))
    client.send(b"knock")
    assert client.receive() == b""
    assert log.events[-1]["reason"] == Reason.LEAF_MISMATCH


def test_handshakes_under_way_at_an_address_that_goes(tmp_path: Path, log: Log) -> None:
    house = House(tmp_path, a_server("one") + a_server("two"))
    client = house.connect(pki().client, "two")
    client.step()
    client.step()
    house.reload(a_server("one"))
    client.send(b"knock")
    assert client.receive() == b""
    assert log.events[-1]["reason"] == Reason.SERVER_REMOVED


def test_sessions_of_an_earlier_epoch_do_not_resume(tmp_path: Path, log: Log) -> None:
    text = a_server(rules="session_resumption = true\n" + ISSUING)
    house = House(tmp_path, text)
    session = house.enter(pki().client).session
    assert session is not None
    house.reload()
    house.enter(pki().client, session=session)
    assert log.events[-1]["resumed"] is False


def test_one_at_a_time(tmp_path: Path, log: Log) -> None:
    house = House(tmp_path, a_server())
    found: list[int] = []
    for _ in range(3):
        house.service.reloader.reload().addCallback(lambda report: found.append(report.number))
    assert found == [2, 3, 4]


def test_the_application_ends_with_its_last_connection(tmp_path: Path, log: Log) -> None:
    """Not when another epoch takes over, and not twice."""
    calls: list[str] = []
    house = House(tmp_path, a_server())
    application = house.service.runner.epoch.servers[0].gate.application
    application.stopFactory = lambda: calls.append("stop")  # type: ignore[attr-defined]
    client = house.enter(pki().client)
    house.reload()
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
    house = House(tmp_path, a_server())
    house.site.write("failing.py", FAILING)
    text = a_server(rules=PINNED).replace(
        'protocol "echo" {}', 'protocol "custom" { factory = "failing:factory" }'
    )
    before = len(os.listdir("/proc/self/fd"))
    [problem] = house.reload(text).problems
    assert "no such luck" in problem
    assert house.service.runner.number == 1
    house.enter(pki().other)
    assert len(os.listdir("/proc/self/fd")) == before
    log.failures.clear()


def test_an_address_that_fails_to_listen(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were bound and opened before it are given back."""
    house = House(tmp_path, a_server())
    opened: list[Listener] = []

    def fail_second(listener: Listener, switch: Switch) -> IListeningPort:
        if opened:
            raise ListenError("no such luck")
        opened.append(listener)
        return listen(listener, switch)

    monkeypatch.setattr(epoch_runner, "listen", fail_second)
    text = a_server(rules=PINNED) + "".join(
        a_server(name).replace(f"unix:{name}.sock", "127.0.0.1:0") for name in ("b", "c", "d")
    )
    before = len(os.listdir("/proc/self/fd"))
    assert house.reload(text).problems == ("no such luck",)
    assert len(opened) == 1
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    house.enter(pki().other)


def test_a_protocol_that_fails_to_stop(tmp_path: Path, log: Log) -> None:
    """The new epoch is in force all the same."""
    house = House(tmp_path, a_server())

    def fail() -> None:
        raise RuntimeError("boom")

    house.service.runner.epoch.servers[0].gate.application.stopFactory = fail  # type: ignore[attr-defined]
    assert house.reload(a_server(rules=PINNED)).problems == ()
    house.enter(pki().client)
    log.expect_failure(RuntimeError)


def test_asked_again_and_again(tmp_path: Path, log: Log) -> None:
    """However often it is asked for while one is under way, there is one more, of which
    all are told who asked since the first began."""
    house = House(tmp_path, a_server())
    loads: list[tuple[Callable[[], object], Deferred[object]]] = []

    def later(function: Callable[[], object]) -> Deferred[object]:
        loads.append((function, Deferred()))
        return loads[-1][1]

    house.service.reloader._in_thread = later  # type: ignore[assignment]
    reports: list[Reload] = []
    for number in range(50):
        if number == 30:
            house.site.write("gate.hcl", a_server(rules=PINNED))
        house.service.reloader.reload().addCallback(reports.append)
    assert len(loads) == 1
    for count in (1, 50):
        function, loading = loads[-1]
        loading.callback(function())
        assert len(reports) == count
    assert len(loads) == 2
    assert {report.number for report in reports[1:]} == {3}
    house.service.reloader.reload().addCallback(reports.append)
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
    house = House(tmp_path, text)
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
    [problem] = house.reload(text.replace("one.example", "1.example")).problems
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
    house = House(tmp_path, a_server(rest=rest))
    stopped: list[str] = []
    application: Any = house.service.runner.epoch.servers[0].gate.application
    application.stopFactory = lambda: stopped.append("stopped")
    header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 443\r\n" if "proxy" in rest else b""
    clients = [house.connect(pki().client), house.connect(pki().client)]
    house.reload(a_server(rest=rest + "\nmax_connections = 77"))
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
    house = House(tmp_path, a_server(rest=rest))
    stopped: list[str] = []
    application: Any = house.service.runner.epoch.servers[0].gate.application
    application.stopFactory = lambda: stopped.append("stopped")
    gone, wrong = house.connect(pki().client), house.connect(pki().client)
    house.reload(a_server(rest=rest + "\nmax_connections = 77"))
    assert not stopped
    gone.reset()
    assert not stopped
    wrong.raw_send(b"GET / HTTP/1.1\r\n\r\n")
    wrong.pump()
    assert stopped == ["stopped"]


# Clients that are connected


def test_an_epoch_that_is_no_longer_in_force_judges_nobody(tmp_path: Path, log: Log) -> None:
    """Two in one turn: whom the latter does not admit goes, though the former does."""
    house = House(tmp_path, a_server())
    clients = [house.enter(one) for one in (pki().client, pki().other)]
    grace = 'revoke_grace = "10s"'
    house.site.write("gate.hcl", a_server(rest=grace))
    house.service.reloader.reload()
    house.site.write("gate.hcl", a_server(rules=STRANGERS, rest=grace))
    house.service.reloader.reload()
    house.reactor.pump([0.0] * 50)
    house.reactor.advance(11)
    for client in clients:
        client.pump()
        assert client.disconnected


def test_they_are_judged_again(
    tmp_path: Path, log: Log, version: Version, events: list[LogEvent]
) -> None:
    """Who is no longer admitted is closed at once, and the log says why."""
    house = House(tmp_path, a_server())
    options = {"min_version": version, "max_version": version}
    staying = house.enter(pki().client, **options)
    going = house.enter(pki().other, **options)
    report = house.reload(a_server(rules=PINNED))
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
        ISSUING.replace("}", '\ndeny { common_names = ["client"] } }'),
        STRANGERS,
    ],
)
def test_by_whatever_the_rules_say(tmp_path: Path, log: Log, rules: str) -> None:
    house = House(tmp_path, a_server())
    client = house.enter(pki().client)
    text = a_server(rules=rules.replace("%s", pki().client.sha256))
    assert house.reload(text).problems == ()
    client.pump()
    assert client.disconnected


def test_revocation_ends_connections(tmp_path: Path, log: Log) -> None:
    """A new list, and nothing else, is new."""
    text = a_server(rules=ISSUING.replace("}", '\ncrl_file = "issuing.crl" }'))
    lists = tmp_path / "issuing.crl"
    lists.write_bytes(der(crl(pki().issuing, now=NOW)))
    house = House(tmp_path, text)
    going, staying = house.enter(pki().client), house.enter(pki().other)
    lists.write_bytes(der(crl(pki().issuing, [pki().client], now=NOW)))
    assert house.reload().problems == ()
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
    house = House(tmp_path, a_server())
    client = house.enter(pki().client)
    assert house.reload(a_server(rules=rules)).problems == ()
    client.pump()
    assert client.disconnected is not stays


def test_grace(tmp_path: Path, log: Log) -> None:
    """Who is admitted again meanwhile stays."""
    house = House(tmp_path, a_server())
    one, two = house.enter(pki().other), house.enter(pki().client)
    denied = a_server(rules=STRANGERS, rest='revoke_grace = "30s"')
    house.reload(denied)
    house.reactor.advance(20)
    house.reload(a_server(rules=PINNED, rest='revoke_grace = "30s"'))
    house.reactor.advance(9)
    one.pump()
    assert not one.disconnected
    house.reactor.advance(2)
    one.pump()
    two.pump()
    assert (one.disconnected, two.disconnected) == (True, False)


def test_grace_is_not_given_twice(tmp_path: Path, log: Log) -> None:
    """However often the configuration is loaded anew meanwhile, and says so again."""
    house = House(tmp_path, a_server())
    client = house.enter(pki().client)
    for grace in ("30s", "31s", "32s", "1h"):
        house.reload(a_server(rules=STRANGERS, rest=f'revoke_grace = "{grace}"'))
        assert not client.disconnected
        house.reactor.advance(9)
    house.reactor.advance(0)
    client.pump()
    assert client.disconnected


def test_grace_may_be_cut_short(tmp_path: Path, log: Log) -> None:
    house = House(tmp_path, a_server())
    client = house.enter(pki().client)
    house.reload(a_server(rules=STRANGERS, rest='revoke_grace = "1h"'))
    house.reload(a_server(rules=STRANGERS, rest='revoke_grace = "2s"'))
    house.reactor.advance(3)
    client.pump()
    assert client.disconnected


@pytest.mark.parametrize("rules", [STRANGERS, ISSUING])
def test_who_is_to_go_is_not_kept(tmp_path: Path, log: Log, rules: str) -> None:
    """... by an epoch that judges nobody, unless it does admit them."""
    house = House(tmp_path, a_server())
    client = house.enter(pki().client)
    house.reload(a_server(rules=STRANGERS, rest='revoke_grace = "30s"'))
    house.reactor.advance(10)
    house.reload(a_server(rules=rules, rest='on_reload = "keep"'))
    house.reactor.advance(19)
    client.pump()
    assert not client.disconnected
    house.reactor.advance(2)
    client.pump()
    assert client.disconnected is (rules == STRANGERS)


def under_way(house: House, version: Version) -> Client:
    """:returns: a client in the middle of its handshake."""
    client = house.connect(pki().client, min_version=version, max_version=version)
    client.step()
    client.step()
    return client


@pytest.mark.parametrize("on_reload", ["judge", "keep"])
def test_handshakes_under_way_are_held_to_what_is_in_force(
    tmp_path: Path, log: Log, version: Version, on_reload: str
) -> None:
    """The pin's new end, and the new limits, count for them, too."""
    house = House(tmp_path, a_server(rules=PIN % ""))
    client = under_way(house, version)
    end = NOW + timedelta(seconds=30)
    rest = f'on_reload = "{on_reload}"\nidle_timeout = "1h"'
    rules = PIN % f'\nretire_after = "{end.isoformat()}"'
    house.reload(a_server("other", rules=rules, rest=rest).replace("other.sock", "door.sock"))
    client.send(b"knock")
    assert client.receive() == b"knock"
    [entry] = house.registry
    assert (entry.server, entry.terms.idle_timeout) == ("other", 3600.0)
    assert house.registry.tallies["other"].counts == {"handshakes": 0, "admitted": 1}
    house.now = lambda: end + timedelta(seconds=1)
    house.reactor.advance(1.0)
    client.pump()
    assert client.disconnected
    assert house.registry.tallies["other"].counts == {"handshakes": 0, "admitted": 0}
    assert set(house.registry.tallies["door"].counts.values()) == {0}


def test_handshakes_under_way_when_limits_are_lowered(
    tmp_path: Path, log: Log, version: Version
) -> None:
    house = House(tmp_path, a_server())
    house.enter(pki().client)
    client = under_way(house, version)
    house.reload(a_server(rest="max_connections_per_identity = 1"))
    client.send(b"knock")
    assert client.receive() == b""
    assert log.events[-1]["reason"] == Reason.TOO_MANY_OF_IDENTITY


def test_on_reload_keep(tmp_path: Path, log: Log) -> None:
    house = House(tmp_path, a_server())
    client = house.enter(pki().other)
    house.reload(a_server(rules=PINNED, rest='on_reload = "keep"'))
    client.send(b"still")
    assert client.receive() == b"still"
    assert is_out(house, "other")


def test_settings_are_what_servers_say_nothing_else_than(tmp_path: Path, log: Log) -> None:
    settings = 'settings { on_reload = "keep"\nidle_timeout = "5m"\nmax_handshakes = 7 }\n'
    house = House(tmp_path, settings + a_server() + a_server("two", rest='idle_timeout = "1h"'))
    one, two = (server.gate.terms for server in house.service.runner.epoch.servers)
    assert (one.idle_timeout, two.idle_timeout) == (300.0, 3600.0)
    assert not one.judged_on_reload
    assert one.limits.max_handshakes == two.limits.max_handshakes == 7
    assert one.limits.handshake_bytes == 131072


def test_a_pin_that_is_to_end_earlier(tmp_path: Path, log: Log) -> None:
    """New terms count for clients that are connected."""
    house = House(tmp_path, a_server(rules=PIN % ""))
    client = house.enter(pki().client)
    end = NOW + timedelta(seconds=30)
    house.reload(a_server(rules=PIN % f'\nretire_after = "{end.isoformat()}"'))
    house.now = lambda: end + timedelta(seconds=1)
    house.reactor.advance(1.0)
    client.pump()
    assert client.disconnected


# A trial


def test_a_trial_changes_nothing(tmp_path: Path, log: Log) -> None:
    """It tells what would change, and who would be dropped."""
    house = House(tmp_path, a_server())
    client, other = house.enter(pki().client), house.enter(pki().other)
    report = house.reload(a_server(rules=PINNED), is_trial=True)
    assert report.is_trial
    assert house.service.runner.number == report.number == 1
    [dropped] = report.dropped
    assert dropped.startswith("door: 127.0.0.1:50000: leaf_mismatch: ")
    assert len(report.changes) == 2
    for one in (client, other):
        one.send(b"still")
        assert one.receive() == b"still"
    assert house.service.reloader.last is None


def test_a_trial_does_not_hold_others_up(tmp_path: Path, log: Log) -> None:
    """Clients are judged in turn with whatever else there is to do."""
    house = House(tmp_path, a_server())
    house.enter(pki().client)
    house.enter(pki().other)
    found: list[Reload] = []
    house.site.write("gate.hcl", a_server(rules=PINNED))
    house.service.reloader.reload(is_trial=True).addCallback(found.append)
    assert found == []
    house.reactor.pump([0.0] * 5)
    [report] = found
    assert len(report.dropped) == 1


# Ending


def test_draining(tmp_path: Path, log: Log) -> None:
    """Registry have their time, and then they have not."""
    house = House(tmp_path, 'settings { drain_timeout = "30s" }' + a_server())
    one, two = house.enter(pki().client), house.enter(pki().other)
    done = house.stop()
    assert house.service.runner.is_draining
    one.close()
    house.reactor.advance(29)
    assert not done
    two.send(b"still")
    assert two.receive() == b"still"
    house.reactor.advance(2)
    two.pump()
    assert two.disconnected
    assert done


def test_draining_nobody(tmp_path: Path, log: Log) -> None:
    house = House(tmp_path, a_server())
    assert house.stop()
    assert house.reactor.getDelayedCalls() == []


def test_time_goes_on_while_it_drains(tmp_path: Path, log: Log) -> None:
    """A certificate that expires meanwhile ends its connection all the same."""
    house = House(tmp_path, 'settings { drain_timeout = "1h" }' + a_server())
    client = house.enter(pki().client)
    done = house.stop()
    house.now = lambda: pki().client.certificate.not_valid_after_utc + timedelta(seconds=2)
    house.reactor.advance(1.0)
    client.pump()
    assert client.disconnected
    assert done
    assert house.reactor.getDelayedCalls() == []


def test_the_second_time_at_once(tmp_path: Path, log: Log, events: list[LogEvent]) -> None:
    house = House(tmp_path, 'settings { drain_timeout = "1h" }' + a_server())
    client, knocking = house.enter(pki().client), house.connect(pki().client)
    done = house.stop()
    house.service.runner.close_all()
    client.pump()
    knocking.pump()
    assert client.disconnected
    assert knocking.disconnected
    assert done
    assert closes(events) == ["drained"]


def test_no_epoch_takes_over_while_draining(tmp_path: Path, log: Log) -> None:
    house = House(tmp_path, 'settings { drain_timeout = "1h" }' + a_server())
    client = house.enter(pki().client)
    house.stop()
    assert house.reload().problems == ("the gate is ending",)
    client.close()


def test_file_descriptors_are_not_leaked(tmp_path: Path, log: Log) -> None:
    """Two hundred reloads, with real sockets, open no more than one does."""
    text = a_server().replace("unix:door.sock", "127.0.0.1:0")
    house = House(tmp_path, text)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        assert house.reload(a_server(rules=PINNED if number % 2 else ISSUING)).problems == ()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
