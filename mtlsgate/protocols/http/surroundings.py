"""
What all exchanges of a server share, as a value.
"""

from __future__ import annotations

from attrs import frozen
from twisted.internet.interfaces import IReactorTime

from mtlsgate.protocols.http.access import AccessLog
from mtlsgate.protocols.http.forwarding import Reserved
from mtlsgate.protocols.http.target_side import Pool


@frozen(kw_only=True)
class Surroundings:
    """
    What all exchanges of a server share.

    :ivar pool: the connections to targets.
    :ivar log: the access log.
    :ivar clock: the reactor.
    :ivar reserved: the names of fields that clients cannot use.
    :ivar response_timeout: seconds for which a target may say and take nothing.
    :ivar websocket_timeout: seconds for which nothing may pass on a WebSocket.
    """

    pool: Pool
    log: AccessLog
    clock: IReactorTime
    reserved: Reserved
    response_timeout: float
    websocket_timeout: float
