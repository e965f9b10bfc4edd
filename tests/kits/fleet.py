"""The fleet under contrib/fleet, running, and told what is to happen."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

from tests.kits.contrib import CONTRIB
from tests.kits.programs import program

FLEET = CONTRIB / "fleet"
GATES = ("gate1", "gate2", "gate3")
STORES = ("redis1", "redis2", "redis3")
SENTINELS = ("sentinel1", "sentinel2", "sentinel3")
#: In seconds; far above what anything here takes.
_PATIENCE = 120.0
_PAUSE = 0.05
_TRIALS = int(_PATIENCE / _PAUSE)


@frozen
class RunningFleet:
    """
    :ivar directory: where all of its files are.
    """

    directory: Path

    def tell(self, command: str) -> str:
        """
        Have something happen, as the command line does.

        :returns: what is said of it; fails if it cannot be done.
        """
        outcome, said = self.ask(command)
        assert outcome == "ok", said
        return said

    def ask(self, command: str) -> tuple[str, str]:
        """:returns: "ok" or "failed", and what is said."""
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_PATIENCE)
            client.connect(str(self.directory / "fleet.sock"))
            client.sendall(f"{command}\n".encode())
            answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
        outcome, _, said = answer.partition("\n")
        return outcome, said

    def port(self, name: str) -> int:
        """:returns: where a program listens."""
        [found] = re.findall(rf"^{name} +127\.0\.0\.1:(\d+)", self.tell("status"), re.MULTILINE)
        return int(found)

    def pid(self, name: str) -> int:
        """:returns: the number of its process."""
        return int((self.directory / f"{name}.pid").read_text())

    def log(self, name: str) -> str:
        """:returns: what a program has printed."""
        return (self.directory / f"{name}.log").read_text()

    def primary(self) -> str:
        """:returns: the Redis that takes the writes."""
        [found] = re.findall(r"^(\w+) takes the writes$", self.tell("status"), re.MULTILINE)
        assert found in STORES
        return str(found)

    def until_told(self, command: str, text: str) -> None:
        """Repeat a command until what is said of it has that text."""
        pause = threading.Event()
        for _ in range(_TRIALS):
            if text in self.ask(command)[1]:
                return
            pause.wait(_PAUSE)
        raise AssertionError(f"{command} never says {text}")

    def until_logs(self, name: str, text: str, times: int) -> None:
        """Wait until a program has logged something so often."""
        pause = threading.Event()
        for _ in range(_TRIALS):
            if self.log(name).count(text) >= times:
                return
            pause.wait(_PAUSE)
        raise AssertionError(f"{name} has not logged {text!r} {times} times")

    def until_logged(self, pattern: str) -> None:
        """Wait until a gate has logged something."""
        pause = threading.Event()
        for _ in range(_TRIALS):
            if any(re.search(pattern, self.log(gate)) for gate in GATES):
                return
            pause.wait(_PAUSE)
        raise AssertionError(f"no gate has logged {pattern}")


@contextmanager
def running_fleet(directory: Path) -> Iterator[RunningFleet]:
    """Run a fleet until the block ends; all of it is ready when the block begins."""
    for name in ("haproxy", "redis-server"):
        program(name)
    with subprocess.Popen(
        [sys.executable, FLEET, "--directory", directory, "up"],
        # The fleet ends with this process, however that ends.
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Clients come in "):
                break
        else:
            raise AssertionError(f"there is no fleet:\n{''.join(lines)}")
        try:
            yield RunningFleet(directory)
        finally:
            process.terminate()
            process.communicate(timeout=_PATIENCE)
