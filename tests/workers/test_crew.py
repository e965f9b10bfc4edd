"""
The supervisor's care for its workers, in memory.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.task import Clock
from twisted.test.iosim import FakeTransport, IOPump

from mtlsgate.errors import GateError
from mtlsgate.workers.board import Board
from mtlsgate.workers.channel import Channel, WorkerGone
from mtlsgate.workers.crew import KILLED_AFTER, PING_EVERY, SILENT_AFTER, Crew
from mtlsgate.workers.member import Member


class MemorySpawner:
    """
    Forks nothing.

    :ivar orders: what was ordered.
    :ivar killed: the numbers of those that were killed.
    :ivar is_gone: whether nothing can be ordered.
    """

    def __init__(self) -> None:
        self.orders: list[Mapping[str, Any]] = []
        self.killed: list[int] = []
        self.is_gone = False

    def adopt(self, orders: socket.socket) -> None:
        """Nothing to adopt."""

    def order(self, job: str, facts: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        if self.is_gone:
            raise WorkerGone("gone")
        self.orders.append(facts)
        return len(self.orders)

    def kill(self, number: int) -> None:
        self.killed.append(number)

    def stop(self) -> None:
        self.is_gone = True


class MemoryReactor(Clock):
    """
    Connects each worker to one in memory.

    :ivar workers: the workers' ends, and what moves bytes; the latest last.
    :ivar logs: what gets their logs.
    """

    def __init__(self, handlers: Mapping[str, Callable[..., object]]) -> None:
        super().__init__()
        self.workers: list[tuple[Channel, IOPump]] = []
        self.logs: list[Any] = []
        self._handlers = handlers

    def adoptStreamConnection(self, descriptor: int, family: int, factory: Any) -> None:
        ours = factory.buildProtocol(None)
        if not isinstance(ours, Channel):
            self.logs.append(ours)
            return
        worker = Channel(self._handlers, lambda: None)
        our_end = FakeTransport(ours, isServer=True)
        their_end = FakeTransport(worker, isServer=False)
        ours.makeConnection(our_end)
        worker.makeConnection(their_end)
        self.workers.append((worker, IOPump(worker, ours, their_end, our_end, False)))

    def answer(self, name: str, handler: Callable[..., object]) -> None:
        """What workers answer that are started from now on."""
        self._handlers = {**self._handlers, name: handler}

    def settle(self) -> None:
        """Move bytes until none are left."""
        for _, pump in self.workers:
            while pump.server.is_open and pump.pump():
                pass


class InForce:
    """The epoch in force, with no addresses."""

    def __init__(self) -> None:
        self.lock = DeferredLock()
        self.files = os.open(os.devnull, os.O_RDONLY)
        self.sockets: dict[str, socket.socket] = {}
        self.shadow: tuple[str | None, int | None] = (None, None)

    def order(self, index: int, *, tells: bool) -> Mapping[str, Any]:
        return {"index": index, "tells": tells}


class Here:
    """Two workers."""

    def __init__(self, handlers: Mapping[str, Callable[..., object]]) -> None:
        self.reactor = MemoryReactor({"begin": lambda: None, "ping": lambda: None, **handlers})
        self.spawner = MemorySpawner()
        self.lost: list[int] = []
        self.relayed: list[str] = []
        self.board = Board.create(2)
        self.crew = Crew(
            2,
            self.board,
            self.reactor,
            self.relayed.append,
            lambda member: self.lost.append(member.index),
            cast(Any, lambda *_: self.spawner),
        )
        self.in_force = InForce()
        with socket.socket() as orders:
            self.crew.start(self.in_force, {}, orders)
        self.pump()

    @property
    def log(self) -> Any:
        """What gets the log of the first worker."""
        return self.reactor.logs[0]

    def pump(self) -> None:
        for _ in range(5):
            self.reactor.settle()

    def pass_time(self, seconds: float) -> None:
        """Pass it in steps, and let everybody answer."""
        for _ in range(int(seconds / PING_EVERY)):
            self.reactor.advance(PING_EVERY)
            self.pump()

    def end(self, member: Member) -> None:
        """A worker's process ends."""
        assert member.channel is not None
        member.channel.connectionLost()
        self.pump()
        self.reactor.advance(0)
        self.pump()

    def close(self) -> None:
        os.close(self.in_force.files)
        os.close(self.board.descriptor)


@pytest.fixture
def handlers() -> dict[str, Callable[..., object]]:
    """What the workers answer; a test may change it."""
    return {}


@pytest.fixture
def here(handlers: dict[str, Callable[..., object]]) -> Iterator[Here]:
    found = Here(handlers)
    yield found
    found.close()


def states(here: Here) -> list[str]:
    return [one.state for one in here.crew.members]


def test_a_worker_that_ends_is_replaced(here: Here) -> None:
    """At once; only the first of all logs what the configuration says."""
    assert states(here) == ["running", "running"]
    here.end(here.crew.members[1])
    assert states(here) == ["running", "running"]
    assert here.lost == [1]
    assert [one["tells"] for one in here.spawner.orders] == [True, False, False]
    assert [one.restarts for one in here.crew.members] == [0, 1]


