"""
``protocol "http"`` in memory: a gate with a client's TLS in front of it, and
behind it targets whose bytes a test reads and writes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IReactorTCP
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.config import Located, PeerText
from mtlsgate.config.expressions import Scope
from mtlsgate.config.peer import peer_text
from mtlsgate.config.syntax import parse
from mtlsgate.errors import START, Report
from mtlsgate.protocols import ProtocolEnvironment
from mtlsgate.protocols.http.configuration import HttpConfiguration
from mtlsgate.protocols.http.plugin import HttpFactory, plugin
from mtlsgate.testing import Authority, Client, Credential, MemoryTransport
from tests.kits.gate import Log, MemoryGate, rule

TARGET = "127.0.0.1:9000"


class Backend:
    """
    One connection to a target.

    :ivar transport: the gate's end.
    :ivar port: of the target.
    :ivar answered: how many requests a test has answered, if it counts.
    """

    def __init__(self, transport: MemoryTransport, port: int) -> None:
        self.transport = transport
        self.port = port
        self.answered = 0
        self._received = b""

    def received(self) -> bytes:
        """:returns: everything that came, from the first byte on."""
        self._received += self.transport.take()
        return self._received

    @property
    def requests(self) -> int:
        """How many heads have begun."""
        return len(re.findall(rb"(?m)^[A-Z]+ \S+ HTTP/1\.1\r$", self.received()))

    def send(self, data: bytes) -> None:
        self.transport.deliver(data)

    @property
    def open(self) -> bool:
        return self.transport.connected and not self.transport.disconnecting


@implementer(IReactorTCP)
class MemoryReactor(Clock):
    """
    A reactor whose connections are `Backend` objects.

    :ivar backends: every connection made, in order.
    :ivar refusing: the ports that refuse connections.
    :ivar hanging: the ports that do not answer.
    """

    def __init__(self) -> None:
        super().__init__()
        self.backends: list[Backend] = []
        self.refusing: set[int] = set()
        self.hanging: set[int] = set()

    def listenTCP(self, *arguments: object, **named: object) -> Any:
        raise NotImplementedError

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: Any = None
    ) -> Any:
        address = IPv4Address("TCP", host, port)
        connector = _Connector(address)
        factory.doStart()
        factory.startedConnecting(connector)
        if port in self.refusing:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
        elif port not in self.hanging:
            transport = MemoryTransport(self, address, address)
            self.backends.append(Backend(transport, port))
            assert transport.accept(factory)
        return connector


@frozen
class _Connector:
    address: IPv4Address

    def getDestination(self) -> IPv4Address:
        return self.address

    def stopConnecting(self) -> None:
        """Nobody is told."""

    def disconnect(self) -> None:
        """Nobody is told."""


@implementer(ILogObserver)
class HttpLog:
    """
    :ivar events: what ``mtlsgate.http`` logged.
    """

    def __init__(self) -> None:
        self.events: list[LogEvent] = []

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "mtlsgate.http":
            self.events.append(event)

    @property
    def requests(self) -> list[LogEvent]:
        """The access log."""
        return [one for one in self.events if "duration" in one]

    @property
    def failures(self) -> list[LogEvent]:
        """What went wrong behind the gate."""
        return [one for one in self.events if "duration" not in one]


@frozen
class Response:
    """
    :ivar fields: names in lower case, in order.
    :ivar body: as it was sent, chunks and all.
    """

    status: int
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def __getitem__(self, name: str) -> str:
        [value] = [value for each, value in self.fields if each == name]
        return value

    def __contains__(self, name: object) -> bool:
        return any(each == name for each, _ in self.fields)


def read_response(data: bytes) -> Response:
    """:returns: the response that the bytes are, with all that follows as its body."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    found = re.match(r"HTTP/1\.[01] ([0-9]{3})", first)
    assert found is not None, data
    pairs = (line.partition(": ") for line in lines)
    return Response(int(found[1]), tuple((name.lower(), value) for name, _, value in pairs), body)


def fields_of(raw: bytes) -> list[tuple[str, str]]:
    """:returns: the header fields of a raw request, as they were sent."""
    lines = raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
    return [(name, value) for name, _, value in (line.partition(": ") for line in lines)]


@define
class HttpGate:
    """
    A gate in memory.

    :ivar credential: what clients show.
    """

    log: Log
    http_log: HttpLog
    reactor: MemoryReactor = field(factory=MemoryReactor)
    authority: Authority = field(factory=lambda: Authority.create("Client CA"))
    gate: MemoryGate = field(init=False)
    factory: HttpFactory = field(init=False)

    def configure(
        self, *targets: str, server_names: Sequence[str] = (), anyone: bool = False, **options: Any
    ) -> HttpGate:
        """Make the gate with these attributes of its block."""
        configuration = HttpConfiguration(target=Located(targets or (TARGET,), START), **options)
        assert list(configuration.problems()) == []
        environment = ProtocolEnvironment(
            "app", Path(), lambda: self.reactor, server_names=tuple(server_names)
        )
        built = plugin.build(configuration, environment)
        assert isinstance(built, HttpFactory)
        self.factory = built
        self.gate = MemoryGate(
            None if anyone else [rule("people", self.authority)],
            self.log,
            application=built,
            clock=self.reactor,
            alpn=tuple(built.acceptableProtocols()),
        )
        return self

    def connect(self, credential: Credential | None = None, **options: Any) -> Client:
        """:returns: a client that was let in."""
        if credential is None and self.gate.rules is not None:
            credential = self.authority.issue("alice", dns_names=["alice.example"])
        client = self.gate.connect(credential, **options)
        client.handshake()
        assert client.established
        return client

    @property
    def backend(self) -> Backend:
        """The only connection to a target."""
        [backend] = self.reactor.backends
        return backend

    def exchange(
        self, request: bytes, response: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    ) -> tuple[bytes, bytes]:
        """:returns: what the target and what the client received."""
        client = self.connect()
        client.send(request)
        backend = self.reactor.backends[-1]
        backend.send(response)
        received = client.receive()
        return backend.received(), received


def observe(log: HttpLog) -> None:
    """Begin to capture."""
    globalLogPublisher.addObserver(log)


def stop_observing(log: HttpLog) -> None:
    """End it."""
    globalLogPublisher.removeObserver(log)


GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode()


def text(expression: str) -> PeerText:
    """:returns: the value of one of ``headers``, as a file has it."""
    body = parse(f"x = {expression}\n".encode(), Report("f"))
    assert body is not None
    return peer_text(body.attributes[0].expression, Scope({}, lambda _: b""), START)
