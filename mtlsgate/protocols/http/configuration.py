"""
The attributes of ``protocol "http"``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from attrs import Factory, frozen

from mtlsgate.config import Duration, PeerText, Size
from mtlsgate.http.authority import is_authority
from mtlsgate.http.fields import HOP_BY_HOP, folded, is_token, is_value
from mtlsgate.http2.versions import VERSIONS, HttpVersion, version_problems
from mtlsgate.protocols.http.forwarding import OWN
from mtlsgate.protocols.http.identity import Detail
from mtlsgate.text import quoted
from mtlsgate.upstream.checks import HealthCheck
from mtlsgate.upstream.configuration import TargetAttributes
from mtlsgate.upstream.targets import Listed, Target, parse_target

_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@]*)(?P<rest>.*)", re.IGNORECASE)
_PORTS = {"http": 80, "https": 443}
#: Headers that frame or route a request; nobody can configure them.
_FRAMING = HOP_BY_HOP | {b"content-length", b"expect", b"host", b"trailer"}
_INSTEAD = {
    b"client-cert": "client_cert = true",
    b"client-cert-chain": "client_cert_chain = true",
    b"host": 'host = "…"',
    b"x-forwarded-client-cert": "x_forwarded_client_cert = […]",
}


#: What a path and a query may be (RFC 9112, 3.2.1): visible ASCII, and no fragment.
_PATH = re.compile(r"/[!-\"$-~]*")


@frozen(kw_only=True)
class HttpHealthCheck(HealthCheck):
    """
    :ivar path: what to GET; None only connects.
    :ivar status: which statuses are well; if empty, 200 to 399.
    """

    path: str | None = None
    status: tuple[int, ...] = ()

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if self.path is not None and _PATH.fullmatch(self.path) is None:
            yield "path", 'path must begin with / and be of visible ASCII, as in "/healthz"'
        if self.path is None and self.status:
            yield "status", "status has no effect without a path"
        if not all(200 <= one <= 599 for one in self.status):
            yield "status", "status: each must be from 200 to 599"


@frozen(kw_only=True)
class HttpConfiguration(TargetAttributes):
    """
    :ivar health_check: how targets are checked.
    :ivar response_timeout: seconds in which a target says or takes nothing.
    :ivar target_connections: free connections to keep to each target.
    :ivar target_keepalive: seconds to keep them.
    :ivar host: what ``Host`` is at the target; by default what the client sent.
    :ivar forwarded: how ``X-Forwarded-…`` and ``Forwarded`` are set.
    :ivar client_cert: whether to send ``Client-Cert``.
    :ivar client_cert_chain: whether to send ``Client-Cert-Chain``.
    :ivar x_forwarded_client_cert: the keys of ``X-Forwarded-Client-Cert``.
    :ivar headers: more fields, which may name the client.
    :ivar http_versions: that clients may choose from, the preferred one first.
    :ivar http_version: that is spoken with targets.
    :ivar websockets: whether clients may switch to the WebSocket protocol.
    :ivar max_header_size: of a request's head, in bytes.
    :ivar max_body_size: of a request's body, in bytes.
    :ivar header_timeout: seconds for a request's head.
    :ivar body_timeout: seconds in which a client sends or takes nothing.
    :ivar keepalive_timeout: seconds between two requests.
    :ivar websocket_timeout: seconds without a byte after a switch.
    :ivar max_requests: requests at a time, of all clients.
    :ivar max_requests_per_client: requests at a time, of one client; by default as many.
    :ivar max_websockets: WebSockets at a time, of all clients.
    :ivar max_websockets_per_client: WebSockets at a time, of one client.
    :ivar lenient: whether to take from targets what some old servers write.
    """

    health_check: HttpHealthCheck | None = None
    response_timeout: Duration = 60.0
    target_connections: int = 32
    target_keepalive: Duration = 60.0
    host: str | None = None
    forwarded: Literal["set", "append", "off"] = "set"
    client_cert: bool = False
    client_cert_chain: bool = False
    x_forwarded_client_cert: tuple[Detail, ...] = ()
    headers: dict[str, PeerText] = Factory(dict)
    http_versions: tuple[HttpVersion, ...] = VERSIONS
    http_version: HttpVersion = "1.1"
    websockets: bool = True
    max_header_size: Size = 32 * 1024
    max_body_size: Size = 10 << 30
    header_timeout: Duration = 10.0
    body_timeout: Duration = 60.0
    keepalive_timeout: Duration = 60.0
    websocket_timeout: Duration = 3600.0
    max_requests: int = 1000
    max_requests_per_client: int | None = None
    max_websockets: int = 10_000
    max_websockets_per_client: int = 100
    lenient: bool = False

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        yield from super().problems()
        if self.target_connections < 0:
            yield "target_connections", "target_connections must be 0 or more"
        for name in (
            "max_requests",
            "max_requests_per_client",
            "max_websockets",
            "max_websockets_per_client",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                yield name, f"{name} must be 1 or more"
        yield from version_problems(self.http_versions)
        if self.lenient and self.http_version == "2":
            yield "lenient", 'lenient has no effect with http_version = "2"; remove one'
        if self.max_header_size < 1024:
            yield "max_header_size", 'max_header_size must be "1KiB" or more'
        if self.host is not None and not is_authority(self.host):
            yield "host", "host must be a host name or an IP address, with or without a port"
        if len(set(self.x_forwarded_client_cert)) < len(self.x_forwarded_client_cert):
            yield "x_forwarded_client_cert", "x_forwarded_client_cert names a key twice"

    def targets(self) -> list[Listed[HttpTarget]]:
        """
        :returns: at least one.
        :raises Misconfigured: if one of them cannot be meant.
        """
        return self.listed(self._target, lambda one: one.target)

    def _target(self, text: str) -> HttpTarget:
        found = http_target(text)
        if found.tls and self.tls is None:
            raise ValueError("https:// needs a tls block that says which CA to trust")
        if found.tls is False and self.tls is not None:
            raise ValueError("http:// and a tls block contradict each other; remove one")
        return found

    def header_problems(self) -> Iterator[tuple[PeerText, str]]:
        """Yield (header, text) for what is wrong with ``headers``."""
        seen: dict[bytes, str] = {}
        for name, text in self.headers.items():
            octets = name.encode(errors="surrogateescape")
            as_cgi = folded(octets)
            first = seen.setdefault(as_cgi, name)
            if not is_token(octets):
                yield text, f"{quoted(name)} is no name of a header: letters, digits and hyphens"
            elif as_cgi in _FRAMING or as_cgi in OWN or as_cgi.startswith(b"x-forwarded-"):
                instead = _INSTEAD.get(as_cgi)
                hint = "the gate alone" if instead is None else f"the gate; write {instead}"
                yield text, f"{quoted(name)} is set by {hint}"
            elif first != name:
                yield text, f"{quoted(name)} is {quoted(first)} to CGI and WSGI; remove one"
            elif text.constant and not is_value(_constant(text)):
                yield text, f"{quoted(name)} has a value that is no visible ASCII on one line"


def _constant(text: PeerText) -> bytes:
    value = text.of(None)
    joined = ", ".join(value) if isinstance(value, tuple) else value or ""
    return joined.encode("ascii", "replace") if joined.isascii() else b"\0"


@frozen
class HttpTarget:
    """
    :ivar target: where to connect to.
    :ivar authority: what ``Host`` is if nobody says.
    :ivar tls: whether TLS is asked for; None if the text does not say.
    """

    target: Target
    authority: bytes
    tls: bool | None


def http_target(text: str) -> HttpTarget:
    """
    :param text: ``http://host:port``, ``https://host:port`` or what any
        protocol takes as a target.
    :raises ValueError: with what is wrong, in one line.
    """
    found = _URL.fullmatch(text)
    if found is None:
        target = parse_target(text)
        return HttpTarget(target, _authority(target), None)
    if found["rest"] not in ("", "/"):
        raise ValueError(
            f"{quoted(text)}: a target has no path: requests keep the one that they have"
        )
    scheme, authority = found["scheme"].lower(), found["authority"]
    if not is_authority(authority):
        raise ValueError(f"{quoted(text)}: after {scheme}:// comes a host, with or without a port")
    if re.search(r":[0-9]+\Z", authority) is None:
        authority = f"{authority}:{_PORTS[scheme]}"
    return HttpTarget(parse_target(authority), authority.encode(), scheme == "https")


def _authority(target: Target) -> bytes:
    if target.host is None:
        return b"localhost"
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{host}:{target.port}".encode()
