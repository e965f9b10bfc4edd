"""
Limits on connections, for each client and for all of them together.

This module is pure except for its counters; callers pass in the time.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Literal, Protocol, TypeVar

from attrs import field, frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Rejection
from mtlsgate.reasons import Reason

T = TypeVar("T")

#: What is counted: of a server, or of one source or identity.
Kind = Literal["handshakes", "admitted", "source", "identity"]

#: How many addresses' rates are remembered.  If there are more, the one that was
#: silent longest is forgotten; it starts again with a full bucket.
MAX_REMEMBERED = 65536

#: The prefix length of the IPv6 network that one site may have (RFC 6177).
_IPV6_SITE = 64


@frozen(kw_only=True)
class Limits:
    """
    One server's limits; None means no limit.

    :ivar max_connections: admitted clients at a time.
    :ivar max_connections_per_ip: connections at a time, admitted or not, from one
        IPv4 address or IPv6 /64 network.
    :ivar max_connections_per_identity: admitted connections at a time of one
        client (`VerifiedPeer.identity`).
    :ivar max_handshakes: connections at a time that are not admitted yet.
    :ivar handshakes_per_second_per_ip: the average rate from one IPv4 address or
        IPv6 /64 network, with bursts of up to one second's worth.
    :ivar handshake_bytes: how many bytes a client may send until it is admitted.
    """

    max_connections: int | None = None
    max_connections_per_ip: int | None = None
    max_connections_per_identity: int | None = None
    max_handshakes: int | None = None
    handshakes_per_second_per_ip: float | None = None
    handshake_bytes: int | None = None


#: No limit at all.
UNLIMITED = Limits()


def source_of(address: IAddress) -> str | None:
    """
    :returns: the source that limits count by: an IPv4 address, or the /64 network
        of an IPv6 address; None if the address is not an IP address.
    """
    host = getattr(address, "host", None)
    if host is None or ":" not in host:
        return host
    try:
        parsed = ipaddress.IPv6Address(host)
    except ValueError:
        return str(host)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), _IPV6_SITE), strict=False))


class Buckets:
    """
    Token buckets, one for each source.

    :ivar _levels: what was left in each bucket and when; the latest last.
    """

    def __init__(self) -> None:
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str, rate: float, now: float) -> bool:
        """
        :param rate: tokens per second.  A bucket holds this many, at least one.
        :param now: the time, in seconds.
        :returns: whether there was a token left.
        """
        size = max(1.0, rate)
        level, since = self._levels.get(source, (size, now))
        level = min(size, level + (now - since) * rate)
        granted = level >= 1.0
        self._levels[source] = (level - granted, now)
        self._levels.move_to_end(source)
        if len(self._levels) > MAX_REMEMBERED:
            self._levels.popitem(last=False)
        return granted


class TokenBuckets(Protocol):
    """Token buckets, one for each source."""

    def take(self, source: str, rate: float, now: float) -> bool:
        """
        :param rate: tokens per second.
        :param now: the time, in seconds.
        :returns: whether there was a token left.
        """


class Elsewhere(Protocol):
    """
    What other processes count of the same server.  As a context manager it keeps them
    from counting while this process decides.
    """

    def __enter__(self) -> object:
        """Keep others from counting."""

    def __exit__(self, *_: object) -> object:
        """Let them count again."""

    def count(self, kind: Kind, key: bytes = b"") -> int:
        """:returns: how many they count."""

    def tell(self, kind: Kind, count: int, key: bytes = b"") -> None:
        """:param count: how many this process counts now."""


class Nowhere:
    """There are no other processes."""

    def __enter__(self) -> None:
        """Nobody is kept from anything."""

    def __exit__(self, *_: object) -> None:
        """Nobody was."""

    def count(self, kind: Kind, key: bytes = b"") -> int:
        """:returns: none."""
        return 0

    def tell(self, kind: Kind, count: int, key: bytes = b"") -> None:
        """Nobody listens."""


@frozen(eq=False)
class Tally:
    """
    Counts one server's current connections.

    :ivar by_source: the number of connections from each source (`source_of`).
    :ivar by_identity: the number of admitted connections of each identity.
    :ivar counts: the number of ``handshakes`` and of ``admitted`` connections.
    :ivar buckets: limit the rate of handshakes.
    :ivar elsewhere: what other processes count of this server.
    """

    by_source: dict[str, int] = field(factory=dict)
    by_identity: dict[bytes, int] = field(factory=dict)
    counts: Counter[str] = field(factory=Counter)
    buckets: TokenBuckets = field(factory=Buckets)
    elsewhere: Elsewhere = field(factory=Nowhere)

    def arrive(self, limits: Limits, source: str | None, now: float) -> Rejection | None:
        """
        Count a new connection, unless a limit keeps it out.

        :returns: why it cannot stay, or None.
        """
        with self.elsewhere:
            rejection = self.refuse_arrival(limits, source, now)
            if rejection is None:
                self.arrived(source)
        return rejection

    def admit(self, limits: Limits, identity: bytes | None) -> Rejection | None:
        """
        Count a connection as admitted, unless a limit keeps it out.

        :param identity: the identity of the client's certificate; None without one.
        :returns: why a verified client cannot stay, or None.
        """
        with self.elsewhere:
            rejection = self.refuse_admission(limits, identity)
            if rejection is None:
                self.admitted(identity)
        return rejection

    def refuse_arrival(
        self, limits: Limits, source: str | None, now: float, here: int = 0
    ) -> Rejection | None:
        """
        :param here: how often the connection has already been counted.
        :returns: why a new connection cannot stay, or None.
        """
        if _reached(limits.max_handshakes, lambda: self._all("handshakes") - here):
            return Rejection(
                Reason.TOO_MANY_HANDSHAKES,
                f"{limits.max_handshakes} handshakes are in progress, which is the limit",
            )
        if _reached(limits.max_connections, lambda: self._all("admitted")):
            return self._too_many_connections(limits)
        if source is None:
            return None
        if _reached(limits.max_connections_per_ip, lambda: self._of_source(source) - here):
            return Rejection(
                Reason.TOO_MANY_FROM_ADDRESS,
                f"{source} has {limits.max_connections_per_ip} connections, which is the limit",
            )
        rate = limits.handshakes_per_second_per_ip
        if rate is not None and not self.buckets.take(source, rate, now):
            return Rejection(
                Reason.HANDSHAKE_RATE, f"{source} begins more than {rate:g} handshakes a second"
            )
        return None

    def refuse_admission(self, limits: Limits, identity: bytes | None) -> Rejection | None:
        """
        :param identity: the identity of the client's certificate; None without one.
        :returns: why a verified client cannot stay, or None.
        """
        if _reached(limits.max_connections, lambda: self._all("admitted")):
            return self._too_many_connections(limits)
        most = limits.max_connections_per_identity
        if identity is not None and _reached(most, lambda: self._of_identity(identity)):
            return Rejection(
                Reason.TOO_MANY_OF_IDENTITY,
                f"its certificate is in use by {most} connections, which is the limit",
                0,
            )
        return None

    def _all(self, kind: Literal["handshakes", "admitted"]) -> int:
        return self.counts[kind] + self.elsewhere.count(kind)

    def _of_source(self, source: str) -> int:
        return self.by_source.get(source, 0) + self.elsewhere.count("source", source.encode())

    def _of_identity(self, identity: bytes) -> int:
        return self.by_identity.get(identity, 0) + self.elsewhere.count("identity", identity)

    def _too_many_connections(self, limits: Limits) -> Rejection:
        return Rejection(
            Reason.TOO_MANY_CONNECTIONS,
            f"{limits.max_connections} clients are connected, which is the limit",
        )

    def arrived(self, source: str | None) -> None:
        """Count a new connection."""
        self._change("handshakes", 1)
        if source is not None:
            self._change_source(source, 1)

    def admitted(self, identity: bytes | None) -> None:
        """Count a connection as admitted, no longer as a handshake."""
        self._change("handshakes", -1)
        self._change("admitted", 1)
        if identity is not None:
            self._change_identity(identity, 1)

    def ended(self, source: str | None, identity: bytes | None, *, admitted: bool) -> None:
        """Stop counting a connection."""
        self._change("admitted" if admitted else "handshakes", -1)
        if source is not None:
            self._change_source(source, -1)
        if admitted and identity is not None:
            self._change_identity(identity, -1)

    def _change(self, kind: Literal["handshakes", "admitted"], by: int) -> None:
        self.counts[kind] += by
        self.elsewhere.tell(kind, self.counts[kind])

    def _change_source(self, source: str, by: int) -> None:
        self.elsewhere.tell("source", _changed(self.by_source, source, by), source.encode())

    def _change_identity(self, identity: bytes, by: int) -> None:
        self.elsewhere.tell("identity", _changed(self.by_identity, identity, by), identity)


def _reached(limit: int | None, count: Callable[[], int]) -> bool:
    return limit is not None and count() >= limit


def _changed(counter: dict[T, int], key: T, by: int) -> int:
    """:returns: the new count."""
    count = counter.get(key, 0) + by
    if count:
        counter[key] = count
    else:
        # Remove empty counters, so that they use no memory.
        del counter[key]
    return count
