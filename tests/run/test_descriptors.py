from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.interfaces import IListeningPort

from mtlsgate.run.descriptors import Descriptors, lowest_free
from tests.kits.gate import Log
from tests.kits.pki import pki
from tests.kits.service import MemoryService, a_server


class Port:
    reading = True

    def stopReading(self) -> None:
        self.reading = False

    def startReading(self) -> None:
        self.reading = True


class Watched:
    """Descriptors whose number can be said."""

    def __init__(self, limit: int = 1000) -> None:
        self.free: int | None = 5
        self.port = Port()
        ports: Any = [self.port]
        self.descriptors = Descriptors(lambda: ports, lambda: self.free, limit)

    def accepts(self, free: int | None) -> bool:
        self.free = free
        self.descriptors.look()
        assert self.port.reading is not self.descriptors.is_scarce
        return self.port.reading


def test_ports_pause_before_the_end() -> None:
    """A quarter before it, and resume when there are some again."""
    watched = Watched(1000)
    assert [watched.accepts(free) for free in (5, 749, 750, 999, None, 750, 749, 5)] == [
        True,
        True,
        False,
        False,
        False,
        False,
        True,
        True,
    ]


def test_no_more_than_some_are_kept() -> None:
    watched = Watched(100_000)
    assert watched.accepts(100_000 - 257)
    assert not watched.accepts(100_000 - 256)


def test_the_lowest_free_one() -> None:
    """Its number tells how many are in use, and asking leaves none open."""
    assert lowest_free() == lowest_free()
    one = os.open(os.devnull, os.O_RDONLY)
    following = lowest_free()
    os.close(one)
    assert following is not None
    assert following > one
    assert lowest_free() == one


@contextmanager
def at_most(count: int) -> Iterator[None]:
    """A process that may have only so many descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_none_left(tmp_path: Path) -> None:
    """... is no exception."""
    taken: list[int] = []
    with at_most(256):
        try:
            with suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            assert lowest_free() is None
        finally:
            for one in taken:
                os.close(one)


def test_a_gate_looks_now_and_then(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = MemoryService(tmp_path, a_server())
    looks: list[str] = []
    port: IListeningPort = running.service.runner._open["unix:door.sock"].port
    for name in ("stopReading", "startReading"):
        monkeypatch.setattr(port, name, lambda name=name: looks.append(name), raising=False)
    descriptors = running.service.runner._descriptors
    monkeypatch.setattr(descriptors, "_next_one", lambda: None)
    for _ in range(8):
        assert looks == []
        running.enter(pki().client)
    assert looks == ["stopReading"]
    running.reactor.advance(1)
    monkeypatch.setattr(descriptors, "_next_one", lambda: 5)
    running.reactor.advance(1)
    assert looks == ["stopReading", "startReading"]


def test_a_port_that_is_opened_meanwhile(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... by a new configuration waits like the others, and resumes with them."""
    running = MemoryService(tmp_path, a_server())
    looks: list[tuple[str, str]] = []
    port = running.service.runner._open["unix:door.sock"].port
    for name in ("stopReading", "startReading"):

        def look(self: Any, name: str = name) -> None:
            [key] = [key for key, one in running.service.runner._open.items() if one.port is self]
            looks.append((name, key))

        monkeypatch.setattr(type(port), name, look, raising=False)
    monkeypatch.setattr(running.service.runner._descriptors, "_next_one", lambda: None)
    running.reactor.advance(1)
    assert running.reload(a_server() + a_server("new")).problems == ()
    assert looks == [("stopReading", "unix:door.sock"), ("stopReading", "unix:new.sock")]
    monkeypatch.setattr(running.service.runner._descriptors, "_next_one", lambda: 5)
    running.reactor.advance(1)
    assert looks[2:] == [("startReading", "unix:door.sock"), ("startReading", "unix:new.sock")]


def test_a_port_that_cannot_be_paused() -> None:
    """... as an endpoint of another kind may have, keeps the others from nothing."""
    watched, paused = Watched(), Port()
    ports: Any = [object(), paused]
    watched.descriptors = Descriptors(lambda: ports, lambda: None, 1000)
    watched.descriptors.look()
    assert watched.descriptors.is_scarce
    assert not paused.reading
