"""
Who does not read stops who sends: an exchange as a producer for either side.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

if TYPE_CHECKING:
    from mtlsgate.protocols.http.exchange import Exchange


@implementer(IPushProducer)
class Download:
    """The response, as a producer for the client's connection."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def pauseProducing(self) -> None:
        """The client takes no more for now."""
        self._exchange.client_slow(True)

    def resumeProducing(self) -> None:
        """It does again."""
        self._exchange.client_slow(False)

    def stopProducing(self) -> None:
        """The connection is lost, of which the channel tells."""


@implementer(IPushProducer)
class Upload:
    """The request's body, as a producer for the target's connection."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def pauseProducing(self) -> None:
        """The target takes no more for now."""
        self._exchange.target_slow(True)

    def resumeProducing(self) -> None:
        """It does again."""
        self._exchange.target_slow(False)

    def stopProducing(self) -> None:
        """The connection is lost, of which itself tells."""
