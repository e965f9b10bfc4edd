"""
Where a Redis is: its URL, read and checked without connecting.

The URLs are those of redis-py, with two more families for Sentinel and Cluster::

    redis://[user[:password]@]host[:6379][/database]        rediss:// with TLS
    redis+unix://[user[:password]@]/path/to.sock[?db=0]     also unix://
    redis+sentinel://[…@]host[:26379],host/service[/database]    rediss+sentinel://
    redis+cluster://[…@]host[:6379],host                    rediss+cluster://
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from urllib.parse import parse_qsl, unquote, urlsplit

from attrs import field, frozen

from mtlsgate.certificates.server_identity import is_loopback
from mtlsgate.registry.store import StoreError, StoreOptions
from mtlsgate.text import printable

#: Where Redis and Sentinel listen if nobody says otherwise.
REDIS_PORT = 6379
SENTINEL_PORT = 26379


class Kind(Enum):
    """What answers at the address."""

    SERVER = "redis"
    UNIX = "redis+unix"
    SENTINEL = "redis+sentinel"
    CLUSTER = "redis+cluster"


_SCHEMES = {
    "redis": (Kind.SERVER, False),
    "rediss": (Kind.SERVER, True),
    "redis+unix": (Kind.UNIX, False),
    "unix": (Kind.UNIX, False),
    "redis+sentinel": (Kind.SENTINEL, False),
    "rediss+sentinel": (Kind.SENTINEL, True),
    "redis+cluster": (Kind.CLUSTER, False),
    "rediss+cluster": (Kind.CLUSTER, True),
}

#: The schemes of URLs that `parse_redis` reads.
REDIS_SCHEMES = frozenset(_SCHEMES)

#: The parameters of the query that each kind has.
_PARAMETERS = {
    Kind.SERVER: frozenset({"db"}),
    Kind.UNIX: frozenset({"db"}),
    Kind.SENTINEL: frozenset({"db", "sentinel_username", "sentinel_password"}),
    Kind.CLUSTER: frozenset[str](),
}


@frozen
class Node:
    """
    A server's address.

    :ivar host: a name or an IP address, without brackets.
    :ivar port: 1 to 65535.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@frozen
