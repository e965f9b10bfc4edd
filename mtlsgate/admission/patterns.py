"""
The pattern language of ``allow`` and ``deny``: what a value in a list matches.

A value without ``*`` matches exactly.  In ``dns_names`` one leading ``*.``
stands for one label; in the path of ``uris`` and ``spiffe_ids`` a segment
``*`` stands for one segment and ``**`` for one or more.  A ``*`` anywhere else
is refused, so that no pattern is wider than it looks.

In an ``allow`` block ``*`` matches only well-formed text, which every program
reads the same way.  In a ``deny`` block it matches anything, because there a
narrow match could let a client in.  The ``wide`` parameter selects the second.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice, takewhile

from attrs import frozen

from mtlsgate.certificates.server_names import canonical

#: Scheme and authority, then the path (RFC 3986, 3).
_URI = re.compile(r"(?P<front>[A-Za-z][A-Za-z0-9+.-]*:(?://[^/?#]*)?)(?P<path>.*)", re.DOTALL)
#: A segment that a wildcard may match (RFC 3986, 3.3).  It excludes whatever a
#: program could read as several segments, as no segment, as ".." or as a query,
#: encoded once or twice.  It also excludes control characters.
_SEGMENT = re.compile(
    r"(?!\.{1,2}\Z)"
    r"(?:[A-Za-z0-9._~!$&'()+,;=:@-]|%(?!(?i:[01]|2[35EF]|3F|5C|7F))[0-9A-Fa-f]{2})+\Z"
)
#: The rule index uses at most this many leading segments; a URI may have thousands.
_HEAD = 4
#: A label that a wildcard may match.
_LABEL = re.compile(r"[a-z0-9_-]{1,63}\Z")


@frozen
class DnsPattern:
    """
    ``*.`` and a name: exactly one label in front of it (RFC 9525, 6.3).

    :ivar parent: the name, canonical, with its leading dot.
    """

    parent: str

    def matches(self, value: str, wide: bool = False) -> bool:
        """:param value: a canonical DNS name."""
        label = value.removesuffix(self.parent)
        return label != value and ("." not in label if wide else _LABEL.match(label) is not None)

    @property
    def key(self) -> DnsPattern:
        """The index key.  `dns_keys` yields it for every name that matches."""
        return self


def dns_keys(value: str) -> Iterator[DnsPattern]:
    """
    :param value: a canonical DNS name.
    :returns: the keys of all patterns that match it.
    """
    _, dot, parent = value.partition(".")
    if dot:
        yield DnsPattern(f".{parent}")


@frozen
class UriPattern:
    """
    A URI with ``*`` or ``**`` in its path.

    :ivar front: scheme and authority; they must be equal.
    :ivar segments: the path's segments; ``*`` matches any one, ``**`` one or more.
    """

    front: str
    segments: tuple[str, ...]

    def matches(self, value: str, wide: bool = False) -> bool:
        """:param value: a URI as the certificate has it."""
        found = _URI.match(value)
        if found is None or found["front"] != self.front:
            return False
        return _match(self.segments, found["path"].split("/"), wide)

    @property
    def key(self) -> UriPattern:
        """The index key.  `uri_keys` yields it for every URI that matches strictly."""
        literal = takewhile(lambda segment: segment not in ("*", "**"), self.segments)
        return UriPattern(self.front, tuple(islice(literal, _HEAD)))


def uri_keys(value: str) -> Iterator[UriPattern]:
    """
    :param value: a URI as the certificate has it.
    :returns: the keys of all patterns that match it strictly.
    """
    found = _URI.match(value)
    if found is not None:
        segments = tuple(found["path"].split("/", _HEAD)[:_HEAD])
        for length in range(len(segments) + 1):
            yield UriPattern(found["front"], segments[:length])


def _match(pattern: tuple[str, ...], segments: list[str], wide: bool) -> bool:
    """Whether the segments match.  Time grows with the product of both lengths."""
    # How many pattern segments the segments so far may have used.
    states = {0}
    for segment in segments:
        following: set[int] = set()
        wild = wide or _SEGMENT.match(segment) is not None
        for state in states:
            wanted = pattern[state] if state < len(pattern) else None
            if wild if wanted in ("*", "**") else wanted == segment:
                following.add(state + 1)
                if wanted == "**":
                    following.add(state)
        states = following
    return len(pattern) in states


def dns_pattern(text: str) -> str | DnsPattern:
    """
    :returns: the canonical name, or a pattern.
    :raises ValueError: if it would match everything, or could match nothing.
    """
    name = canonical(text)
    if not name:
        raise ValueError("is empty")
    if not name.isascii():
        raise ValueError("is not ASCII: write an internationalized name with its A-labels, xn--…")
    if "*" not in name:
        return name
    rest = name.removeprefix("*.")
    if rest == name or "*" in rest:
        raise ValueError('a "*" is one whole label, and the first: write "*.b.example"')
    if not rest:
        raise ValueError("would match everything")
    return DnsPattern(f".{rest}")


def uri_pattern(text: str) -> str | UriPattern:
    """
    :returns: the URI, or a pattern.
    :raises ValueError: if it would match everything, or if a ``*`` is outside
        the path.
    """
    if "*" not in text:
        return text
    found = _URI.match(text)
    if text.strip("*/") == "":
        raise ValueError("would match everything")
    if found is None or "*" in found["front"] or re.search(r"[?#].*\*", found["path"], re.DOTALL):
        raise ValueError('a "*" may only stand in the path, after scheme and host')
    segments = tuple(found["path"].split("/"))
    for segment in segments:
        if "*" in segment and segment not in ("*", "**"):
            raise ValueError('a "*" or "**" is a whole segment: write "…/a/*"')
    if "://" not in found["front"] and segments[0] in ("*", "**"):
        raise ValueError("would match everything of its scheme")
    return UriPattern(found["front"], segments)


def spiffe_pattern(text: str) -> str | UriPattern:
    """
    :returns: the SPIFFE ID, or a pattern within one trust domain.
    :raises ValueError: if it is not a SPIFFE ID, or spans several trust domains.
    """
    domain = re.match(r"spiffe://([^/]*)", text)
    if domain is None:
        raise ValueError('is no SPIFFE ID: write "spiffe://trust-domain/path"')
    if "*" in domain[1]:
        raise ValueError("a pattern never crosses trust domains: name one")
    if not re.fullmatch(r"[a-z0-9._-]+", domain[1]):
        raise ValueError("the trust domain is not one: lower-case letters, digits, dots, - and _")
    return uri_pattern(text)
