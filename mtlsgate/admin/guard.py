"""
Who is heard at the admin endpoint.

Pure: from what a request says to why it is not heard.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus

from attrs import field, frozen
from twisted.web.http_headers import Headers

#: What a probe may ask without a token; neither tells a secret.
OPEN_PATHS = frozenset({b"/healthz", b"/readyz"})
#: How this machine is called in a URL that nobody's DNS has a say in.
_LOOPBACK_NAMES = frozenset({b"localhost", b"127.0.0.1", b"[::1]"})
_HOST = re.compile(rb"(?P<name>\[[0-9A-Fa-f:.]+\]|[^\[\]:@/\s]+)(?::(?P<port>[0-9]{1,5}))?")
_HTTP_PORT = 80


@frozen
class Objection:
    """
    Why a request is not heard.

    :ivar status: of the answer.
    :ivar text: in one line.
    :ivar headers: that go with it.
    """

    status: HTTPStatus
    text: str
    headers: tuple[tuple[str, str], ...] = ()


@frozen
class Guard:
    """
    What requests must bring along.

    :ivar token: tells what a client must present, or None.
    :ivar is_loopback: whether any program of this machine can connect, browsers
        and what they were sent among them.
    :ivar is_verified: whether clients must be those that a gate let in.
    """

    token: Callable[[], bytes | None] = field(default=lambda: None, repr=False)
    is_loopback: bool = False
    is_verified: bool = False

    def objection(
        self, path: bytes, headers: Headers, port: int | None, *, is_known: bool
    ) -> Objection | None:
        """
        :param path: that is asked for.
        :param port: at which the request came; None on a unix socket.
        :param is_known: whether the client was verified.
        :returns: why the request is not heard, or None.
        """
        if self.is_verified and not is_known:
            return Objection(HTTPStatus.FORBIDDEN, "only for clients with a verified certificate")
        return (
            self._wrong_host(headers, port)
            or _from_a_page(headers)
            or (None if path in OPEN_PATHS else self._wrong_token(headers))
        )

    def _wrong_host(self, headers: Headers, port: int | None) -> Objection | None:
        """DNS rebinding: a page's own name that now leads here."""
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
    """:returns: whether they are equal; the time it takes tells nothing of the token."""
    return hmac.compare_digest(sha256(presented).digest(), sha256(token).digest())


def _unauthorized(text: str, challenge: str) -> Objection:
    return Objection(HTTPStatus.UNAUTHORIZED, text, (("WWW-Authenticate", challenge),))


def _from_a_page(headers: Headers) -> Objection | None:
    """
    Cross-site requests: browsers say so with every POST (Origin, RFC 6454) and
    with every request to what they trust (Sec-Fetch-Site); there are no pages here
    that could ask.
    """
    if headers.hasHeader(b"origin"):
        return Objection(HTTPStatus.FORBIDDEN, "requests of web pages are refused (Origin)")
    sites = headers.getRawHeaders(b"sec-fetch-site", [])
    if any(site.strip().lower() not in (b"none", b"same-origin") for site in sites):
        return Objection(HTTPStatus.FORBIDDEN, "requests of web pages are refused (Sec-Fetch-Site)")
    return None
