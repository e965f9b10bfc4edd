"""
Drill: a gate logs a great deal, and nobody waits for any of it.
"""

from __future__ import annotations

import pytest

from tests.kits.drills import Site, echoes
from tests.kits.programs import gate

pytestmark = pytest.mark.slow

#: An echo that logs a megabyte for each connection, sixteen times what a pipe holds.
TALKATIVE = """
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger


class Talkative(Protocol):
    log = Logger()

    def connectionMade(self):
        for _ in range(1024):
            self.log.info("{text}", text="x" * 1024)
        self.log.info("no more to say")

    def dataReceived(self, data):
        self.transport.write(data)


factory = Factory.forProtocol(Talkative)
"""


def test_a_gate_serves_while_nobody_looks_at_its_log(site: Site) -> None:
    """What it prints is read for it: a full pipe does not stop it, and all of it is there."""
    (site.path / "talkative.py").write_text(TALKATIVE)
    site.change('protocol "echo" {}', 'protocol "custom" { factory = "talkative:factory" }')
    with gate(site.config) as running:
        with site.connect(running.port("demo")) as client:
            assert echoes(client)
        running.read_until("no more to say")
        assert sum(map(len, running.lines)) > 2**20
