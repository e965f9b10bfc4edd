"""
Until when what a configuration names is good.

Pure, and worked out once for each epoch: of a hundred thousand pins nobody
wants to do it each time that somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from enum import StrEnum

from attrs import frozen
from cryptography import x509

from mtlsgate.admission import Pin, Rule
from mtlsgate.tls.server import TlsPolicy


class Kind(StrEnum):
    """What it is that expires."""

    SERVER_CERTIFICATE = "server_certificate"
    CA = "ca"
    PIN = "pin"
    CRL = "crl"


@frozen
class Expiry:
    """
    Things of one kind that a server, or a rule of it, has.

    :ivar kind: what they are.
    :ivar server: the server's name.
    :ivar rule: the rule's, or None where they are the server's own.
    :ivar first: when the first of them expires that will not be retired before,
        aware; None if there is none.
    :ivar retiring: of each pin that will be the instant after which it no
        longer counts, the earliest first.
    """

    kind: Kind
    server: str
    rule: str | None
    first: datetime | None
    retiring: tuple[datetime, ...] = ()

    def next(self, now: datetime) -> datetime | None:
        """
        :returns: when the first of them expires, or did; None if none of them
            will.  A pin that has been retired does not count: that was meant.
        """
        coming = next((one for one in self.retiring if one >= now), None)
        return min((one for one in (self.first, coming) if one is not None), default=None)


def expiries_of(server: str, policy: TlsPolicy, now: datetime) -> Iterator[Expiry]:
    """
    :param now: by which one revocation list supersedes another.
    :returns: what a server and each of its rules has that expires.
    """
    chains = [one for credential in policy.credentials for one in credential.chain]
    yield Expiry(Kind.SERVER_CERTIFICATE, server, None, _first(chains))
    for rule in policy.admission.rules if policy.admission else ():
        yield from _of_rule(server, rule, now)


def _of_rule(server: str, rule: Rule, now: datetime) -> Iterator[Expiry]:
    if rule.authorities:
        yield Expiry(Kind.CA, server, rule.name, _first(rule.authorities))
    if rule.pins:
        staying = [pin.certificate for pin in rule.pins if not _is_retired_first(pin)]
        retiring = sorted(
            pin.retire_after
            for pin in rule.pins
            if pin.retire_after is not None and _is_retired_first(pin)
        )
        yield Expiry(Kind.PIN, server, rule.name, _first(staying), tuple(retiring))
    if (lists := rule.revocation) is not None:
        counting = [one.next_update for one in lists.lists if not lists.is_superseded(one, now)]
        yield Expiry(Kind.CRL, server, rule.name, min(counting, default=None))


def _is_retired_first(pin: Pin) -> bool:
    return pin.retire_after is not None and pin.retire_after < pin.certificate.not_valid_after_utc


def _first(certificates: Iterable[x509.Certificate]) -> datetime | None:
    return min((one.not_valid_after_utc for one in certificates), default=None)
