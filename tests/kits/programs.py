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
from queue import Empty, SimpleQueue
from typing import Any, NoReturn, Self, TextIO

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


class Program:
    """
    A program that runs. What it prints is read all the time, whether or not somebody waits for
    it: a program whose pipe is full stands still.

    :ivar process: its process.
    """

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        """:param options: what `subprocess.Popen` takes besides."""
        ours, theirs = os.pipe()
        printed = os.fdopen(ours, errors="backslashreplace")
        try:
            self.process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=theirs,
                stderr=subprocess.STDOUT,
                **options,
            )
        except BaseException:
            printed.close()
            raise
        finally:
            os.close(theirs)
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._is_over = False
        # Its children may hold the pipe for longer than anybody is interested.
        threading.Thread(target=self._read, args=(printed,), daemon=True).start()

    def _read(self, printed: TextIO) -> None:
        with printed:
            for line in printed:
                self._lines.put(line)
        self._lines.put("")

    def next_line(self) -> str:
        """:returns: what it prints next; empty when nothing can come any more."""
        if self._is_over:
            return ""
        try:
            line = self._lines.get(timeout=_PATIENCE)
        except Empty:
            raise AssertionError(f"{self.process.args!r} prints no more") from None
        self._is_over = not line
        return line

    def rest(self) -> str:
        """:returns: what it prints from here to its end."""
        return "".join(iter(self.next_line, ""))

    def stop(self) -> str:
        """:returns: what it printed from the last wait to its end."""
        self.process.terminate()
        rest = self.rest()
        self.process.wait(timeout=60)
        return rest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(timeout=60)


class RunningGate(Program):
    """
    A gate that listens.

    :ivar where: for each server the addresses it listens on, from its log.
    :ivar lines: what it logged so far, as far as it was waited for.
    """

    def __init__(self, command: Sequence[str | Path], **options: Any) -> None:
        super().__init__(command, **options)
        self.where: dict[str, list[str]] = {}
        self.lines: list[str] = []

    def port(self, server: str) -> int:
        """:returns: the first port of a server."""
        return int(self.where[server][0].rpartition(":")[2])

    def read_until(self, text: str) -> str:
        """:returns: the next line that holds the text; fails if the gate ends first."""
        for line in iter(self.next_line, ""):
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
    words = [BIN / name, *options, *gate_of_twistd, "--config", config]
    with RunningGate(words, cwd=cwd or config.parent, pass_fds=pass_fds) as running:
        if limits is not None:
            resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, limits)
        # What it never says would be waited for without end.
        watchdog = threading.Timer(_PATIENCE, running.process.kill)
        watchdog.start()
        try:
            text = ((cwd or Path()) / config).read_text()
            for _ in range(text.count("\nserver ") + text.count("\nclient ")):
                running.read_until(": listening on ")
            yield running
        finally:
            watchdog.cancel()


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
