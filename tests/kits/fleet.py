"""The fleet under contrib/fleet, running, and told what is to happen."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import field, frozen
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from tests.kits.contrib import CONTRIB
from tests.kits.programs import BIN, program, run

FLEET = CONTRIB / "fleet"
GATES = ("gate1", "gate2", "gate3")
STORES = ("redis1", "redis2", "redis3")
SENTINELS = ("sentinel1", "sentinel2", "sentinel3")
#: In seconds: how long something that is repeated or watched may take, and how long one command,
#: which gives up by itself before; both far above what anything here takes.
_PATIENCE, _LONGEST = 30.0, 60.0
_PAUSE = 0.05
#: How much of each log a failure shows, in lines.
_MOST_LINES = 12


@frozen
class RunningFleet:
    """
    :ivar directory: where all of its files are.
    :ivar problems: why it is whole no more, so that nothing more is tried with it.
    """

    directory: Path
    problems: list[str] = field(factory=list)

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
            client.settimeout(_LONGEST)
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
        said = ""

        def is_told() -> bool:
            nonlocal said
            said = self.ask(command)[1]
            return text in said

        if not _comes_true(is_told):
            raise AssertionError(f"{command} never says {text}, but at last {said}")

    def until_logs(self, name: str, text: str, times: int) -> None:
        """Wait until a program has logged something so often."""
        if not _comes_true(lambda: self.log(name).count(text) >= times):
            raise AssertionError(f"{name} has not logged {text!r} {times} times")

    def until_logged(self, pattern: str) -> None:
        """Wait until a gate has logged something."""
        if not _comes_true(lambda: any(re.search(pattern, self.log(gate)) for gate in GATES)):
            raise AssertionError(f"no gate has logged {pattern}")

    def diagnosis(self) -> str:
        """:returns: what there is to say of every program: for people, after a failure."""
        try:
            parts = [*self._programs()]
        except (OSError, AssertionError, ValueError) as error:
            parts = [f"the fleet does not say how it is: {error}"]
        for path in sorted(self.directory.glob("*.log")):
            last = path.read_text(errors="replace").splitlines()[-_MOST_LINES:]
            parts += [f"{path.name}: {line}" for line in last]
        return "\n".join(parts)

    def _programs(self) -> Iterator[str]:
        yield self.ask("status")[1]
        for name in STORES:
            yield from (f"{name}: {line}" for line in self._store(self.port(name)))
        for name in SENTINELS:
            yield f"{name}: {_replied(self.port(name), 'SENTINEL', 'MASTER', 'devices')}"
        for name in GATES:
            asked = (BIN / "mtlsgate", "ctl", "--socket", self.directory / f"{name}.sock", "status")
            yield from (f"{name}: {line}" for line in run(*asked)[1].splitlines())

    def _store(self, port: int) -> list[str]:
        """:returns: what a Redis is, and how it lists whom."""
        lines = [f"{_replied(port, 'ROLE')}"]
        names = _replied(port, "KEYS", "*:d:*")
        if isinstance(names, list):
            lines += [f"{name!r}: {_replied(port, 'HGETALL', name)}" for name in sorted(names)]
        return lines


def _replied(port: int, *command: str | bytes) -> object:
    """:returns: the reply of a Redis, or why there is none."""
    with Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0)) as client:
        try:
            return client.execute_command(*command)
        except RedisError as error:
            return f"{type(error).__name__}: {error}"


def _comes_true(is_so: Callable[[], bool]) -> bool:
    """:returns: whether it comes true in time; it is asked at least once."""
    until = time.monotonic() + _PATIENCE
    pause = threading.Event()
    while not is_so():
        if time.monotonic() > until:
            return False
        pause.wait(_PAUSE)
    return True


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
            process.communicate(timeout=_LONGEST)
