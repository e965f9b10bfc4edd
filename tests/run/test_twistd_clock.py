"""A real gate whose wall clock is set while it runs."""

from __future__ import annotations

import socket
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mtlsgate.testing import Authority
from tests.kits.programs import RunningGate, gate

pytestmark = pytest.mark.slow

#: twistd, to which the wall clock is as far ahead as a file says.
LAUNCH = """
import sys, time
from datetime import datetime, timedelta
from pathlib import Path
ahead, *command = sys.argv[1:]
real = time.time
def offset():
    return float(Path(ahead).read_text())
time.time = lambda: real() + offset()
class Set(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.now(tz) + timedelta(seconds=offset())
import mtlsgate.clock
mtlsgate.clock.datetime = Set
from twisted.scripts.twistd import run
sys.argv = ["twistd", *command]
run()
"""

CONFIG = """
server "clock" {
  hosts = ["127.0.0.1:0"]
  handshake_timeout = "1s"
  protocol "echo" {}
  tls {
    client_certificate { ca_certificate_file = "ca.crt" }
  }
}
"""


def put(ahead: Path, seconds: float) -> None:
    """Set the clock.  At no moment is the file empty: the gate may read it at any."""
    written = ahead.with_suffix(".new")
    written.write_text(str(seconds))
    written.replace(ahead)


def closed_by_gate(connection: socket.socket) -> bool:
    connection.settimeout(60)
    try:
        return connection.recv(1) == b""
    except OSError as error:
        return not isinstance(error, TimeoutError)


def connect(here: Path, running: RunningGate) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(here / "brief.crt", here / "brief.key")
    plain = socket.create_connection(("127.0.0.1", running.port("clock")), timeout=60)
    return context.wrap_socket(plain)


@pytest.mark.parametrize(("first", "then"), [(3600.0, 0.0), (-3600.0, 0.0)])
def test_a_clock_that_is_set(tmp_path: Path, first: float, then: float) -> None:
    """A client is out soon after its certificate's end, and one that says nothing after
    the handshake timeout, whatever the clock did."""
    authority = Authority.create("Root")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    (tmp_path / "gate.hcl").write_text(CONFIG)
    ahead = tmp_path / "ahead"
    put(ahead, first)
    command = (sys.executable, "-c", LAUNCH, str(ahead), "-n", "--pidfile=")
    with gate(tmp_path / "gate.hcl", command) as running:
        address = ("127.0.0.1", running.port("clock"))
        with socket.create_connection(address) as silent:
            # So all that runs from the start on does run.
            assert closed_by_gate(silent)
        with socket.create_connection(address) as silent:
            silent.sendall(b"\x16")
            put(ahead, then)
            assert closed_by_gate(silent)
        end = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
        brief = authority.issue("brief", not_before=end - timedelta(days=2), not_after=end)
        (tmp_path / "brief.crt").write_bytes(brief.pem)
        (tmp_path / "brief.key").write_bytes(brief.key_pem)
        with connect(tmp_path, running) as client:
            client.sendall(b"x")
            assert client.recv(1) == b"x"
            assert closed_by_gate(client)
        assert "certificate_expired" in running.read_until("closed")
        assert datetime.now(UTC) < end + timedelta(seconds=30)
