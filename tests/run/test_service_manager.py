"""
What the service manager is told: systemd's protocol, to a socket of the test's.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from mtlsgate.gate.events import Reload
from mtlsgate.run.service_manager import Notifier, ServiceManager
from tests.kits.logged import Logged
from tests.kits.programs import BIN, RUN, gate, program

NOW = datetime(2026, 11, 26, tzinfo=UTC)


class Manager:
    """
    A service manager.

    :ivar address: of its socket.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        self.socket.settimeout(60)

    def heard(self) -> dict[str, str]:
        """:returns: the next message."""
        text = self.socket.recv(4096).decode()
        return dict(line.split("=", 1) for line in text.split("\n"))


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    made = Manager(f"{tmp_path}/s" if request.param == "path" else f"@mtlsgate-test-{os.getpid()}")
    with made.socket:
        yield made


def notifier(manager: Manager, reactor: MemoryReactorClock, **environ: str) -> Notifier:
    found = ServiceManager.of_process({"NOTIFY_SOCKET": manager.address, **environ})
    return Notifier(found, lambda: "1 server", reactor, lambda: 4711)


def test_it_is_told_when_the_gate_is_ready_reloads_and_ends(manager: Manager) -> None:
    """In the words of sd_notify(3)."""
    reactor = MemoryReactorClock()
    telling = notifier(manager, reactor)
    telling.startService()
    reactor.run()
    assert manager.heard() == {"READY": "1", "MAINPID": str(os.getpid()), "STATUS": "1 server"}
    telling.reload_began()
    assert manager.heard() == {"RELOADING": "1", "MONOTONIC_USEC": "4711"}
    telling.reload_ended(Reload(at=NOW, number=2))
    assert manager.heard() == {"READY": "1", "STATUS": "1 server"}
    telling.reload_began()
    manager.heard()
    telling.reload_ended(Reload(at=NOW, number=2, problems=("no",)))
    assert manager.heard() == {
        "READY": "1",
        "STATUS": "the configuration was not reloaded, see the log; 1 server",
    }
    telling.draining("3 connections", 10.0)
    assert manager.heard() == {
        "STOPPING": "1",
        "STATUS": "draining: 3 connections have 10 s to end",
        "EXTEND_TIMEOUT_USEC": "20000000",
    }


def test_the_watchdog_hears_of_the_reactor_in_half_its_time(manager: Manager) -> None:
    """As long as the reactor turns, and no longer."""
    reactor = MemoryReactorClock()
    telling = notifier(manager, reactor, WATCHDOG_USEC="4000000")
    telling.startService()
    reactor.run()
    manager.heard()
    assert manager.heard() == {"WATCHDOG": "1"}
    for _ in range(3):
        reactor.advance(2)
        assert manager.heard() == {"WATCHDOG": "1"}
    telling.stopService()
    reactor.advance(100)
    manager.socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.heard()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"},
    ],
)
def test_a_watchdog_that_is_not_for_this_process_is_left_alone(environ: dict[str, str]) -> None:
    """The environment may come from a parent (sd_watchdog_enabled(3))."""
    assert ServiceManager.of_process({"NOTIFY_SOCKET": "/run/x", **environ}).watchdog is None


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1234"])
def test_without_a_service_manager_nothing_is_sent(address: str | None) -> None:
    """Nor to addresses of other kinds."""
    environ = {} if address is None else {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1"}
    found = ServiceManager.of_process(environ)
    assert found == ServiceManager()
    found.tell(READY=1)


def test_a_service_manager_that_is_gone_is_a_line_in_the_log(tmp_path: Path) -> None:
    """And no error: the gate goes on."""
    with Logged("mtlsgate.service") as logged:
        ServiceManager(f"{tmp_path}/gone").tell(READY=1)
    [event] = logged.events
    assert event["why"] == "No such file or directory"


@pytest.mark.slow
@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_real_gate_tells_all_of_it(demo: Path, manager: Manager) -> None:
    """Ready only when it listens; the watchdog, a reload, the end."""
    environ = [f"NOTIFY_SOCKET={manager.address}", "WATCHDOG_USEC=200000"]
    command = (program("env"), *environ, str(BIN / RUN[0]), *RUN[1:])
    with gate(demo / "gate.hcl", command) as running:
        ready = manager.heard()
        assert (ready["READY"], ready["MAINPID"]) == ("1", str(running.process.pid))
        assert ready["STATUS"] == "1 server; epoch 1 is in force"
        assert manager.heard() == {"WATCHDOG": "1"}
        running.process.send_signal(signal.SIGHUP)
        while "RELOADING" not in (said := manager.heard()):
            assert said == {"WATCHDOG": "1"}
        while "READY" not in (said := manager.heard()):
            assert said == {"WATCHDOG": "1"}
        assert said["STATUS"] == "1 server; epoch 2 is in force"
        running.process.terminate()
        while "STOPPING" not in (said := manager.heard()):
            assert said == {"WATCHDOG": "1"}
        running.stop()
