"""
After a switch to another protocol: bytes both ways, and nothing read in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mtlsgate.protocols.http.access import Record
from mtlsgate.protocols.http.connection import TargetConnection

if TYPE_CHECKING:
    from mtlsgate.protocols.http.channel import GateChannel
    from mtlsgate.protocols.http.exchange import Exchange


class Tunnel:
    """
    Joins a client's connection and a target's.

    :ivar _exchange: the request that began it, which is over when this is.
    """

    def __init__(
        self, exchange: Exchange, channel: GateChannel, connection: TargetConnection
    ) -> None:
        self._exchange = exchange
        self._channel = channel
        self._connection = connection

    @property
    def _record(self) -> Record:
        return self._exchange.record

    def from_client(self, data: bytes) -> None:
        """Pass on what the client sent."""
        self._record.bytes_in += len(data)
        self._exchange.progress()
        self._connection.send(data)

    def from_target(self, data: bytes) -> None:
        """Pass on what the target sent."""
        self._record.bytes_out += len(data)
        self._exchange.progress()
        self._channel.write(data)

    def target_left(self) -> None:
        """The target ended its connection: so does the client's, when all is written."""
        self._channel.unregisterProducer()
        self._channel.loseConnection()
        self._exchange.over()

    def client_left(self) -> None:
        """The client ended its connection: so does the target's, when all is written."""
        self._connection.close()
        self._exchange.over()

    def expired(self) -> None:
        """Nothing came for too long."""
        self._record.cause = "nothing came in either direction for too long"
        self._connection.close()
        self._channel.unregisterProducer()
        self._channel.loseConnection()
        self._exchange.over()
