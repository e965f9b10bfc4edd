"""
Header fields: which of them pass, which are the gate's own.

Pure functions on lines, each a name and a value in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

from attrs import frozen

Line: TypeAlias = tuple[bytes, bytes]

#: Of one connection only (RFC 9110, 7.6.1), with the old ones and with what
#: belongs to a proxy that the client knows of.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
#: What only the gate may say to the target; so may all of ``X-Forwarded-…``.
#: ``Proxy`` would become the environment variable HTTP_PROXY (CVE-2016-5385).
OWN = frozenset({b"client-cert", b"client-cert-chain", b"forwarded", b"proxy", b"x-real-ip"})
_OWN_PREFIX = b"x-forwarded-"
#: What cannot stand in a trailer section (RFC 9110, 6.5.1): a target might take
#: it for a header field.
_NO_TRAILER = HOP_BY_HOP | {
    b"authorization",
    b"cache-control",
    b"content-encoding",
    b"content-length",
    b"content-range",
    b"content-type",
    b"cookie",
    b"expect",
    b"host",
    b"max-forwards",
    b"range",
    b"set-cookie",
    b"trailer",
}
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: RFC 9110, 5.5; the whitespace around it is not part of a value.
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_SEPARATORS = re.compile(rb"[^0-9a-z]")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*"')


def is_token(name: bytes) -> bool:
    """:returns: whether it is a token (RFC 9110, 5.6.2), as names of fields are."""
    return _TOKEN.fullmatch(name) is not None


def is_value(value: bytes) -> bool:
    """:returns: whether a field can have that value."""
    return _VALUE.fullmatch(value) is not None


@lru_cache(1024)
def folded(name: bytes) -> bytes:
    """
    :returns: the name as CGI and WSGI would take it: there ``X_Client.CN`` is
        ``X-Client-CN``.
    """
    return _SEPARATORS.sub(b"-", name.lower())


def tokens(values: Iterable[bytes]) -> list[bytes]:
    """:returns: the members of a list of tokens, in lower case (RFC 9110, 5.6.1)."""
    return [
        member for value in values for one in value.split(b",") if (member := one.strip().lower())
    ]


@frozen
class Reserved:
    """
    The names that a client cannot use.

    :ivar _names: besides those that never pass, folded.
    """

    _names: frozenset[bytes] = frozenset()

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, bytes):
            return False
        as_cgi = folded(name)
        return as_cgi in OWN or as_cgi in self._names or as_cgi.startswith(_OWN_PREFIX)


def reserved(names: Iterable[bytes]) -> Reserved:
    """:param names: of the fields that the gate sets besides those of `OWN`."""
    return Reserved(frozenset(map(folded, names)))


def end_to_end(lines: Iterable[Line], connection: Iterable[bytes]) -> Iterator[Line]:
    """
    Yield what is not of one connection only.

    :param connection: the values of the ``Connection`` fields.
    """
    named = HOP_BY_HOP.union(tokens(connection))
    return (line for line in lines if line[0].lower() not in named)


def trailers(lines: Iterable[Line], own: Reserved) -> Iterator[Line]:
    """Yield the trailer fields that may pass."""
    for name, value in lines:
        if folded(name) not in _NO_TRAILER and name not in own:
            yield name, value


def parse_line(line: bytes) -> Line:
    """
    :param line: a field line without its end.
    :raises ValueError: if it is anything else, of a continuation line, too.
    """
    name, colon, value = line.partition(b":")
    value = value.strip(b" \t")
    if not (colon and is_token(name) and is_value(value)):
        raise ValueError("a malformed header field")
    return name, value


@frozen
class Hop:
    """
    What the gate knows of the client's side of a request.

    :ivar host: the client's IP address, or None.
    :ivar authority: the host that it asked for, with the port if it said one.
    """

    host: str | None
    authority: bytes


def forwarded(hop: Hop, earlier: dict[bytes, list[bytes]] | None = None) -> list[Line]:
    """
    :param earlier: what the client sent of these, by folded name, to append
        to; None to begin anew.
    :returns: ``X-Forwarded-For``, ``-Proto``, ``-Host`` and ``Forwarded`` (RFC 7239).
    """
    host = (hop.host or "unknown").encode("ascii", "replace")
    node = b'"[%s]"' % host if b":" in host else host
    authority = b'"%s"' % hop.authority if b":" in hop.authority else hop.authority
    element = b"for=" + node + b";proto=https" + (b";host=" + authority if authority else b"")
    lines = [(b"X-Forwarded-For", host), (b"X-Forwarded-Proto", b"https")]
    if hop.authority:
        lines.append((b"X-Forwarded-Host", hop.authority))
    lines.append((b"Forwarded", element))
    if earlier is None:
        return lines
    if b'"' in _QUOTED.sub(b"", b", ".join(earlier.get(b"forwarded", ()))):
        # What is appended would be within quotes that the client began.
        earlier = {**earlier, b"forwarded": []}
    return [(name, b", ".join([*earlier.get(name.lower(), ()), value])) for name, value in lines]
