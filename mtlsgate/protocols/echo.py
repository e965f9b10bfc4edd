"""
``protocol "echo"``: every byte comes back.

Backpressure works: if a client does not read, the gate stops reading from it.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.interfaces import IProtocolFactory, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from mtlsgate.interfaces import IProtocolEnvironment, IProtocolPlugin
from mtlsgate.protocols.needs import NeedsNothing


@implementer(IPushProducer)
class Echo(Protocol):
    """Writes what it reads, and pauses reading while the client does not take it."""

    transport: Any

    def connectionMade(self) -> None:
        """Let the transport say when to stop reading."""
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Send it back."""
        self.transport.write(data)

    def pauseProducing(self) -> None:
        """Stop reading: the client does not take what was written."""
        self.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """Read again."""
        self.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The client will take no more."""
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Let go of the transport."""
        self.transport.unregisterProducer()


@frozen
class EchoConfiguration:
    """No attributes."""


@implementer(IProtocolPlugin)
@frozen
class EchoPlugin(NeedsNothing):
    """The plugin behind ``protocol "echo"``."""

    name: str = "echo"
    configuration: type = EchoConfiguration

    def build(
        self, configuration: EchoConfiguration, environment: IProtocolEnvironment
    ) -> IProtocolFactory:
        """:returns: a factory of `Echo`."""
        factory = Factory.forProtocol(Echo)
        factory.noisy = False
        return factory


plugin = EchoPlugin()
