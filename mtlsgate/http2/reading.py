"""
The requests of one connection, out of their header fields.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Sequence

from mtlsgate.http.fields import Line
from mtlsgate.http.reading import RequestHead
from mtlsgate.http2.heads import Tunnel, request_head


class HeadReader:
    """
    Reads heads, but the same one only once: many clients ask for the same again.

    :ivar _last: the fields that were read last, whether no body followed, and the head.
    """

    def __init__(self, max_size: int, *, websockets: bool) -> None:
        """
        :param max_size: bytes of a head.
        :param websockets: whether clients may ask for WebSockets.
        """
        self._max_size = max_size
        self._make_tunnel = _make_tunnel if websockets else None
        self._last: tuple[Sequence[Line], bool, RequestHead] | None = None

    def read(self, fields: Sequence[Line], *, ended: bool) -> tuple[RequestHead, Tunnel | None]:
        """
        :param fields: as they came; the same object if the same bytes came.
        :param ended: whether no body follows.
        :returns: the request, and its tunnel if it asks for a WebSocket.
        :raises MalformedRequest: if it is no request.
        :raises Refusal: if it is too long, or a CONNECT for an unknown protocol.
        """
        last = self._last
        if last is not None and last[0] is fields and last[1] == ended:
            return last[2], None
        head, tunnel = request_head(
            fields, ended=ended, max_size=self._max_size, make_tunnel=self._make_tunnel
        )
        if tunnel is None:
            self._last = fields, ended, head
        return head, tunnel


def _make_tunnel() -> Tunnel:
    return Tunnel(b64encode(os.urandom(16)))
