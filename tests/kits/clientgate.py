"""
A client gate in memory: a program at one end, a TLS server at the other, and its connections
that observers watch.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from attrs import field, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.clientgate.connection import LocalConnection
from mtlsgate.clientgate.entrance import ClientEntrance, Judging
from mtlsgate.clientgate.gate import ClientGate
from mtlsgate.clock import utc_now
from mtlsgate.config import model
from mtlsgate.config.tree import Body
from mtlsgate.errors import START
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.events import (
    AdmittedConnection,
    ClosedConnection,
    RejectedConnection,
    Reload,
)
from mtlsgate.gate.limits import Tally
from mtlsgate.gate.terms import Terms
from mtlsgate.load.addresses import SocketAddress
from mtlsgate.load.clients import LoadedClient
from mtlsgate.observe.human_log import HumanLog
from mtlsgate.run.listening import ClientPlace
from mtlsgate.run.rejudging import Handover
from mtlsgate.testing import Authority, Credential
from mtlsgate.tls.memory_reactor import MemoryReactor
from mtlsgate.tls.memory_socket import MemorySocket
from mtlsgate.upstream.backends import Backends
from mtlsgate.upstream.targets import Listed, Target, parse_target
from mtlsgate.upstream.tls import TlsClient
from tests.kits.upstream import MemoryServer, ScriptedEndpoint

CA = Authority.create("Target CA")
TARGET = CA.issue("gate", dns_names=["gate.example"], usages=["server_auth"])
APP = Authority.create("App CA").issue("app")

_HERE = IPv4Address("TCP", "127.0.0.1", 6379)
#: The key of its listener.
_KEY = "127.0.0.1:6379"
_PROGRAM = IPv4Address("TCP", "127.0.0.1", 50000)


@frozen
class Told:
    """
    What observers were told.

    :ivar admitted: connections that got a target.
    :ivar rejected: those that did not.
    :ivar closed: ends of connections.
    """

    events: list[AdmittedConnection | RejectedConnection | ClosedConnection] = field(factory=list)

    def admitted(self, connection: AdmittedConnection) -> None:
        self.events.append(connection)

    def rejected(self, connection: RejectedConnection) -> None:
        self.events.append(connection)

    def closed(self, connection: ClosedConnection) -> None:
        self.events.append(connection)

    def reloaded(self, reload: Reload) -> None:
        raise AssertionError("nothing reloads here")


class UnixSocket(MemorySocket):
    """One end of a socket pair that looks like a unix socket of some user's program."""

    def __init__(self, descriptor: int, uid: int) -> None:
        super().__init__(descriptor)
        self._uid = uid

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_UNIX

    def getsockopt(self, level: int, name: int, *rest: int) -> int:  # type: ignore[override]
        if (level, name) == (socket.SOL_SOCKET, socket.SO_PEERCRED):
            return struct.pack("3i", 4242, self._uid, 0)  # type: ignore[return-value]
        return super().getsockopt(level, name, *rest)


def tls_client(
    anchors: tuple[Authority, ...] = (CA,),
    credential: Credential | None = APP,
    server_name: str | None = None,
) -> TlsClient:
    """:returns: what a client gate speaks TLS with."""
    shown = (
        None if credential is None else ServerCredential(credential.chain, credential.private_key)
    )
    return TlsClient([one.certificate for one in anchors], shown, server_name)


class Program:
    """A program that is connected to a client gate."""

    def __init__(self, chain: Chain, uid: int | None) -> None:
        ours, theirs = socket.socketpair()
        self._chain = chain
        self._socket = MemorySocket(ours.detach())
        self._socket.setblocking(False)
        descriptor = theirs.detach()
        taken = MemorySocket(descriptor) if uid is None else UnixSocket(descriptor, uid)
        self.connection: LocalConnection | None = chain.entrance.accept(
            taken, _PROGRAM, _HERE, chain.reactor
        )
        self.received = b""
        self.is_over = False
        chain.run()

    def send(self, data: bytes) -> None:
        """Write, and let everybody act."""
        self._socket.sendall(data)
        self._chain.run()

    def finish(self) -> None:
        """End the stream to the client gate."""
        self._socket.shutdown(socket.SHUT_WR)
        self._chain.run()

    def leave(self) -> None:
        """Close the connection."""
        self._socket.close()
        self._chain.run()

    def read(self) -> bytes:
        """:returns: everything that came so far."""
        self._chain.run()
        with suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.recv(2**16)
                except ConnectionResetError:
                    data = b""
                if not data:
                    self.is_over = True
                    break
                self.received += data
        return self.received


class Chain:
    """
    Programs, a client gate and a target.

    :ivar target: the target.
    :ivar told: what observers were told.
    """

    def __init__(
        self,
        target: MemoryServer | ScriptedEndpoint,
        clock: Clock,
        *,
        tls: TlsClient | None = None,
        terms: Terms | None = None,
        uids: frozenset[int] | None = None,
        judging: Judging | None = None,
        now: Callable[[], datetime] = utc_now,
        name: str = "gate.example:8443",
        new_tally: Callable[[str], Tally] = lambda _: Tally(),
    ) -> None:
        self.clock = clock
        self.target = target
        self.reactor = MemoryReactor(clock)
        self.told = Told()
        self.connections = Connections(clock, (self.told, HumanLog()), now, new_tally=new_tally)
        tls = tls_client() if tls is None else tls
        targets = [Listed(parse_target(name))]
        backends = Backends(targets, self.reactor, tls=tls, clock=clock, endpoint=self._endpoint)
        self.gate = ClientGate(
            "redis", (targets[0].target,), backends, tls, terms or Terms(), uids, now
        )
        self.entrance = ClientEntrance("127.0.0.1:6379", self.gate, self.connections, judging)

    def _endpoint(
        self, target: Target, reactor: object, timeout: float
    ) -> MemoryServer | ScriptedEndpoint:
        return self.target

    def connect(self, uid: int | None = None) -> Program:
        """:returns: a program; by a unix socket if it has a user."""
        return Program(self, uid)

    def run(self) -> None:
        """Let everybody act until all is quiet."""
        for _ in range(1000):
            self.clock.advance(0)
            acted = self.reactor.turn()
            if isinstance(self.target, MemoryServer) and self.target.transport is not None:
                self.target.pump()
            if not acted:
                return
        raise AssertionError("the connection never falls quiet")

    @property
    def server(self) -> MemoryServer:
        """The target, if it is a TLS server."""
        assert isinstance(self.target, MemoryServer)
        return self.target


def handover(chain: Chain) -> Handover:
    """:returns: an epoch in which this client gate listens."""
    block = model.Client(at=START, label="redis", body=Body((), ()))
    loaded = LoadedClient(block, (), chain.gate)
    return Handover([ClientPlace(_KEY, SocketAddress("127.0.0.1", 6379), loaded)])


def settle(before: Chain, after: Handover) -> None:
    """Let another epoch judge the connections."""
    for _ in after.settle(before.connections):
        pass
