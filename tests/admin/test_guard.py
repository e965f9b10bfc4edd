"""
Who is heard at the admin endpoint: token, Host, Origin.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.web.http_headers import Headers

from mtlsgate.admin.guard import Guard, Objection, same

TOKEN = b"0123456789abcdef"
SOCKET = Guard()
LOOPBACK = Guard(lambda: TOKEN, is_loopback=True)
VERIFIED = Guard(is_verified=True)


def ask(
    guard: Guard,
    path: bytes = b"/status",
    port: int | None = 9090,
    is_known: bool = False,
    **headers: bytes | list[bytes] | None,
) -> Objection | None:
    given: dict[bytes, list[bytes]] = {
        b"host": [b"localhost:9090"],
        b"authorization": [b"Bearer " + TOKEN],
    }
    for name, value in headers.items():
        key = name.replace("_", "-").encode()
        given.pop(key, None)
        if value is not None:
            given[key] = value if isinstance(value, list) else [value]
    return guard.objection(path, Headers(given), port, is_known=is_known)


def status(objection: Objection | None) -> int | None:
    return None if objection is None else objection.status


@pytest.mark.parametrize(
    "host", [b"localhost:9090", b"LOCALHOST:9090", b"127.0.0.1:9090", b"[::1]:9090"]
)
def test_this_machine_may_be_called_by_its_names(host: bytes) -> None:
    """The loopback names with the right port are heard."""
    assert ask(LOOPBACK, host=host) is None


@pytest.mark.parametrize(
    "host",
    [
        b"evil.example:9090",
        b"localhost.evil.example:9090",
        b"127.0.0.1.evil.example:9090",
        b"127.0.0.2:9090",
        b"0.0.0.0:9090",
        b"[::]:9090",
        b"localhost:9091",
        b"localhost",
        b"localhost.:9090",
        b"2130706433:9090",
    ],
)
def test_dns_rebinding_is_refused(host: bytes) -> None:
    """Whatever else the Host says, a right token with it is not heard over TCP."""
    assert status(ask(LOOPBACK, host=host)) == 421
    assert status(ask(LOOPBACK, b"/healthz", host=host)) == 421


@pytest.mark.parametrize(
    "host",
    [
        None, [b"localhost:9090", b"localhost:9090"], b"", b"a b", b"user@localhost:9090",
        b"localhost:", b"localhost:99999999", b"[::1:9090", b"localhost:9090/",
    ],
)  # fmt: skip
def test_there_is_one_host(host: bytes | list[bytes] | None) -> None:
    """A Host that is missing, there twice or not one is a bad request, anywhere."""
    for guard in (SOCKET, LOOPBACK):
        assert status(ask(guard, host=host)) == 400


def test_the_default_port_need_not_be_said() -> None:
    """On port 80 the Host has no port."""
    assert ask(LOOPBACK, port=80, host=b"localhost") is None


def test_a_unix_socket_is_called_anything() -> None:
    """No browser reaches it, and curl calls it whatever its URL says."""
    assert ask(SOCKET, port=None, host=b"localhost", authorization=None) is None
    assert ask(SOCKET, port=None, host=b"gate", authorization=None) is None


@pytest.mark.parametrize("guard", [SOCKET, LOOPBACK, VERIFIED])
@pytest.mark.parametrize(
    "header",
    [
        {"origin": b"http://evil.example"},
        {"origin": b"null"},
        {"origin": b""},
        {"origin": b"http://localhost:9091"},
        {"origin": b"http://127.0.0.1:9090"},
        {"origin": b"http://localhost:9090.evil.example"},
        {"origin": b"https://localhost"},
        {"origin": [b"http://evil.example", b"http://localhost:9090"]},
        {"sec_fetch_site": b"cross-site"},
        {"sec_fetch_site": b"same-site"},
        {"sec_fetch_site": [b"none", b"cross-site"]},
    ],
)
def test_web_pages_are_refused(guard: Guard, header: dict[str, Any]) -> None:
    """What a page of anybody's asks for is refused, wherever it is asked, and
    whatever token or certificate the browser adds."""
    assert status(ask(guard, is_known=True, **header)) == 403
    assert status(ask(guard, b"/healthz", is_known=True, **header)) == 403


@pytest.mark.parametrize(
    ("guard", "origin"),
    [(LOOPBACK, b"http://localhost:9090"), (VERIFIED, b"https://localhost:9090")],
)
def test_the_consoles_own_page_may_ask(guard: Guard, origin: bytes) -> None:
    """Its origin is the address that it asks; the other scheme's is another page's."""
    other = origin.replace(b"https", b"http") if guard is VERIFIED else b"https" + origin[4:]
    assert ask(guard, is_known=True, origin=origin, sec_fetch_site=b"same-origin") is None
    assert status(ask(guard, is_known=True, origin=other)) == 403
    assert status(ask(guard, is_known=True, origin=[origin, other])) == 403
    assert status(ask(guard, is_known=True, origin=origin, sec_fetch_site=b"cross-site")) == 403


def test_no_page_comes_from_a_unix_socket() -> None:
    """No browser reaches it: whoever names an origin is a page of somebody's."""
    for origin in (b"http://localhost:9090", b"https://localhost:9090"):
        assert status(ask(SOCKET, port=None, origin=origin)) == 403


