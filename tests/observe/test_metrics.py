"""What is counted is what happened, and no client can make more labels than are configured."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY, Counter
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.address import IPv4Address

from mtlsgate.observe.counts import BUCKETS
from mtlsgate.observe.log_file import LogFile
from mtlsgate.observe.metrics import CONTENT_TYPE
from mtlsgate.reasons import Reason
from mtlsgate.testing import Version, self_signed
from tests.kits.docs import DOCS
from tests.kits.revocation import crl, pem
from tests.kits.service import ALICE, AUDITED, EVE, ROOT, RULE, MemoryService, server, today


@pytest.fixture
def running(tmp_path: Path) -> MemoryService:
    return today(tmp_path, server())


def counted(running: MemoryService, *names: str) -> dict[str, float]:
    """:returns: the samples of some metrics that are not 0."""
    return {
        key: value
        for key, value in running.metrics().items()
        if key.partition("{")[0] in names and value
    }


def test_verdicts_are_counted_by_server_result_reason_and_rule(
    running: MemoryService, version: Version
) -> None:
    """By server, result, reason and rule."""
    for who in (ALICE, ALICE, EVE, None):
        running.handshake(who, min_version=version, max_version=version)
    names = ("connections", "handshakes", "admissions")
    assert counted(running, *(f"mtlsgate_{name}_total" for name in names)) == {
        "mtlsgate_connections_total": 4,
        'mtlsgate_handshakes_total{reason="",result="admitted",server="door"}': 2,
        'mtlsgate_handshakes_total{reason="unknown_ca",result="rejected",server="door"}': 1,
        'mtlsgate_handshakes_total{reason="no_certificate",result="rejected",server="door"}': 1,
        'mtlsgate_admissions_total{rule="rule",server="door"}': 2,
    }


def test_without_rules_the_rule_label_is_empty(tmp_path: Path) -> None:
    """Where no rule is asked, its label is empty."""
    running = today(tmp_path, server(tls='client_authentication = "none"'))
    running.handshake(None)
    assert counted(running, "mtlsgate_admissions_total") == {
        'mtlsgate_admissions_total{rule="",server="door"}': 1
    }


def test_what_never_happened_is_0(running: MemoryService) -> None:
    """So that a rate has where to start from."""
    metrics = running.metrics()
    for key in (
        'mtlsgate_handshakes_total{reason="",result="admitted",server="door"}',
        'mtlsgate_admissions_total{rule="rule",server="door"}',
        'mtlsgate_received_bytes_total{server="door"}',
        'mtlsgate_live_connections{server="door"}',
        'mtlsgate_handshakes_in_progress{server="door"}',
        'mtlsgate_reloads_total{result="failed"}',
        "mtlsgate_audit_lost_lines_total",
        "mtlsgate_accepting_paused",
    ):
        assert metrics[key] == 0


def test_handshake_seconds(running: MemoryService) -> None:
    """From the arrival to the verdict, in cumulative buckets; apart for who is rejected."""
    for seconds in (0.0, 0.001, 0.3, 7.0):
        client = running.connect(ALICE)
        running.reactor.advance(seconds)
        client.handshake()
    slow = running.connect(None)
    running.reactor.advance(20)
    assert slow.disconnected
    metrics = running.metrics()
    name = "mtlsgate_handshake_seconds"
    buckets = [
        metrics[f'{name}_bucket{{le="{bound}",result="admitted",server="door"}}']
        for bound in (*BUCKETS, "+Inf")
    ]
    assert buckets == [2] * 7 + [2, 3, 3, 3, 3, 4, 4]
    assert metrics[f'{name}_sum{{result="admitted",server="door"}}'] == pytest.approx(7.301)
    assert metrics[f'{name}_count{{result="admitted",server="door"}}'] == 4
    assert metrics[f'{name}_count{{result="rejected",server="door"}}'] == 1
    assert metrics[f'{name}_bucket{{le="10.0",result="rejected",server="door"}}'] in (0, 1)


def test_who_is_there(running: MemoryService) -> None:
    """Now, not ever."""
    client, other = running.handshake(ALICE), running.handshake(ALICE)
    half = running.connect(ALICE)
    live, handshaking = "mtlsgate_live_connections", "mtlsgate_handshakes_in_progress"
    assert counted(running, live, handshaking) == {
        'mtlsgate_live_connections{server="door"}': 2,
        'mtlsgate_handshakes_in_progress{server="door"}': 1,
    }
    for one in (client, other, half):
        one.reset()
    assert counted(running, live, handshaking) == {}


def test_bytes_count_while_they_flow(running: MemoryService) -> None:
    """Each once, whenever one looks, and whether or not anyone does."""
    bytes_ = ("mtlsgate_received_bytes_total", "mtlsgate_sent_bytes_total")
    client = running.handshake(ALICE)
    for total in (5, 10):
        client.send(b"knock")
        for _ in range(2):
            assert counted(running, *bytes_) == {
                f'{name}{{server="door"}}': total for name in bytes_
            }
    client.send(b"knock")
    client.close()
    other = running.handshake(ALICE)
    other.send(b"knock")
    other.close()
    for _ in range(2):
        assert counted(running, *bytes_) == {f'{name}{{server="door"}}': 20 for name in bytes_}
    assert running.service.observers.counts._counted == {}


def test_closes_are_counted_by_cause(running: MemoryService) -> None:
    """By their causes."""
    running.handshake(ALICE).close()
    running.handshake(ALICE).reset()
    running.handshake(ALICE)
    running.service.runner.close_all()
    running.reactor.advance(0)
    assert counted(running, "mtlsgate_closes_total") == {
        'mtlsgate_closes_total{cause="client",server="door"}': 1,
        'mtlsgate_closes_total{cause="connection_lost",server="door"}': 1,
        'mtlsgate_closes_total{cause="drained",server="door"}': 1,
    }


def test_limits_have_their_reasons(tmp_path: Path) -> None:
    """Who is closed as he comes counts as a connection and a rejection, and as no handshake."""
    running = today(tmp_path, server(more="max_connections = 1"))
    running.handshake(ALICE)
    assert running.connect(ALICE).refused
    metrics = running.metrics()
    assert metrics["mtlsgate_connections_total"] == 2
    rejected = 'reason="too_many_connections",result="rejected",server="door"'
    assert metrics[f"mtlsgate_handshakes_total{{{rejected}}}"] == 1
    assert 'mtlsgate_handshake_seconds_count{result="rejected",server="door"}' not in metrics


def test_reloads_are_counted_and_trials_are_not(running: MemoryService) -> None:
    """Numbers, ages and results; a trial is none."""
    names = (
        "mtlsgate_epoch",
        "mtlsgate_epoch_age_seconds",
        "mtlsgate_reloads_total",
        "mtlsgate_last_reload_successful",
    )
    running.reactor.advance(5)
    assert counted(running, *names) == {
        "mtlsgate_epoch": 1,
        "mtlsgate_epoch_age_seconds": 5,
        "mtlsgate_last_reload_successful": 1,
    }
    assert "mtlsgate_last_reload_timestamp_seconds" not in running.metrics()
    running.reload("nonsense")
    running.reload(server(), is_trial=True)
    assert counted(running, *names) == {
        "mtlsgate_epoch": 1,
        "mtlsgate_epoch_age_seconds": 5,
        'mtlsgate_reloads_total{result="failed"}': 1,
    }
    running.reload(server())
    running.reactor.advance(2)
    assert counted(running, *names) == {
        "mtlsgate_epoch": 2,
        "mtlsgate_epoch_age_seconds": 2,
        'mtlsgate_reloads_total{result="ok"}': 1,
        'mtlsgate_reloads_total{result="failed"}': 1,
        "mtlsgate_last_reload_successful": 1,
    }
    last = running.service.reloader.last
    assert last is not None
    at = running.metrics()["mtlsgate_last_reload_timestamp_seconds"]
    assert at == pytest.approx(last.at.timestamp(), abs=0.001)


def test_expiries_are_told_by_rule(tmp_path: Path) -> None:
    """When the first of each kind ends, by rule; what a rule does not have is missing."""
    pinned = self_signed("pinned", days=20)
    (tmp_path / "p.crt").write_bytes(pinned.pem)
    (tmp_path / "ca.crl").write_bytes(pem(crl(ROOT, now=datetime.now(UTC))))
    retire = (datetime.now(UTC) + timedelta(days=3)).replace(microsecond=0)
    rules = f"""
    client_certificate "fleet" {{
      ca_certificate_file = "ca.crt"
      crl_file = "ca.crl"
    }}
    client_certificate "pins" {{
      pin "one" {{
        leaf_certificate_file = "p.crt"
        retire_after = "{retire.isoformat().replace("+00:00", "Z")}"
      }}
    }}"""
    running = today(tmp_path, server(tls=rules))
    found = {key: value for key, value in running.metrics().items() if "_expiry_" in key}
    own = running.service.runner.epoch.servers[0].gate.context.policy.credentials[0].chain[0]
    [lists] = (
        rule.revocation.lists
        for rule in running.service.runner.epoch.servers[0].gate.context.admission.rules  # type: ignore[union-attr]
        if rule.revocation is not None
    )
    name = "mtlsgate_{}_expiry_timestamp_seconds"
    fleet = '{rule="fleet",server="door"}'
    assert found == {
        name.format("server_certificate") + '{server="door"}': own.not_after.timestamp(),
        name.format("ca") + fleet: ROOT.certificate.not_valid_after_utc.timestamp(),
        name.format("crl") + fleet: lists[0].next_update.timestamp(),
        name.format("pin") + '{rule="pins",server="door"}': retire.timestamp(),
    }


def test_the_state_of_the_gate(running: MemoryService, tmp_path: Path) -> None:
    """Out of descriptors, draining, and without a place for its audit log."""
    names = ("accepting_paused", "draining", "audit_failing", "audit_lost_lines_total")
    audit = running.service.observers.audit
    audit.turn_to(LogFile(Path("/dev/full"), audit._gap))
    running.handshake(ALICE)
    running.service.runner._listeners.descriptors.is_scarce = True
    running.service.runner.drain()
    assert counted(running, *(f"mtlsgate_{name}" for name in names)) == {
        f"mtlsgate_{name}": 1 for name in names
    }


def test_the_build(running: MemoryService) -> None:
    """Which versions these numbers come from."""
    [info] = counted(running, "mtlsgate_build_info")
    for name in ("version", "python", "twisted", "openssl"):
        assert re.search(rf'{name}="\d+\.\d+\.\d+', info)


def test_the_process(running: MemoryService) -> None:
    """Descriptors and memory, as every Prometheus client has them."""
    metrics = running.metrics()
    assert metrics["process_open_fds"] > 0
    assert metrics["process_resident_memory_bytes"] > 0


# Labels


def labels(running: MemoryService) -> set[str]:
    """:returns: all series but those of the process."""
    return {key for key in running.metrics() if not key.startswith("process_")}


def test_clients_make_no_labels(running: MemoryService, version: Version) -> None:
    """Whatever they send, from wherever: there are as many series after many as after few."""

    def come(number: int) -> None:
        names: dict[str, Any] = {"server_name": f"x{number}.example", "alpn": [f"p{number}"]}
        address = IPv4Address("TCP", f"10.0.{number}.1", 1)
        bounds: dict[str, Any] = {"min_version": version, "max_version": version}
        leaf = ROOT.issue(f"device {number}", dns_names=[f"d{number}.example"])
        for who in (leaf, self_signed(f"stranger {number}"), None):
            running.handshake(who, address=address, **names, **bounds).close()
        running.connect(address=address).raw_send(b"GET /%d HTTP/1.0\r\n\r\n" % number)
        running.reactor.advance(60)

    come(0)
    before = labels(running)
    for number in range(1, 5):
        come(number)
    assert labels(running) == before


def test_names_that_are_gone(running: MemoryService, tmp_path: Path) -> None:
    """What a server counted stays for one more epoch, and then it is forgotten, so that
    renaming for years does not add up."""
    running.handshake(ALICE)
    running.handshake(EVE)
    gate = {key for key in labels(running) if 'server="door"' in key}
    running.reload(server("gate"))
    running.handshake(ALICE, "gate")
    kept = {key for key in labels(running) if 'server="door"' in key}
    totals = {key for key in gate if "_total" in key or "_seconds_" in key}
    assert kept >= {key for key in totals if "expiry" not in key and "bytes" not in key}
    assert not any("live" in key or "expiry" in key for key in kept)
    running.reload(server("gate", tls=RULE.replace('"rule"', '"other"')))
    assert not any('server="door"' in key for key in labels(running))
    assert 'mtlsgate_admissions_total{rule="rule",server="gate"}' in labels(running)
    running.reload(server("gate", tls=RULE.replace('"rule"', '"other"')))
    assert 'mtlsgate_admissions_total{rule="rule",server="gate"}' not in labels(running)
    count = len(labels(running))
    for number in range(20):
        running.reload(server(f"gate{number}"))
        running.handshake(ALICE, f"gate{number}").close()
        running.metrics()
    assert len(labels(running)) < 3 * count


def test_a_failed_reload_forgets_nothing(running: MemoryService) -> None:
    """The names in force are the same."""
    running.handshake(ALICE)
    before = counted(running, "mtlsgate_admissions_total")
    for _ in range(3):
        running.reload("nonsense")
    assert counted(running, "mtlsgate_admissions_total") == before


def test_names_of_the_configuration_are_escaped(tmp_path: Path) -> None:
    """A quote in a label is no way out of it."""
    running = today(tmp_path, server(tls=RULE.replace('"rule"', '"a \\" b"')))
    running.handshake(ALICE)
    text = running.told.exposition().decode()
    samples = [one for family in text_string_to_metric_families(text) for one in family.samples]
    assert 'a " b' in {one.labels.get("rule") for one in samples}


def test_servers_on_one_address(tmp_path: Path) -> None:
    """Until the server is known, connections go by the address; after it, by the server."""
    one, other = (
        server(name, more=f'server_names = ["{name}.example"]').replace(
            f"unix:{name}.sock", "unix:door.sock"
        )
        for name in ("one", "two")
    )
    running = today(tmp_path, one + other)
    running.handshake(ALICE, server_name="one.example")
    running.handshake(ALICE, server_name="nobody.example")
    running.connect()
    metrics = running.metrics()
    assert metrics['mtlsgate_admissions_total{rule="rule",server="one"}'] == 1
    unknown = 'reason="unknown_server_name",result="rejected",server="unix:door.sock"'
    assert metrics[f"mtlsgate_handshakes_total{{{unknown}}}"] == 1
    assert metrics['mtlsgate_handshakes_in_progress{server="unix:door.sock"}'] == 1
    assert 'mtlsgate_live_connections{server="unix:door.sock"}' not in metrics


# Prometheus


def test_nothing_is_global(running: MemoryService, tmp_path: Path) -> None:
    """Two gates in a process count apart, and what an application registers is served too."""
    Counter("app_messages", "Of the application.", registry=running.told.registry).inc(3)
    assert running.metrics()["app_messages_total"] == 3
    assert not any(one.name.startswith("mtlsgate") for one in REGISTRY.collect())
    (tmp_path / "other").mkdir()
    other = today(tmp_path / "other", server())
    running.handshake(ALICE)
    assert counted(other, "mtlsgate_connections_total") == {}


def test_the_format(running: MemoryService) -> None:
    """As the content type says: each series once, and a type and a help for each metric."""
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
    running.handshake(ALICE)
    text = running.told.exposition().decode()
    assert text.endswith("\n")
    names = re.findall(r"^# TYPE (\S+) (?:counter|gauge|histogram|summary)$", text, re.MULTILINE)
    assert (
        sorted(set(names)) == sorted(names) == sorted(re.findall(r"^# HELP (\S+) \w", text, re.M))
    )
    lines = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    assert len(set(lines)) == len(lines)
    assert not any("_created" in line for line in lines)


def exposed(running: MemoryService) -> dict[str, tuple[str, tuple[str, ...]]]:
    """:returns: the kind and the labels of each metric of the gate's own."""
    found = {}
    for family in running.told.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, tuple(family._labelnames))  # type: ignore[attr-defined]
    return found


#: What only the supervisor of several workers tells.
ONLY_WITH_WORKERS = {
    "mtlsgate_workers": ("gauge", ()),
    "mtlsgate_worker_restarts_total": ("counter", ("worker",)),
}


@pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs")
def test_the_page_has_every_metric(tmp_path: Path) -> None:
    """metrics.md has each with its kind and labels, and no others; its alerts and queries
    use metrics that there are."""
    text = (DOCS / "metrics.md").read_text()
    running = today(tmp_path, AUDITED + server())
    rows = re.findall(r"^\| `(mtlsgate_\w+)` \| (\w+) \| (.*?) \|", text, re.MULTILINE)
    assert len({name for name, _, _ in rows}) == len(rows)
    described = {name: (kind, tuple(re.findall(r"`(\w+)`", of))) for name, kind, of in rows}
    assert described == exposed(running) | ONLY_WITH_WORKERS
    for name in {*re.findall(r"\bmtlsgate_\w+\b", text)}:
        base = re.sub(r"_(?:bucket|sum|count)$", "", name)
        assert name in described or described[base][0] == "histogram", name
    for reason in re.findall(r'reason(?:=|!=|=~|!~)"([^"]*)"', text):
        assert set(reason.split("|")) <= {*Reason, ""}
