"""Certificates by ACME in a running gate: when they are ordered, and that they are used."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mtlsgate.acme.steps import OrderFailed
from mtlsgate.acme.storage import Storage
from mtlsgate.clock import utc_now
from mtlsgate.reasons import Reason
from mtlsgate.testing import Client
from tests.kits.acme import MemoryCa
from tests.kits.gate import Log
from tests.kits.service import ALICE, RULE, MemoryService

#: OpenSSL judges certificates by the real time.
NOW = utc_now().replace(microsecond=0)
DAY = timedelta(days=1)
BLOCK = """\
acme {
  directory = "https://ca.example/dir"
  names     = ["gate.example"]
}
"""


def door(acme: str = BLOCK, name: str = "door") -> str:
    return f"""\
server "{name}" {{
  hosts = ["unix:{name}.sock"]
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      {acme}
    }}
    {RULE}
  }}
}}
"""


class Gate:
    """A service whose clock a test moves, and its CA."""

    def __init__(self, directory: Path, text: str = "") -> None:
        self.at = NOW
        self.ca = MemoryCa(lambda: self.at)
        self.directory = directory
        self.text = text or door()

    def start(self) -> None:
        self.memory = MemoryService(
            self.directory, self.text, now=lambda: self.at, orders=lambda: self.ca
        )
        self.memory.service.orders.startService()
        self.advance(timedelta(seconds=3))

    def advance(self, by: timedelta) -> None:
        """Let time pass, and all that is due happen."""
        self.at += by
        for _ in range(6):
            self.memory.reactor.advance(1)
            self.memory.reactor.pump([0.0] * 10)

    def knock(self, name: str = "door") -> Client:
        client = self.memory.connect(ALICE, name, server_name="gate.example")
        client.send(b"knock")
        return client

    def gets_in(self, name: str = "door") -> bool:
        return self.knock(name).receive() == b"knock"

    @property
    def reason(self) -> str:
        return next(iter(self.memory.service.observers.recent)).reason

    @property
    def not_ready(self) -> str | None:
        return self.memory.service.not_ready


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


def test_the_first_certificate_comes_while_the_gate_listens(gate: Gate, log: Log) -> None:
    gate.ca.refusal = OrderFailed("connection: Connection refused")
    gate.start()
    assert not gate.gets_in()
    assert gate.reason == Reason.NO_SERVER_CERTIFICATE
    assert gate.not_ready == "door has no certificate of its own"
    assert "Connection refused" in log.events[-1]["detail"]
    [status] = gate.memory.service.orders.states()
    assert (status.until, status.failures) == (None, 1)
    assert status.problem == "connection: Connection refused"
    gate.ca.refusal = None
    gate.advance(status.due - gate.at)
    assert gate.gets_in()
    assert gate.not_ready is None
    assert gate.memory.service.runner.number == 1


def test_a_renewal_disturbs_nobody(gate: Gate, log: Log) -> None:
    """No reload, no other epoch; who is connected stays, and newcomers get the new one."""
    gate.start()
    client = gate.knock()
    assert client.receive() == b"knock"
    first = client.server_certificate
    for _ in range(3):
        gate.advance(20 * DAY)
        client.send(b"still here")
    assert client.receive().endswith(b"still here")
    assert len(gate.ca.ordered) == 2
    second = gate.knock().server_certificate
    assert second not in (None, first)
    assert gate.memory.service.runner.number == 1


def test_an_expired_certificate_is_not_shown(gate: Gate, log: Log) -> None:
    gate.start()
    gate.ca.refusal = OrderFailed("no")
    gate.advance(91 * DAY)
    client = gate.knock()
    assert client.server_certificate is None
    assert gate.reason == Reason.NO_SERVER_CERTIFICATE
    assert gate.not_ready == "door has no certificate of its own"
    gate.ca.refusal = None
    gate.advance(timedelta(hours=2))
    assert gate.not_ready is None


def test_another_process_may_have_ordered(gate: Gate, log: Log) -> None:
    """A worker, or a gate on another machine: the storage tells."""
    gate.ca.refusal = OrderFailed("no")
    gate.start()
    [wanted] = gate.memory.service.runner.epoch.wanted
    wanted.storage.put_certificate(wanted.file_name, gate.ca.issue("gate.example"))
    gate.advance(timedelta(seconds=1))
    assert gate.gets_in()
    assert len(gate.ca.ordered) == 1


def test_servers_that_want_the_same_share_it(tmp_path: Path, log: Log) -> None:
    gate = Gate(tmp_path, door() + door(name="other"))
    gate.start()
    assert gate.gets_in()
    assert gate.gets_in("other")
    assert len(gate.ca.ordered) == 1


def test_a_restart_uses_what_is_there(gate: Gate, log: Log) -> None:
    gate.start()
    first = gate.knock().server_certificate
    again = Gate(gate.directory)
    again.start()
    assert again.knock().server_certificate == first
    assert again.ca.ordered == []


def test_a_lost_storage_is_filled_again(gate: Gate, log: Log) -> None:
    """What is in memory stays in use until then, also if the CA says no for a while."""
    gate.start()
    first = gate.knock().server_certificate
    [wanted] = gate.memory.service.runner.epoch.wanted
    for one in wanted.storage.directory.iterdir():
        one.unlink()
    gate.ca.refusal = OrderFailed("no")
    gate.advance(timedelta(minutes=2))
    assert len(gate.ca.ordered) == 2
    assert gate.gets_in()
    gate.ca.refusal = None
    gate.advance(timedelta(minutes=6))
    assert len(gate.ca.ordered) == 3
    assert gate.knock().server_certificate not in (None, first)


def test_other_names_are_another_certificate(gate: Gate, log: Log) -> None:
    gate.start()
    more = BLOCK.replace('"gate.example"', '"gate.example", "b.example"')
    report = gate.memory.reload(door(more))
    assert report.problems == ()
    gate.advance(timedelta(seconds=2))
    assert [one.names for one in gate.ca.ordered] == [
        ("gate.example",),
        ("gate.example", "b.example"),
    ]
    assert gate.gets_in()


def test_a_reload_tries_again_but_not_all_the_time(gate: Gate, log: Log) -> None:
    gate.ca.refusal = OrderFailed("no")
    gate.start()
    for _ in range(8):
        [status] = gate.memory.service.orders.states()
        gate.advance(max(status.due - gate.at, timedelta(0)))
    tried = len(gate.ca.ordered)
    for _ in range(10):
        gate.memory.reload()
        gate.advance(timedelta(seconds=1))
    assert len(gate.ca.ordered) == tried
    gate.advance(timedelta(minutes=16))
    assert len(gate.ca.ordered) == tried + 1


def test_a_fault_of_the_gates_own_is_no_reason_to_try_all_the_time(gate: Gate, log: Log) -> None:
    def broken() -> None:
        raise RuntimeError("nobody expects this")

    gate.ca.during = broken
    gate.start()
    gate.advance(timedelta(seconds=30))
    assert len(gate.ca.ordered) == 1
    log.expect_failure(RuntimeError)
    [status] = gate.memory.service.orders.states()
    assert "nobody expects this" in (status.problem or "")
    gate.ca.during = lambda: None
    gate.advance(timedelta(minutes=6))
    assert gate.gets_in()


def test_the_storage_is_a_directory_of_its_own(gate: Gate, log: Log) -> None:
    gate.start()
    [wanted] = gate.memory.service.runner.epoch.wanted
    assert wanted.storage == Storage(gate.memory.site.directory / "acme")


def test_metrics_and_status_tell_when_it_is_renewed(gate: Gate, log: Log) -> None:
    gate.start()
    metrics = gate.memory.metrics()
    ordered = gate.ca.now().replace(microsecond=0)
    assert metrics['mtlsgate_acme_failures{name="gate.example"}'] == 0
    due = metrics['mtlsgate_acme_due_timestamp_seconds{name="gate.example"}']
    until = metrics['mtlsgate_acme_until_timestamp_seconds{name="gate.example"}']
    assert until - due == (30 * DAY).total_seconds()
    assert abs(until - (ordered + 90 * DAY).timestamp()) < 10
    own = metrics['mtlsgate_server_certificate_expiry_timestamp_seconds{server="door"}']
    assert own == until
