"""
Drill: clients come and go under a limit, some of them badly.
"""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path

import pytest

from mtlsgate.ctl.client import Remote
from mtlsgate.ctl.gate_address import GateAddress
from tests.kits.drills import Site, echoes
from tests.kits.programs import gate

pytestmark = pytest.mark.slow

THREADS, ROUNDS = 4, 30


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def come_and_go(site: Site, port: int, number: int) -> None:
    """Come as one of three: who leaves in order, who resets the connection while bytes are on
    their way, and who speaks no TLS. Whom the limit keeps out gets nothing."""
    if number % 3 == 2:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return
    with site.connect(port) as client:
        if number % 3 == 1:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(bytes(100_000))
        else:
            echoes(client)


def test_nothing_is_left_of_clients(site: Site) -> None:
    """The limit is held and every place is given back: afterwards there are as many file
    descriptors as before, nothing is counted as connected, and clients are served."""
    site.change(
        "settings {", 'admin { listen = "unix:gate.sock" }\nsettings {\n  max_connections = 3'
    )
    with gate(site.config) as running:
        port = running.port("demo")
        remote = Remote(GateAddress(path=site.path / "gate.sock"))
        assert site.is_served(port)
        before = descriptors(running.process.pid)

        def work() -> None:
            for number in range(ROUNDS):
                try:
                    come_and_go(site, port, number)
                except OSError:
                    # The limit.
                    continue

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        pause = threading.Event()
        while remote.get("/connections")["connections"]:
            pause.wait(0.02)
        # Less what the question itself took.
        assert descriptors(running.process.pid) <= before
        for _ in range(3):
            assert site.is_served(port)
        said = running.stop()
        assert "Traceback" not in said
        # All of it happened.
        for reason in ("too_many_connections", "not_tls", "demo: admitted"):
            assert reason in said
