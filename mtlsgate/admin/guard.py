"""
Decides which requests the admin endpoint answers.

Pure: from what a request says to the reason for its refusal.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus

from attrs import field, frozen
from twisted.web.http_headers import Headers

from mtlsgate.admin.console import CONSOLE_PATHS

#: Paths for probes, which need no token; they reveal nothing.
OPEN_PATHS = frozenset({b"/healthz", b"/readyz"})
#: Names of this machine that no DNS server decides.
_LOOPBACK_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
_HOST = re.compile(rb"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+)(?::(?P<port>[0-9]{1,5}))?")
_HTTP_PORT = 80


@frozen
class Objection:
    """
    Why a request is refused.

    :ivar status: the status of the answer.
    :ivar text: the reason, in one line.
    :ivar headers: further headers of the answer.
    """

    status: HTTPStatus
    text: str
    headers: tuple[tuple[str, str], ...] = ()


@frozen
class Guard:
    """
    What a request needs.

    :ivar token: tells the token a client must present, or None.
    :ivar is_loopback: whether every program of this machine can connect, web pages
        in a browser among them.
    :ivar is_verified: whether only clients with a verified certificate are answered.
    """

    token: Callable[[], bytes | None] = field(default=lambda: None, repr=False)
    is_loopback: bool = False
    is_verified: bool = False

    def objection(
        self, path: bytes, headers: Headers, port: int | None, *, is_known: bool
    ) -> Objection | None:
        """
        :param path: the path of the request.
        :param port: the port it came to; None on a unix socket.
        :param is_known: whether the client was verified.
        :returns: why the request is refused, or None.
        """
        if self.is_verified and not is_known:
            return Objection(HTTPStatus.FORBIDDEN, "only for clients with a verified certificate")
        return (
            self._wrong_host(headers, port)
            or self._from_another_page(headers)
            or (None if path in OPEN_PATHS | CONSOLE_PATHS else self._wrong_token(headers))
        )

    def _wrong_host(self, headers: Headers, port: int | None) -> Objection | None:
        """Against DNS rebinding: a page's own host name may now lead here."""
        hosts = headers.getRawHeaders(b"host", [])
        found = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        if found is None:
            return Objection(HTTPStatus.BAD_REQUEST, "there must be one Host header, as host:port")
        if not self.is_loopback:
            return None
        meant = _HTTP_PORT if found["port"] is None else int(found["port"])
        if found["name"].lower() not in _LOOPBACK_NAMES or meant != port:
            return Objection(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"Host must be 127.0.0.1:{port}, [::1]:{port} or localhost:{port}",
            )
        return None

    def _from_another_page(self, headers: Headers) -> Objection | None:
        """
        Cross-site requests: browsers say so with every POST (Origin, RFC 6454) and with
        every request to what they trust (Sec-Fetch-Site).  Only the console's own page
        may ask, and there is none on a unix socket.
        """
        own = self._own_origin(headers)
        if any(origin != own for origin in headers.getRawHeaders(b"origin", [])):
            return Objection(HTTPStatus.FORBIDDEN, "requests of other pages are refused (Origin)")
        sites = headers.getRawHeaders(b"sec-fetch-site", [])
        if any(site.strip().lower() not in (b"none", b"same-origin") for site in sites):
            text = "requests of other pages are refused (Sec-Fetch-Site)"
            return Objection(HTTPStatus.FORBIDDEN, text)
        return None

    def _own_origin(self, headers: Headers) -> bytes | None:
        """:returns: the origin of the console's page, where a browser can reach it."""
        if not (self.is_loopback or self.is_verified):
            return None
        [host] = headers.getRawHeaders(b"host", [])
        return (b"https://" if self.is_verified else b"http://") + host.lower()

    def _wrong_token(self, headers: Headers) -> Objection | None:
        token = self.token()
        if token is None:
            return None
        given = headers.getRawHeaders(b"authorization", [])
        challenge = 'Bearer realm="mtlsgate"'
        if not given:
            return _unauthorized("a token is needed: Authorization: Bearer TOKEN", challenge)
        scheme, _, presented = given[0].partition(b" ")
        if len(given) == 1 and scheme.lower() == b"bearer" and same(presented.strip(), token):
            return None
        return _unauthorized("the token is wrong", f'{challenge}, error="invalid_token"')


def same(presented: bytes, token: bytes) -> bool:
    """:returns: whether they are equal, in a time that reveals nothing about the token."""
    return hmac.compare_digest(sha256(presented).digest(), sha256(token).digest())


def _unauthorized(text: str, challenge: str) -> Objection:
    return Objection(HTTPStatus.UNAUTHORIZED, text, (("WWW-Authenticate", challenge),))
