"""
A client's request, written anew for the target: nothing of it is copied that
was not read and understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from mtlsgate.protocols.http.authority import ask, check_server
from mtlsgate.protocols.http.connection import BodyKind
from mtlsgate.protocols.http.fields import Line, end_to_end, tokens
from mtlsgate.protocols.http.refusal import Refusal

if TYPE_CHECKING:
    from mtlsgate.protocols.http.channel import GateChannel, GateRequest

#: What can be sent again if it may not have arrived (RFC 9110, 9.2.2), given
#: that it has no body.
_REPLAYABLE = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")


@frozen
class Outgoing:
    """
    What is sent to the target.

    :ivar head: the request line and the fields.
    :ivar body: how its body is framed.
    :ivar replayable: whether it can be sent twice.
    :ivar expecting: whether the client waits for 100 with its body.
    :ivar upgrading: whether it asks for a WebSocket.
    """

    head: bytes
    body: BodyKind
    replayable: bool
    expecting: bool
    upgrading: bool


def outgoing(request: GateRequest, channel: GateChannel, length: int | None) -> Outgoing:
    """
    :param request: as it was read.
    :param length: of its body; None if it comes in chunks.
    :raises Refusal: if it cannot be passed on.
    """
    headers, gate = request.requestHeaders, channel.gate
    hosts = headers.getRawHeaders(b"Host", ())
    asked = ask(request.method, request.uri, hosts, request.clientproto)
    check_server(asked.host, channel.server_name, gate.serves)
    if length is not None and length > gate.max_body_size:
        raise Refusal(413, f"the body is longer than {gate.max_body_size} bytes")
    expected = [one.lower() for one in headers.getRawHeaders(b"Expect", ())]
    if expected and expected != [b"100-continue"]:
        raise Refusal(417, "it expects what nobody knows")
    connection = headers.getRawHeaders(b"Connection", ())
    expecting = bool(expected) and length != 0 and request.clientproto == b"HTTP/1.1"
    upgrading = gate.websockets and length == 0 and _asks_for_websocket(request, connection)

    lines: list[Line] = [(b"Host", gate.host_for(asked.authority))]
    earlier: dict[bytes, list[bytes]] = {}
    received = ((name, value) for name, values in headers.getAllRawHeaders() for value in values)
    for name, value in end_to_end(received, connection):
        lower = name.lower()
        if lower in (b"host", b"content-length", b"expect"):
            continue
        if name in gate.reserved:
            earlier.setdefault(lower, []).append(value)
        else:
            lines.append((name, value))
    lines += gate.forwarded(channel.address, asked.authority, earlier)
    lines += channel.identity
    if expecting:
        lines.append((b"Expect", b"100-continue"))
    if length is None:
        lines.append((b"Transfer-Encoding", b"chunked"))
    elif length or headers.hasHeader(b"Content-Length"):
        lines.append((b"Content-Length", b"%d" % length))
    if upgrading:
        lines += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    elif b"trailers" in tokens(headers.getRawHeaders(b"TE", ())):
        lines += [(b"Connection", b"TE"), (b"TE", b"trailers")]
    first = b"%s %s HTTP/1.1\r\n" % (request.method, asked.target)
    return Outgoing(
        head=first + b"".join([b"%s: %s\r\n" % line for line in lines]) + b"\r\n",
        body="none" if length == 0 else "chunked" if length is None else "plain",
        replayable=length == 0 and request.method in _REPLAYABLE,
        expecting=expecting,
        upgrading=upgrading,
    )


def _asks_for_websocket(request: GateRequest, connection: Sequence[bytes]) -> bool:
    upgrade = [one.lower() for one in request.requestHeaders.getRawHeaders(b"Upgrade", ())]
    # Of all upgrades only this: h2c would lead past the gate.
    return (
        request.method == b"GET"
        and request.clientproto == b"HTTP/1.1"
        and upgrade == [b"websocket"]
        and b"upgrade" in tokens(connection)
    )