def test_the_page_needs_no_token() -> None:
    """It holds no data; what it reads needs the token."""
    for path in (b"/", b"/console/main.js", b"/console/console.css"):
        assert ask(LOOPBACK, path, authorization=None) is None
        assert status(ask(LOOPBACK, path, authorization=None, origin=b"http://evil")) == 403
        assert status(ask(LOOPBACK, path, authorization=None, host=b"evil:9090")) == 421


@pytest.mark.parametrize("site", [b"none", b"same-origin"])
def test_a_person_may_use_a_browser(site: bytes) -> None:
    """An address that a person typed is no page's request."""
    assert ask(SOCKET, sec_fetch_site=site) is None


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (None, False),
        (b"Bearer wrong", True),
        (b"Bearer " + TOKEN[:-1], True),
        (b"Bearer " + TOKEN + b"0", True),
        (b"Bearer", True),
        (b"Bearer ", True),
        (b"Basic " + TOKEN, True),
        (TOKEN, True),
        ([b"Bearer " + TOKEN, b"Bearer wrong"], True),
    ],
)
def test_without_the_token_nothing_is_told(given: bytes | list[bytes] | None, error: bool) -> None:
    """A token that is missing or wrong is 401, which says what is wanted."""
    objection = ask(LOOPBACK, authorization=given)
    assert objection is not None
    assert objection.status == 401
    [(name, challenge)] = objection.headers
    assert name == "WWW-Authenticate"
    assert challenge.startswith('Bearer realm="mtlsgate"')
    assert ("invalid_token" in challenge) == error
    assert TOKEN.decode() not in objection.text


def test_the_scheme_may_be_written_anyhow() -> None:
    """RFC 9110, 11.1: its case does not matter."""
    assert ask(LOOPBACK, authorization=b"bearer " + TOKEN) is None


@pytest.mark.parametrize("path", [b"/healthz", b"/readyz"])
def test_probes_need_no_token(path: bytes) -> None:
    """They tell no secret, and probes have none."""
    assert ask(LOOPBACK, path, authorization=None) is None


@pytest.mark.parametrize(
    "path", [b"/healthz/", b"//healthz", b"/HEALTHZ", b"/status", b"//", b"/x", b"/console/"]
)
def test_everything_else_needs_it(path: bytes) -> None:
    """Also what does not exist, so that nobody learns what does."""
    assert status(ask(LOOPBACK, path, authorization=None)) == 401


def test_a_socket_may_ask_for_a_token_too() -> None:
    """Where there is a token it is asked for, on a socket as well."""
    guard = Guard(lambda: TOKEN)
    assert ask(guard, port=None) is None
    assert status(ask(guard, port=None, authorization=None)) == 401


def test_a_verified_client_must_be_one() -> None:
    """Behind certificates a connection without one is refused, whatever it asks for."""
    assert ask(VERIFIED, is_known=True, host=b"gate.example", authorization=None) is None
    for path in (b"/status", b"/healthz"):
        assert status(ask(VERIFIED, path, is_known=False)) == 403


def test_tokens_are_compared_whole() -> None:
    """Equal or not, of any length."""
    assert same(TOKEN, TOKEN)
    assert not same(b"", TOKEN)
    assert not same(TOKEN + b"x", TOKEN)