def test_workers_that_never_run_are_started_less_and_less_often(here: Here) -> None:
    """The supervisor does not spin, and says so where it is asked whether it is ready."""
    here.spawner.is_gone = True
    for member in here.crew.members:
        here.end(member)
    for _ in range(10):
        here.reactor.advance(1)
    assert states(here) == ["waiting", "waiting"]
    assert here.crew.not_ready == "worker 1 and worker 2 cannot be kept running: see the log"
    assert sum(one.restarts for one in here.crew.members) < 20
    here.spawner.is_gone = False
    here.pass_time(60)
    assert states(here) == ["running", "running"]
    assert here.crew.not_ready is None


def refuse() -> None:
    """As a worker does whose application fails to start."""
    raise GateError("no database")


@pytest.mark.parametrize("handlers", [{"begin": refuse}])
def test_a_worker_that_refuses_to_begin_at_the_start_is_heard_of(here: Here) -> None:
    """Whoever starts the gate ends it then: the other workers would refuse, too."""
    found: list[str | None] = []
    here.crew.first_attempts.over.addCallback(found.append)
    assert found == ["no database"]


def test_a_worker_that_refuses_to_begin_later_is_tried_again(here: Here) -> None:
    """The others have clients."""
    found: list[str | None] = []
    here.crew.first_attempts.over.addCallback(found.append)
    assert found == [None]
    here.reactor.answer("begin", refuse)
    here.end(here.crew.members[1])
    assert states(here)[0] == "running"
    assert states(here)[1] != "running"
    here.reactor.answer("begin", lambda: None)
    here.pass_time(PING_EVERY)
    assert states(here) == ["running", "running"]


@pytest.mark.parametrize("handlers", [{"begin": lambda: Deferred()}])
def test_a_gate_may_be_ended_before_its_workers_began(here: Here) -> None:
    """Whoever waits for them waits no longer."""
    found: list[object] = []
    here.crew.first_attempts.over.addCallback(found.append)
    here.crew.drain().addCallback(found.append)
    assert found == []
    here.end(here.crew.members[0])
    assert found == [None, None]
    assert len(here.spawner.orders) == 1


@pytest.mark.parametrize("handlers", [{"begin": lambda: Deferred()}])
def test_a_worker_that_is_lost_while_it_begins_is_tried_again(here: Here) -> None:
    """That is no refusal: nobody knows why."""
    found: list[object] = []
    here.crew.first_attempts.over.addCallback(found.append)
    for _ in range(2):
        assert found == []
        here.end(next(one for one in here.crew.members if one.channel is not None))
    assert found == [None]
    assert states(here)[0] == "starting"


@pytest.mark.parametrize("handlers", [{"ping": lambda: Deferred()}])
def test_a_worker_that_does_not_answer_is_ended(here: Here) -> None:
    """First it is called silent, after a minute it is killed."""
    here.pass_time(SILENT_AFTER)
    assert all(map(here.crew.is_silent, here.crew.members))
    assert here.spawner.killed == []
    here.pass_time(KILLED_AFTER)
    assert {1, 2} <= set(here.spawner.killed)


@pytest.mark.parametrize("handlers", [{"ping": lambda: Deferred()}])
def test_a_worker_that_cannot_be_killed_is_replaced(here: Here) -> None:
    """The process that forked it is gone, and another one in its place."""
    here.pass_time(KILLED_AFTER + PING_EVERY)
    assert here.lost == [0, 1]
    assert len(here.spawner.orders) == 4
    assert [one.restarts for one in here.crew.members] == [1, 1]


def test_workers_outlive_a_standstill_of_all(here: Here) -> None:
    """A container that was frozen goes on with all its connections: the workers could not
    answer, and the supervisor could not ask."""
    here.pass_time(PING_EVERY)
    here.reactor.advance(2 * KILLED_AFTER)
    here.pump()
    here.pass_time(SILENT_AFTER)
    assert here.spawner.killed == []
    assert not any(map(here.crew.is_silent, here.crew.members))


@pytest.mark.parametrize("handlers", [{"status": lambda: Deferred()}])
def test_nobody_waits_for_long(here: Here) -> None:
    """Who does not answer is left out."""
    answers: list[object] = []
    here.crew.ask_all("status").addCallback(answers.append)
    here.pump()
    assert answers == []
    here.pass_time(PING_EVERY)
    assert answers == [[]]


@pytest.mark.parametrize("handlers", [{"ping": lambda: "no target of door is up"}])
def test_the_gate_is_not_ready_if_no_worker_is(here: Here) -> None:
    """What they say last counts."""
    assert here.crew.not_ready == "no target of door is up"


def test_a_line_of_the_log_without_end(here: Here) -> None:
    """The supervisor keeps no more of it than of a long line."""
    here.log.dataReceived(b"one\ntwo")
    assert here.relayed == ["one\n"]
    for _ in range(64):
        here.log.dataReceived(b"x" * 2**16)
    assert sum(map(len, here.relayed)) > 2**21


@pytest.mark.parametrize("handlers", [{"drain": lambda: None}])
def test_the_last_worker_ends_the_gate(here: Here) -> None:
    """And nobody is replaced any more."""
    drained: list[None] = []
    here.crew.drain().addCallback(drained.append)
    here.pump()
    for member in here.crew.members:
        assert drained == []
        here.end(member)
    assert drained == [None]
    assert len(here.spawner.orders) == 2


def test_a_worker_waits_while_another_epoch_takes_over(here: Here) -> None:
    """It begins with the epoch that won."""
    reloading: Deferred[None] = Deferred()
    here.in_force.lock.run(lambda: reloading)
    here.end(here.crew.members[0])
    assert len(here.spawner.orders) == 2
    reloading.callback(None)
    here.pump()
    assert len(here.spawner.orders) == 3
