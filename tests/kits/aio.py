"""
asyncio protocols behind a gate in memory: they run in a loop of the test's own, which is
turned until nothing more happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from attrs import field, frozen
from twisted.internet.task import Clock

from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.protocols.aio.factory import AsyncioServer
from mtlsgate.protocols.aio.transport import GateTransport
from mtlsgate.testing import Authority, Client, Credential, Version
from tests.kits.gate import MemoryGate, logging, rule

#: Turns of the loop in which a task that waits for nothing gets on.
_TURNS = 8

AUTHORITY = Authority.create("Devices")
ALICE = AUTHORITY.issue("alice", dns_names=["alice.example"], uris=["spiffe://td/alice"])


@frozen(eq=False)
class Loop:
    """
    A loop, and a gate whose protocols run in it.

    :ivar log: what was logged.
    """

    loop: asyncio.AbstractEventLoop
    log: Any
    clock: Clock = field(factory=Clock)

    def gate(self, make: Callable[[asyncio.AbstractEventLoop], Any], **options: Any) -> MemoryGate:
        """:returns: a gate in front of such protocols."""
        alpn = options.get("alpn", ())
        application = AsyncioServer(make, self.clock, "door", [one.decode() for one in alpn])
        rules = options.pop("rules", [rule(ca=AUTHORITY)])
        return MemoryGate(rules, self.log, application, clock=self.clock, **options)

    def authorized(self, ask: Callable[[Any], object]) -> MemoryGate:
        """:returns: a gate that asks such an authorizer."""
        authorizer = Authorizer("ask", ask, 5.0)
        return MemoryGate([rule(ca=AUTHORITY)], self.log, clock=self.clock, authorizer=authorizer)

    def connect(
        self,
        gate: MemoryGate,
        version: Version | None = None,
        credential: Credential | None = ALICE,
        **options: Any,
    ) -> Client:
        """:returns: a client that has shaken hands."""
        found = self.run(lambda: self._connected(gate, version, credential, options))
        assert isinstance(found, Client)
        return found

    def _connected(
        self,
        gate: MemoryGate,
        version: Version | None,
        credential: Credential | None,
        options: dict[str, Any],
    ) -> Client:
        client = gate.connect(credential, version, **options)
        client.handshake()
        return client

    def run(self, function: Callable[[], Any], client: Client | None = None) -> Any:
        """:returns: what a function returns that is called in the loop, which then turns
        until its tasks wait."""
        return self.loop.run_until_complete(self._run(function, client))

    async def _run(self, function: Callable[[], Any], client: Client | None) -> Any:
        found = function()
        # As a client that has just connected.
        pumped = found if client is None and isinstance(found, Client) else client
        for _ in range(_TURNS):
            await asyncio.sleep(0)
            if pumped is not None:
                pumped.pump()
        return found

    def say(self, client: Client, data: bytes) -> bytes:
        """:returns: what a client receives after it sent some bytes."""
        self.run(lambda: client.send(data), client)
        return client.receive()

    def settle(self, client: Client) -> None:
        """Let what is due happen."""
        self.run(lambda: None, client)


@contextmanager
def running() -> Iterator[Loop]:
    """A loop for a test.  At its end no task may be left, and nothing unexpected may have
    been logged."""
    loop = asyncio.new_event_loop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    with logging() as log:
        try:
            yield Loop(loop, log)
            assert asyncio.all_tasks(loop) == set()
        finally:
            loop.close()
    assert unhandled == []


class Recorder(asyncio.Protocol):
    """
    Keeps what happens to it.

    :ivar events: the names of the methods called, data apart.
    """

    transport: GateTransport

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = b""
        self.lost: Exception | None = None
        self.goes_on = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, GateTransport)
        self.transport = transport
        self.events.append("made")

    def data_received(self, data: bytes) -> None:
        self.received += data

    def eof_received(self) -> bool:
        self.events.append("eof")
        return self.goes_on

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = exc
        self.events.append("lost")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")
