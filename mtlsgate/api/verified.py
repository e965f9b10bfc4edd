"""
Finds the verified client of a connection.
"""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.interfaces import ITransport

from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.peer import VerifiedPeer

#: By which a protocol, a request or a transport leads to the transport below it.  The
#: last is private to `twisted.web`: a request of HTTP/2 has no other way to its
#: connection.  A test fails when Twisted changes it.
_BELOW = ("transport", "channel", "_conn")
#: Where the environ of a WSGI application and the scope of an ASGI one have the client.
_KEY = "mtlsgate.peer"
#: The most layers between a protocol and the gate's transport.
_MOST_LAYERS = 16


def verified_peer(connection: object) -> VerifiedPeer | None:
    """
    :param connection: a transport of Twisted's or asyncio's, an `asyncio.StreamWriter`,
        a protocol with a ``transport``, a request of `twisted.web`, the environ of a WSGI
        application, or the scope of an ASGI application or what wraps it.
    :returns: the client, as the gate verified it.  None for a connection without one:
        it came another way, its server asks for no certificate, or a request's
        connection is lost.
    :raises TypeError: if it is nothing that has a connection.
    """
    if isinstance(connection, Mapping):
        found = connection.get(_KEY)
        return found if isinstance(found, VerifiedPeer) else None
    if not (
        ITransport.providedBy(connection)
        or any(hasattr(connection, one) for one in ("transport", "channel"))
    ):
        raise TypeError(
            f"a {type(connection).__name__} has no connection: pass a transport, a protocol, a "
            "request, or the environ or scope of an application"
        )
    layer: object = connection
    for _ in range(_MOST_LAYERS):
        peer = IVerifiedPeer(layer, None)
        if isinstance(peer, VerifiedPeer):
            return peer
        layer = next((found for one in _BELOW if (found := getattr(layer, one, None))), None)
        if layer is None:
            return None
    return None
