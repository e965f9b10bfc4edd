"""
Reloads with several workers, when something does not do its part: in memory, but for the
sockets between processes.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from mtlsgate.clock import utc_now
from mtlsgate.gate.events import Reload
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.history import History
from mtlsgate.observe.observers import Observers
from mtlsgate.run.sockets import Sockets
from mtlsgate.workers import epochs as module
from mtlsgate.workers.board import Board
from mtlsgate.workers.channel import Refused
from mtlsgate.workers.crew import Crew
from mtlsgate.workers.epochs import Epochs
from mtlsgate.workers.preparing import await_prepared, pair, prepare

T = TypeVar("T")


@define
class MemoryWorker:
    """
    The channel to a worker in memory.

    :ivar refuses: the question that it cannot answer.
    :ivar asked: the questions so far.
    :ivar is_cut: whether it was given up.
    """

    refuses: str = ""
    asked: list[str] = field(factory=list)
    is_cut: bool = False

    def give(self, name: str, descriptor: int) -> Deferred[object]:
        return succeed({})

    def cut(self) -> None:
        self.is_cut = True

    def ask(self, name: str, **values: object) -> Deferred[object]:
        self.asked.append(name)
        return fail(Refused("it fell over")) if name == self.refuses else succeed({"changes": []})


class Here:
    """
    A supervisor with two workers.

    :ivar orders: the spawner's end of the socket of orders.
    :ivar told: what listeners are told of reloads.
    :ivar prepares: whether the process that loads the configuration does so.
    """

    def __init__(self, config: Path) -> None:
        self.names = [str(config)]
        self.prepares = True
        self.told: list[str] = []
        self.reactor = Reactor()
        self.workers = [MemoryWorker(), MemoryWorker()]
        self.board = Board.create(2)
        self.crew = Crew(2, self.board, self.reactor, lambda _: None, lambda _: None)
        ours, self.orders = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.orders.setblocking(False)
        self.crew.spawner.adopt(ours)
        for number, (member, worker) in enumerate(
            zip(self.crew.members, self.workers, strict=True)
        ):
            member.state, member.number = "running", 1000 + number
            member.channel = cast(Any, worker)
        ours, theirs = pair()
        with ours, theirs:
            prepare(theirs, self.names)
            prepared = await_prepared(ours, os.open)
        self.epochs = Epochs(
            self.names,
            prepared,
            prepared.outline(self.names),
            {},
            Sockets(),
            self.crew,
            Observers(
                history=History(self.reactor.seconds, utc_now), changes=Changes(self.reactor)
            ),
            (),
            os.open,
            self.reactor,
            self.in_thread,
            [self],
        )

    def reload_began(self) -> None:
        """As the service manager is told."""
        self.told.append("began")

    def reload_ended(self, reload: Reload) -> None:
        """As the service manager is told."""
        self.told.append(f"epoch {reload.number}")

    def close(self) -> None:
        """Close what it has open."""
        self.epochs.stop_listening()
        self.crew.spawner.stop()
        self.orders.close()
        os.close(self.epochs.files)
        os.close(self.board.descriptor)

    def in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        """Let the other process act first."""
        for _, descriptors in self.ordered():
            end = socket.socket(fileno=descriptors[0])
            if self.prepares:
                prepare(end, self.names)
                end.close()
                continue
            # It holds its end, and says nothing.
            with end:
                return maybeDeferred(function)
        return maybeDeferred(function)

    def ordered(self) -> Iterator[tuple[bytes, list[int]]]:
        """:returns: what the spawner was told, with descriptors, since the last time."""
        while True:
            try:
                said, descriptors, _, _ = socket.recv_fds(self.orders, 65536, 4)
            except BlockingIOError:
                return
            yield said, list(descriptors)

    def reload(self) -> Reload:
        found: list[Reload] = []
        self.epochs.reload().addCallback(found.append)
        [report] = found
        return report


class Reactor(Clock):
    """Watches nothing."""

    def addReader(self, reader: object) -> None:
        """The test reads."""

    def removeReader(self, reader: object) -> None:
        """The test reads."""


@pytest.fixture
def here(demo: Path) -> Iterator[Here]:
    made = Here(demo / "gate.hcl")
    yield made
    made.close()


def test_a_reload_reaches_all_workers(here: Here) -> None:
    """First all prepare it, then all take it over."""
    report = here.reload()
    assert (report.problems, report.number) == ((), 2)
    assert [one.asked for one in here.workers] == [["prepare", "take_over"]] * 2
    assert here.told == ["began", "epoch 2"]


def test_a_worker_that_refuses_keeps_the_epoch_from_all(here: Here) -> None:
    """Nothing changes anywhere, and what the others prepared is discarded."""
    here.workers[1].refuses = "prepare"
    report = here.reload()
    assert report.problems == ("worker 2: it fell over",)
    assert (here.epochs.number, report.number) == (1, 1)
    assert here.workers[0].asked == ["prepare", "discard"]
    assert here.told == ["began", "epoch 1"]


def test_a_worker_that_does_not_take_over_is_ended(here: Here) -> None:
    """It would go on to admit clients by the epoch before: another takes its place."""
    here.workers[1].refuses = "take_over"
    with capturedLogs() as told:
        report = here.reload()
    assert (report.problems, report.number) == ((), 2)
    assert [said for said, _ in here.ordered()] == [b'{"number": 1001, "job": "kill"}']
    text = "worker 2 did not take over epoch 2, and is ended: it fell over"
    assert text in map(formatEvent, told)
    assert [one.is_cut for one in here.workers] == [False, True]


def test_a_configuration_that_never_loads(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reload fails, the process that hangs is ended, and the next reload succeeds."""
    monkeypatch.setattr(module, "PREPARED_WITHIN", 0.01)
    here.prepares = False
    report = here.reload()
    assert "does not come to an end" in report.problems[0]
    assert [said for said, _ in here.ordered()] == [b'{"number": 1, "job": "kill"}']
    here.prepares = True
    monkeypatch.setattr(module, "PREPARED_WITHIN", 60.0)
    assert here.reload().number == 2
