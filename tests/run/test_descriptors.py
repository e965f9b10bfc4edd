from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mtlsgate.gate.listener import Listener
from mtlsgate.run.descriptors import Descriptors, lowest_free
from tests.kits.gate import Log
from tests.kits.pki import pki
from tests.kits.service import MemoryService, a_server


class Counted:
    reading = True

    def pause(self) -> None:
        self.reading = False

    def resume(self) -> None:
        self.reading = True


class Watched:
    """Descriptors whose number can be said."""

    def __init__(self, limit: int = 1000) -> None:
        self.free: int | None = 5
        self.listener = Counted()
        self.descriptors = Descriptors(lambda: [self.listener], lambda: self.free, limit)

    def accepts(self, free: int | None) -> bool:
        self.free = free
        self.descriptors.look()
        assert self.listener.reading is not self.descriptors.is_scarce
        return self.listener.reading


def test_listeners_pause_before_the_end() -> None:
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


def test_a_connection_that_could_not_be_accepted() -> None:
    """Listeners pause until the next look, whatever that finds."""
    watched = Watched()
    watched.descriptors.exhausted()
    watched.descriptors.exhausted()
    assert not watched.listener.reading
    assert watched.accepts(5)


def reading(running: MemoryService) -> set[str]:
    """:returns: the keys of the listeners that accept connections."""
    readers = running.reactor.getReaders()
    return {one.key for one in readers if isinstance(one, Listener)}


def test_a_gate_looks_now_and_then(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = MemoryService(tmp_path, a_server())
    descriptors = running.service.runner._listeners.descriptors
    monkeypatch.setattr(descriptors, "_next_one", lambda: None)
    for _ in range(8):
        assert reading(running) == {"unix:door.sock"}
        running.enter(pki().client)
    assert reading(running) == set()
    running.reactor.advance(1)
    monkeypatch.setattr(descriptors, "_next_one", lambda: 5)
    running.reactor.advance(1)
    assert reading(running) == {"unix:door.sock"}


def test_a_listener_that_is_opened_meanwhile(
    tmp_path: Path, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """... by a new configuration waits like the others, and resumes with them."""
    running = MemoryService(tmp_path, a_server())
    monkeypatch.setattr(running.service.runner._listeners.descriptors, "_next_one", lambda: None)
    running.reactor.advance(1)
    assert running.reload(a_server() + a_server("new")).problems == ()
    assert reading(running) == set()
    monkeypatch.setattr(running.service.runner._listeners.descriptors, "_next_one", lambda: 5)
    running.reactor.advance(1)
    assert reading(running) == {"unix:door.sock", "unix:new.sock"}
