"""
Limits on connections, for each client and for all of them together.

This module is pure except for its counters; callers pass in the time.
"""

from __future__ import annotations

import ipaddress
from collections import Counter, OrderedDict
from typing import TypeVar

from attrs import field, frozen
from twisted.internet.interfaces import IAddress

from mtlsgate.admission import Rejection
from mtlsgate.reasons import Reason

T = TypeVar("T")

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


@frozen(eq=False)
class Tally:
    """
    Counts one server's current connections.

    :ivar by_source: the number of connections from each source (`source_of`).
    :ivar by_identity: the number of admitted connections of each identity.
    :ivar counts: the number of ``handshakes`` and of ``admitted`` connections.
    :ivar buckets: limit the rate of handshakes.
    """

    by_source: dict[str, int] = field(factory=dict)
    by_identity: dict[bytes, int] = field(factory=dict)
    counts: Counter[str] = field(factory=Counter)
    buckets: Buckets = field(factory=Buckets)

    def refuse_arrival(
        self, limits: Limits, source: str | None, now: float, here: int = 0
    ) -> Rejection | None:
        """
        :param here: how often the connection has already been counted.
        :returns: why a new connection cannot stay, or None.
        """
        if _reached(self.counts["handshakes"] - here, limits.max_handshakes):
            return Rejection(
                Reason.TOO_MANY_HANDSHAKES,
                f"{limits.max_handshakes} handshakes are in progress, which is the limit",
            )
        if _reached(self.counts["admitted"], limits.max_connections):
            return self._too_many_connections(limits)
        if source is None:
            return None
        if _reached(self.by_source.get(source, 0) - here, limits.max_connections_per_ip):
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
        if _reached(self.counts["admitted"], limits.max_connections):
            return self._too_many_connections(limits)
        most = limits.max_connections_per_identity
        if identity is not None and _reached(self.by_identity.get(identity, 0), most):
            return Rejection(
                Reason.TOO_MANY_OF_IDENTITY,
                f"its certificate is in use by {most} connections, which is the limit",
                0,
            )
        return None

    def _too_many_connections(self, limits: Limits) -> Rejection:
        return Rejection(
            Reason.TOO_MANY_CONNECTIONS,
            f"{limits.max_connections} clients are connected, which is the limit",
        )

    def arrived(self, source: str | None) -> None:
        """Count a new connection."""
        self.counts["handshakes"] += 1
        if source is not None:
            _more(self.by_source, source)

    def admitted(self, identity: bytes | None) -> None:
        """Count a connection as admitted, no longer as a handshake."""
        self.counts["handshakes"] -= 1
        self.counts["admitted"] += 1
        if identity is not None:
            _more(self.by_identity, identity)

    def ended(self, source: str | None, identity: bytes | None, *, admitted: bool) -> None:
        """Stop counting a connection."""
        self.counts["admitted" if admitted else "handshakes"] -= 1
        if source is not None:
            _less(self.by_source, source)
        if admitted and identity is not None:
            _less(self.by_identity, identity)


def _reached(count: int, limit: int | None) -> bool:
    return limit is not None and count >= limit


def _more(counter: dict[T, int], key: T) -> None:
    counter[key] = counter.get(key, 0) + 1


def _less(counter: dict[T, int], key: T) -> None:
    # Remove empty counters, so that they use no memory.
    if counter[key] > 1:
        counter[key] -= 1
    else:
        del counter[key]
