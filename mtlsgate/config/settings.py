"""
What a configuration file says for the whole gate: ``settings``, ``admin`` and
``defaults``, and the limits that a ``server`` may set for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from attrs import Factory, field, frozen

from mtlsgate.config.fields import (
    Duration,
    DurationOrZero,
    FileName,
    Located,
    Material,
    OrWord,
    SizeOrZero,
    position,
)
from mtlsgate.errors import Position

#: An attribute of both ``settings``, for all servers, and ``server``.
Number = int | None


@frozen(kw_only=True)
class Defaults:
    """
    What may stand in ``settings``, for all servers, and in a ``server``, for itself;
    None if it is not set.

    :ivar handshake_timeout: how long a client may take from connecting to the
        end of its handshake, in seconds.
    :ivar idle_timeout: how long a connection may be without a byte, in seconds.
    :ivar max_connections: clients at a time.
    :ivar max_connections_per_ip: connections at a time of one address.
    :ivar max_connections_per_identity: connections at a time with one leaf.
    :ivar count_in: the label of a registry in which ``max_connections_per_identity``
        counts the connections to all gates.
    :ivar max_handshakes: handshakes at a time.
    :ivar handshakes_per_second_per_ip: of one address, in the long run.
    :ivar handshake_bytes: what a client may send in its handshake.
    :ivar close_on_expiry: whether a connection ends with its client's
        certificate, or with its pin.
    :ivar on_reload: whether connections are judged again by a new
        configuration.
    :ivar revoke_grace: how long clients that it rejects may stay, in seconds.
    :ivar log_admitted: whether the log has a line for each admitted client.
    """

    handshake_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    max_connections: Number = None
    max_connections_per_ip: Number = None
    max_connections_per_identity: Number = None
    count_in: Located[str] | None = None
    max_handshakes: Number = None
    handshakes_per_second_per_ip: float | None = None
    handshake_bytes: Number = None
    close_on_expiry: bool | None = None
    on_reload: Literal["judge", "keep"] | None = None
    revoke_grace: DurationOrZero | None = None
    log_admitted: bool | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        for name in _COUNTED:
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield name, f"{name} must be more than 0; leave it out for no limit"
        if self.handshake_bytes is not None and 0 < self.handshake_bytes < _LEAST_HANDSHAKE:
            yield (
                "handshake_bytes",
                f"handshake_bytes must be at least {_LEAST_HANDSHAKE}: a ClientHello and a "
                "short chain take as much",
            )


_COUNTED = (
    "max_connections",
    "max_connections_per_ip",
    "max_connections_per_identity",
    "max_handshakes",
    "handshakes_per_second_per_ip",
    "handshake_bytes",
)
#: In bytes.
_LEAST_HANDSHAKE = 4096


@frozen(kw_only=True)
class Audit:
    """
    A file with one line for each event.

    :ivar file: which, relative to the configuration's directory.
    :ivar format: of its lines.
    """

    at: Position = position()
    file: Located[FileName] = field()
    format: Literal["json"] = "json"


#: How many workers, or one for each core.
Workers = int | Literal["auto"]
#: More would be a mistake.
_MOST_WORKERS = 256


@frozen(kw_only=True)
class Log:
    """
    The log of the program.

    :ivar level: the least urgent level that is logged.
    :ivar format: of its lines.
    :ivar file: where they go, relative to the configuration's directory; None for
        standard output or error.
    :ivar max_size: bytes after which the file is renamed and a new one begun; 0 for
        never.
    :ivar keep: how many of the renamed files are kept.
    """

    at: Position = position()
    level: Literal["debug", "info", "warn", "error", "critical"] = "info"
    format: Literal["text", "json"] = "text"
    file: Located[FileName] | None = None
    max_size: SizeOrZero = 10 << 20
    keep: int = 10

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        if not 1 <= self.keep <= 1000:
            yield "keep", "keep must be from 1 to 1000"


@frozen(kw_only=True)
class Settings(Defaults):
    """
    :ivar environment: which ``environment`` blocks count, unless the environment
        variable MTLSGATE_ENVIRONMENT names another.
    :ivar watch: whether to reload when a file changes that was read.
    :ivar drain_timeout: how long connections may go on when the gate is
        stopped, in seconds.
    :ivar quiet: whether the log says nothing of connections that come and go
        without a byte.
    :ivar readiness: what the gate needs to be ready: to listen, or besides a target of each
        server that is up, or the registries, or both.
    :ivar event_loop: what the gate runs on; None for what the configuration needs.
    :ivar audit: where to keep an audit log.
    :ivar state_dir: where documents are kept that the gate has fetched, relative to the
        configuration's directory; None for systemd's, or else ``state``.
    :ivar log: what the program logs, how, and where; None for the defaults.
    :ivar user: whom the gate becomes when it is started as root, by name or number.
    :ivar group: likewise; by default the user's.
    :ivar takeover: whether another gate may listen on the same addresses while this one
        drains.
    :ivar sandbox: whether the gate gives up what it does not need; None to do so if no
        code of its user's runs in it.
    :ivar workers: how many processes take connections; ``auto`` for one for each core.
    :ivar shadow: another configuration that judges every client, too, and changes nothing:
        a file or directory, relative to the configuration's directory.
    """

    environment: str | None = None
    watch: bool = False
    drain_timeout: DurationOrZero = 10.0
    quiet: bool = False
    readiness: Literal["listening", "targets", "registries", "all"] = "listening"
    event_loop: Located[Literal["asyncio", "uvloop", "epoll"]] | None = None
    audit: Audit | None = None
    state_dir: Located[FileName] | None = None
    log: Log | None = None
    user: Located[str] | None = None
    group: Located[str] | None = None
    takeover: bool = False
    sandbox: Located[bool] | None = None
    workers: Annotated[Workers, OrWord("auto")] = 1
    shadow: Located[FileName] | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        yield from super().problems()
        if self.group is not None and self.user is None:
            yield "group", "group needs user"
        if self.workers != "auto" and not 1 <= self.workers <= _MOST_WORKERS:
            yield "workers", f'workers must be from 1 to {_MOST_WORKERS}, or "auto"'


@frozen(kw_only=True)
class Admin:
    """
    Where the gate can be asked how it is, and told what to do.

    :ivar listen: ``unix:/path``, or a loopback address with a port.
    :ivar token: what a client must present to come in over TCP.
    """

    at: Position = position()
    listen: Located[str] = field()
    token: Material | None = field(default=None, repr=False)


@frozen(kw_only=True)
class VariableDefaults:
    """
    :ivar environment_variables: what those are that are not set.
    """

    at: Position = position()
    environment_variables: dict[str, str] = Factory(dict)
