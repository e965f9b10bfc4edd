"""
``protocol "web"`` in memory: a site behind a gate, clients that speak HTTP to it,
and threads that are none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from attrs import Factory, frozen
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.web.http_headers import Headers
from zope.interface import implementer

from mtlsgate.config import Located, Material
from mtlsgate.errors import START
from mtlsgate.interfaces import IGate, IProtocolEnvironment
from mtlsgate.protocols import no_gate
from mtlsgate.protocols.web import WebConfiguration, plugin, threads, wsgi_call
from mtlsgate.protocols.web.site import WebSite
from mtlsgate.spiffe.agents import Agents
from mtlsgate.testing import Authority, Client, Credential
from mtlsgate.upstream.state import TargetStates
from tests.kits.gate import Log, MemoryGate, rule


class ThreadlessClock(Clock):
    """A reactor of one thread, which is also every other."""

    def callFromThread(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call it."""
        function(*args, **kwargs)


class NoThreads:
    """
    A thread pool that calls functions where it is called, or later.

    :ivar running: it was started, and not stopped.
    :ivar later: call them in `work`.
    """

    def __init__(self, later: bool = False) -> None:
        self.running = False
        self.later = later
        self._calls: list[Callable[[], object]] = []

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        assert self.running
        self.running = False

    def callInThreadWithCallback(
        self, onResult: Callable[[bool, object], object], func: Callable[..., object], *args: object
    ) -> None:
        assert self.running
        self._calls.append(lambda: onResult(True, func(*args)))
        if not self.later:
            self.work()

    def work(self) -> None:
        """Make the calls that are waiting."""
        calls, self._calls = self._calls, []
        for call in calls:
            call()


@implementer(ILogObserver)
class Events(list[LogEvent]):
    """What the web protocol logs."""

    def __call__(self, event: LogEvent) -> None:
        if event.get("log_namespace") == "mtlsgate.web":
            self.append(event)


@contextmanager
def logged() -> Iterator[Events]:
    """Collect until the block ends."""
    events = Events()
    globalLogPublisher.addObserver(events)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(events)


@implementer(IProtocolEnvironment)
@frozen
class Environment:
    """An `IProtocolEnvironment` whose reactor is a clock."""

    reactor: Clock
    directory: Path = Path()
    server: str = "door"
    server_names: tuple[str, ...] = ()
    names_elsewhere: tuple[str, ...] = ()
    client_authentication: str = "required"
    starttls: str | None = None
    gate: Callable[[], IGate] = no_gate
    target_states: TargetStates = Factory(TargetStates)
    agents: Agents = Factory(Agents)

    def read(self, material: Material) -> bytes:
        raise AssertionError("there is none")


@frozen
class Answer:
    """A response, as it came."""

    status: int
    headers: Headers
    body: bytes

    def header(self, name: str) -> str | None:
        """:returns: the value of a header that is there once, or None."""
        values = self.headers.getRawHeaders(name)
        if values is None:
            return None
        (value,) = values
        return value


def parse(data: bytes, heads: int = 0) -> list[Answer]:
    """
    :param heads: how many of the first answers are to HEAD.
    :returns: the responses in what a server sent, which must be whole.
    """
    found: list[Answer] = []
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, head
        first, *lines = head.split(b"\r\n")
        version, status, _ = first.split(b" ", 2)
        assert version in (b"HTTP/1.1", b"HTTP/1.0")
        if status == b"100":
            continue
        headers = Headers()
        for line in lines:
            name, _, value = line.partition(b": ")
            headers.addRawHeader(name, value)
        if len(found) < heads or status in (b"304", b"204"):
            body = b""
        elif headers.hasHeader(b"transfer-encoding"):
            assert not headers.hasHeader(b"content-length")
            body, data = _chunks(data)
        elif headers.hasHeader(b"content-length"):
            (length,) = headers.getRawHeaders(b"content-length", [])
            body, data = data[: int(length)], data[int(length) :]
            assert len(body) == int(length)
        else:
            body, data = data, b""
        found.append(Answer(int(status), headers, body))
    return found


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        body += data[:length]
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
        if length == 0:
            return body, data


class Web:
    """
    A server with ``protocol "web"``.

    :ivar gate: its gate.
    :ivar clock: its reactor.
    :ivar authority: the CA of its clients.
    :ivar pool: what an application runs in.
    """

    def __init__(
        self,
        log: Log,
        monkeypatch: pytest.MonkeyPatch,
        directory: Path = Path(),
        anyone: bool = False,
        **attributes: Any,
    ) -> None:
        self.clock = ThreadlessClock()
        self.authority = Authority.create("Web CA")
        self.pool = NoThreads()
        self.clients: list[Client] = []
        monkeypatch.setattr(threads, "make_pool", lambda threads, name: self.pool)
        monkeypatch.setattr(wsgi_call.Flow, "wait", self._let_clients_read)
        for name in ("wsgi", "resource", "root"):
            if name in attributes:
                attributes[name] = Located(str(attributes[name]), START)
        self.site: IProtocolFactory = plugin.build(
            WebConfiguration(**attributes), Environment(self.clock, directory)
        )
        rules = None if anyone else [rule(ca=self.authority)]
        assert isinstance(self.site, WebSite)
        self.gate = MemoryGate(
            rules,
            log,
            application=self.site,
            clock=self.clock,
            alpn=tuple(self.site.acceptableProtocols()),
        )
        self.site.doStart()

    def client(self, credential: Credential | None = None, **options: Any) -> Client:
        """:returns: a client that was let in."""
        client = self.gate.connect(credential or self.authority.issue("alice"), **options)
        client.handshake()
        assert client.established
        self.clients.append(client)
        return client

    def _let_clients_read(self) -> None:
        """What happens while an application waits: everything else."""
        for client in self.clients:
            while client.step():
                pass

    def ask(
        self,
        target: str = "/",
        *headers: str,
        method: str = "GET",
        body: bytes = b"",
        client: Client | None = None,
    ) -> Answer:
        """:returns: the answer to one request."""
        client = client or self.client()
        client.send(request(target, *headers, method=method, body=body))
        (answer,) = parse(client.receive(), heads=int(method == "HEAD"))
        return answer


def request(target: str = "/", *headers: str, method: str = "GET", body: bytes = b"") -> bytes:
    """:returns: a request as it is sent."""
    lines: Sequence[str] = [f"{method} {target} HTTP/1.1", "Host: gate.example", *headers]
    if body:
        lines = [*lines, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


@contextmanager
def module(name: str, **attributes: object) -> Iterator[None]:
    """A module that can be imported for as long as the block lasts."""
    made = ModuleType(name)
    vars(made).update(attributes)
    sys.modules[name] = made
    try:
        yield
    finally:
        del sys.modules[name]
