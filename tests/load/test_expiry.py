"""Until when things are good: the first that expires, and not what was meant to end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mtlsgate.admission import AdmissionPolicy, Pin, Rule
from mtlsgate.admission.revocation import Revocation
from mtlsgate.certificates.certificate import view
from mtlsgate.certificates.crl import parse_crls
from mtlsgate.certificates.parsing import ServerCredential
from mtlsgate.load.expiry import SOON, Expiry, Kind, expiries_of
from mtlsgate.load.lint import certificate
from mtlsgate.testing import Authority, self_signed
from mtlsgate.tls.server import TlsPolicy
from tests.kits.revocation import crl, der

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
def test_the_first_pin_to_end_is_the_expiry(pins: list[Pin], first: int | None) -> None:
    """The first to expire or be retired; one that was retired does not count, one that
    expired does."""
    policy = TlsPolicy((credential(90),), AdmissionPolicy((Rule("rule", (), tuple(pins)),)))
    [one] = (found for found in expiries_of("door", policy, NOW) if found.kind is Kind.PIN)
    assert (one.server, one.rule) == ("door", "rule")
    assert one.next(NOW) == (None if first is None else days(first))


def credential(lasts: int) -> ServerCredential:
    made = self_signed("localhost", now=NOW, not_before=days(-400), not_after=days(lasts))
    return ServerCredential((made.certificate,), made.private_key)


def test_the_first_certificate_to_end_is_the_expiry() -> None:
    """Of several chains and CAs the first; a server without rules has its own alone."""
    authorities = tuple(
        Authority.create("CA", now=NOW, not_after=days(lasts)).certificate for lasts in (100, 90)
    )
    credentials = (credential(90), credential(60))
    policy = TlsPolicy(credentials, AdmissionPolicy((Rule("rule", authorities),)))
    own = Expiry(Kind.SERVER_CERTIFICATE, "door", None, days(60))
    assert list(expiries_of("door", policy, NOW)) == [
        own,
        Expiry(Kind.CA, "door", "rule", days(90), (), SOON),
    ]
    assert list(expiries_of("door", TlsPolicy(credentials, None), NOW)) == [own]


def test_a_pin_that_is_to_begin() -> None:
    """The next one that begins to count; of those that do there is nothing to tell."""
    leaf = self_signed("x", now=NOW, not_before=days(-400), not_after=days(90)).certificate
    pins = [Pin(leaf, "x", days(number), None) for number in (-1, 7, 3)]
    policy = TlsPolicy((credential(90),), AdmissionPolicy((Rule("rule", (), tuple(pins)),)))
    [one] = (at for at in expiries_of("door", policy, NOW) if at.kind is Kind.PIN_NOT_BEFORE)
    assert one.next(NOW) == days(3)
    assert one.next(days(4)) == days(7)
    assert one.next(days(8)) is None
    assert not any(one.is_due(days(number)) for number in range(9))


def test_what_is_due() -> None:
    """From 30 days before a certificate's end on, and after it."""
    one = Expiry(Kind.CA, "door", "rule", days(0))
    assert [one.is_due(days(number)) for number in (-31, -30, 0, 5)] == [False, True, True, True]
    assert not Expiry(Kind.CA, "door", "rule", None).is_due(NOW)
    assert timedelta(days=30) == SOON


@pytest.mark.parametrize(
    ("lasts", "warned"),
    [
        (timedelta(hours=1), timedelta(minutes=20)),
        (timedelta(days=1), timedelta(hours=8)),
        (timedelta(days=30), timedelta(days=10)),
        (timedelta(days=90), SOON),
        (timedelta(days=3650), SOON),
    ],
)
def test_what_does_not_last_is_due_in_its_last_third(lasts: timedelta, warned: timedelta) -> None:
    """A certificate that is replaced every day is not always about to expire."""
    end = NOW + lasts
    authority = Authority.create("CA", now=NOW, not_before=NOW, not_after=end).certificate
    policy = TlsPolicy((credential(90),), AdmissionPolicy((Rule("rule", (authority,)),)))
    [one] = (at for at in expiries_of("door", policy, NOW) if at.kind is Kind.CA)
    moment = timedelta(seconds=1)
    assert not one.is_due(end - warned - moment)
    assert one.is_due(end - warned)
    assert bool(list(certificate(view(authority), end - warned + moment)))
    assert not list(certificate(view(authority), end - warned - moment))


@pytest.mark.parametrize("period", [1, 30, 365])
def test_a_list_is_due_in_the_last_tenth_of_its_period(period: int) -> None:
    """Be it replaced daily or yearly."""
    authority = Authority.create("CA", now=NOW)
    data = der(crl(authority, now=NOW, this_update=days(0), next_update=days(period)))
    rule = Rule("rule", (authority.certificate,), revocation=Revocation(parse_crls(data)))
    policy = TlsPolicy((credential(90),), AdmissionPolicy((rule,)))
    [one] = (found for found in expiries_of("door", policy, NOW) if found.kind is Kind.CRL)
    assert one.next(NOW) == days(period)
    due = [one.is_due(NOW + timedelta(days=period) * share / 100) for share in (0, 89, 91, 101)]
    assert due == [False, False, True, True]
