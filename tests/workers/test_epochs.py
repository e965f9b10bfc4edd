"""
One epoch everywhere, in memory: all workers take over, or none does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock

from mtlsgate.clock import utc_now
from mtlsgate.gate.events import Reload
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.history import History
from mtlsgate.observe.observers import Observers
from mtlsgate.workers.channel import Refused
from mtlsgate.workers.epochs import Epochs
from mtlsgate.workers.preparing import prepare, prepare_in_child
from tests.kits.service import MemorySocket, MemorySockets, server, today

OTHER = server("hatch")


class MemorySpawner:
    """Prepares in this process."""

    def order(self, job: str, facts: Mapping[str, Any], descriptors: Sequence[int]) -> int:
        with socket.socket(fileno=os.dup(descriptors[0])) as end:
            prepare(end, facts["names"])
        return 1


class MemoryMember:
    """
    A worker.

    :ivar given: the names of what was passed to it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.given: list[str] = []
        self.channel = self

    def give(self, name: str, descriptor: int) -> Deferred[None]:
        self.given.append(name)
        return succeed(None)


class MemoryCrew:
    """
    Two workers.

    :ivar asked: what they were asked, with the names of those who were.
    :ivar answers: by question and worker; what is not there is what a good worker says.
    """

    def __init__(self) -> None:
        self.spawner = MemorySpawner()
        self.running = [MemoryMember("worker 1"), MemoryMember("worker 2")]
        self.asked: list[str] = []
        self.answers: dict[tuple[str, str], object] = {}

    def gather(self, name: str, members: Any = None, **_: object) -> Deferred[Any]:
        asked = self.running if members is None else members
        self.asked += [f"{name} {one.name}" for one in asked]
        good = {"changes": ("something",), "dropped": ("alice",)}
        return succeed([(one, self.answers.get((name, one.name), good)) for one in asked])


class Here:
    """A supervisor's epochs."""

    def __init__(self, directory: Path) -> None:
        self.site = today(directory, server()).site
        self.crew, self.sockets = MemoryCrew(), MemorySockets()
        clock = Clock()
        self.observers = Observers(history=History(clock.seconds, utc_now), changes=Changes(clock))
        names = [str(self.site.config)]
        prepared = prepare_in_child(names, os.open, lambda _: None)
        self.epochs = Epochs(
            names,
            prepared,
            prepared.outline(names),
            {"unix:door.sock": cast(Any, MemorySocket("unix:door.sock"))},
            self.sockets,
            cast(Any, self.crew),
            self.observers,
            [],
            os.open,
            clock,
            maybeDeferred,
        )

    def reload(self, text: str, *, is_trial: bool = False) -> Reload:
        self.site.write("gate.hcl", text)
        found: list[Reload] = []
        self.epochs.reload(is_trial=is_trial).addCallback(found.append)
        [report] = found
        return report


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    found = Here(tmp_path)
    yield found
    os.close(found.epochs.files)


def test_all_prepare_before_any_takes_over(here: Here) -> None:
    """And all get the files and the new socket first."""
    report = here.reload(server() + OTHER)
    assert (report.problems, report.number, report.changes) == ((), 2, ("something",))
    assert here.crew.asked == [
        "prepare worker 1",
        "prepare worker 2",
        "take_over worker 1",
        "take_over worker 2",
    ]
    assert [one.given for one in here.crew.running] == [["socket:unix:hatch.sock", "files"]] * 2
    assert set(here.epochs.sockets) == {"unix:door.sock", "unix:hatch.sock"}


def test_if_one_refuses_none_takes_over(here: Here) -> None:
    """Whoever had prepared discards it, and new addresses are released."""
    here.crew.answers["prepare", "worker 2"] = Refused("no room")
    before = here.epochs.files
    report = here.reload(server() + OTHER)
    assert (report.problems, report.number) == (("worker 2: no room",), 1)
    assert here.crew.asked[2:] == ["discard worker 1", "discard worker 2"]
    assert here.sockets.made[-1].is_closed
    assert set(here.epochs.sockets) == {"unix:door.sock"}
    assert here.epochs.files == before


def test_workers_never_hear_of_what_is_wrong(here: Here) -> None:
    """The process that loads says it, and the files count as seen."""
    report = here.reload(server().replace("ca.crt", "missing.crt"))
    assert '"missing.crt" no such file' in report.problems[0]
    assert here.crew.asked == []
    assert here.site.directory / "missing.crt" in here.epochs.seen


def test_a_worker_that_ends_meanwhile_does_not_matter(here: Here) -> None:
    """Its successor begins with the epoch that won."""
    here.crew.running.pop()
    assert here.reload(server() + OTHER).number == 2
    here.crew.running.clear()
    assert here.reload(server()).number == 3
    assert set(here.epochs.sockets) == {"unix:door.sock"}


def test_a_dry_run_changes_nothing(here: Here) -> None:
    """It tells what all workers would drop."""
    report = here.reload(server() + OTHER, is_trial=True)
    assert (report.number, report.dropped) == (1, ("alice", "alice"))
    assert here.crew.asked == ["dropped worker 1", "dropped worker 2"]
    assert here.epochs.last is None


def test_a_gate_that_ends_takes_nothing_over(here: Here) -> None:
    """Its addresses are released already."""
    here.epochs.stop_listening()
    assert here.reload(server() + OTHER).problems == ("the gate is ending",)
    assert here.epochs.sockets == {}
