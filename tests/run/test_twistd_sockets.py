"""
Sockets that the service manager passes, and unix sockets that outlive a gate, with
the real twistd.
"""

from __future__ import annotations

import signal
import socket
import ssl
import sys
from pathlib import Path

import pytest

from mtlsgate.load.addresses import SocketAddress
from mtlsgate.run.sockets import bind_tcp
from tests.kits.programs import BIN, RunningGate, gate

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]

#: Starts a program as systemd does: sockets are 3 and up, and the environment says so.
LAUNCH = """
import os, sys
count, names, *command = sys.argv[1:]
passed = [int(one) for one in count.split(",")]
high = [os.dup2(one, 100 + number) for number, one in enumerate(passed)]
for number, one in enumerate(high):
    os.dup2(one, 3 + number)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(passed)), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""


@pytest.fixture
def here(demo: Path, tmp_path: Path) -> Path:
    """A copy of its own, with an echo."""
    for path in demo.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    change(tmp_path, 'protocol "whoami" {}', 'protocol "echo" {}')
    return tmp_path


def change(here: Path, before: str, after: str) -> None:
    config = here / "gate.hcl"
    text = config.read_text()
    assert before in text
    config.write_text(text.replace(before, after))


def reload(running: RunningGate, epoch: int) -> None:
    running.process.send_signal(signal.SIGHUP)
    running.read_until(f"epoch {epoch} is in force")


def connect(here: Path, address: tuple[str, int] | str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(here / "ca.crt"))
    context.load_cert_chain(here / "client.crt", here / "client.key")
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    plain = socket.socket(family)
    plain.settimeout(60)
    plain.connect(address)
    return context.wrap_socket(plain, server_hostname="localhost")


def echoes(connection: ssl.SSLSocket) -> bool:
    connection.sendall(b"knock")
    return connection.recv(5) == b"knock"


def test_sockets_of_the_service_manager(here: Path) -> None:
    """A host can be rewritten, dropped and added again: the socket is the same, clients
    stay, and no other descriptor is touched."""
    change(here, "127.0.0.1:0", "systemd:domain=INET:index=0")
    loopback = SocketAddress("127.0.0.1", 0)
    with bind_tcp(loopback) as one, bind_tcp(loopback) as two:
        numbers = f"{one.fileno()},{two.fileno()}"
        command = ("-c", LAUNCH, numbers, "gate:other", str(BIN / "twistd"), "-n", "--pidfile=")
        with (
            gate(
                here / "gate.hcl", (sys.executable, *command), pass_fds=(one.fileno(), two.fileno())
            ) as running,
            connect(here, one.getsockname()) as live,
        ):
            assert echoes(live)
            change(here, "index=0", "name=gate")
            reload(running, 2)
            change(here, "systemd:domain=INET:name=gate", "127.0.0.1:0")
            assert echoes(live)
            reload(running, 3)
            change(here, "127.0.0.1:0", "systemd:domain=INET:name=other")
            reload(running, 4)
            change(here, "name=other", "index=0")
            reload(running, 5)
            with connect(here, one.getsockname()) as again:
                assert echoes(again)
            assert "Traceback" not in running.stop()


def test_a_unix_socket_outlives_a_gate_that_was_killed(here: Path) -> None:
    """The next one takes it over, and there is no lock file."""
    change(here, "127.0.0.1:0", f"unix:{here}/gate.sock:mode=600")
    for _ in range(2):
        with gate(here / "gate.hcl"), connect(here, f"{here}/gate.sock") as client:
            assert echoes(client)
    assert (here / "gate.sock").is_socket()
    assert not list(here.glob("*.lock"))


@pytest.mark.parametrize("reactor", ["epoll", "asyncio", "poll", "select"])
def test_every_reactor_admits_and_times_out(here: Path, reactor: str) -> None:
    """Whichever it is, clients come in, and one that says nothing is dropped in time."""
    change(here, '127.0.0.1:0"]', '127.0.0.1:0"]\n  handshake_timeout = "1s"')
    with gate(here / "gate.hcl", ("twistd", f"--reactor={reactor}", "-n", "--pidfile=")) as running:
        address = ("127.0.0.1", running.port("demo"))
        with connect(here, address) as client, socket.create_connection(address) as silent:
            assert echoes(client)
            silent.settimeout(60)
            with pytest.raises(ConnectionResetError):
                silent.recv(1)
            assert echoes(client)
        assert "Traceback" not in running.stop()
