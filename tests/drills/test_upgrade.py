"""
Drill: another version takes over the sockets, while the old one still serves its clients.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from tests.kits.drills import Site, echoes
from tests.kits.programs import BIN, gate

pytestmark = pytest.mark.slow

#: Starts a program as systemd does, with one socket.
LAUNCH = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="gate")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """What systemd holds open."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_a_new_gate_takes_over_the_socket(site: Site, listening: socket.socket) -> None:
    """Both accept for a while; then the old one drains. Nobody is refused, and who was
    connected stays connected."""
    site.change("127.0.0.1:0", "systemd:domain=INET:name=gate")
    site.change("settings {", 'settings {\n  drain_timeout = "1h"')
    port = listening.getsockname()[1]
    number = listening.fileno()
    twistd = (sys.executable, "-c", LAUNCH, str(number), str(BIN / "twistd"), "-n", "--pidfile=")
    with gate(site.config, twistd, pass_fds=(number,)) as old, site.connect(port) as live:
        assert echoes(live)
        with gate(site.config, twistd, pass_fds=(number,)) as new:
            old.process.send_signal(signal.SIGTERM)
            old.read_until("have 3600 s to end")
            for _ in range(5):
                assert site.is_served(port)
            # All of them came to the new one.
            for _ in range(5):
                new.read_until("admitted")
            assert echoes(live)
            live.close()
            assert old.process.wait(timeout=60) == 0
            assert site.is_served(port)
