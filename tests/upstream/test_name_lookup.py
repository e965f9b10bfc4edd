"""
Names of targets are looked up once for all who ask meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Thread
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IHostnameResolver, IHostResolution, IResolutionReceiver
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mtlsgate.upstream.name_lookup import SharedLookups


@implementer(IHostnameResolver)
@define(eq=False)
class SlowResolver:
    """
    A reactor's resolver that answers when a test says so.

    :ivar asked: who waits, by name.
    """

    asked: list[tuple[str, Any]] = field(factory=list)

    def resolveHostName(
        self,
        receiver: IResolutionReceiver,
        name: str,
        port: int = 0,
        types: Sequence[Any] | None = None,
        semantics: str = "TCP",
    ) -> Any:
        self.asked.append((name, receiver))
        return receiver

    @property
    def nameResolver(self) -> SlowResolver:
        return self

    def answer(self, *hosts: str) -> None:
        """Let the oldest lookup find these addresses."""
        _, receiver = self.asked.pop(0)
        receiver.resolutionBegan(receiver)
        for host in hosts:
            receiver.addressResolved(IPv4Address("TCP", host, 80))
        receiver.resolutionComplete()


class AsInstalled:
    """A reactor that nobody has given another resolver."""

    @property
    def nameResolver(self) -> object:
        return type("GAIResolver", (), {"__module__": "twisted.internet._resolver"})()


@implementer(IResolutionReceiver)
@define(eq=False)
class Receiver:
    """
    :ivar found: the addresses; None until the lookup is complete.
    """

    found: list[str] | None = None
    _so_far: list[str] = field(factory=list)

    def resolutionBegan(self, resolutionInProgress: IHostResolution) -> None:
        assert verifyObject(IHostResolution, resolutionInProgress)

    def addressResolved(self, address: Any) -> None:
        self._so_far.append(address.host)

    def resolutionComplete(self) -> None:
        self.found = self._so_far


def test_all_who_ask_meanwhile_get_one_answer() -> None:
    """A silent name server keeps one thread busy, however many clients come."""
    slow = SlowResolver()
    shared = SharedLookups(slow)
    assert verifyObject(IHostnameResolver, shared)
    receivers = [Receiver() for _ in range(100)]
    for one in receivers:
        shared.resolveHostName(one, "db.example", 80).cancel()
    assert [name for name, _ in slow.asked] == ["db.example"]
    assert receivers[0].found is None
    slow.answer("192.0.2.1", "192.0.2.2")
    assert {tuple(one.found or ()) for one in receivers} == {("192.0.2.1", "192.0.2.2")}


def test_a_later_question_is_asked_anew() -> None:
    """No answer is kept: addresses change.  Another name or port is another question."""
    slow = SlowResolver()
    shared = SharedLookups(slow)
    first, second, other, port = (Receiver() for _ in range(4))
    shared.resolveHostName(first, "db.example", 80)
    shared.resolveHostName(other, "db2.example", 80)
    shared.resolveHostName(port, "db.example", 81)
    slow.answer("192.0.2.1")
    shared.resolveHostName(second, "db.example", 80)
    assert [name for name, _ in slow.asked] == ["db2.example", "db.example", "db.example"]
    slow.answer()
    slow.answer("192.0.2.3")
    slow.answer("192.0.2.4")
    assert [one.found for one in (first, second, other, port)] == [
        ["192.0.2.1"],
        ["192.0.2.4"],
        [],
        ["192.0.2.3"],
    ]


def test_a_system_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks hears that there is no address, and is not left waiting; when there are
    threads again, the name is looked up again."""

    def no_thread(_: Thread) -> None:
        raise RuntimeError("can't start new thread")

    shared = SharedLookups(AsInstalled())
    first, second = Receiver(), Receiver()
    with monkeypatch.context() as scarce:
        scarce.setattr(Thread, "start", no_thread)
        for one in (first, second):
            shared.resolveHostName(one, "db.example", 80)
    assert (first.found, second.found) == ([], [])
    started: list[Thread] = []
    monkeypatch.setattr(Thread, "start", lambda thread: started.append(thread))
    shared.resolveHostName(Receiver(), "db.example", 80)
    assert len(started) == 1
