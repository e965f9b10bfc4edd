"""
Header fields to requests, and from responses.
"""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from hashlib import sha1

import pytest

from mtlsgate.http.bodies import MAX_FIELDS
from mtlsgate.http.reading import RequestHead
from mtlsgate.http.refusal import Refusal
from mtlsgate.http2.faults import MalformedRequest
from mtlsgate.http2.heads import (
    Tunnel,
    request_head,
    response_fields,
    trailer_lines,
    tunnel_fields,
)
from tests.http2.malformed import MALFORMED
from tests.kits.http2 import GET, POST, WEBSOCKET, Fields

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def head(fields: Fields, *, ended: bool = True, tunnel: bool = False) -> RequestHead:
    make = partial(Tunnel, KEY) if tunnel else None
    return request_head(fields, ended=ended, max_size=1000, make_tunnel=make)[0]


def test_a_request_is_as_in_http_1() -> None:
    found = head([*GET, (b"accept", b"*/*")])
    assert (found.method, found.target, found.version) == (b"GET", b"/", b"HTTP/2.0")
    assert found.lines == [(b"host", b"a.example"), (b"accept", b"*/*")]
    assert found.length == 0


def test_a_body_has_a_length_or_only_an_end() -> None:
    assert head(POST, ended=False).length is None
    assert head([*POST, (b"content-length", b"5")], ended=False).length == 5
    assert head([*POST, (b"content-length", b"0")], ended=True).length == 0


def test_cookies_are_joined() -> None:
    """RFC 9113, 8.2.3."""
    found = head([*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2")])
    assert found.values(b"cookie") == [b"a=1; b=2"]


def test_the_authority_is_the_host() -> None:
    assert head([*GET, (b"host", b"A.EXAMPLE:443")]).values(b"host") == [b"a.example"]
    alone = [one for one in GET if one[0] != b":authority"]
    assert head([*alone, (b"host", b"b.example")]).values(b"host") == [b"b.example"]


@pytest.mark.parametrize("fields", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed(fields: Fields) -> None:
    """RFC 9113, 8.1.1 to 8.3.1."""
    with pytest.raises(MalformedRequest):
        head(fields)


def test_te_may_be_trailers() -> None:
    head([*GET, (b"te", b"trailers")])


def test_what_is_too_long_is_refused_alone() -> None:
    for fields in ([(b"a", 1000 * b"b")], (MAX_FIELDS + 1) * [(b"a", b"")]):
        with pytest.raises(Refusal) as caught:
            request_head([*GET, *fields], ended=True, max_size=900)
        assert caught.value.status == 400


def test_a_websocket_is_an_upgrade() -> None:
    """RFC 8441, 4 and 5."""
    fields = [*WEBSOCKET, (b"sec-websocket-version", b"13"), (b"sec-websocket-key", b"x")]
    found = head(fields, ended=False, tunnel=True)
    assert (found.method, found.target, found.length) == (b"GET", b"/", 0)
    assert found.values(b"upgrade") == [b"websocket"]
    assert found.values(b"connection") == [b"Upgrade"]
    assert found.values(b"sec-websocket-key") == [KEY]


def test_a_websocket_needs_a_stream_that_goes_on() -> None:
    with pytest.raises(MalformedRequest):
        head(WEBSOCKET, ended=True, tunnel=True)
    with pytest.raises(MalformedRequest):
        head([*WEBSOCKET, (b"content-length", b"1")], ended=False, tunnel=True)


def test_no_other_protocol_is_known() -> None:
    with pytest.raises(Refusal) as caught:
        head([*WEBSOCKET[:-1], (b":protocol", b"connect-ip")], ended=False, tunnel=True)
    assert caught.value.status == 501


def test_a_target_has_to_answer_the_key() -> None:
    """RFC 6455, 4.1: who does not is no WebSocket server."""
    digest = sha1(KEY + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    Tunnel(KEY).check([(b"Sec-WebSocket-Accept", b64encode(digest))])
    for lines in ([], [(b"Sec-WebSocket-Accept", b"x")]):
        with pytest.raises(Refusal):
            Tunnel(KEY).check(lines)


def test_trailers_are_fields() -> None:
    assert trailer_lines([(b"x-sum", b"1")], 100) == [(b"x-sum", b"1")]
    bad = [(b":path", b"/"), (b"X-Sum", b"1"), (b"x", b"\n"), (b"connection", b"x")]
    for line in [*bad, (b"x", 100 * b"a")]:
        with pytest.raises(MalformedRequest):
            trailer_lines([line], 100)


def test_a_response_has_names_in_lower_case() -> None:
    lines = [(b"Content-Type", b"text/plain "), (b"Connection", b"close")]
    assert response_fields(200, lines) == [(b":status", b"200"), (b"content-type", b"text/plain")]


def test_a_websocket_is_accepted_with_200() -> None:
    """RFC 8441, 5: what belongs to the upgrade stays with the target."""
    lines = [(b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", b"x")]
    lines.append((b"Sec-WebSocket-Protocol", b"chat"))
    expected = [(b":status", b"200"), (b"sec-websocket-protocol", b"chat")]
    assert tunnel_fields(lines) == expected


def test_a_websocket_that_nobody_offered_is_malformed() -> None:
    with pytest.raises(MalformedRequest):
        head(WEBSOCKET, ended=False)
