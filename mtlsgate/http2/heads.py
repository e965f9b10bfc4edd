"""
Header fields to requests, and from responses: pure.

What a request may not say is the same as in HTTP/1.1, and checked by the same code
(`mtlsgate.http.fields`, `mtlsgate.http.reading`, `mtlsgate.http.checks`).  What only HTTP/2 can
say is here: pseudo-headers, cookies in pieces, and WebSockets without an upgrade (RFC 8441).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha1

from attrs import frozen

from mtlsgate.http.authority import same_authority
from mtlsgate.http.bodies import MAX_FIELDS, MalformedMessage
from mtlsgate.http.fields import Line, is_token, is_value
from mtlsgate.http.reading import RequestHead, content_length
from mtlsgate.http.refusal import Refusal
from mtlsgate.http2.faults import MalformedRequest

#: As CGI writes it (RFC 3875, 4.1.16), and most servers.
VERSION = b"HTTP/2.0"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_PSEUDO = (b":method", b":scheme", b":authority", b":path", b":protocol")
#: RFC 9113, 8.2.2.
_OF_CONNECTION = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_SCHEMES = (b"https", b"http")
#: RFC 6455, 1.3.
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OF_HANDSHAKE = (b"sec-websocket-accept", b"sec-websocket-key")


@frozen
class Tunnel:
    """
    What turns an extended CONNECT into the opening handshake of a WebSocket.

    :ivar key: the ``Sec-WebSocket-Key`` that the target gets.
    """

    key: bytes

    def check(self, lines: Iterable[Line]) -> None:
        """:raises Refusal: if that is no answer to the key (RFC 6455, 4.1)."""
        digest = sha1(self.key + _ACCEPT, usedforsecurity=False).digest()
        said = [value for name, value in lines if name.lower() == b"sec-websocket-accept"]
        if said != [b64encode(digest)]:
            raise Refusal(502, "the target's Sec-WebSocket-Accept is wrong")


def request_head(
    fields: Sequence[Line],
    *,
    ended: bool,
    max_size: int,
    make_tunnel: Callable[[], Tunnel] | None = None,
) -> tuple[RequestHead, Tunnel | None]:
    """
    :param fields: as they came.
    :param ended: whether no body follows.
    :param max_size: bytes of names and values, counted as in HTTP/1.1.
    :param make_tunnel: for an extended CONNECT; None if it is not offered.
    :returns: the request, with its authority as ``Host``; an extended CONNECT as the upgrade
        that HTTP/1.1 has for it, with its tunnel.
    :raises MalformedRequest: if it is no request (RFC 9113, 8.1.1).
    :raises Refusal: if it is too long, or a CONNECT for an unknown protocol.
    """
    pseudo, lines = _split(fields)
    method, scheme, path = (pseudo.get(name) for name in (b":method", b":scheme", b":path"))
    authority, protocol = pseudo.get(b":authority"), pseudo.get(b":protocol")
    if method is None or not is_token(method):
        raise MalformedRequest("no :method, or one that is not a token")
    if protocol is not None and (method != b"CONNECT" or make_tunnel is None):
        raise MalformedRequest(":protocol, which nobody offered")
    if method == b"CONNECT" and protocol is None:
        if scheme is not None or path is not None or not authority:
            raise MalformedRequest("CONNECT has an :authority, and no :scheme or :path")
        path = authority
    elif not path or not (path.startswith(b"/") or (path == b"*" and method == b"OPTIONS")):
        raise MalformedRequest("no :path, or one that does not begin with a slash")
    elif scheme is None or scheme.lower() not in _SCHEMES:
        raise MalformedRequest("no :scheme, or another than https and http")
    lines = _with_host(lines, authority, scheme)
    size = sum(len(name) + len(value) + 2 for name, value in lines) + len(method) + len(path)
    if size > max_size:
        raise Refusal(400, f"the head is longer than {max_size} bytes")
    if len(lines) > MAX_FIELDS:
        raise Refusal(400, f"the head has more than {MAX_FIELDS} fields")
    try:
        length = content_length(lines)
    except MalformedMessage as error:
        raise MalformedRequest(error.cause) from None
    if protocol is not None and make_tunnel is not None:
        _check_tunnel(protocol, length, ended=ended)
        tunnel = make_tunnel()
        return RequestHead(b"GET", path, VERSION, _upgrade(lines, tunnel), 0), tunnel
    if ended:
        if length:
            raise MalformedRequest("Content-Length is not the length of the body")
        length = 0
    return RequestHead(method, path, VERSION, lines, length), None


def _split(fields: Sequence[Line]) -> tuple[dict[bytes, bytes], list[Line]]:
    """:returns: the pseudo-headers, and the others with all cookies in one."""
    pseudo: dict[bytes, bytes] = {}
    lines: list[Line] = []
    cookies: list[bytes] = []
    for name, value in fields:
        if name.startswith(b":"):
            if name not in _PSEUDO or name in pseudo or lines or cookies:
                raise MalformedRequest("a pseudo-header that is unknown, comes twice or too late")
            if not is_value(value):
                raise MalformedRequest("a pseudo-header holds a character that it cannot")
            pseudo[name] = value
            continue
        check_field(name, value)
        if name == b"cookie":
            # RFC 9113, 8.2.3.
            cookies.append(value)
        else:
            lines.append((name, value))
    if cookies:
        lines.append((b"cookie", b"; ".join(cookies)))
    return pseudo, lines


def check_field(name: bytes, value: bytes) -> None:
    """:raises MalformedRequest: if HTTP/2 has no such field (RFC 9113, 8.2)."""
    if _NAME.fullmatch(name) is None:
        raise MalformedRequest("a field name is not a token in lower case")
    if not is_value(value):
        raise MalformedRequest("a field value holds a character that it cannot")
    if name in _OF_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
        raise MalformedRequest(f"a {name.decode('ascii')} field, which HTTP/2 does not have")


def _with_host(lines: list[Line], authority: bytes | None, scheme: bytes | None) -> list[Line]:
    """:returns: the fields with the authority as the only host (RFC 9113, 8.3.1)."""
    hosts = [value for name, value in lines if name == b"host"]
    if authority is None:
        return lines
    if any(not same_authority(authority, host, scheme or b"https") for host in hosts):
        raise MalformedRequest(":authority and Host name different hosts")
    return [(b"host", authority), *(line for line in lines if line[0] != b"host")]


def _check_tunnel(protocol: bytes, length: int | None, *, ended: bool) -> None:
    if protocol.lower() != b"websocket":
        raise Refusal(501, "CONNECT for another protocol than websocket")
    if ended or length is not None:
        raise MalformedRequest("a WebSocket has no body, and does not end with its head")


def _upgrade(lines: Iterable[Line], tunnel: Tunnel) -> list[Line]:
    """:returns: the fields of an opening handshake (RFC 6455, 4.1)."""
    kept = [line for line in lines if line[0] not in _OF_HANDSHAKE]
    kept += [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    kept.append((b"sec-websocket-key", tunnel.key))
    return kept


def trailer_lines(fields: Sequence[Line], max_size: int) -> Sequence[Line]:
    """
    :returns: the fields after a body.
    :raises MalformedRequest: if they are not, or too long.
    """
    for name, value in fields:
        check_field(name, value)
    if len(fields) > MAX_FIELDS or sum(len(one) + len(two) for one, two in fields) > max_size:
        raise MalformedRequest("the trailers are too long")
    return fields


def response_fields(status: int, lines: Iterable[Line]) -> list[Line]:
    """:returns: a response's head: names in lower case, none that HTTP/2 does not have."""
    fields: list[Line] = [(b":status", b"%d" % status)]
    fields += trailer_fields(lines)
    return fields


def trailer_fields(lines: Iterable[Line]) -> list[Line]:
    """:returns: fields as they are sent."""
    return [
        (lower, value.strip(b" \t"))
        for name, value in lines
        if (lower := name.lower()) not in _OF_CONNECTION
    ]


def tunnel_fields(lines: Iterable[Line]) -> list[Line]:
    """:returns: the head that accepts a WebSocket (RFC 8441, 5)."""
    return response_fields(200, (line for line in lines if line[0].lower() not in _OF_HANDSHAKE))
