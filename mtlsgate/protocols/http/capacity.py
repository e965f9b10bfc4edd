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
    :ivar requests_each: that may be underway, of one client; None for any number.
    :ivar websockets: that may be open, of all clients.
    :ivar websockets_each: that may be open, of one client.
    """

    requests: int
    requests_each: int | None = None
    websockets: int
    websockets_each: int


class Capacity:
    """
    Counts what is underway.

    :ivar requests: that have no complete response.
    :ivar websockets: that are open, or asked for.
    :ivar _requests_of: the requests of each client, where that is limited.
    :ivar _websockets_of: the WebSockets of each client.
    """

    def __init__(self, limits: CapacityLimits) -> None:
        self.requests = 0
        self.websockets = 0
        self._limits = limits
        self._requests_of: Counter[object] = Counter()
        self._websockets_of: Counter[object] = Counter()

    def enter(self, client: HttpClient, *, upgrading: bool) -> Seat:
        """
        :param upgrading: whether the request asks for a WebSocket.
        :raises Refusal: if there is no room.
        """
        limits = self._limits
        if self.requests >= limits.requests:
            raise Refusal(503, f"there are {limits.requests} requests already")
        each = limits.requests_each
        key = _key(client) if upgrading or each is not None else None
        if each is not None and self._requests_of[key] >= each:
            raise Refusal(503, f"the client has {each} requests underway already")
        if upgrading:
            if self.websockets >= limits.websockets:
                raise Refusal(503, f"there are {limits.websockets} WebSockets already")
            if self._websockets_of[key] >= limits.websockets_each:
                text = f"the client has {limits.websockets_each} WebSockets already"
                raise Refusal(503, text)
            self.websockets += 1
            self._websockets_of[key] += 1
        self.requests += 1
        if each is not None:
            self._requests_of[key] += 1
        return Seat(self, key, is_websocket=upgrading)

    def leave_request(self, key: object) -> None:
        """A request is over, or became a WebSocket."""
        self.requests -= 1
        if self._limits.requests_each is not None:
            _decrease(self._requests_of, key)

    def leave_websocket(self, key: object) -> None:
        """A WebSocket is over, or did not come about."""
        self.websockets -= 1
        _decrease(self._websockets_of, key)


class Seat:
    """
    What one request takes up.

    :ivar _key: whose it is, where that matters.
    :ivar _is_request: it counts as a request.
    :ivar _is_websocket: it counts as a WebSocket.
    """

    def __init__(self, capacity: Capacity, key: object, *, is_websocket: bool) -> None:
        self._capacity = capacity
        self._key = key
        self._is_request = True
        self._is_websocket = is_websocket

    def switch(self) -> None:
        """The request became a WebSocket."""
        if self._is_request:
            self._is_request = False
            self._capacity.leave_request(self._key)

    def leave(self) -> None:
        """All of it is over."""
        self.switch()
        if self._is_websocket:
            self._is_websocket = False
            self._capacity.leave_websocket(self._key)


def _decrease(counted: Counter[object], key: object) -> None:
    counted[key] -= 1
    if not counted[key]:
        del counted[key]


def _key(client: HttpClient) -> object:
    """:returns: what is the same for all connections of one client: what its issuer signed,
    since the rest of a certificate can be written in other ways; or its address."""
    if client.peer is not None:
        return sha256(client.peer.leaf.tbs_certificate_bytes).digest()
    return getattr(client.address, "host", None) or str(client.address)
