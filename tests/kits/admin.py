"""
A gate that can be asked in memory: its epoch, its connections, its admin site.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.testing import MemoryReactorClock, StringTransport

from mtlsgate.admin.guard import Guard
from mtlsgate.admin.resource import AdminResource
from mtlsgate.admin.routes import ALL_ROUTES, RouteName
from mtlsgate.admin.site import AdminSite
from mtlsgate.gate.connections import Connections
from mtlsgate.http.connection import HttpConnection
from mtlsgate.interfaces import IGate
from mtlsgate.load.epoch import Epoch
from mtlsgate.load.shadow import load_shadow
from mtlsgate.load.surroundings import Surroundings
from mtlsgate.observe.changes import Changes
from mtlsgate.observe.counts import Counts
from mtlsgate.observe.history import History
from mtlsgate.observe.metrics import Metrics
from mtlsgate.observe.observers import Observers
from mtlsgate.run.control import Control, GateHandle
from mtlsgate.run.names import configured_names
from mtlsgate.run.shadow_control import ShadowControl
from mtlsgate.run.status_taker import Process, StatusTaker
from mtlsgate.testing import Client, Credential
from mtlsgate.upstream.state import TargetStates
from tests.kits.pki import NOW, Site, server, site
from tests.kits.service import MemorySockets, service_of

PORT = 9090


class Running:
    """
    A gate whose clock is a test's, and which listens nowhere.

    :ivar site: its directory.
    :ivar service: the gate.
    :ivar recent: its rejections.
    :ivar control: what the admin endpoint has of it.
    :ivar shadow: puts configurations in the shadow.
    :ivar ended: how often it was told to end.
    """

    def __init__(self, directory: Path, text: str = "", now: datetime = NOW) -> None:
        self.site: Site = site(directory)
        self.clock = MemoryReactorClock()
        self.text = text or server(label='"door"')
        states = TargetStates()

        def load(text: str) -> Epoch:
            return self.site.load(text, reactor=lambda _: lambda: self.clock, target_states=states)

        epoch = load(self.text)
        observers = Observers(
            counts=Counts(configured_names(epoch)),
            history=History(self.clock.seconds, lambda: now),
            changes=Changes(self.clock),
        )
        self.recent = observers.recent
        connections = Connections(
            self.clock,
            (observers.counts, observers.recent, observers.history, observers.changes),
            now=lambda: now,
        )
        self.service = service_of(
            epoch,
            MemorySockets(tcp=False),
            self.clock,
            connections,
            lambda is_trial: load(self.site.config.read_text()),
            observers,
        )
        self.service.startService()
        self.ended = 0
        process = Process(
            version="1.2.3", config=str(self.site.config), started=now, began=self.clock.seconds()
        )
        taker = StatusTaker(self.service, process)
        metrics = Metrics(observers.counts, taker.state)
        self.shadow = ShadowControl(
            self.service.shadowing,
            self.service.runner,
            lambda path: load_shadow(path, Surroundings()),
            maybeDeferred,
            str(self.site.config),
        )
        self.control = Control(taker, metrics, maybeDeferred, self._end, self.shadow)

    def _end(self) -> None:
        self.ended += 1
        self.service.runner.drain()

    def client(self, credential: Credential | None, index: int = 0, **options: Any) -> Client:
        """:returns: a client of one of the servers, that has shaken hands."""
        listener = list(self.service.runner.listeners.values())[index]
        client = Client(listener, credential, clock=self.clock, **options)
        client.handshake()
        return client

    def stop(self) -> None:
        """End it, so that nothing is left in the air."""
        self.service.stopService()


class AbortableTransport(StringTransport):
    """
    What a connection writes to.

    :ivar aborted: whether it was ended at once.
    """

    aborted = False

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


@frozen
class Reply:
    """
    :ivar status: of HTTP.
    :ivar phrase: what the status means.
    :ivar headers: by their names in lower case.
    :ivar body: as it came.
    """

    status: int
    phrase: str
    headers: dict[str, str]
    body: bytes

    @property
    def value(self) -> Any:
        """The body, out of JSON."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


@frozen
class Endpoint:
    """
    An admin site in memory.

    :ivar gate: finds the gate.
    :ivar guard: says who is heard.
    :ivar host: where it is; a unix socket where None.
    :ivar routes: which routes there are.
    """

    gate: Callable[[], IGate]
    guard: Guard = Guard()
    clock: MemoryReactorClock = field(factory=MemoryReactorClock)
    host: IAddress = field(factory=lambda: UNIXAddress(b"/run/gate.sock"))
    routes: tuple[RouteName, ...] = ALL_ROUTES
    admin: AdminSite = field(init=False)

    @admin.default
    def _site(self) -> AdminSite:
        return AdminSite(AdminResource(self.gate, self.guard, self.routes), self.clock)

    def connect(self) -> tuple[HttpConnection, AbortableTransport]:
        """:returns: a new connection, and what it writes to."""
        channel = self.admin.buildProtocol(None)
        assert isinstance(channel, HttpConnection)
        transport = AbortableTransport(self.host, IPv4Address("TCP", "127.0.0.1", 40000))
        channel.makeConnection(transport)
        return channel, transport

    def ask(
        self,
        method: str,
        target: str,
        headers: dict[str, str | list[str]] | None = None,
        body: bytes = b"",
    ) -> Reply:
        """:returns: the answer to one request, which is there without a wait."""
        channel, transport = self.connect()
        lines = [f"{method} {target} HTTP/1.1"]
        for name, value in ({"Host": f"localhost:{PORT}"} | (headers or {})).items():
            values = [value] if isinstance(value, str) else value
            lines += [f"{name}: {one}" for one in values]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        channel.dataReceived("\r\n".join([*lines, "", ""]).encode() + body)
        # Some of what is asked for goes on in turn with other things.
        self.clock.pump([0.0] * 5)
        return reply(transport)


def reply(transport: AbortableTransport) -> Reply:
    """:returns: the answer that was written; the connection ends after it."""
    assert transport.disconnecting
    head, _, body = transport.value().partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    pairs = (line.split(": ", 1) for line in rest)
    _, status, phrase = first.split(" ", 2)
    return Reply(int(status), phrase, {name.lower(): value for name, value in pairs}, body)


def running_handle(running: Running) -> GateHandle:
    """:returns: a handle on it."""
    return GateHandle(running.control)
