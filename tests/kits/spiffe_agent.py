"""
The agent of the docs as a process, and its clients.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate, load_pem_x509_certificates
from OpenSSL import SSL

from mtlsgate.testing import Authority, Credential
from tests.kits.docs import DOCS
from tests.kits.proxy import Keys, TlsSocket


class AgentProcess:
    """The agent's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()


@contextmanager
def agent(directory: Path) -> Iterator[AgentProcess]:
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
            yield AgentProcess(process)
        finally:
            process.kill()


def connect(port: int, directory: Path) -> TlsSocket:
    """:returns: the client whose X.509-SVID the agent has written last."""
    certificate = load_pem_x509_certificate((directory / "press.crt").read_bytes())
    key = load_pem_private_key((directory / "press.key").read_bytes(), None)
    *_, newest = load_pem_x509_certificates((directory / "bundle.crt").read_bytes())
    client = Credential(certificate, cast(Any, key))
    return TlsSocket(port, Keys(Authority(newest, cast(Any, key)), client))


def echoes(client: TlsSocket) -> bool:
    """:returns: whether the gate answers, and so has admitted the client."""
    try:
        client.send(b"hello")
        return client.receive() == b"hello"
    except SSL.Error:
        return False
