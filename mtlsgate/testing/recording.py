"""

A gate from a configuration file, and a protocol that records what comes.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mtlsgate.api.gate import Gate
from mtlsgate.clock import utc_now
from mtlsgate.gate.connections import Connections
from mtlsgate.gate.entrance import Entrance
from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.load.loading import load
from mtlsgate.observe.human_log import HumanLog

__all__ = ["RecordingFactory", "RecordingProtocol", "gate"]


def gate(
    config: str | Path | Gate,
    clock: Clock,
    server: str | None = None,
    *,
    application: IProtocolFactory | Factory[Any] | None = None,
    now: Callable[[], datetime] = utc_now,
) -> Entrance:
    """
    A gate that listens nowhere, for a :class:`Client` to connect to.

    :param config: the configuration file, which is loaded as the gate does; or a gate
        in Python, as it is now.
    :param clock: the reactor of the server and of the protocol behind it.
    :param server: the label of the server, if a file has several.
    :param application: what stands behind a gate in Python; by default a
        `RecordingFactory`.  A file says it in its ``protocol`` block.
    :param now: the time by which certificates are judged; a gate in Python has its own.
    :raises ConfigError: if the configuration is in error.
    :raises ValueError: if it has no such server.
    """
    if isinstance(config, Gate):
        behind = RecordingFactory() if application is None else application
        servers = config.before(behind).epoch(("unix:nowhere",)).servers
    else:
        servers = load(str(config), now=now, reactor=lambda _: lambda: clock).servers
    found = [one for one in servers if server is None or one.gate.name == server]
    if len(found) != 1:
        names = ", ".join(one.gate.name for one in servers)
        raise ValueError(f"say which of these servers is meant: {names}")
    entrance = Entrance.of(found[0].gate, Connections(clock, [HumanLog()]))
    entrance.start()
    return entrance


class RecordingProtocol(Protocol):
    """
    :ivar made: ``connectionMade`` was called.
    :ivar received: every byte that came.
    :ivar lost: why the connection was lost, or ``None`` while it is not.
    :ivar peer: the :class:`~mtlsgate.interfaces.IVerifiedPeer` that the
        transport gave at ``connectionMade``, or ``None``.
    """

    def __init__(self, echo: bool = False) -> None:
        """
        :param echo: send back what comes.
        """
        self._echo = echo
        self.made = False
        self.received = b""
        self.lost: Failure | None = None
        self.peer: IVerifiedPeer | None = None

    def connectionMade(self) -> None:
        self.made = True
        self.peer = IVerifiedPeer(self.transport, None)

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._echo:
            assert self.transport is not None
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason


class RecordingFactory(Factory):
    """
    A factory whose protocols record what happens to them.

    :ivar protocols: every protocol built, in order.
    """

    noisy = False

    def __init__(self, echo: bool = False) -> None:
        """
        :param echo: protocols send back what comes.
        """
        self.protocols: list[RecordingProtocol] = []
        self._echo = echo

    def buildProtocol(self, addr: IAddress | None) -> RecordingProtocol:
        protocol = RecordingProtocol(self._echo)
        protocol.factory = self
        self.protocols.append(protocol)
        return protocol
