"""
asyncio protocols behind a gate in memory: they run in a loop of the test's own, which is
turned until nothing more happens.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from zope.interface import implementer

from mtlsgate.config import Located
from mtlsgate.errors import START
from mtlsgate.gate.authorizer import Authorizer
from mtlsgate.protocols import ProtocolEnvironment
from mtlsgate.protocols.aio.factory import AsyncioServer
from mtlsgate.protocols.aio.transport import GateTransport
from mtlsgate.protocols.web.asgi import AsgiServer, asgi_server
from mtlsgate.protocols.web.configuration import WebConfiguration
from mtlsgate.testing import Authority, Client, Credential, Version
from tests.kits.gate import Log, MemoryGate, logging, rule

#: Turns of the loop in which a task that waits for nothing gets on.
_TURNS = 8

AUTHORITY = Authority.create("Devices")
ALICE = AUTHORITY.issue("alice", dns_names=["alice.example"], uris=["spiffe://td/alice"])


@frozen(eq=False)
class Loop:
    """
    A loop, and a gate whose protocols run in it.

    :ivar log: what was logged.
    :ivar requests: what was logged of HTTP.
    """

    loop: asyncio.AbstractEventLoop
    log: Log
    requests: RequestLog
    clock: Clock = field(factory=Clock)

    def gate(self, make: Callable[[asyncio.AbstractEventLoop], Any], **options: Any) -> MemoryGate:
        """:returns: a gate in front of such protocols."""
        alpn = options.get("alpn", ())
        application = AsyncioServer(make, self.clock, "door", [one.decode() for one in alpn])
        return self.behind(application, **options)

    def behind(self, application: Any, **options: Any) -> MemoryGate:
        """:returns: a gate in front of a factory."""
        rules = options.pop("rules", [rule(ca=AUTHORITY)])
        return MemoryGate(rules, self.log, application, clock=self.clock, **options)

    def serve(
        self, application: Any, directory: Path = Path(), **attributes: Any
    ) -> tuple[MemoryGate, AsgiServer]:
        """
        :param attributes: those of the ``protocol`` block, and ``gate``, what a `MemoryGate`
            takes.
        :returns: a gate in front of an ASGI application, and its server.
        """
        options = attributes.pop("gate", {})
        server_names = attributes.pop("server_names", ())
        named = Located("app:app", START)
        configuration = WebConfiguration(asgi=named, **attributes)
        environment = ProtocolEnvironment(
            "door", directory, lambda: self.clock, server_names=server_names
        )
        server = asgi_server(named, application, configuration, environment)
        rules = options.pop("rules", [rule(ca=AUTHORITY)])
        alpn = tuple(server.acceptableProtocols())
        gate = MemoryGate(rules, self.log, server, clock=self.clock, alpn=alpn, **options)
        gate.entrance.start()
        return gate, server

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

    def say_without_reading(self, client: Client, data: bytes) -> None:
        """Send bytes, and take no answer."""
        self.run(lambda: client.send(data), client)

    @property
    def log_of_web(self) -> list[LogEvent]:
        """The events of requests."""
        return self.requests.events

    def settle(self, client: Client) -> None:
        """Let what is due happen."""
        self.run(lambda: None, client)


@implementer(ILogObserver)
class RequestLog:
    """
    Keeps what is logged of requests.

    :ivar events: an event for each.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "mtlsgate.web" and "log_failure" not in event:
            self.events.append(event)


@contextmanager
def running() -> Iterator[Loop]:
    """A loop for a test.  At its end no task may be left, and nothing unexpected may have
    been logged."""
    loop = asyncio.new_event_loop()
    unhandled: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    requests = RequestLog()
    globalLogPublisher.addObserver(requests)
    with logging() as log:
        try:
            yield Loop(loop, log, requests)
        finally:
            globalLogPublisher.removeObserver(requests)
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
        assert left == set()
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
