"""
Connections to a Redis: made, asked and closed.

`Dialler` knows how; a `Link` is one connection, whose errors are `StoreError`.  The
connections and their parsers are redis-py's.  Its clients and pools are not used: a
`mtlsgate.registry.redis_channel.Channel` shares round trips, and follows nothing silently
to a server that nobody checked.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import frozen
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    DefaultParser,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.exceptions import RedisError, ResponseError

from mtlsgate.registry.read_files import ReadFiles
from mtlsgate.registry.redis_address import Kind, Login, Node, RedisAddress
from mtlsgate.registry.redis_errors import explained
from mtlsgate.registry.store import StoreError, StoreOptions, StoreUnavailable

#: A command with its arguments.
Command = tuple[str | bytes | int, ...]

#: Asks what a server is, and how much its replicas have.
ROLE: Command = ("ROLE",)
#: What roles are called, for people.
_ROLES = {
    b"master": "a master",
    b"slave": "a replica, whose answers may be old",
    b"sentinel": "a sentinel: its URL begins with redis+sentinel://",
}


@frozen
class Changed:
    """
    What a server pushes when something under the followed prefix has changed.

    :ivar names: of the changed keys; None for any.
    """

    names: Sequence[bytes] | None


async def _pushed(message: list[Any]) -> Changed:
    return Changed(message[1])


def _parser(socket_read_size: int) -> Any:
    # Of RESP3, or of hiredis: both push.
    parser: Any = DefaultParser(socket_read_size)
    parser.set_invalidation_push_handler(_pushed)
    return parser


class _TlsConnection(SSLConnection):
    """In TLS with a context that is there already: files are read once, at load."""

    def __init__(self, context: ssl.SSLContext, **how: Any) -> None:
        super().__init__(**how)
        self.ssl_context.context = context


def packed(commands: Sequence[Command]) -> bytes:
    """
    :returns: the commands as they are sent: arrays of strings.  redis-py's own way takes
        several times as long.
    """
    parts: list[bytes] = []
    for command in commands:
        parts.append(b"*%d\r\n" % len(command))
        for word in command:
            data = word if isinstance(word, bytes) else str(word).encode()
            parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Link:
    """
    A connection to one server.

    :ivar where: the server, for people.
    """

    def __init__(self, connection: AbstractConnection, where: str) -> None:
        self.where = where
        self._connection = connection

    async def open(self) -> None:
        """:raises StoreError: if there is no connection, or the login is refused."""
        try:
            await self._connection.connect()
        except (RedisError, OSError) as error:
            raise explained(error, self.where) from error

    async def exchange(self, commands: Sequence[Command]) -> list[object]:
        """
        :param commands: sent in one piece.
        :returns: their replies in order; an error reply is a value.
        :raises StoreError: if the connection breaks.
        """
        await self.send(commands)
        return [await self._reply() for _ in commands]

    async def send(self, commands: Sequence[Command]) -> None:
        """:raises StoreError: if the connection is broken."""
        try:
            await self._connection.send_packed_command(packed(commands))
        except (RedisError, OSError) as error:
            raise explained(error, self.where) from error

    async def receive(self, seconds: float) -> object:
        """
        :param seconds: how long to wait.
        :returns: a reply or a `Changed`; None if there is none in time.
        :raises StoreError: if the connection breaks, or the reply is an error.
        """
        try:
            return await self._connection.read_response(True, seconds, push_request=True)
        except (RedisError, OSError) as error:
            raise explained(error, self.where) from error

    async def _reply(self) -> object:
        try:
            return await self._connection.read_response(True)
        except ResponseError as error:
            return error
        except (RedisError, OSError) as error:
            raise explained(error, self.where) from error

    async def close(self) -> None:
        """Close the connection, without waiting for the server."""
        await self._connection.disconnect(nowait=True)


def require_role(reply: object, role: bytes, where: str) -> None:
    """
    :param reply: to ``ROLE``.
    :param role: what the server must be: ``master`` or ``sentinel``.
    :raises StoreError: if it is anything else.
    """
    if isinstance(reply, BaseException):
        raise explained(reply, where)
    found = reply[0] if isinstance(reply, list) and reply else None
    if found != role:
        what = _ROLES.get(found, "something else") if isinstance(found, bytes) else "odd"
        raise StoreUnavailable(f"{where} is {what}")


@frozen
class Dialler:
    """
    How connections are made.

    :ivar address: of the Redis.
    :ivar timeout: of a connection attempt, in seconds.
    :ivar context: for TLS; None for plaintext.
    """

    address: RedisAddress
    timeout: float
    context: ssl.SSLContext | None = None

    async def dial(self, node: Node | None, login: Login | None = None) -> Link:
        """
        :param node: the server; None for the Unix socket.
        :param login: None for the servers' own; sentinels have another.
        :returns: an open connection.
        :raises StoreError: if there is none.
        """
        login = login or self.address.login
        # Not the servers' database, which sentinels have not.
        database = self.address.database if login is self.address.login else 0
        how: dict[str, Any] = {
            "username": login.username,
            "password": login.password,
            "db": database,
            "protocol": 3,
            "parser_class": _parser,
            "socket_connect_timeout": self.timeout,
            # Whoever asks has a time limit of its own, for all replies together.
            "socket_timeout": None,
            "driver_info": None,
            "maint_notifications_config": None,
        }
        if node is None:
            link = Link(
                UnixDomainSocketConnection(path=self.address.path, **how), self.address.path
            )
        else:
            make = Connection if self.context is None else partial(_TlsConnection, self.context)
            link = Link(make(host=node.host, port=node.port, **how), str(node))
        try:
            await link.open()
        except BaseException:
            await link.close()
            raise
        return link


def tls_context(address: RedisAddress, options: StoreOptions) -> ssl.SSLContext | None:
    """
    :returns: the context of a Redis in TLS; None for plaintext.
    :raises StoreError: if a file cannot be used, or is stated for plaintext.
    """
    files = (options.ca_file, options.certificate_file, options.key_file)
    if not address.tls:
        if any(files):
            hint = "" if address.kind is Kind.UNIX else "; for TLS it begins with rediss"
            raise StoreError(f"certificates are for TLS, which the URL does not ask for{hint}")
        return None
    read = ReadFiles(dict(options.contents))
    try:
        ca_file = None if options.ca_file is None else read.path(options.ca_file)
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise StoreError(f"ca_file {options.ca_file}: {_file_problem(error)}") from error
    if options.certificate_file:
        try:
            key = None if options.key_file is None else read.path(options.key_file)
            context.load_cert_chain(read.path(options.certificate_file), key, _no_passphrase)
        except (OSError, ValueError) as error:
            # OpenSSL does not say which of them.
            where = f"certificate_file {options.certificate_file}"
            if options.key_file:
                where += f", private_key_file {options.key_file}"
            raise StoreError(f"{where}: {_file_problem(error)}") from error
    elif options.key_file:
        raise StoreError("the private key of the registry's client lacks its certificate_file")
    return context


def _file_problem(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return "has no certificate or key in PEM, or they do not belong together"
    if isinstance(error, OSError):
        return error.strerror or "cannot be read"
    return str(error)


def _no_passphrase() -> str:
    # Without this OpenSSL asks on the terminal.
    raise ValueError("the private key has a passphrase: decrypt it first")


async def ask_role(link: Link, commands: Sequence[Command], role: bytes) -> list[object]:
    """
    Ask, and make sure that the answers come from a server of the right role.

    :returns: the replies in order; an error reply is a value.
    :raises StoreError: if the connection breaks, or the role is another.
    """
    reply, *replies = await link.exchange([ROLE, *commands])
    require_role(reply, role, link.where)
    return replies
