"""
Which header fields pass to a target, and which are the gate's own.

Pure functions on lines, each a name and a value in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from attrs import frozen

from mtlsgate.http.fields import HOP_BY_HOP, Line, folded

#: Fields that only the gate may send to the target, like everything in ``X-Forwarded-…``.
#: ``Proxy`` would become the environment variable HTTP_PROXY (CVE-2016-5385).
OWN = frozenset({b"client-cert", b"client-cert-chain", b"forwarded", b"proxy", b"x-real-ip"})
_OWN_PREFIX = b"x-forwarded-"
#: Fields that are not allowed in trailers (RFC 9110, 6.5.1): a target might take them for
#: header fields.
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


#: Text without an open quote.  Possessive, so that its cost is linear: a client chooses it.
_BALANCED = re.compile(rb'[^"]*+(?:"(?:[^"\\]|\\.)*+"[^"]*+)*+', re.DOTALL)


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


def trailers(lines: Iterable[Line], own: Reserved) -> Iterator[Line]:
    """Yield the trailer fields that may pass."""
    for name, value in lines:
        if folded(name) not in _NO_TRAILER and name not in own:
            yield name, value


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
    if _BALANCED.fullmatch(b", ".join(earlier.get(b"forwarded", ()))) is None:
        # The gate's own element would end up within quotes that the client opened.
        earlier = {**earlier, b"forwarded": []}
    return [(name, b", ".join([*earlier.get(name.lower(), ()), value])) for name, value in lines]
