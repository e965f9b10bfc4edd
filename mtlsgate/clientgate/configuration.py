"""
The ``client`` block.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterator
from typing import Any, Literal

from attrs import frozen

from mtlsgate.config import Duration, Located, Misconfigured
from mtlsgate.config.fields import DurationOrZero
from mtlsgate.text import quoted
from mtlsgate.upstream.configuration import DialAttributes
from mtlsgate.upstream.tls import TargetTls

#: The largest user number that is not "none" (setreuid(2)).
_MAX_UID = 2**32 - 2


@frozen(kw_only=True)
class ClientConfiguration(DialAttributes):
    """
    What a ``client`` block says.

    :ivar hosts: where it listens: loopback addresses and unix sockets.
    :ivar tls: how it speaks TLS to the target.
    :ivar allow_uids: the users who may connect to its unix sockets, by number or name.
    :ivar unsafe_listen: whether other machines may connect, in plaintext.
    :ivar idle_timeout: how long a connection may be without a byte, in seconds.
    :ivar max_connections: connections at a time.
    :ivar max_handshakes: connections at a time that have no target yet.
    :ivar on_reload: whether connections are judged again by a new configuration.
    :ivar revoke_grace: how long connections that it rejects may stay, in seconds.
    :ivar log_admitted: whether the log has a line for each connection to a target.
    """

    hosts: tuple[Located[str], ...]
    tls: TargetTls
    allow_uids: tuple[Located[Any], ...] | None = None
    unsafe_listen: bool = False
    idle_timeout: Duration | None = None
    max_connections: int | None = None
    max_handshakes: int | None = None
    on_reload: Literal["judge", "keep"] | None = None
    revoke_grace: DurationOrZero | None = None
    log_admitted: bool | None = None

    def problems(self) -> Iterator[tuple[str | None, str]]:
        """Yield (attribute or None, text) for what is wrong with the block as a whole."""
        yield from super().problems()
        if not self.hosts:
            yield "hosts", 'hosts is empty: name at least one address, as in ["127.0.0.1:6379"]'
        for name in ("max_connections", "max_handshakes"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                yield name, f"{name} must be more than 0; leave it out for no limit"
        if self.allow_uids is None:
            return
        if not self.allow_uids:
            yield "allow_uids", "allow_uids is empty: nobody could connect; leave it out"
        unix = ("unix:", "systemd:domain=UNIX:")
        if not all(host.value.startswith(unix) for host in self.hosts):
            yield (
                "allow_uids",
                "allow_uids needs unix sockets: the system does not say who connects over TCP",
            )

    def uids(self) -> frozenset[int] | None:
        """
        :returns: the numbers of the users who may connect; None means everybody.
        :raises Misconfigured: at the first user whom this machine does not know.
        """
        return None if self.allow_uids is None else frozenset(map(_uid, self.allow_uids))


def _uid(written: Located[Any]) -> int:
    match written.value:
        case bool():
            pass
        case int(number) if 0 <= number <= _MAX_UID:
            return number
        case str(name):
            try:
                return pwd.getpwnam(name).pw_uid
            except (KeyError, ValueError):
                text = f"allow_uids: this machine has no user {quoted(name)}"
                raise Misconfigured(written.at, text) from None
    raise Misconfigured(
        written.at, 'allow_uids: write numbers or names of users, as in [1000, "redis"]'
    )
