"""
Lists what of a configuration begins and ends, and when.

`mtlsgate.load.expiry` finds the first of each kind, for warnings; this is for people
who want to see what comes after it.  It is done once for each epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from heapq import nsmallest

from attrs import frozen

from mtlsgate.admission import Pin, Rule
from mtlsgate.certificates.certificate import Certificate
from mtlsgate.load.clients import LoadedClient, certificates_of_client
from mtlsgate.load.expiry import Kind
from mtlsgate.tls.server import TlsPolicy

#: How many items of one kind and rule are listed: those that end first.
MOST = 100


@frozen
class Period:
    """
    When something of a configuration counts.

    :ivar kind: what it is.
    :ivar server: the server's name.
    :ivar rule: the rule's name; None if it belongs to the server itself.
    :ivar name: the pin's name, or None.
    :ivar certificate: the certificate; None for a revocation list.
    :ivar issuer: the issuer of a revocation list, as RFC 4514 writes it, or None.
    :ivar begins: from when it counts, aware.
    :ivar ends: until when, aware.
    """

    kind: Kind
    server: str
    rule: str | None
    name: str | None
    certificate: Certificate | None
    issuer: str | None
    begins: datetime
    ends: datetime


def periods_of(server: str, policy: TlsPolicy, now: datetime) -> Iterator[Period]:
    """
    :param now: decides whether a newer revocation list counts.
    :returns: at most `MOST` for each kind and rule, those that end first.
    """
    chains = [one for credential in policy.credentials for one in credential.chain]
    yield from _first(_of_certificate(Kind.SERVER_CERTIFICATE, server, None, one) for one in chains)
    for rule in policy.admission.rules if policy.admission else ():
        yield from _of_rule(server, rule, now)


def periods_of_client(client: LoadedClient) -> Iterator[Period]:
    """:returns: at most `MOST` of each kind, those that end first."""
    for kind, certificates in certificates_of_client(client):
        name = client.gate.name
        yield from _first(_of_certificate(kind, name, None, one) for one in certificates)


def _of_rule(server: str, rule: Rule, now: datetime) -> Iterator[Period]:
    yield from _first(_of_certificate(Kind.CA, server, rule.name, one) for one in rule.authorities)
    pins = nsmallest(MOST, rule.pins, key=_end)
    yield from (_of_pin(server, rule.name, pin) for pin in pins)
    if (lists := rule.revocation) is not None:
        yield from _first(
            Period(
                Kind.CRL,
                server,
                rule.name,
                None,
                None,
                one.issuer.rfc4514_string(),
                one.this_update,
                one.next_update,
            )
            for one in lists.lists
            if not lists.is_superseded(one, now)
        )


def _first(periods: Iterable[Period]) -> list[Period]:
    return nsmallest(MOST, periods, key=lambda one: one.ends)


def _of_certificate(kind: Kind, server: str, rule: str | None, certificate: Certificate) -> Period:
    return Period(
        kind, server, rule, None, certificate, None, certificate.not_before, certificate.not_after
    )


def _end(pin: Pin) -> datetime:
    ends = pin.certificate.not_after
    return ends if pin.retire_after is None else min(ends, pin.retire_after)


def _of_pin(server: str, rule: str, pin: Pin) -> Period:
    begins = pin.certificate.not_before
    if pin.not_before is not None:
        begins = max(begins, pin.not_before)
    return Period(Kind.PIN, server, rule, pin.name, pin.certificate, None, begins, _end(pin))
