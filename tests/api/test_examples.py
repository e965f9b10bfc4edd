"""
The examples of docs/examples/application, each run as its reader would run it.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.application import Certificates
from tests.kits.docs import DOCS
from tests.kits.programs import BIN, RunningGate, lacking, program, run

pytestmark = pytest.mark.slow

EXAMPLES = DOCS / "examples" / "application"
STRING = "mtls:0:interface=127.0.0.1:ca=fleet-ca.crt:certificate=server.crt:key=server.key"
HERE = "127.0.0.1:0"


@contextmanager
def example(directory: Path, *command: str | Path) -> Iterator[int]:
    """Run one until the block ends.  :returns: its port."""
    environment = {**os.environ, "LISTEN": HERE, "PYTHONUNBUFFERED": "1"}
    with RunningGate(command, cwd=directory, env=environment) as running:
        running.read_until(": listening on ")
        yield running.port("gate")


def python(name: str, where: str = HERE) -> tuple[str | Path, ...]:
    return sys.executable, EXAMPLES / name, where


def curl(port: int, name: str, path: str = "") -> str:
    own = ("--cert", f"{name}.crt", "--key", f"{name}.key")
    url = f"https://localhost:{port}/{path}"
    return run(program("curl"), "-sS", "--cacert", "fleet-ca.crt", *own, url)[1]


def say(port: int, name: str) -> str:
    """:returns: what comes back of a line."""
    own = ("-cert", f"{name}.crt", "-key", f"{name}.key")
    command = (program("openssl"), "s_client", "-quiet", "-connect", f"127.0.0.1:{port}", *own)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(b"hello\n")
        client.stdin.flush()
        answer = client.stdout.readline()
        client.kill()
    return answer.decode()


def test_a_site(here: Certificates) -> None:
    with example(here.directory, *python("site.py")) as port:
        assert curl(port, "alice") == "Hello, alice!\n"
        assert "Hello" not in curl(port, "bob")
        assert "Hello" not in curl(port, "mallory")


def test_the_klein_example_serves_verified_clients(here: Certificates) -> None:
    if importlib.util.find_spec("klein") is None:
        lacking("klein is not installed")
    with example(here.directory, *python("klein_app.py")) as port:
        assert curl(port, "alice", "readings/7") == "reading 7 for alice\n"
        assert "reading" not in curl(port, "mallory", "readings/7")


@pytest.mark.parametrize(
    ("name", "answer"), [("amp", "5, asked by bob\n"), ("pb", "bob by fleet\n")]
)
def test_amp_and_perspective_broker(here: Certificates, name: str, answer: str) -> None:
    with example(here.directory, *python(f"{name}_server.py")) as port:

        def ask(who: str) -> tuple[int, str]:
            where = f"localhost:{port}"
            return run(*python(f"{name}_client.py", where), f"{who}.crt", f"{who}.key")

        assert ask("bob") == (0, answer)
        assert answer.partition(" ")[2] not in ask("mallory")[1]


def test_the_ssh_example_takes_the_name_from_the_certificate(here: Certificates) -> None:
    """A real ssh, through a real openssl; the user name must be the certificate's."""
    if importlib.util.find_spec("bcrypt") is None:
        lacking("twisted[conch] is not installed")
    ssh, openssl = program("ssh"), program("openssl")
    with example(here.directory, *python("ssh_server.py")) as port:

        def whoami(user: str, certificate: str) -> tuple[int, str]:
            own = f"-cert {certificate}.crt -key {certificate}.key"
            proxy = f"ProxyCommand {openssl} s_client -quiet -connect %h:%p {own}"
            options = ("-F", "none", "-o", proxy, "-o", "BatchMode yes", "-o", "LogLevel ERROR")
            known = f"UserKnownHostsFile {here.directory}/known_hosts"
            unknown = ("-o", "StrictHostKeyChecking no", "-o", known)
            return run(ssh, *options, *unknown, "-p", str(port), f"{user}@127.0.0.1", "whoami")

        assert "alice by fleet" in whoami("alice", "alice")[1].splitlines()
        assert "by fleet" not in whoami("root", "alice")[1]
        assert "by fleet" not in whoami("mallory", "mallory")[1]


def test_a_tac_file(here: Certificates) -> None:
    command = (BIN / "twistd", "--pidfile=", "-ny", EXAMPLES / "gate.tac")
    with example(here.directory, *command) as port:
        assert say(port, "alice") == "hello\n"
        assert say(port, "mallory") == ""


def test_from_a_string(here: Certificates) -> None:
    with example(here.directory, *python("from_string.py", STRING)) as port:
        assert say(port, "alice") == "hello\n"
        assert say(port, "mallory") == ""


def test_twisteds_own_web_server(scratch: Path) -> None:
    """``twistd web --listen mtls:…``, without a line of Python."""
    (scratch / "www").mkdir()
    (scratch / "www" / "a.txt").write_text("for members")
    command = (BIN / "twistd", "--pidfile=", "-n", "web", "--path", "www", "--listen", STRING)
    with example(scratch, *command) as port:
        assert curl(port, "alice", "a.txt") == "for members"
        assert "members" not in curl(port, "mallory", "a.txt")
