"""
Where a PostgreSQL is: its URL, read and checked without connecting.

The URLs are libpq's (PostgreSQL 15 documentation, 34.1.1.2)::

    postgresql://[user[:password]@][host[:5432],host…][/database][?sslmode=verify-full&…]
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, unquote

from attrs import frozen

from mtlsgate.certificates.server_identity import is_loopback
from mtlsgate.registry.store import StoreError, StoreOptions
from mtlsgate.text import printable

#: The schemes of URLs that `parse_postgresql` reads.
POSTGRESQL_SCHEMES = frozenset({"postgresql", "postgres"})

_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*)(:[0-9]*)?")
#: Where PostgreSQL listens if nobody says otherwise.
_PORT = 5432
#: Parameters that say where a server is.
_ELSEWHERE = frozenset({"host", "hostaddr", "port", "service"})
#: Parameters with files that the gate must know of, and what to state in their place.
_BESIDE = {
    "sslrootcert": "ca_file",
    "sslcert": "certificate_file",
    "sslkey": "private_key_file",
    "passfile": "password_file",
    "service": "what the service says, in the URL or",
}
#: Values of libpq's ``sslmode`` that verify a server by a CA, and what it is by default.
VERIFYING = ("verify-ca", "verify-full")
_SSLMODE = "prefer"
_PRIMARY = ("primary", "read-write")


@frozen
class PostgresqlAddress:
    """
    Where a PostgreSQL is.

    :ivar hosts: each with its port if the URL states one; empty if libpq is to find them.
    :ivar database: empty for libpq's default.
    :ivar ports: TCP ports to connect to; None if the URL leaves some to libpq.
    :ivar machines: the names or addresses to connect to, without Unix sockets.
    :ivar sslmode: libpq's, if the URL states it.
    """

    hosts: tuple[str, ...] = ()
    database: str = ""
    ports: frozenset[int] | None = None
    machines: tuple[str, ...] = ()
    sslmode: str | None = None

    def exposure(self, options: StoreOptions) -> str | None:
        """:returns: who can listen and what to do about it, in one line; or None."""
        remote = [one for one in self.machines if not is_loopback(one)]
        if options.ca_file is not None or self.sslmode in VERIFYING or not remote:
            return None
        mode = self.sslmode or f"{_SSLMODE}, libpq's default,"
        return (
            f"whoever is between the gate and {printable(remote[0])} can read the password and "
            f"change what the gate is told, since sslmode={mode} verifies no certificate: state "
            "ca_file, or in the URL sslmode=verify-full, which takes the system's CAs"
        )

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
    if "#" in rest:
        raise StoreError("the URL has a '#': write %23 if it belongs to a password")
    authority, _, database = rest.partition("?")[0].partition("/")
    hosts = [host for host in authority.rpartition("@")[2].split(",") if host]
    if not all(_HOST.fullmatch(host) for host in hosts):
        # Nothing of it is repeated: what looks like a host may be a password's rest.
        raise StoreError("the URL's host cannot be read; put [ and ] around IPv6 only")
    query = dict(_query(url))
    if query.get("target_session_attrs", "primary") not in _PRIMARY:
        raise StoreError(
            "the URL's target_session_attrs must be primary or read-write, or not stated:"
            " a standby tells no changes"
        )
    for name in query_names(url):
        if name in _BESIDE:
            raise StoreError(f"the URL has {name}: state {_BESIDE[name]} beside it")
    ports = _ports(hosts) if hosts and not _ELSEWHERE & set(query_names(url)) else None
    # What libpq connects to: an address rather than a name, the parameter rather than the rest.
    stated = query.get("hostaddr") or query.get("host")
    names = map(_machine, hosts) if stated is None else stated.split(",")
    return PostgresqlAddress(
        tuple(map(unquote, hosts)),
        unquote(database),
        ports,
        tuple(name for name in names if name and name[0] not in "/@"),
        query.get("sslmode"),
    )


def _machine(host: str) -> str:
    found = _HOST.fullmatch(host)
    assert found is not None
    return unquote(found[1].strip("[]"))


def _ports(hosts: list[str]) -> frozenset[int] | None:
    found: set[int] = set()
    for host in hosts:
        if unquote(host).startswith("/"):
            # A directory with a Unix socket.
            continue
        stated = host.rpartition(":")[2]
        found.add(int(stated) if stated.isdigit() and not host.endswith("]") else _PORT)
    return frozenset(found)


def query_names(url: str) -> list[str]:
    """:returns: the names of the URL's parameters."""
    return [name for name, _ in _query(url)]


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(url.partition("?")[2], keep_blank_values=True)
