"""
Another authorizer by a reload: whoever comes in afterwards comes in by that one.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
from twisted.internet.defer import Deferred

from mtlsgate.reasons import Reason
from mtlsgate.testing import Client, Version
from tests.kits.gate import Log
from tests.kits.service import ALICE, MemoryService, server, today


class Asked(ModuleType):
    """
    Authorizers.

    :ivar names: those that were asked, in order.
    :ivar pending: what ``later`` and ``later_too`` will answer.
    """

    def __init__(self) -> None:
        super().__init__("asked")
        self.names: list[str] = []
        self.pending: list[Deferred[bool]] = []

    def yes(self, peer: object) -> bool:
        self.names.append("yes")
        return True

    def no(self, peer: object) -> bool:
        self.names.append("no")
        return False

    def later(self, peer: object) -> Deferred[bool]:
        self.names.append("later")
        self.pending.append(Deferred())
        return self.pending[-1]

    def later_too(self, peer: object) -> Deferred[bool]:
        self.names.append("later_too")
        self.pending.append(Deferred())
        return self.pending[-1]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    module = Asked()
    monkeypatch.setitem(sys.modules, "asked", module)
    return module


def asks(authorizer: str | None) -> str:
    """:returns: a configuration with that authorizer."""
    return server(more="" if authorizer is None else f'authorize = "asked:{authorizer}"')


def knocking(running: MemoryService, version: Version) -> Client:
    """:returns: a client that has only said hello."""
    client = running.connect(ALICE, min_version=version, max_version=version)
    client.step()
    return client


@pytest.mark.parametrize("before", [None, "yes"])
def test_in_the_middle_of_the_handshake(
    tmp_path: Path, log: Log, version: Version, asked: Asked, before: str | None
) -> None:
    """The new one is asked, and not the old one."""
    running = today(tmp_path, asks(before))
    client = knocking(running, version)
    assert running.reload(asks("no")).problems == ()
    client.send(b"knock")
    assert asked.names == ["no"]
    assert not client.established
    assert log.events[-1]["reason"] == Reason.NOT_AUTHORIZED


@pytest.mark.parametrize("answer", [True, False])
def test_while_the_old_one_thinks(
    tmp_path: Path, log: Log, version: Version, asked: Asked, answer: bool
) -> None:
    """What it says afterwards admits nobody: the new one is asked as well."""
    running = today(tmp_path, asks("later"))
    client = knocking(running, version)
    client.send(b"knock")
    assert running.reload(asks("later_too")).problems == ()
    [first] = asked.pending
    first.callback(True)
    client.pump()
    assert asked.names == ["later", "later_too"]
    assert client.receive() == b""
    asked.pending[-1].callback(answer)
    assert client.receive() == (b"knock" if answer else b"")
    assert client.established is answer


@pytest.mark.parametrize("after", ["later", None])
def test_the_same_one_is_asked_once(
    tmp_path: Path, log: Log, version: Version, asked: Asked, after: str | None
) -> None:
    """A reload that leaves it as it is, or takes it away, costs no second question."""
    running = today(tmp_path, asks("later"))
    client = knocking(running, version)
    client.send(b"knock")
    assert running.reload(asks(after)).problems == ()
    [first] = asked.pending
    first.callback(True)
    assert client.receive() == b"knock"
    assert asked.names == ["later"]
