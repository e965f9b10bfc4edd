"""
Request headers for twisted.web behave as its own do.
"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.web.http_headers import Headers

from mtlsgate.http.headers import RequestHeaders

LINES = [(b"host", b"a"), (b"X-One", b"1"), (b"x-one", b"2"), (b"Cookie", b"\xc3\xa9")]


@pytest.fixture(params=[Headers, RequestHeaders])
def headers(request: pytest.FixtureRequest) -> Headers:
    made: Headers = request.param()
    for name, value in LINES:
        made.addRawHeader(name, value)
    return made


def test_values_are_found_by_name(headers: Headers) -> None:
    """In any case; as text for names that are text."""
    assert headers.getRawHeaders(b"X-ONE") == [b"1", b"2"]
    assert headers.getRawHeaders("x-one") == ["1", "2"]
    assert headers.getRawHeaders("cookie") == ["é"]
    assert headers.getRawHeaders(b"none") is None
    assert headers.getRawHeaders("none", 5) == 5
    assert headers.hasHeader("HOST")
    assert headers.hasHeader(b"Cookie")
    assert not headers.hasHeader("none")


def test_they_can_be_changed(headers: Headers) -> None:
    headers.removeHeader(b"HOST")
    headers.removeHeader("none")
    headers.setRawHeaders("x-one", ["3", b"4"])
    headers.addRawHeader("X-Two", "é")
    assert not headers.hasHeader(b"host")
    assert headers.getRawHeaders(b"x-one") == [b"3", b"4"]
    assert headers.getRawHeaders(b"x-two") == [b"\xc3\xa9"]


def test_copies_are_apart(headers: Headers) -> None:
    copy = headers.copy()
    assert copy == headers
    copy.removeHeader(b"host")
    assert copy != headers
    assert headers.hasHeader(b"host")


def test_names_keep_their_case() -> None:
    """That of the first; Twisted's own would change it."""
    all_of_them: list[Any] = list(RequestHeaders(LINES).getAllRawHeaders())
    assert all_of_them == [
        (b"host", [b"a"]),
        (b"X-One", [b"1", b"2"]),
        (b"Cookie", [b"\xc3\xa9"]),
    ]
