"""
Drills with more than one gate: one of two behind HAProxy is killed, and a new one takes the
addresses over from an old one.
"""

from __future__ import annotations

import re
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from attrs import frozen
from cryptography import x509

from mtlsgate.testing import Authority
from tests.kits.docs import DOCS
from tests.kits.drills import Site, echoes
from tests.kits.programs import BIN, RunningGate, gate, program, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not DOCS.is_dir(), reason="installed without its docs"),
]


@frozen
class Machines:
    """
    Two gates as docs/more-than-one-machine.md has them, with HAProxy in front.

    :ivar directory: where all is.
    :ivar port: HAProxy's.
    :ivar gates: by the names of their certificates.
    """

    directory: Path
    port: int
    gates: dict[str, RunningGate]

    def connect(self) -> tuple[ssl.SSLSocket, str]:
        """:returns: a connection through HAProxy, and the gate that it leads to."""
        context = ssl.create_default_context(cafile=str(self.directory / "server-ca.crt"))
        context.load_cert_chain(self.directory / "client.pem")
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        client = context.wrap_socket(plain, server_hostname="gate.example")
        leaf = client.getpeercert(binary_form=True)
        assert leaf is not None
        [name] = x509.load_der_x509_certificate(leaf).subject
        return client, str(name.value)


