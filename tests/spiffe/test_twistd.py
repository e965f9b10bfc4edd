"""The gate with an agent that speaks the Workload API by grpcio: the one of the docs."""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.kits.programs import BIN, RunningGate, gate, run
from tests.kits.spiffe_agent import agent, connect, echoes

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("measured")]

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
NEW = ("another server certificate", "bundle of plants.example: CAs added: 1, removed: 0")


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def shake_hands(port: int) -> None:
    """Do so without a certificate, and believe any server."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), sock)
        tls.set_connect_state()
        tls.do_handshake()


#: A client of the Workload API that others have written.
OTHERS = """
import sys
from spiffe import WorkloadApiClient

with WorkloadApiClient(sys.argv[1]) as client:
    svid = client.fetch_x509_svid(timeout=30)
    [bundle] = client.fetch_x509_bundles(timeout=30).bundles
    print(svid.spiffe_id, bundle.trust_domain, len(bundle.x509_authorities))
"""


def test_the_agent_of_these_tests_is_one_to_other_clients_too(directory: Path) -> None:
    """So what the gate is tested with is the published API."""
    with agent(directory):
        code, told = run(sys.executable, "-c", OTHERS, f"unix:{directory}/agent.sock")
    assert told.splitlines()[-1] == "spiffe://plants.example/gate plants.example 1", told
    assert code == 0


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
            old = stack.enter_context(connect(running.port("door"), directory))
            assert echoes(old)
            spire.say("rotate")
            delivered(running, *NEW)
            new = stack.enter_context(connect(running.port("door"), directory))
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
        assert echoes(stack.enter_context(connect(running.port("door"), directory)))
        running.process.send_signal(signal.SIGHUP)
        running.read_until("epoch 2")
        assert echoes(stack.enter_context(connect(running.port("door"), directory)))
        assert echoes(new)
        with agent(directory):
            # Another agent with another CA: it replaces everything.
            assert "no_longer_admitted" in running.read_until(": closed ")
        running.stop()
    text = "".join(running.lines)
    assert "PRIVATE" not in text
    assert "Traceback" not in text
