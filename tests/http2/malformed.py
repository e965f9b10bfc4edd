"""Requests that RFC 9113 calls malformed, by what is wrong with them."""

from __future__ import annotations

from tests.kits.http2 import GET, PSEUDO, Fields


def without(name: bytes) -> Fields:
    return [one for one in GET if one[0] != name]


MALFORMED: dict[str, Fields] = {
    "no method": without(b":method"),
    "no path": without(b":path"),
    "no scheme": without(b":scheme"),
    "another scheme": [*without(b":scheme"), (b":scheme", b"ftp")],
    "an empty path": [*PSEUDO, (b":path", b"")],
    "a path without a slash": [*PSEUDO, (b":path", b"a")],
    "a URI as path": [*PSEUDO, (b":path", b"https://a.example/")],
    "* for GET": [*PSEUDO, (b":path", b"*")],
    "a space in the method": [(b":method", b"GET /x"), *GET[1:]],
    "a pseudo-header twice": [*GET, (b":path", b"/other")],
    "an unknown pseudo-header": [*GET, (b":status", b"200")],
    "a pseudo-header too late": [*PSEUDO, (b"accept", b"*/*"), (b":path", b"/")],
    "CR LF in the path": [*PSEUDO, (b":path", b"/ HTTP/1.1\r\nX: y")],
    "CONNECT with a path": [(b":method", b"CONNECT"), *GET[1:]],
    "CONNECT without an authority": [(b":method", b"CONNECT")],
    "upper case": [*GET, (b"Accept", b"*/*")],
    "an empty name": [*GET, (b"", b"a")],
    "a space in a name": [*GET, (b"a b", b"a")],
    "a colon in a name": [*GET, (b"a:b", b"a")],
    "LF in a value": [*GET, (b"a", b"b\nc: d")],
    "CR in a value": [*GET, (b"a", b"b\rc")],
    "NUL in a value": [*GET, (b"a", b"b\0c")],
    "space before a value": [*GET, (b"a", b" b")],
    "tab after a value": [*GET, (b"a", b"b\t")],
    "connection": [*GET, (b"connection", b"close")],
    "keep-alive": [*GET, (b"keep-alive", b"1")],
    "proxy-connection": [*GET, (b"proxy-connection", b"close")],
    "transfer-encoding": [*GET, (b"transfer-encoding", b"chunked")],
    "upgrade": [*GET, (b"upgrade", b"h2c")],
    "te": [*GET, (b"te", b"gzip")],
    "another host": [*GET, (b"host", b"b.example")],
    "another port": [*GET, (b"host", b"a.example:8443")],
    "two lengths": [*GET, (b"content-length", b"0"), (b"content-length", b"0")],
    "a length that is none": [*GET, (b"content-length", b"+0")],
    "a list of lengths": [*GET, (b"content-length", b"0, 0")],
    "what looks like a length": [*GET, (b"content_length", b"0")],
    "what looks like chunks": [*GET, (b"transfer_encoding", b"chunked")],
    "a length without a body": [*GET, (b"content-length", b"1")],
}