def page(language: str) -> str:
    """:returns: the page's first sample in a language."""
    text = (DOCS / "more-than-one-machine.md").read_text()
    found = re.search(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@contextmanager
def haproxy(directory: Path, servers: list[str]) -> Iterator[int]:
    """Run HAProxy as the page has it; it listens when the block begins."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        text = re.sub(r"^  server .*\n", "", page("text"), flags=re.MULTILINE)
        text = text.replace("bind *:8443", f"bind fd@{listening.fileno()}")
        # Which limits a check's handshake, too: however slow this machine is, no gate is dead.
        text = text.replace(" port 9443", "").replace(" inter 5s", " inter 60s")
        config = directory / "haproxy.cfg"
        config.write_text(text + "".join(f"  server {one}\n" for one in servers))
        with subprocess.Popen(
            [program("haproxy"), "-db", "-f", str(config)],
            stdin=subprocess.DEVNULL,
            cwd=directory,
            pass_fds=[listening.fileno()],
        ) as process:
            try:
                yield listening.getsockname()[1]
            finally:
                process.kill()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    """Both gates and HAProxy, running."""
    ca, fleet, balancer = (Authority.create(name) for name in ("Server", "Fleet", "Balancer"))
    client, probe = fleet.issue("press-7"), balancer.issue("haproxy")
    (tmp_path / "server-ca.crt").write_bytes(ca.pem)
    (tmp_path / "client.pem").write_bytes(client.pem + client.key_pem)
    (tmp_path / "haproxy.pem").write_bytes(probe.pem + probe.key_pem)
    text = page("hcl").replace("10.0.0.2", "127.0.0.1")
    text = re.sub(r'"\*:\d+"', '"127.0.0.1:0"', text)
    # Its log tells here when HAProxy has asked.
    assert "log_admitted = false" in text
    text = text.replace("log_admitted = false", "log_admitted = true")
    gates, servers = {}, []
    with ExitStack() as stack:
        for name in ("gate1", "gate2"):
            own = ca.issue(name, dns_names=["gate.example"], usages=["server_auth"])
            (place := tmp_path / name).mkdir()
            for file, content in {
                "gate.hcl": text.encode(),
                "server.crt": own.pem,
                "server.key": own.key_pem,
                "fleet-ca.crt": fleet.pem,
                "balancer-ca.crt": balancer.pem,
            }.items():
                (place / file).write_bytes(content)
            gates[name] = running = stack.enter_context(gate(place / "gate.hcl"))
            check = running.port("ready")
            servers.append(f"{name} 127.0.0.1:{running.port('devices')} port {check}")
        port = stack.enter_context(haproxy(tmp_path, servers))
        for running in gates.values():
            # HAProxy may ask whether it is ready.
            running.read_until("ready: admitted ")
        yield Machines(tmp_path, port, gates)


class Load(threading.Thread):
    """
    Connects and talks, again and again, until it is told to stop.

    :ivar served: how many connections got all they asked for.
    :ivar lost: the gates of those that did not, None where that is not known; and whether
        they began after the kill.
    :ivar is_under_way: set when the first connection was served.
    :ivar is_killed: set when a gate is gone.
    :ivar enough: ends it.
    """

    def __init__(self, machines: Machines) -> None:
        super().__init__()
        self.served = 0
        self.lost: list[tuple[str | None, bool]] = []
        self.is_under_way = threading.Event()
        self.is_killed = threading.Event()
        self.enough = threading.Event()
        self._machines = machines

    def run(self) -> None:
        while not self.enough.is_set():
            name, is_late = None, self.is_killed.is_set()
            try:
                client, name = self._machines.connect()
                with client:
                    assert all(echoes(client) for _ in range(5)), name
            except (OSError, AssertionError):
                self.lost.append((name, is_late))
            else:
                self.served += 1
                self.is_under_way.set()


def test_one_of_two_gates_is_killed_under_load(machines: Machines) -> None:
    """New connections keep succeeding; only those of the killed gate are lost."""
    live = [machines.connect() for _ in range(8)]
    assert {name for _, name in live} == {"gate1", "gate2"}
    load = [Load(machines) for _ in range(3)]
    for one in load:
        one.start()
    try:
        assert all(one.is_under_way.wait(timeout=60) for one in load)
        killed = machines.gates["gate1"].process
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=60)
        for one in load:
            one.is_killed.set()
        for _ in range(20):
            client, name = machines.connect()
            with client:
                assert name == "gate2"
                assert echoes(client)
    finally:
        for one in load:
            one.enough.set()
            one.join()
    for client, name in live:
        with client:
            assert echoes(client) == (name == "gate2"), name
    for one in load:
        assert one.served
        assert all(name != "gate2" and not is_late for name, is_late in one.lost), one.lost


def test_a_gate_that_drains_gets_no_new_clients(machines: Machines) -> None:
    """It refuses them, and HAProxy tries the other; those who are connected stay."""
    live = [machines.connect() for _ in range(4)]
    machines.gates["gate1"].process.send_signal(signal.SIGTERM)
    machines.gates["gate1"].read_until("accepting no more")
    for _ in range(10):
        client, name = machines.connect()
        with client:
            assert name == "gate2"
            assert echoes(client)
    for client, _ in live:
        with client:
            assert echoes(client)
    assert machines.gates["gate1"].process.wait(timeout=60) == 0


def test_a_gate_takes_the_addresses_over(site: Site) -> None:
    """A second gate listens on the same TCP port and unix sockets; the first one drains, and
    who was connected stays connected."""
    with socket.socket() as reserved:
        # Kept for as long as both run: nobody else gets the port, and it takes no connections.
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        site.change("127.0.0.1:0", f"127.0.0.1:{port}")
        site.change("settings {", 'settings {\n  takeover = true\n  drain_timeout = "1h"')
        site.config.write_text(site.config.read_text() + 'admin {\nlisten = "unix:a.sock"\n}\n')
        ctl = (BIN / "mtlsgate", "ctl", "--config", site.config, "status")
        with gate(site.config) as old, site.connect(port) as live:
            assert echoes(live)
            assert f"process {old.process.pid}" in run(*ctl)[1]
            with gate(site.config) as new:
                new.read_until("the admin endpoint answers")
                assert f"process {new.process.pid}" in run(*ctl)[1]
                for _ in range(5):
                    assert site.is_served(port)
                old.process.send_signal(signal.SIGTERM)
                old.read_until("have 3600 s to end")
                for _ in range(5):
                    assert site.is_served(port)
                assert echoes(live)
                live.close()
                assert old.process.wait(timeout=60) == 0
                # The old one has not taken the new one's socket away.
                assert f"process {new.process.pid}" in run(*ctl)[1]
                assert site.is_served(port)


def test_sigterm_in_the_middle_of_a_load(site: Site) -> None:
    """Who is connected, or waits to be accepted, gets all that was asked for."""
    site.change("settings {", 'settings {\n  drain_timeout = "1h"')
    with gate(site.config) as running:
        port = running.port("demo")
        begun, outcomes = threading.Semaphore(0), list[bool]()

        def talk() -> None:
            with site.connect(port) as client:
                begun.release()
                outcomes.append(all(echoes(client, b"x" * 1000) for _ in range(50)))

        talking = [threading.Thread(target=talk) for _ in range(4)]
        for one in talking:
            one.start()
        for _ in talking:
            begun.acquire()
        # Now the gate hears of the signal and of those who wait at once.
        running.process.send_signal(signal.SIGSTOP)
        waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
        running.process.send_signal(signal.SIGTERM)
        running.process.send_signal(signal.SIGCONT)
        for one in talking:
            one.join()
        assert outcomes == [True] * 4
        for plain in waiting:
            with site.over(plain) as client:
                assert echoes(client)
        assert running.process.wait(timeout=60) == 0
