"""
A client's request, written anew for the target: nothing of it is copied that
was not read and understood.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from attrs import frozen

from mtlsgate.http.authority import Asked
from mtlsgate.http.checks import expects_continue
from mtlsgate.http.fields import Line, end_to_end, tokens
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http.sides import HttpClient
from mtlsgate.http2.responses import request_fields
from mtlsgate.interfaces import ITlsFacts
from mtlsgate.protocols.http.forwarding import Hop, Reserved, forwarded
from mtlsgate.protocols.http.identity import IdentityRules, own_uris

#: How a request's body is framed.
BodyKind: TypeAlias = Literal["none", "plain", "chunked"]

#: What can be sent again if it may not have arrived (RFC 9110, 9.2.2), given
#: that it has no body.
_REPLAYABLE = (b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE")


@frozen(kw_only=True)
class ForwardingRules:
    """
    What becomes of a request on its way to a target.

    :ivar reserved: the names of fields that a client cannot use.
    :ivar host: what ``Host`` is at the target; None for what the client sent.
    :ivar default_host: what it is if nobody says.
    :ivar identity: the fields that name the client.
    :ivar append_forwarded: whether what the client sent of ``Forwarded`` and the like comes
        first; None if the gate sends none of them.
    :ivar websockets: whether clients may switch to WebSocket.
    """

    reserved: Reserved
    host: bytes | None
    default_host: bytes
    identity: IdentityRules
    append_forwarded: bool | None
    websockets: bool

    def host_for(self, authority: bytes) -> bytes:
        """:returns: what ``Host`` is at the target."""
        return self.host or authority or self.default_host

    def forwarded(
        self, client: HttpClient, authority: bytes, earlier: dict[bytes, list[bytes]]
    ) -> list[Line]:
        """:returns: the fields about the client's side."""
        if self.append_forwarded is None:
            return []
        hop = Hop(getattr(client.address, "host", None), authority)
        return forwarded(hop, earlier if self.append_forwarded else None)

    def identity_of(self, client: HttpClient) -> list[Line]:
        """:returns: the fields that name the client."""
        tls: ITlsFacts | None = client.tls
        by: Sequence[str] = ()
        if "By" in self.identity.forwarded_client_cert and tls is not None:
            by = own_uris(tls.certificate)
        return self.identity.fields(client.peer, by)


@frozen
class Outgoing:
    """
    What is sent to the target.

    :ivar method: the request's.
    :ivar target: what it asks for.
    :ivar host: what ``Host`` is.
    :ivar lines: the other fields, none of which is of one connection only.
    :ivar length: of its body; None if only its end tells.
    :ivar says_length: whether a length of 0 is said, too.
    :ivar replayable: whether it can be sent twice.
    :ivar expecting: whether the client waits for 100 with its body.
    :ivar upgrading: whether it asks for a WebSocket.
    :ivar takes_trailers: whether its client reads trailers.
    """

    method: bytes
    target: bytes
    host: bytes
    lines: Sequence[Line]
    length: int | None = 0
    says_length: bool = False
    replayable: bool = True
    expecting: bool = False
    upgrading: bool = False
    takes_trailers: bool = False

    @property
    def body(self) -> BodyKind:
        """How its body is framed."""
        return "none" if self.length == 0 else "chunked" if self.length is None else "plain"

    @property
    def length_lines(self) -> list[Line]:
        """The field that says how long its body is, if one does."""
        if self.length is None or not (self.length or self.says_length):
            return []
        return [(b"Content-Length", b"%d" % self.length)]


def http1_head(sent: Outgoing) -> bytes:
    """:returns: the request line and the fields of HTTP/1.1."""
    lines = [(b"Host", sent.host), *sent.lines, *sent.length_lines]
    if sent.length is None:
        lines.append((b"Transfer-Encoding", b"chunked"))
    if sent.upgrading:
        lines += [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]
    elif sent.takes_trailers:
        lines += [(b"Connection", b"TE"), (b"TE", b"trailers")]
    first = b"%s %s HTTP/1.1\r\n" % (sent.method, sent.target)
    return first + b"".join([b"%s: %s\r\n" % line for line in lines]) + b"\r\n"


def http2_head(sent: Outgoing, scheme: bytes) -> list[Line]:
    """
    :param scheme: of the connection to the target.
    :returns: the pseudo-headers and fields of HTTP/2.
    """
    lines = [*sent.lines, *sent.length_lines]
    if sent.takes_trailers:
        lines.append((b"te", b"trailers"))
    return request_fields(sent.method, scheme, sent.host, sent.target, lines)


def check_method(head: RequestHead) -> None:
    """:raises Refusal: if the method is not for a gateway."""
    if head.method == b"TRACE":
        raise Refusal(501, "TRACE would show the client what the gate adds")


def outgoing(
    head: RequestHead,
    asked: Asked,
    client: HttpClient,
    rules: ForwardingRules,
    identity: Sequence[Line],
) -> Outgoing:
    """
    :param head: as it was read.
    :param asked: what it is for.
    :param identity: the fields that name the client.
    """
    length = head.length
    connection = head.values(b"connection")
    expecting = expects_continue(head)
    upgrading = rules.websockets and length == 0 and _asks_for_websocket(head, connection)

    lines: list[Line] = []
    earlier: dict[bytes, list[bytes]] = {}
    for name, value in end_to_end(head.lines, connection):
        lower = name.lower()
        if lower in (b"host", b"content-length", b"expect"):
            continue
        if name in rules.reserved:
            earlier.setdefault(lower, []).append(value)
        else:
            lines.append((name, value))
    lines += rules.forwarded(client, asked.authority, earlier)
    lines += identity
    if expecting:
        lines.append((b"Expect", b"100-continue"))
    return Outgoing(
        method=head.method,
        target=asked.target,
        host=rules.host_for(asked.authority),
        lines=lines,
        length=length,
        says_length=bool(head.values(b"content-length")),
        replayable=length == 0 and head.method in _REPLAYABLE,
        expecting=expecting,
        upgrading=upgrading,
        takes_trailers=b"trailers" in tokens(head.values(b"te")),
    )


def _asks_for_websocket(head: RequestHead, connection: Sequence[bytes]) -> bool:
    upgrade = [one.lower() for one in head.values(b"upgrade")]
    # Of all upgrades only this: h2c would lead past the gate.
    return (
        head.method == b"GET"
        and head.version != b"HTTP/1.0"
        and upgrade == [b"websocket"]
        and b"upgrade" in tokens(connection)
    )
