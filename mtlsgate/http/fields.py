"""
Header fields: their names, their values, and which are of one connection only.

Pure functions on lines, each a name and a value in bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

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
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
#: RFC 9110, 5.5; the whitespace around it is not part of a value.
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_SEPARATORS = re.compile(rb"[^0-9a-z]")


def is_token(name: bytes) -> bool:
    """:returns: whether it is a token (RFC 9110, 5.6.2), as names of fields are."""
    return _TOKEN.fullmatch(name) is not None


def is_value(value: bytes) -> bool:
    """:returns: whether a field can have that value."""
    return _VALUE.fullmatch(value) is not None


def folded(name: bytes) -> bytes:
    """
    :returns: the name as CGI and WSGI would take it: there ``X_Client.CN`` is
        ``X-Client-CN``.
    """
    return _remembered(name) if len(name) <= _SHORT else _fold(name)


def _fold(name: bytes) -> bytes:
    return _SEPARATORS.sub(b"-", name.lower())


#: Names that clients make up must not fill memory: only short ones are remembered.
_SHORT = 64
_remembered = lru_cache(1024)(_fold)


def tokens(values: Iterable[bytes]) -> list[bytes]:
    """:returns: the members of a list of tokens, in lower case (RFC 9110, 5.6.1)."""
    return [
        member for value in values for one in value.split(b",") if (member := one.strip().lower())
    ]


def end_to_end(lines: Iterable[Line], connection: Iterable[bytes]) -> Iterator[Line]:
    """
    Yield what is not of one connection only.

    :param connection: the values of the ``Connection`` fields.
    """
    named = HOP_BY_HOP.union(tokens(connection))
    return (line for line in lines if line[0].lower() not in named)


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
