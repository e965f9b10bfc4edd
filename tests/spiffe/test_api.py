"""A gate in Python with an agent, in an application's own process."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure

from mtlsgate import ConfigError, Gate, Rule, Svid
from mtlsgate.testing import Authority
from tests.kits.programs import Program
from tests.kits.spiffe_agent import agent, connect, echoes

#: A gate whose certificate and trust an agent delivers.
SCRIPT = """
import sys
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import globalLogBeginner, textFileLogObserver
from mtlsgate import Gate, Rule, Svid

class Echo(Protocol):
    def dataReceived(self, data):
        self.transport.write(data)

rule = Rule("mesh", spiffe_trust_domain="plants.example")
gate = Gate(certificate=Svid(f"unix:{sys.argv[1]}/agent.sock"), rules=[rule])

def listens(port):
    print("port", port.getHost().port, flush=True)

globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stdout)])
gate.endpoint(reactor, "127.0.0.1:0").listen(Factory.forProtocol(Echo)).addCallback(listens)
reactor.run()
"""


#: What it says until it is ready.
SAID = ("port ", "another server certificate", "bundle of plants.example: CAs added: 1")


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short name: the path of a socket has at most 107 bytes."""
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


@pytest.mark.slow
def test_a_gate_in_python_asks_by_itself(directory: Path) -> None:
    """From the moment it listens; nothing else has to be started."""
    with agent(directory), Program([sys.executable, "-c", SCRIPT, directory]) as process:
        found: dict[str, str] = {}
        while len(found) < len(SAID):
            line = process.next_line()
            assert line, "it has ended"
            found |= {text: line for text in SAID if text in line}
        port = int(found["port "].split()[-1])
        with connect(port, directory) as client:
            assert echoes(client)


def test_what_is_wrong_is_told_in_the_words_of_python() -> None:
    with pytest.raises(ConfigError) as caught:
        Gate(
            certificate=Svid("agent.sock"),
            rules=[Rule("mesh", spiffe_trust_domain="P", ca=Authority.create("x").certificate)],
        )
    assert str(caught.value).split("\n") == [
        'Gate: spiffe: "agent.sock" is no socket of an agent: write "unix:/run/spire/agent.sock"',
        "Gate: Rule 'mesh': ca and spiffe_trust_domain are mutually exclusive: the trust domain's "
        "bundle has the CAs",
        "Gate: Rule 'mesh': spiffe_trust_domain: \"P\" is no trust domain: lower-case letters, "
        "digits, dots, - and _",
    ]


def test_gates_with_identities_have_hosts_of_their_own() -> None:
    """What one has been delivered is not the other's."""
    mesh = Rule("mesh", spiffe_trust_domain="plants.example")
    gates = [
        Gate(certificate=Svid(f"unix:/{name}"), rules=[mesh], name=name, server_names=[name])
        for name in ("a.example", "b.example")
    ]
    endpoint = gates[0].endpoint(
        MemoryReactorClock(), "127.0.0.1:8443", beside=[(gates[1], Factory())]
    )
    failures: list[Failure] = []
    endpoint.listen(Factory()).addErrback(failures.append)
    [failure] = failures
    assert "cannot share its hosts" in str(failure.value)
    assert failure.check(ConfigError)
