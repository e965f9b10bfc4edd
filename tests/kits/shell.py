"""What the reader of a page types in a terminal, and what that prints."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.kits.docs import DOCS
from tests.kits.programs import BIN, Program, free_port, program
from tests.kits.samples import Sample


def commands(sample: Sample) -> Iterator[tuple[str, str | None]]:
    """Yield each command, and what it prints, or None where the page does not say."""
    if sample.language == "sh":
        yield from ((line, None) for line in sample.text.splitlines())
        return
    for part in re.split(r"^\$ ", sample.text, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


def is_test_command(command: str) -> bool:
    """:returns: whether it is the README's, which runs this very file."""
    return "pip install" in command and "pytest" in command


#: The ports of the pages: of the gate first, then of what stands behind it.
_PORTS = ("8443", "8000", "9090")
#: The programs that pages use, and that a machine may lack.
_PROGRAMS = "curl|openssl|redis-server|redis-cli|psql|mosquitto|mosquitto_pub|haproxy|git|pebble"
#: How often a program in the background is looked for, every 20 ms.
_TRIALS = 1500
#: How often a command is run again because curl lost an alert.
_LOST_ALERTS = 20


class Shell:
    """
    What the reader of a page does in a terminal.

    :ivar directory: where the commands run.
    :ivar ports: the real port for each of the pages' own.
    :ivar gate: the gate that runs in the background, or None.
    :ivar others: other programs that run in the background.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ports = {port: str(free_port(_PORTS)) for port in _PORTS}
        self.gate: Program | None = None
        self.others: list[subprocess.Popen[str]] = []
        self.environment = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "DOCS": str(DOCS),
            "COLUMNS": "80",
        }

    def run(self, command: str, expected: str | None) -> None:
        """Run a command, and compare what it prints."""
        for name in re.findall(rf"\b(?:{_PROGRAMS})\b(?=[^.]|$)", command):
            program(name)
        command = self.real(command)
        if command.endswith(" &"):
            self.start_other(command)
            printed = ""
        elif re.search(r"\btwistd -n |\btwist |\bmtlsgate run ", command):
            printed = self.start_gate(command)
        else:
            printed = self.run_to_its_end(command)
        for config in (*self.directory.glob("gate.hcl"), *self.directory.glob("*/gate.hcl")):
            config.write_text(self.real(config.read_text()))
        # A slow machine says that it is still at it.
        printed = re.sub(r"^.*: still reading certificates .*\n", "", printed, flags=re.MULTILINE)
        if expected is not None:
            assert matches(expected, self.shown(printed)), (
                f"$ {command}\n{printed}\nis not\n{expected}"
            )

    def write(self, name: str, text: str) -> None:
        """Write a file that a page shows."""
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.real(text))

    def real(self, text: str) -> str:
        """:returns: the text, with the real ports in place of the page's."""
        for port, real in self.ports.items():
            text = re.sub(rf"\b{port}\b", real, text)
        return text

    def shown(self, text: str) -> str:
        """:returns: the text, with the page's ports in place of the real ones."""
        for port, real in self.ports.items():
            text = re.sub(rf"\b{real}\b", port, text)
        return text

    def start_other(self, command: str) -> None:
        """Start a program in the background, and wait until its port is there."""
        output = (self.directory / f"background-{len(self.others)}.out").open("w")
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command.removesuffix(' &')}"],
            cwd=self.directory,
            env=self.environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self.others.append(process)
        output.close()
        pause = threading.Event()
        for _ in range(_TRIALS):
            assert process.poll() is None, Path(output.name).read_text()
            if self._listens(command):
                return
            pause.wait(0.02)
        raise AssertionError(f"{command}: nobody listens")

    def _listens(self, command: str) -> bool:
        for port in self.ports.values():
            if port in command:
                with socket.socket() as trial:
                    return trial.connect_ex(("127.0.0.1", int(port))) == 0
        return True

    def run_to_its_end(self, command: str) -> str:
        """
        Run a command.  When the gate closes a connection at once, curl may find it closed
        before it reads the alert, and says that instead; then the command is run again.
        """
        printed = self._run_once(command)
        for _ in range(_LOST_ALERTS):
            if "getpeername() failed" not in printed:
                break
            printed = self._run_once(command)
        return printed

    def _run_once(self, command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=120,
            check=False,
        )
        if self.gate is not None and self.ports["8443"] in command:
            # The client may know before the gate has said so.
            self.read_gate_until(r"\b(?:admitted|rejected) ")
        return done.stdout

    def start_gate(self, command: str) -> str:
        self.stop_gate()
        # What init writes in the same line listens on the other port, too.
        command = re.sub(
            r"(mtlsgate init (\w+)) &&",
            rf"\1 && sed -i s/8443/{self.ports['8443']}/ \2/gate.hcl &&",
            command,
        )
        self.gate = Program(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self.environment,
            start_new_session=True,
        )
        return self.read_gate_until(": listening on ")

    def read_gate_until(self, pattern: str) -> str:
        assert self.gate is not None
        lines = []
        for line in iter(self.gate.next_line, ""):
            lines.append(line)
            if re.search(pattern, line):
                return "".join(lines)
        raise AssertionError(f"the gate ended without {pattern}:\n{''.join(lines)}")

    def stop_gate(self) -> None:
        if self.gate is None:
            return
        # Its own group: the shell, and what the shell started.
        os.killpg(self.gate.process.pid, signal.SIGTERM)
        self.gate.process.wait(timeout=60)
        self.gate = None

    def stop(self) -> None:
        """End whatever a page may have left running."""
        self.stop_gate()
        for process in self.others:
            process.terminate()
            process.wait(timeout=60)
        for file in self.directory.glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGKILL)
            except (OSError, ValueError):
                continue


def matches(expected: str, printed: str) -> bool:
    """:returns: whether it is what a page shows; ``...`` stands for anything."""
    parts = (re.escape(part) for part in expected.rstrip().split("..."))
    return re.fullmatch(".*".join(parts), printed.rstrip(), re.DOTALL) is not None
