"""
The real programs: a gate in a process of its own, openssl, curl.
"""

from __future__ import annotations

import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

#: Where the console scripts of the environment under test are.
BIN = Path(sys.executable).parent
#: In seconds; far above what anything here takes.
_PATIENCE = 180.0
_LISTENING = re.compile(r"(?P<server>[^\s\"]+): listening on (?P<where>[^;]*);")
#: ``mtlsgate run`` in place of twistd.
RUN = ("mtlsgate", "run")


def program(name: str) -> str:
    """
    :returns: where an outside program is.  Without it the test is skipped, or
        in CI fails.
    """
    found = shutil.which(name)
    if found is None:
        lacking(f"{name} is not installed")
    return found


def lacking(why: str) -> NoReturn:
    """Skip the test for want of something outside, or in CI fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)


def run(*command: str | Path, data: bytes = b"", cwd: Path | None = None) -> tuple[int, str]:
    """:returns: the exit status and all output of a program that ends by itself."""
    done = subprocess.run(
        [str(word) for word in command],
        input=data,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        timeout=120,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="replace")


class RunningGate:
    """
    A gate that listens.

    :ivar process: its process.
    :ivar where: for each server the addresses it listens on, from its log.
    :ivar lines: what it logged so far, as far as it was waited for.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.where: dict[str, list[str]] = {}
        self.lines: list[str] = []

    def port(self, server: str) -> int:
        """:returns: the first port of a server."""
        return int(self.where[server][0].rpartition(":")[2])

    def read_until(self, text: str) -> str:
        """:returns: the next line that holds the text; fails if the gate ends first."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if (found := _LISTENING.search(line)) is not None:
                self.where[found["server"]] = found["where"].split(", ")
            if text in line:
                return line
        raise AssertionError(f"the gate ended without {text!r}:\n{''.join(self.lines)}")

    def wait_for(self, file: Path, text: str) -> None:
        """Wait until a file holds the text; fails if the gate ends first."""
        pause = threading.Event()
        while not (file.exists() and text in file.read_text()):
            assert self.process.poll() is None, f"the gate ended without {text!r}"
            pause.wait(0.02)

    def read_until_all(self, *texts: str) -> None:
        """Read until there was a line for each of the texts, in whatever order."""
        missing = set(texts)
        while missing:
            line = self.read_until("")
            missing -= {text for text in missing if text in line}

    def stop(self) -> str:
        """:returns: what it logged from the last wait to its end."""
        self.process.terminate()
        assert self.process.stdout is not None
        rest = self.process.stdout.read()
        self.process.wait(timeout=60)
        return rest


@contextmanager
def gate(
    config: Path,
    command: Sequence[str] = ("twistd", "-n", "--pidfile="),
    cwd: Path | None = None,
    limits: tuple[int, int] | None = None,
    pass_fds: Sequence[int] = (),
) -> Iterator[RunningGate]:
    """
    Run a gate until the block ends; it listens when the block begins.

    :param command: twistd with its options, or `RUN`.
    :param limits: how many file descriptors it may have.
    :param pass_fds: descriptors that it gets.
    """
    name, *options = command
    gate_of_twistd = () if command[-1] == RUN[-1] else ("mtlsgate",)
    with subprocess.Popen(
        [str(BIN / name), *options, *gate_of_twistd, "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd or config.parent,
        pass_fds=pass_fds,
    ) as process:
        if limits is not None:
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
        running = RunningGate(process)
        # What it never says would be waited for without end.
        watchdog = threading.Timer(_PATIENCE, process.kill)
        watchdog.start()
        try:
            text = ((cwd or Path()) / config).read_text()
            for _ in range(text.count("\nserver ") + text.count("\nclient ")):
                running.read_until(": listening on ")
            yield running
        finally:
            watchdog.cancel()
            process.kill()


@contextmanager
def serving(command: list[str], ready: Path) -> Iterator[None]:
    """Run a server until the block ends; its socket is there when the block begins."""
    output = ready.with_suffix(".out")
    with (
        output.open("wb") as stream,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            pause = threading.Event()
            while not ready.exists():
                assert process.poll() is None, output.read_text()
                pause.wait(0.02)
            yield
        finally:
            process.terminate()
            process.wait(timeout=60)


def free_port(other_than: Sequence[str] = ("8443",)) -> int:
    """:returns: a port whose digits do not hold those of these."""
    while True:
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port: int = found.getsockname()[1]
        if not any(one in str(port) for one in other_than):
            return port
