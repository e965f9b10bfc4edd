"""
What fails beside the gate, in an application or an observer, costs what it must
and no more: nobody is let in by it, nobody is counted for ever, and the gate
goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mtlsgate.certificates.certificate import view
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import (
    AdmittedConnection,
    ClosedConnection,
    RejectedConnection,
    Reload,
)
from mtlsgate.gate.limits import Limits
from mtlsgate.gate.terms import Terms
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.reasons import Cause, Reason
from mtlsgate.testing import Authority, Version
from mtlsgate.tls.judge import Judge
from tests.kits.gate import Log, MemoryGate, rule
from tests.kits.other_process import quicker
from tests.kits.pki import pki
from tests.kits.service import PINNED, MemoryService, MemorySocket, a_server

CA = Authority.create("Root")
ALICE, BOB, EVE = CA.issue("alice"), CA.issue("bob"), Authority.create("Other").issue("eve")
STRANGERS = 'client_certificate { leaf_certificate_file = "stranger.crt" }'


class Oops(Exception):
    """What code that is not ours could raise."""


class FailsToEnd(Protocol):
    def connectionLost(self, reason: Failure = connectionDone) -> None:
        raise Oops


class FailsToRead(Protocol):
    def dataReceived(self, data: bytes) -> None:
        raise Oops


@pytest.mark.parametrize("kind", [FailsToEnd, FailsToRead])
@pytest.mark.parametrize("how", ["close", "reset", "abort"])
def test_an_application_that_fails_at_the_end(
    log: Log, version: Version, kind: type[Protocol], how: str
) -> None:
    """Its connection is over all the same, and is counted no more."""
    gate = MemoryGate((rule(ca=CA),), log, Factory.forProtocol(kind), terms=Terms())
    client = gate.connect(ALICE, version)
    client.handshake()
    [entry] = gate.entrance.connections
    gone = gate.entrance.connections.gone()

    def end() -> None:
        if how == "abort":
            gate.entrance.connections.close(entry, Cause.DRAINED)
            client.pump()
        elif how == "close":
            client.send(b"last words")
            client.close()
        else:
            client.reset()

    end()
    if kind is FailsToEnd or how == "close":
        log.expect_failure(Oops)
    assert gone.called
    assert gate.entrance.connections.tallies["door"].counts["admitted"] == 0


class Fails:
    """An observer that fails wherever it is told to."""

    def __init__(self, *where: str) -> None:
        self.where = where

    def _fail(self, where: str) -> None:
        if where in self.where:
            raise Oops

    def admitted(self, connection: AdmittedConnection) -> None:
        self._fail("admitted")

    def rejected(self, connection: RejectedConnection) -> None:
        self._fail("rejected")

    def closed(self, connection: ClosedConnection) -> None:
        self._fail("closed")

    def reloaded(self, reload: Reload) -> None:
        self._fail("reloaded")


class Remembers(Fails):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def _fail(self, where: str) -> None:
        self.told.append(where)


def watched(log: Log, *where: str) -> tuple[MemoryGate, Remembers]:
    """:returns: a door with an observer that fails, and one behind it."""
    remembers = Remembers()
    gate = MemoryGate((rule(ca=CA),), log)
    connections = Connections(gate.clock, [Fails(*where), remembers])
    return MemoryGate((rule(ca=CA),), log, clock=gate.clock, connections=connections), remembers


@pytest.mark.parametrize("where", ["rejected", "closed"])
def test_an_observer_that_fails(log: Log, version: Version, where: str) -> None:
    """The others are told, and the connection is over."""
    gate, remembers = watched(log, where)
    gone = None
    for who in (ALICE, EVE):
        client = gate.connect(who, version)
        client.send(b"knock")
        client.close()
        gone = gate.entrance.connections.gone()
        assert gone.called
    assert remembers.told == ["admitted", "closed", "rejected"]
    log.expect_failure(Oops)


def test_an_observer_that_fails_at_an_admission(log: Log, version: Version) -> None:
    """Nobody is let in of whom it is not known that it stands in the audit log."""
    gate, remembers = watched(log, "admitted")
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    gate.check_turned_away(client)
    assert len(gate.entrance.connections) == 0
    assert remembers.told == ["admitted", "rejected", "closed"]
    log.expect_failure(Oops, Oops)


def test_a_limit_that_another_process_reaches_first(log: Log, version: Version) -> None:
    """Between the last look at the limits and the admission another worker may admit its
    client: then this one does not come in."""
    gate = MemoryGate((rule(ca=CA),), log)
    connections = Connections(gate.clock, [HumanLog()], new_tally=quicker)
    terms = Terms(limits=Limits(max_connections=1))
    gate = MemoryGate((rule(ca=CA),), log, clock=gate.clock, connections=connections, terms=terms)
    client = gate.connect(ALICE, version)
    client.send(b"knock")
    assert gate.verdict().reason is Reason.TOO_MANY_CONNECTIONS
    gate.check_turned_away(client)
    assert len(connections) == 0


def test_an_observer_that_fails_at_a_reload(tmp_path: Path, log: Log) -> None:
    """What came of it is told as it is."""
    running = MemoryService(tmp_path, a_server(), observers=(Fails("reloaded"),))
    report = running.reload(a_server(rules=PINNED))
    assert (report.problems, report.number) == ((), 2)
    log.expect_failure(Oops)


@pytest.fixture
def stuck(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> Iterator[MemoryService]:
    """A gate with two clients, the first of which cannot be ended."""
    running = MemoryService(tmp_path, a_server(rest='idle_timeout = "4s"'))
    clients = running.enter(pki().client), running.enter(pki().other)
    first, _ = running.connections

    def fail() -> None:
        raise Oops

    monkeypatch.setattr(first.connection, "abortConnection", fail)
    yield running
    clients[1].pump()
    assert clients[1].disconnected
    assert [one.arrival.number for one in running.connections] == [1]
    # The gate looks after others still.
    another = running.enter(pki().client)
    running.reactor.pump([1.0] * 8)
    another.pump()
    assert another.disconnected
    assert set(log.failures) == {Oops}
    log.failures.clear()


def test_idle_ones_are_ended(stuck: MemoryService) -> None:
    """... whatever becomes of one of them, now and later."""
    stuck.reactor.pump([1.0] * 8)


def test_all_are_ended_when_the_gate_is_to_end(stuck: MemoryService) -> None:
    stuck.service.runner.close_all()
    stuck.reactor.pump([0.0] * 4)


def test_all_are_judged_again(stuck: MemoryService) -> None:
    stuck.reload(a_server(rules=STRANGERS, rest='idle_timeout = "4s"'))
    stuck.reload(a_server(rest='idle_timeout = "4s"'))


def test_whom_no_one_can_judge(tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who cannot be judged again is not kept, and the others are judged."""
    running = MemoryService(tmp_path, a_server())
    clients = running.enter(pki().client), running.enter(pki().other)
    original = Judge.again

    def again(self: Judge, path: Any, *more: Any) -> Any:
        if path[0] == view(pki().client.certificate):
            raise Oops
        return original(self, path, *more)

    monkeypatch.setattr(Judge, "again", again)
    assert running.reload(a_server(rules=PINNED)).problems == ()
    for client in clients:
        client.pump()
        assert client.disconnected
    log.expect_failure(Oops)


def test_a_listener_that_fails_to_close(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epoch is in force all the same, everywhere and for everybody, and the gate
    ends when it is to."""
    running = MemoryService(tmp_path, a_server("gone") + a_server("door"))
    clients = running.enter(pki().other, "gone"), running.enter(pki().other, "door")

    def fail(self: object) -> None:
        raise Oops

    monkeypatch.setattr(MemorySocket, "close", fail)
    report = running.reload(a_server("door", rules=PINNED))
    assert (report.problems, report.number) == ((), 2)
    for client in clients:
        client.pump()
        assert client.disconnected
    running.enter(pki().client)
    out = running.connect(pki().other)
    out.send(b"knock")
    assert out.receive() == b""
    log.expect_failure(Oops)
    stopped = running.stop()
    running.service.runner.close_all()
    running.reactor.pump([0.0] * 5)
    assert stopped
    log.expect_failure(Oops)
