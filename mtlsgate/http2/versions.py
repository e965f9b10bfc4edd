"""
Which versions of HTTP a server offers: the attribute ``http_versions`` of its block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from mtlsgate.http.connection import HttpConnection
from mtlsgate.http.server import HTTP_1, Versions
from mtlsgate.http2.connection import Http2Connection

HttpVersion = Literal["2", "1.1"]
#: By default: the preferred one first.
VERSIONS: tuple[HttpVersion, ...] = ("2", "1.1")


def version_problems(versions: Sequence[HttpVersion]) -> Iterator[tuple[str, str]]:
    """Yield (attribute, text) for what cannot be meant."""
    if "1.1" not in versions:
        text = 'http_versions must have "1.1", which clients without ALPN speak'
        yield "http_versions", text
    if len(set(versions)) < len(versions):
        yield "http_versions", "http_versions names a version twice"


def versions(wanted: Sequence[HttpVersion]) -> Versions:
    """:returns: the connections of each version, by its name in ALPN."""
    known: Versions = {b"h2": Http2Connection, HTTP_1: HttpConnection}
    names = {"2": b"h2", "1.1": HTTP_1}
    return {names[one]: known[names[one]] for one in wanted}
