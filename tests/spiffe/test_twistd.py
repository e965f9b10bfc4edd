"""The gate with an agent that speaks the Workload API by grpcio: the one of the docs."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_certificates
from OpenSSL import SSL

from mtlsgate.testing import Authority, Credential
from tests.kits.docs import DOCS
from tests.kits.programs import BIN, RunningGate, gate, run
from tests.kits.proxy import Keys, TlsSocket

pytestmark = pytest.mark.slow

CONFIG = """
settings {{
  workers = {workers}
}}

admin {{
  listen = "unix:admin.sock"
}}

server "door" {{
  hosts = ["127.0.0.1:0"]
  protocol "echo" {{}}
  tls {{
    server_certificate {{
      spiffe = "unix:{agent}"
    }}
    client_certificate "mesh" {{
      spiffe_trust_domain = "plants.example"
    }}
  }}
}}
"""


#: What each process says of a new CA, and the certificate by it.
NEW = ("another server certificate", "bundle of plants.example: 1 CAs added, 0 removed")


class Agent:
    """The agent's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()


@contextmanager
def agent(directory: Path) -> Iterator[Agent]:
    """Run the agent of the docs in a directory until the block ends; it listens."""
    (directory / "agent.sock").unlink(missing_ok=True)
    with subprocess.Popen(
        [sys.executable, DOCS / "examples" / "spire" / "agent.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=directory,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield Agent(process)
        finally:
            process.kill()


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def connect(running: RunningGate, directory: Path) -> TlsSocket:
    """:returns: the client whose X.509-SVID the agent has written last."""
    certificate = load_pem_x509_certificate((directory / "press.crt").read_bytes())
    key = load_pem_private_key((directory / "press.key").read_bytes(), None)
    *_, newest = load_pem_x509_certificates((directory / "bundle.crt").read_bytes())
    client = Credential(certificate, cast(Any, key))
    return TlsSocket(running.port("door"), Keys(Authority(newest, cast(Any, key)), client))


def shake_hands(port: int) -> None:
    """Do so without a certificate, and believe any server."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), sock)
        tls.set_connect_state()
        tls.do_handshake()


def echoes(client: TlsSocket) -> bool:
    """:returns: whether the gate answers, and so has admitted the client."""
    try:
        client.send(b"hello")
        return client.receive() == b"hello"
    except SSL.Error:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_from_an_agent_that_is_away_to_a_ca_that_is_forgotten(
    directory: Path, workers: int
) -> None:
    """With one process, and with several, each of which asks for itself."""
    config = directory / "gate.hcl"
    config.write_text(CONFIG.format(workers=workers, agent=directory / "agent.sock"))

    def delivered(running: RunningGate, *texts: str) -> None:
        """Each process has said each of these."""
        missing = Counter(texts * workers)
        while missing:
            line = running.read_until("")
            missing -= Counter(text for text in texts if text in line)

    with ExitStack() as stack:
        running = stack.enter_context(gate(config))
        delivered(running, "no X.509-SVID from the agent at")
        with pytest.raises(SSL.Error):
            shake_hands(running.port("door"))
        assert "no_server_certificate" in running.read_until(": rejected ")
        with agent(directory) as spire:
            delivered(running, *NEW)
            old = stack.enter_context(connect(running, directory))
            assert echoes(old)
            spire.say("rotate")
            delivered(running, *NEW)
            new = stack.enter_context(connect(running, directory))
            assert echoes(new)
            assert echoes(old)
            spire.say("forget")
            assert "no_longer_admitted" in running.read_until(": closed ")
            assert not echoes(old)
            assert echoes(new)
            code, status = run(BIN / "mtlsgate", "ctl", "--config", config, "status")
            assert code == 0, status
            assert "FetchX509SVID" not in status
        delivered(running, "it closed the connection")
        # What was delivered stays, also over a reload; new clients come in.
        assert echoes(stack.enter_context(connect(running, directory)))
        running.process.send_signal(signal.SIGHUP)
        running.read_until("epoch 2")
        assert echoes(stack.enter_context(connect(running, directory)))
        assert echoes(new)
        with agent(directory):
            # Another agent with another CA: it replaces everything.
            assert "no_longer_admitted" in running.read_until(": closed ")
        running.stop()
    text = "".join(running.lines)
    assert "PRIVATE" not in text
    assert "Traceback" not in text
