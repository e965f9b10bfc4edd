"""Until when things are good: the first that expires, and not what was meant to end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtlsgate.admission import AdmissionPolicy, Pin, Rule
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.load.expiry import Expiry, Kind, expiries_of
from mtlsgate.testing import Authority, self_signed
from mtlsgate.tls.server import TlsPolicy

NOW = datetime(2026, 6, 15, tzinfo=UTC)


def days(number: int) -> datetime:
    return NOW + timedelta(days=number)


def pin(lasts: int, retire: int | None = None) -> Pin:
    leaf = self_signed("x", now=NOW, not_before=days(-400), not_after=days(lasts))
    return Pin(leaf.certificate, "x", None, None if retire is None else days(retire))


@pytest.mark.parametrize(
    ("pins", "first"),
    [
        ([pin(30), pin(20)], 20),
        ([pin(30), pin(-20)], -20),
        ([pin(30, 10)], 10),
        ([pin(30, 40)], 30),
        ([pin(30, -10)], None),
        ([pin(30, -10), pin(50)], 50),
        ([pin(30, -10), pin(50, 5), pin(60, 3)], 3),
        ([pin(-5, -10), pin(50)], 50),
        ([pin(-5, 10), pin(50)], -5),
    ],
)
def test_pins(pins: list[Pin], first: int | None) -> None:
    """The first to expire or be retired; one that was retired does not count, one that
    expired does."""
    policy = TlsPolicy((credential(90),), AdmissionPolicy((Rule("rule", (), tuple(pins)),)))
    [one] = (found for found in expiries_of("door", policy, NOW) if found.kind is Kind.PIN)
    assert (one.server, one.rule) == ("door", "rule")
    assert one.next(NOW) == (None if first is None else days(first))


def credential(lasts: int) -> ServerCredential:
    made = self_signed("localhost", now=NOW, not_before=days(-400), not_after=days(lasts))
    return ServerCredential((made.certificate,), made.private_key)


def test_certificates() -> None:
    """Of several chains and CAs the first; a server without rules has its own alone."""
    authorities = tuple(
        Authority.create("CA", now=NOW, not_after=days(lasts)).certificate for lasts in (100, 80)
    )
    credentials = (credential(90), credential(60))
    policy = TlsPolicy(credentials, AdmissionPolicy((Rule("rule", authorities),)))
    own = Expiry(Kind.SERVER_CERTIFICATE, "door", None, days(60))
    assert list(expiries_of("door", policy, NOW)) == [
        own,
        Expiry(Kind.CA, "door", "rule", days(80)),
    ]
    assert list(expiries_of("door", TlsPolicy(credentials, None), NOW)) == [own]