class Login:
    """
    Who the gate is to a server.

    :ivar username: None for the default user.
    :ivar password: None if there is none.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@frozen
class RedisAddress:
    """
    Where a Redis is.

    :ivar kind: what answers there.
    :ivar tls: whether it is spoken to in TLS.
    :ivar nodes: the server, the sentinels, or the nodes of the cluster that are known
        beforehand; empty for a Unix socket.
    :ivar path: of the Unix socket; empty otherwise.
    :ivar service: the name that the sentinels know the master by; empty otherwise.
    :ivar database: its number.
    :ivar login: for the server.
    :ivar sentinel_login: for the sentinels.
    """

    kind: Kind
    tls: bool = False
    nodes: tuple[Node, ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    login: Login = Login()
    sentinel_login: Login = Login()

    @property
    def ports(self) -> frozenset[int] | None:
        """The ports to connect to; None if the servers say more of them."""
        if self.kind in (Kind.SENTINEL, Kind.CLUSTER):
            return None
        return frozenset(node.port for node in self.nodes)

    def exposure(self, options: StoreOptions) -> str | None:
        """:returns: who can listen and what to do about it, in one line; or None."""
        logins = (self.login.password, self.sentinel_login.password, options.password)
        remote = [one for one in self.nodes if not is_loopback(one.host)]
        if self.tls or not remote or not any(logins):
            return None
        return (
            f"the password goes to {printable(str(remote[0]))} in plaintext, where whoever is in "
            "between can read it and change what the gate is told: write "
            f"{self.kind.value.replace('redis', 'rediss', 1)}://, for TLS"
        )

    def __str__(self) -> str:
        """For people: without user, password and parameters."""
        scheme = self.kind.value.replace("redis", "rediss", 1) if self.tls else self.kind.value
        hosts = ",".join(map(str, self.nodes))
        match self.kind:
            case Kind.UNIX:
                return printable(f"{scheme}://{self.path}?db={self.database}")
            case Kind.SENTINEL:
                return printable(f"{scheme}://{hosts}/{self.service}/{self.database}")
            case Kind.CLUSTER:
                return printable(f"{scheme}://{hosts}")
            case Kind.SERVER:
                return printable(f"{scheme}://{hosts}/{self.database}")


def parse_redis(url: str) -> RedisAddress:
    """
    :param url: one of those in the module's head.
    :raises StoreError: what is wrong with it, without the URL, which may have a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in _SCHEMES or not rest:
        raise StoreError(f"the URL must begin with one of {_listed(REDIS_SCHEMES, '://')}")
    kind, tls = _SCHEMES[scheme]
    try:
        parts = urlsplit(f"//{rest}")
    except ValueError:
        # urllib says what it dislikes with the text around it: that may be a password.
        raise StoreError("the URL's host cannot be read; put [ and ] around IPv6 only") from None
    if parts.fragment:
        raise StoreError("the URL has a '#': write %23 if it belongs to a password")
    credentials, _, hosts = parts.netloc.rpartition("@")
    query = _parameters(kind, parts.query)
    path = unquote(parts.path)
    login = _login(credentials)
    sentinel = Login(query.get("sentinel_username"), query.get("sentinel_password"))
    if kind is Kind.UNIX:
        if hosts or path in ("", "/"):
            raise StoreError("the URL needs the path of a socket, as in redis+unix:///run/r.sock")
        return RedisAddress(kind, path=path, database=_database(query.get("db")), login=login)
    nodes = _nodes(hosts, SENTINEL_PORT if kind is Kind.SENTINEL else REDIS_PORT)
    if kind is Kind.SERVER and len(nodes) > 1:
        raise StoreError("several hosts need redis+sentinel:// or redis+cluster://")
    segments = path.strip("/").split("/") if path.strip("/") else []
    service = segments.pop(0) if kind is Kind.SENTINEL and segments else ""
    if kind is Kind.SENTINEL and not service:
        raise StoreError("the URL needs the service's name, as in redis+sentinel://host/mymaster")
    if kind is Kind.CLUSTER and segments:
        raise StoreError("a cluster has one database only: remove what follows the hosts")
    if len(segments) > 1:
        raise StoreError("the URL's path must be the number of a database")
    if segments and "db" in query:
        raise StoreError("the URL states the database twice, in its path and as db")
    database = _database(segments[0] if segments else query.get("db"))
    return RedisAddress(kind, tls, nodes, "", service, database, login, sentinel)


def _listed(names: frozenset[str], suffix: str = "") -> str:
    return ", ".join(f"{name}{suffix}" for name in sorted(names))


def _login(text: str) -> Login:
    username, _, password = text.partition(":")
    return Login(unquote(username) or None, unquote(password) or None)


def _nodes(hosts: str, port: int) -> tuple[Node, ...]:
    return tuple(_node(text, port) for text in hosts.split(","))


def _node(text: str, port: int) -> Node:
    try:
        parts = urlsplit(f"//{text}")
        host, stated = parts.hostname, parts.port
    except ValueError:
        raise StoreError("the URL has a host or port that cannot be read") from None
    if not host or stated == 0 or "@" in text:
        raise StoreError("the URL needs a host, as in redis://registry.example:6379/0")
    return Node(host, stated or port)


def _database(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 6):
        raise StoreError("the URL's database must be a number, as in redis://host:6379/0")
    return int(text)


def _parameters(kind: Kind, query: str) -> Mapping[str, str]:
    known = _PARAMETERS[kind]
    found: dict[str, str] = {}
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise StoreError("the URL's parameters cannot be read: they are name=value&…") from None
    for name, value in pairs:
        if name in found:
            raise StoreError(f"the URL states {name} twice")
        if name not in known:
            has = f"it may have {_listed(known)}" if known else "it may have none"
            raise StoreError(f"the URL has a parameter that is none of ours; {has}")
        found[name] = value
    return found
