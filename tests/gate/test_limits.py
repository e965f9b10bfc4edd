from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from mtlsgate.gate.limits import MAX_REMEMBERED, UNLIMITED, Buckets, Limits, Tally, source_of
from mtlsgate.reasons import Reason


@pytest.mark.parametrize(
    ("address", "source"),
    [
        (IPv4Address("TCP", "192.0.2.1", 5), "192.0.2.1"),
        (IPv6Address("TCP", "2001:db8:1:2:3::4", 5), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "2001:db8:1:2:ffff::", 9), "2001:db8:1:2::/64"),
        (IPv6Address("TCP", "::ffff:192.0.2.1", 5), "192.0.2.1"),
        (IPv6Address("TCP", "fe80::1%eth0", 5), "fe80::/64"),
        (IPv6Address("TCP", "no:address", 5), "no:address"),
        (UNIXAddress(b"/run/x"), None),
    ],
    ids=str,
)
def test_what_limits_for_an_address_go_by(address: IAddress, source: str | None) -> None:
    """An IPv4 address, or the network that one site has of IPv6."""
    assert source_of(address) == source


def test_a_bucket_holds_one_second() -> None:
    """... and fills up with time; another source has its own."""
    buckets = Buckets()
    assert [buckets.take("a", 3, 100.0) for _ in range(4)] == [True, True, True, False]
    assert buckets.take("b", 3, 100.0)
    assert not buckets.take("a", 3, 100.2)
    assert buckets.take("a", 3, 100.5)
    assert [buckets.take("a", 3, 200.0) for _ in range(4)] == [True, True, True, False]


def test_less_than_one_a_second() -> None:
    """A bucket holds one token at least, or nobody would ever come in."""
    buckets = Buckets()
    assert buckets.take("a", 0.1, 0.0)
    assert not buckets.take("a", 0.1, 5.0)
    assert buckets.take("a", 0.1, 10.5)


def test_buckets_are_bounded() -> None:
    """The one that was silent for longest is forgotten."""
    buckets = Buckets()
    for number in range(MAX_REMEMBERED + 100):
        buckets.take(str(number), 1, 0.0)
    assert len(buckets._levels) == MAX_REMEMBERED
    assert "99" not in buckets._levels
    assert "100" in buckets._levels


def tally(handshakes: int = 0, admitted: int = 0, source: str | None = "a") -> Tally:
    found = Tally()
    for _ in range(handshakes + admitted):
        found.arrived(source)
    for _ in range(admitted):
        found.admitted(b"leaf")
    return found


@pytest.mark.parametrize(
    ("limits", "handshakes", "admitted", "reason"),
    [
        ({}, 1000, 1000, None),
        ({"max_handshakes": 3}, 2, 9, None),
        ({"max_handshakes": 3}, 3, 0, Reason.TOO_MANY_HANDSHAKES),
        ({"max_connections": 3}, 9, 2, None),
        ({"max_connections": 3}, 0, 3, Reason.TOO_MANY_CONNECTIONS),
        ({"max_connections_per_ip": 3}, 1, 1, None),
        ({"max_connections_per_ip": 3}, 1, 2, Reason.TOO_MANY_FROM_ADDRESS),
        ({"max_connections_per_identity": 1}, 0, 5, None),
        ({"handshakes_per_second_per_ip": 1.0}, 9, 9, None),
    ],
)
def test_arrivals(
    limits: dict[str, Any], handshakes: int, admitted: int, reason: Reason | None
) -> None:
    """A limit is the largest number there may be."""
    found = tally(handshakes, admitted).refuse_arrival(Limits(**limits), "a", 0.0)
    assert (found and found.reason) == reason


@pytest.mark.parametrize(
    ("limits", "admitted", "reason"),
    [
        ({"max_connections": 3}, 2, None),
        ({"max_connections": 3}, 3, Reason.TOO_MANY_CONNECTIONS),
        ({"max_connections_per_identity": 3}, 2, None),
        ({"max_connections_per_identity": 3}, 3, Reason.TOO_MANY_OF_IDENTITY),
    ],
)
def test_admissions(limits: dict[str, Any], admitted: int, reason: Reason | None) -> None:
    found = tally(1, admitted).refuse_admission(Limits(**limits), b"leaf")
    assert (found and found.reason) == reason
    assert tally(1, admitted).refuse_admission(Limits(**limits), b"other") is None or (
        reason is not Reason.TOO_MANY_OF_IDENTITY
    )


def test_the_rate() -> None:
    """... is of those that arrive, whatever becomes of them."""
    found, limits = Tally(), Limits(handshakes_per_second_per_ip=2)
    verdicts = [found.refuse_arrival(limits, "a", 0.0) for _ in range(3)]
    assert [one and one.reason for one in verdicts] == [None, None, Reason.HANDSHAKE_RATE]
    assert found.refuse_arrival(limits, "b", 0.0) is None


def test_a_unix_socket_has_no_address() -> None:
    """Limits for each address do not count there."""
    limits = Limits(max_connections_per_ip=1, handshakes_per_second_per_ip=1)
    found = tally(5, 5, source=None)
    assert all(found.refuse_arrival(limits, None, 0.0) is None for _ in range(5))


def test_what_is_over_leaves_no_trace() -> None:
    """Memory comes back after a flood."""
    found = Tally()
    for number in range(1000):
        found.arrived(str(number))
        found.admitted(bytes([number % 256]))
    for number in range(1000):
        found.ended(str(number), bytes([number % 256]), admitted=True)
    assert not found.by_source
    assert not found.by_identity
    assert set(found.counts.values()) == {0}


def test_no_limit_by_default() -> None:
    assert Limits() == UNLIMITED
    assert tally(10_000, 10_000).refuse_arrival(UNLIMITED, "a", 0.0) is None
