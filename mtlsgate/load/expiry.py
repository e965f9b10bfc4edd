"""
Finds out when certificates, pins and revocation lists of a configuration expire.

This module is pure.  The work is done once for each epoch, because there may be a
hundred thousand pins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from enum import StrEnum

from attrs import evolve, frozen

from mtlsgate.admission import Pin, Rule
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.tls.server import TlsPolicy


class Kind(StrEnum):
    """The kinds of things that expire."""

    SERVER_CERTIFICATE = "server_certificate"
    CA = "ca"
    PIN = "pin"
    PIN_NOT_BEFORE = "pin_not_before"
    CRL = "crl"
    CLIENT_CERTIFICATE = "client_certificate"
    TARGET_CA = "target_ca"
    TARGET_PIN = "target_pin"


#: How long before its end there is a warning, at most; for a certificate that is not
#: valid for long, a third of that time.
SOON = timedelta(days=30)
_SHARE = 3
#: For a revocation list, a part of its period.
CRL_SHARE = 10


def soon(certificate: Certificate) -> timedelta:
    """:returns: how long before a certificate expires there is a warning.  One that is
    replaced every day would otherwise never be without."""
    return min(SOON, (certificate.not_after - certificate.not_before) / _SHARE)


@frozen
class Expiry:
    """
    Things of one kind that belong to a server or to one of its rules.

    :ivar kind: what they are.
    :ivar server: the server's name.
    :ivar rule: the rule's name; None if they belong to the server itself.
    :ivar first: when the first of them expires, aware; None if there is none.  Pins
        that are retired before they expire do not count.
    :ivar coming: instants at which a pin is retired or becomes valid, the earliest
        first.  They matter only until they have passed.
    :ivar warn_before: how long before a deadline there is a warning.
    """

    kind: Kind
    server: str
    rule: str | None
    first: datetime | None
    coming: tuple[datetime, ...] = ()
    warn_before: timedelta = SOON

    def next(self, now: datetime) -> datetime | None:
        """
        :returns: when the first of them expires or has expired; None if none does.
            A pin that has been retired does not count: that was intended.
        """
        index = bisect_left(self.coming, now)
        found = [self.first, *self.coming[index : index + 1]]
        return min((one for one in found if one is not None), default=None)

    def is_due(self, now: datetime) -> bool:
        """:returns: whether a deadline is near or past."""
        at = self.next(now)
        return at is not None and at - now <= self.warn_before


def expiries_of(server: str, policy: TlsPolicy, now: datetime) -> Iterator[Expiry]:
    """
    :param now: the time now, which decides whether a newer revocation list counts.
    :returns: what expires in a server and in each of its rules.
    """
    chains = [one for credential in policy.credentials for one in credential.chain]
    own = expiry_of(Kind.SERVER_CERTIFICATE, server, None, chains)
    if any(one.source is not None for one in policy.credentials):
        # One that is renewed by itself has been renewed by then, if all is well.
        own = evolve(own, warn_before=own.warn_before / 2)
    yield own
    for rule in policy.admission.rules if policy.admission else ():
        yield from _of_rule(server, rule, now)


def _of_rule(server: str, rule: Rule, now: datetime) -> Iterator[Expiry]:
    for bundle in rule.bundles:
        # Its CAs follow each other, so the one that expires last counts.
        last = sorted(bundle.authorities, key=lambda one: one.not_after)[-1:]
        yield expiry_of(Kind.CA, server, rule.name, last)
    if rule.authorities and not rule.bundles:
        yield expiry_of(Kind.CA, server, rule.name, rule.authorities)
    if rule.pins:
        staying = [pin.certificate for pin in rule.pins if not _is_retired_first(pin)]
        retiring = sorted(
            pin.retire_after
            for pin in rule.pins
            if pin.retire_after is not None and _is_retired_first(pin)
        )
        yield expiry_of(Kind.PIN, server, rule.name, staying, tuple(retiring))
        begin = sorted(pin.not_before for pin in rule.pins if pin.not_before is not None)
        if begin:
            # When a pin becomes valid, nobody needs a warning.
            never = timedelta.min
            yield Expiry(Kind.PIN_NOT_BEFORE, server, rule.name, None, tuple(begin), never)
    if (lists := rule.revocation) is not None:
        counting = [one for one in lists.lists if not lists.is_superseded(one, now)]
        first = min(counting, key=lambda one: one.next_update, default=None)
        if first is None:
            yield Expiry(Kind.CRL, server, rule.name, None)
        else:
            period = first.next_update - first.this_update
            until = first.next_update
            yield Expiry(Kind.CRL, server, rule.name, until, (), period / CRL_SHARE)


def _is_retired_first(pin: Pin) -> bool:
    return pin.retire_after is not None and pin.retire_after < pin.certificate.not_after


def expiry_of(
    kind: Kind,
    server: str,
    rule: str | None,
    certificates: Iterable[Certificate],
    coming: tuple[datetime, ...] = (),
) -> Expiry:
    """:returns: when the first of some certificates expires; see `Expiry`."""
    first = min(certificates, key=lambda one: one.not_after, default=None)
    if first is None:
        return Expiry(kind, server, rule, None, coming)
    return Expiry(kind, server, rule, first.not_after, coming, soon(first))
