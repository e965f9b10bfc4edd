"""
Where a PostgreSQL is: its URL, read and checked without connecting.

The URLs are libpq's (PostgreSQL 15 documentation, 34.1.1.2)::

    postgresql://[user[:password]@][host[:5432],host…][/database][?sslmode=verify-full&…]
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from attrs import frozen

from mtlsgate.registry.store import StoreError
from mtlsgate.text import printable

#: The schemes of URLs that `parse_postgresql` reads.
POSTGRESQL_SCHEMES = frozenset({"postgresql", "postgres"})


@frozen
class PostgresqlAddress:
    """
    Where a PostgreSQL is.

    :ivar hosts: each with its port if the URL states one; empty if libpq is to find them.
    :ivar database: empty for libpq's default.
    """

    hosts: tuple[str, ...] = ()
    database: str = ""

    def __str__(self) -> str:
        """For people: without user, password and parameters."""
        return printable(f"postgresql://{','.join(self.hosts)}/{self.database}")


def parse_postgresql(url: str) -> PostgresqlAddress:
    """
    :param url: one of those in the module's head.
    :raises StoreError: what is wrong with it, without the URL, which may have a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in POSTGRESQL_SCHEMES:
        raise StoreError("the URL must begin with postgresql:// or postgres://")
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError:
        # urllib says what it dislikes with the text around it: that may be a password.
        raise StoreError("the URL's host cannot be read; put [ and ] around IPv6 only") from None
    if parts.fragment:
        raise StoreError("the URL has a '#': write %23 if it belongs to a password")
    hosts = parts.netloc.rpartition("@")[2]
    return PostgresqlAddress(
        tuple(unquote(host) for host in hosts.split(",") if host),
        unquote(parts.path.removeprefix("/")),
    )
