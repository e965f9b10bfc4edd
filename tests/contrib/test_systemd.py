"""
The units for systemd: what its own tools say of them, and sockets that outlive a gate.
"""

from __future__ import annotations

import configparser
import re
import socket
import ssl
import sys
import threading
from pathlib import Path

import pytest

from mtlsgate.load.addresses import SocketAddress
from mtlsgate.run.sockets import bind_tcp
from tests.kits.contrib import CONTRIB, parses
from tests.kits.probe import write_demo
from tests.kits.programs import BIN, RUN, Program, gate, program, run

UNITS = CONTRIB / "systemd"
SERVICES = ("mtlsgate.service", "mtlsgate@.service")
INSTALLED = "/opt/mtlsgate/venv/bin/"


def read(name: str) -> configparser.ConfigParser:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNITS / name)
    return unit


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """The units, as they are where mtlsgate is installed in this environment."""
    for unit in UNITS.iterdir():
        text = unit.read_text().replace(INSTALLED, f"{BIN}/")
        # The page is not installed where the tests run.
        text = re.sub(r"^Documentation=.*\n", "", text, flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", SERVICES)
def test_the_services_are_hardened(units: Path, name: str) -> None:
    """systemd's own measure: 10 is bad, 2 is the goal."""
    status, said = run(
        program("systemd-analyze"), "security", "--offline=true", "--no-pager", units / name
    )
    assert status == 0, said
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= 2.0


@pytest.mark.slow
def test_systemd_understands_the_units(units: Path) -> None:
    """Every directive and every path, of the template, too."""
    names = [units / name for name in (*SERVICES, "mtlsgate.socket")]
    assert run(program("systemd-analyze"), "verify", "--man=no", *names) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_the_services_run_a_command_that_there_is(name: str) -> None:
    """With options that it has; and what it tells systemd is what systemd waits for."""
    service = read(name)["Service"]
    words = service["ExecStart"].removeprefix(INSTALLED).split()
    assert parses(words[: words.index("--config")])
    assert service["Type"] == "notify"
    assert "MainPID" not in service["ExecReload"]


def test_the_two_services_differ_only_in_names() -> None:
    """What holds for one holds for the other."""
    alone = (UNITS / "mtlsgate.service").read_text().splitlines()
    template = (UNITS / "mtlsgate@.service").read_text().replace("/%i", "").replace(" %i", "")
    template = template.replace("/etc/mtlsgate.hcl", "/etc/mtlsgate/gate.hcl")
    ours = {line for line in alone if not line.startswith("#")}
    theirs = {line for line in template.splitlines() if not line.startswith("#")}
    assert ours == theirs


# Sockets that outlive a gate

#: Starts a program as systemd does: the socket is descriptor 3, and the environment says so.
LAUNCH = """
import os, sys
descriptor, name, *command = sys.argv[1:]
os.dup2(int(descriptor), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES=name)
os.execv(command[0], command)
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A gate on the socket of the unit's name."""
    demo = write_demo(tmp_path)
    found = demo / "gate.hcl"
    name = read("mtlsgate.socket")["Socket"]["FileDescriptorName"]
    text = found.read_text()
    assert '"127.0.0.1:0"' in text
    text = text.replace('"127.0.0.1:0"', f'"systemd:{name}"')
    found.write_text(text.replace('protocol "whoami" {}', 'protocol "echo" {}'))
    return found


def echoes(config: Path, address: tuple[str, int]) -> bool:
    """:returns: whether a connection that is made now is answered, however long it takes."""
    context = ssl.create_default_context(cafile=str(config.parent / "ca.crt"))
    context.load_cert_chain(config.parent / "client.crt", config.parent / "client.key")
    with (
        socket.create_connection(address, timeout=120) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"knock")
        return connection.recv(5) == b"knock"


class Clients:
    """
    Connects again and again, in two threads.

    :ivar came: what came of the connections.
    """

    def __init__(self, config: Path, address: tuple[str, int]) -> None:
        self.came: list[object] = []
        self._config, self._address = config, address
        self._enough = threading.Event()
        self._threads = [threading.Thread(target=self._connect) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _connect(self) -> None:
        while not self._enough.is_set():
            try:
                self.came.append(echoes(self._config, self._address))
            except OSError as error:
                self.came.append(error)

    def stop(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.slow
def test_a_restart_refuses_nobody(config: Path) -> None:
    """Somebody holds the socket, as systemd does, while one gate ends and another starts;
    clients wait for it."""
    with bind_tcp(SocketAddress("127.0.0.1", 0)) as held:
        number = held.fileno()
        command = (sys.executable, "-c", LAUNCH, str(number), "gate", str(BIN / RUN[0]), *RUN[1:])
        with gate(config, command, pass_fds=[number]) as first:
            clients = Clients(config, held.getsockname())
            try:
                for _ in range(4):
                    first.read_until("admitted")
                first.stop()
                with gate(config, command, pass_fds=[number]) as second:
                    for _ in range(6):
                        second.read_until("admitted")
                    clients.stop()
            finally:
                clients.stop()
        assert len(clients.came) >= 10
        assert set(clients.came) == {True}


@pytest.mark.slow
def test_systemds_own_activation_starts_a_gate(config: Path) -> None:
    """systemd-socket-activate, with a socket for IPv6 and IPv4 as the unit has; the client's
    address is what the client would call it."""
    with socket.socket(socket.AF_INET6) as trial:
        trial.bind(("::", 0))
        port = trial.getsockname()[1]
    activate = [program("systemd-socket-activate"), "-l", str(port), "--fdname=gate"]
    command = [*activate, str(BIN / RUN[0]), *RUN[1:], "--config", str(config)]
    with Program(command) as process:
        said = []
        for line in iter(process.next_line, ""):
            said.append(line)
            if "Listening on" in line:
                # The first connection starts the gate.
                waiting = threading.Thread(target=echoes, args=(config, ("127.0.0.1", port)))
                waiting.start()
            if "admitted" in line:
                break
        assert re.search(r"admitted 127\.0\.0\.1:[0-9]+ by rule", said[-1]), said
        waiting.join()
        process.stop()
