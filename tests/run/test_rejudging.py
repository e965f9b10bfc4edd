"""What becomes of connected clients when another configuration takes over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twisted.internet.address import IPv4Address

from mtlsgate.gate.terms import Terms
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.testing import Authority, Client, Version
from mtlsgate.tls.judge import Judge
from tests.kits.forgery import resigned
from tests.kits.gate import Log
from tests.kits.pki import pki
from tests.kits.service import (
    ALICE,
    AUDITED,
    ISSUING,
    ROOT,
    RULE,
    MemoryService,
    a_server,
    server,
    today,
)

BOB = ROOT.issue("bob")
DENIED = (
    """deny { common_names = ["alice"] }
    """
    + RULE
)


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """:returns: the paths that were verified again, in order."""
    paths: list[Any] = []
    whole = Judge.again

    def again(self: Judge, path: Any, *more: Any) -> Any:
        paths.append(path)
        return whole(self, path, *more)

    monkeypatch.setattr(Judge, "again", again)
    return paths


def configure(running: MemoryService, text: str) -> None:
    """Begin to reload, and let nothing happen after it."""
    running.configure(text)
    running.service.reloader.reload()


def test_denials_come_before_any_path_is_verified(
    tmp_path: Path, log: Log, verified: list[Any]
) -> None:
    """Whoever is denied goes at once, however many others there are before it."""
    running = today(tmp_path, server())
    others = [running.enter(BOB) for _ in range(20)]
    denied = running.enter(ALICE)
    seen: list[int] = []
    transport = next(iter(reversed(list(running.connections)))).connection
    assert transport is not None
    whole = transport.abortConnection

    def abort() -> None:
        seen.append(len(verified))
        whole()

    transport.abortConnection = abort  # type: ignore[method-assign]
    assert running.reload(server(tls=DENIED)).problems == ()
    denied.pump()
    assert denied.disconnected
    assert seen == [0]
    others[0].send(b"x")
    assert others[0].receive() == b"x"


def test_each_path_is_verified_once(tmp_path: Path, log: Log, verified: list[Any]) -> None:
    """... however many connections there are with it."""
    running = today(tmp_path, server())
    clients = [running.enter(who) for who in (ALICE, BOB) * 5]
    running.reload()
    assert len(verified) == 2
    for client in clients:
        client.send(b"x")
        assert client.receive() == b"x"


def test_whom_the_rules_reject_is_judged_before_the_others(
    tmp_path: Path, log: Log, verified: list[Any]
) -> None:
    """A client whose CA is gone does not wait for all the others to be verified."""
    second = Authority.create("Second")
    running = today(tmp_path, server())
    running.site.write("ca.crt", ROOT.pem + second.pem)
    assert running.reload().problems == ()
    others = [running.enter(ROOT.issue(f"{number}")) for number in range(5)]
    out = second.issue("out")
    clients = [*others, running.enter(out)]
    running.site.write("ca.crt", ROOT.pem)
    assert running.reload().problems == ()
    assert verified[0][0].sha256.hex() == out.sha256
    for client in clients:
        client.pump()
    assert [client.disconnected for client in clients] == [False] * 5 + [True]


def test_a_denial_needs_no_turn_of_the_reactor(tmp_path: Path, log: Log) -> None:
    """Under a flood a turn may take seconds: each client that comes gives judging its
    share, so that a denial takes effect before a second has passed."""
    running = today(tmp_path, server())
    clients = [running.enter(who) for who in (BOB, BOB, ALICE)]
    configure(running, server(tls=DENIED))
    address = IPv4Address("TCP", "192.0.2.1", 1)
    for _ in range(10):
        running.reactor.rightNow += 0.05
        entry = running.connections.arrive("unix:door.sock", "door", Terms(), address)
        assert entry is not None
        running.connections.leave(entry)
    assert [entry.closing is None for entry in running.connections] == [True, True, False]
    clients[2].pump()
    assert clients[2].disconnected


ADMINS = 'client_certificate "admins" { ca_certificate_file = "issuing.crt" }'
USERS = ISSUING.replace("fleet", "users")


def test_what_is_told_is_the_rule_by_which_a_client_is_in_now(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """In the status, to the application, and at the end."""
    running = MemoryService(tmp_path, AUDITED + a_server(rules=ADMINS))
    client: Client = running.enter(pki().client, min_version=version, max_version=version)
    [entry] = running.connections
    assert IVerifiedPeer(entry.connection).rule == "admins"
    assert running.reload(AUDITED + a_server(rules=USERS)).problems == ()
    assert entry.admission is not None
    assert entry.admission.peer is not None
    assert entry.admission.peer.rule == "users"
    assert IVerifiedPeer(entry.connection).rule == "users"
    client.send(b"x")
    assert client.receive() == b"x"
    client.close()
    assert [(one["event"], one.get("rule")) for one in running.audited()] == [
        ("admitted", "admins"),
        ("reload", None),
        ("closed", "users"),
    ]


def test_a_client_that_is_judged_by_a_server_of_another_name(tmp_path: Path, log: Log) -> None:
    """It is counted as that server's, and ends as its."""
    running = MemoryService(tmp_path, AUDITED + a_server(rules=ADMINS))
    client = running.enter(pki().client)
    renamed = a_server("other", rules=ADMINS).replace("other.sock", "door.sock")
    assert running.reload(AUDITED + renamed).problems == ()
    assert running.connections.tallies["other"].counts["admitted"] == 1
    client.close()
    assert running.audited()[-1]["server"] == "other"


def test_a_denied_client_is_known_by_what_its_ca_signed(
    tmp_path: Path, log: Log, version: Version
) -> None:
    """It stays out, and goes if it is in, with whatever fingerprint it gives itself."""
    running = today(tmp_path, server())
    other = resigned(ALICE)
    options = {"min_version": version, "max_version": version}
    clients = [running.enter(who, **options) for who in (ALICE, other, BOB)]
    denied = f'deny {{ sha256 = ["{ALICE.sha256}"] }}\n    {RULE}'
    assert running.reload(server(tls=denied)).problems == ()
    for client in clients:
        client.pump()
    assert [client.disconnected for client in clients] == [True, True, False]
    again = running.connect(other, **options)
    again.send(b"knock")
    assert again.receive() == b""
