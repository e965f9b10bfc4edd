"""
How many requests and WebSockets there may be at a time.
"""

from __future__ import annotations

from collections import Counter
from hashlib import sha256

from attrs import frozen

from mtlsgate.http.refusal import Refusal
from mtlsgate.http.sides import HttpClient


@frozen(kw_only=True)
class CapacityLimits:
    """
    :ivar requests: that may be underway, of all clients.
    :ivar websockets: that may be open, of all clients.
    :ivar websockets_each: that may be open, of one client.
    """

    requests: int
    websockets: int
    websockets_each: int


class Capacity:
    """
    Counts what is underway.

    :ivar requests: that have no complete response.
    :ivar websockets: that are open, or asked for.
    """

    def __init__(self, limits: CapacityLimits) -> None:
        self.requests = 0
        self.websockets = 0
        self._limits = limits
        self._each: Counter[object] = Counter()

    def enter(self, client: HttpClient, *, upgrading: bool) -> Seat:
        """
        :param upgrading: whether the request asks for a WebSocket.
        :raises Refusal: if there is no room.
        """
        limits = self._limits
        if self.requests >= limits.requests:
            raise Refusal(503, f"there are {limits.requests} requests already")
        key = _key(client) if upgrading else None
        if key is not None:
            if self.websockets >= limits.websockets:
                raise Refusal(503, f"there are {limits.websockets} WebSockets already")
            if self._each[key] >= limits.websockets_each:
                text = f"the client has {limits.websockets_each} WebSockets already"
                raise Refusal(503, text)
            self.websockets += 1
            self._each[key] += 1
        self.requests += 1
        return Seat(self, key)

    def leave_request(self) -> None:
        """A request is over, or became a WebSocket."""
        self.requests -= 1

    def leave_websocket(self, key: object) -> None:
        """A WebSocket is over, or did not come about."""
        self.websockets -= 1
        self._each[key] -= 1
        if not self._each[key]:
            del self._each[key]


class Seat:
    """
    What one request takes up.

    :ivar _is_request: it counts as a request.
    :ivar _key: whose WebSocket it counts as, or None.
    """

    def __init__(self, capacity: Capacity, key: object) -> None:
        self._capacity = capacity
        self._key = key
        self._is_request = True

    def switch(self) -> None:
        """The request became a WebSocket."""
        if self._is_request:
            self._is_request = False
            self._capacity.leave_request()

    def leave(self) -> None:
        """All of it is over."""
        self.switch()
        key, self._key = self._key, None
        if key is not None:
            self._capacity.leave_websocket(key)


def _key(client: HttpClient) -> object:
    """:returns: what is the same for all connections of one client: what its issuer signed,
    since the rest of a certificate can be written in other ways; or its address."""
    if client.peer is not None:
        return sha256(client.peer.leaf.tbs_certificate_bytes).digest()
    return getattr(client.address, "host", None) or str(client.address)
