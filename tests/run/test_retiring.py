"""
Connections of HTTP when the gate ends, or another epoch takes over: they would
go on for as long as their clients have requests.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from zope.interface import alsoProvides
from zope.interface.verify import verifyObject

from mtlsgate.interfaces import IRetirable
from mtlsgate.testing import Client
from tests.kits.gate import Log
from tests.kits.pki import pki
from tests.kits.service import MemoryService, a_server
from tests.kits.web import parse

HTTP = 'protocol "http" { target = "127.0.0.1:9000" }'
WEB = 'protocol "web" { root = "files" }'
#: Both answer it themselves, and keep the connection: the one with 421, the other with 404.
GET = b"GET /nothing HTTP/1.1\r\nHost: other.example\r\n\r\n"


def house_with(tmp_path: Path, protocol: str) -> MemoryService:
    settings = 'settings { drain_timeout = "1h" }\n'
    (tmp_path / "files").mkdir()
    return MemoryService(tmp_path, settings + a_server().replace('protocol "echo" {}', protocol))


def visitor(running: MemoryService) -> Client:
    client = running.connect(pki().client, server_name="gate.example")
    client.handshake()
    assert client.established
    return client


def ask(client: Client) -> str | None:
    """:returns: what the answer says of the connection."""
    client.send(GET)
    (answer,) = parse(client.receive())
    assert answer.status in (404, 421)
    return answer.header("connection")


@pytest.mark.parametrize("protocol", [HTTP, WEB])
def test_a_gate_that_ends(tmp_path: Path, log: Log, protocol: str) -> None:
    """A connection that waits for its next request is closed at once, one that has
    not had any after it."""
    running = house_with(tmp_path, protocol)
    assert verifyObject(IRetirable, running.service.runner.epoch.servers[0].gate.application)
    idle, fresh, underway = visitor(running), visitor(running), visitor(running)
    assert ask(idle) is None
    underway.send(GET[:30])
    stopped = running.stop()
    idle.pump()
    assert idle.close_notified
    assert not fresh.close_notified
    assert not underway.close_notified
    underway.send(GET[30:])
    (answer,) = parse(underway.receive())
    assert answer.header("connection") == "close"
    assert underway.close_notified
    assert ask(fresh) == "close"
    assert fresh.close_notified
    for client in (idle, fresh, underway):
        client.close()
    running.reactor.advance(0)
    assert len(stopped) == 1


@pytest.mark.parametrize("protocol", [HTTP, WEB])
def test_another_epoch(tmp_path: Path, log: Log, protocol: str) -> None:
    """The same: a busy client gets to the new one's targets and files before long."""
    running = house_with(tmp_path, protocol)
    client = visitor(running)
    assert ask(client) is None
    running.reload()
    client.pump()
    assert client.close_notified
    again = visitor(running)
    assert [ask(again), ask(again)] == [None, None]
    for one in (client, again):
        one.close()


@pytest.mark.parametrize("fails", [False, True])
def test_what_any_protocol_is_told(tmp_path: Path, log: Log, fails: bool) -> None:
    """That no more connections come, once, and only after the last that it is over; whatever
    it makes of that."""
    running = house_with(tmp_path, 'protocol "echo" {}')
    application = running.service.runner.epoch.servers[0].gate.application
    calls: list[str] = []

    def retire() -> None:
        calls.append("retire")
        if fails:
            raise RuntimeError("it cannot")

    alsoProvides(application, IRetirable)
    application.retire = retire  # type: ignore[attr-defined]
    application.stopFactory = lambda: calls.append("stop")  # type: ignore[attr-defined]
    client = running.enter(pki().client)
    running.reload()
    assert calls == ["retire"]
    client.send(b"still there")
    assert client.receive() == b"still there"
    client.close()
    assert calls == ["retire", "stop"]
    log.expect_failure(*[RuntimeError] * fails)
