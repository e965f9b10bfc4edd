"""
A real gate with several workers, asked by its admin socket.
"""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from mtlsgate.ctl.client import Remote
from mtlsgate.ctl.gate_address import GateAddress
from tests.kits.programs import RunningGate, gate

COMMAND = ("twistd", "-n", "--pidfile=")
#: In seconds; far above what anything here takes.
_PATIENCE = 60.0


@frozen
class WorkersGate:
    """
    :ivar running: the program.
    :ivar site: the directory of its configuration.
    """

    running: RunningGate
    site: Path

    @property
    def remote(self) -> Remote:
        """Its admin endpoint."""
        return Remote(GateAddress(path=self.site / "admin.sock"))

    def workers(self) -> list[dict[str, Any]]:
        """:returns: what its status says of its workers."""
        found: list[dict[str, Any]] = self.remote.get("/status")["workers"]
        return found

    def wait_for(self, is_so: Callable[[], bool]) -> None:
        """Ask until something is so."""
        pause = threading.Event()
        for _ in range(int(_PATIENCE / 0.05)):
            if is_so():
                return
            pause.wait(0.05)
        raise AssertionError("it does not become so")

    def connect(self, name: str = "client") -> ssl.SSLSocket:
        """:returns: a client's connection."""
        context = ssl.create_default_context(cafile=str(self.site / "ca.crt"))
        context.load_cert_chain(self.site / f"{name}.crt", self.site / f"{name}.key")
        address = ("127.0.0.1", self.running.port("demo"))
        plain = socket.create_connection(address, timeout=_PATIENCE)
        return context.wrap_socket(plain, server_hostname="localhost")

    def kill(self, index: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a worker a signal."""
        pid = self.workers()[index]["pid"]
        assert pid is not None
        os.kill(pid, number)


def echoes(connection: ssl.SSLSocket, data: bytes = b"knock") -> bool:
    """:returns: whether the client was admitted, and still is."""
    try:
        connection.sendall(data)
        return connection.recv(len(data)) == data
    except OSError:
        return False


def furnish(demo: Path, directory: Path, settings: str = "", workers: int = 2) -> Path:
    """
    :param demo: what ``mtlsgate init`` wrote, on ports of the system's choice.
    :param settings: more of them.
    :returns: a configuration of an echo with workers, in a directory of its own.
    """
    for path in demo.iterdir():
        (directory / path.name).write_bytes(path.read_bytes())
    config = directory / "gate.hcl"
    text = config.read_text().replace('protocol "whoami" {}', 'protocol "echo" {}')
    text = text.replace("settings {", f"settings {{\n  workers = {workers}\n{settings}", 1)
    config.write_text(f'admin {{ listen = "unix:admin.sock" }}\n{text}')
    return config


@contextmanager
def workers_gate(config: Path, command: Sequence[str] = COMMAND) -> Iterator[WorkersGate]:
    """Run a gate with workers until the block ends; all of them run when it begins."""
    with gate(config, command) as running:
        running.read_until("workers take connections")
        yield WorkersGate(running, config.parent)
