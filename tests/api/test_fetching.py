"""What a gate in Python fetches, in an application's own process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mtlsgate import Gate, Rule
from mtlsgate.clock import utc_now
from mtlsgate.errors import ConfigError
from tests.kits.ocsp import with_responder
from tests.kits.proxy import Keys
from tests.kits.revocation import crl, der

pytestmark = pytest.mark.slow

#: A gate in Python, the server of its list, and two clients one after the other.
SCRIPT = """
import sys
from pathlib import Path
from twisted.internet import reactor
from twisted.internet.defer import inlineCallbacks, Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Factory, Protocol
from twisted.web.static import Data
from twisted.web.server import Site
from mtlsgate import Gate, Rule

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

class Client(Protocol):
    def connectionMade(self):
        self.over = Deferred()
        self.transport.write(b"hello")
    def dataReceived(self, data):
        self.factory.heard.append(data)
        if not self.factory.stays:
            self.transport.loseConnection()
    def connectionLost(self, reason):
        self.over.callback(None)

@inlineCallbacks
def main():
    document = Data(Path("fleet.crl").read_bytes(), "x/y")
    document.isLeaf = True
    site = Site(document)
    web = reactor.listenTCP(0, site, interface="127.0.0.1")
    url = f"http://127.0.0.1:{web.getHost().port}/"
    rule = Rule("fleet", ca="ca.crt", crl_url=url)
    gate = Gate(certificate=("server.crt", "server.key"), rules=[rule])
    port = yield gate.endpoint(reactor, "127.0.0.1:0").listen(Factory.forProtocol(Echo))
    where = f"mtls:localhost:{port.getHost().port}:ca=ca.crt:certificate=client.crt:key=client.key"
    factory = Factory.forProtocol(Client)
    factory.heard, factory.stays = [], False
    while not factory.heard:
        client = yield clientFromString(reactor, where).connect(factory)
        yield client.over
    print("admitted")
    yield port.stopListening()
    reactor.stop()

def failed(failure):
    failure.printTraceback()
    reactor.stop()

reactor.callWhenRunning(lambda: main().addErrback(failed))
reactor.run()
"""


def test_a_gate_in_python_fetches_by_itself(tmp_path: Path) -> None:
    """Clients are rejected until the list has come, and then admitted; nothing else has to be
    started."""
    keys = Keys.write(tmp_path)
    (tmp_path / "fleet.crl").write_bytes(der(crl(keys.authority, now=utc_now())))
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "STATE_DIRECTORY"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == "admitted\n", done.stderr


def test_its_own_certificates_can_be_stapled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot work is an error, as in a file."""
    monkeypatch.chdir(tmp_path)
    keys = Keys.write(tmp_path)
    rule = Rule("fleet", ca="ca.crt")
    with pytest.raises(ConfigError, match="names no OCSP responder"):
        Gate(certificate=("server.crt", "server.key"), rules=[rule], ocsp_stapling=True)
    made = with_responder(keys.authority, "http://ocsp.example/")
    (tmp_path / "server.crt").write_bytes(made.pem)
    (tmp_path / "server.key").write_bytes(made.key_pem)
    Gate(certificate=("server.crt", "server.key"), rules=[rule], ocsp_stapling=True)
