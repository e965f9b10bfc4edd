"""
For tests of protocols behind the gate: certificates, clients and time, and
all of it in memory.

::

    clock = Clock()
    authority = Authority.create()
    factory = ...  # a server's, made with that clock; trusts authority.certificate
    client = Client(factory, authority.issue("alice"), clock=clock)
    client.handshake()
    client.send(b"hi")
    assert client.receive() == b"hi"

Nothing here opens a socket, sleeps, or imports the reactor.  What happens by
itself happens in :meth:`Client.pump`; after ``clock.advance()``, pump.
"""

from __future__ import annotations

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mtlsgate._client import Client, Session, Version
from mtlsgate._memory import MemoryTransport
from mtlsgate.authority import Authority, Credential, self_signed
from mtlsgate.interfaces import IVerifiedPeer

__all__ = [
    "Authority",
    "Client",
    "Credential",
    "MemoryTransport",
    "RecordingFactory",
    "RecordingProtocol",
    "Session",
    "Version",
    "self_signed",
]


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
