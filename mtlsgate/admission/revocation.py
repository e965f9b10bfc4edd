"""
Who has been revoked: judging certificate paths by CRLs.

Revocation is judged here and nowhere else; OpenSSL never sees a CRL.  The lists
come from `mtlsgate.certificates.crl`.

A list speaks for the certificates that were signed with the key that signed
the list.  A CA that changed its key keeps a list for each of them, as long as
certificates of the old one live.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Literal

from attrs import Factory, field, frozen

from mtlsgate.admission.verdicts import Path, Rejection
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate
from mtlsgate.certificates.crl import RevocationList
from mtlsgate.reasons import Reason
from mtlsgate.text import first_line, quoted

#: Pairs of list and issuer whose signature check is remembered.  Clients bring
#: intermediates along, so there must be a bound.
MAX_REMEMBERED = 1024

#: By which `max` finds the newest; of two that are equally new, the one that lives longer.
_NEWEST = attrgetter("age", "next_update")


@frozen
class Revocation:
    """
    The CRLs of one rule.

    :ivar lists: in any order; several of one CA may be among them.
    :ivar scope: whether each certificate below the anchor is judged, or the
        leaf alone.
    """

    lists: tuple[RevocationList, ...]
    scope: Literal["path", "leaf"] = "path"
    #: The lists by the keys of their issuers' names.
    _by_issuer: Mapping[Hashable, Sequence[RevocationList]] = field(
        init=False,
        repr=False,
        eq=False,
        default=Factory(lambda self: _by_issuer(self.lists), takes_self=True),
    )
    _fault: Callable[[RevocationList, Certificate], str | None] = field(
        init=False,
        repr=False,
        eq=False,
        factory=lambda: lru_cache(MAX_REMEMBERED)(RevocationList.fault),
    )

    def __attrs_post_init__(self) -> None:
        if any(one.is_delta for one in self.lists):
            raise ValueError("a delta CRL is no complete list")

    def judge(self, path: Path, now: datetime) -> Rejection | None:
        """
        Each certificate is judged by the lists of the one above it.  The anchor
        is not judged.  A leaf that is its own anchor is rejected: no list
        speaks for it.

        :param path: as verified, leaf first.
        :param now: the time to judge by, aware.
        :returns: None if every certificate is known not to be revoked;
            otherwise the lowest one that is revoked, or else the lowest one
            whose status is not known.
        """
        if len(path) < 2:
            return Rejection(Reason.CRL_MISSING, "it is its own anchor: no CA's list covers it", 0)
        rejections = []
        for depth, (certificate, issuer) in enumerate(pairwise(path)):
            if depth > 0 and self.scope == "leaf":
                break
            try:
                found = self._finding(certificate, issuer, now.replace(microsecond=0))
            except UNPARSABLE as error:
                what = first_line(error)
                found = Reason.MALFORMED_CERTIFICATE, what
            if found is not None:
                rejections.append(Rejection(*found, depth))
        return min(rejections, key=lambda one: one.reason is not Reason.REVOKED, default=None)

    def _finding(
        self, certificate: Certificate, issuer: Certificate, now: datetime
    ) -> tuple[Reason, str] | None:
        """
        The newest list in force counts, even if it has expired.  An older one
        does not: what it lists may have been on hold and released since
        (RFC 5280, 5.3.1), and what it omits may have been revoked since.
        Equally new lists add up.  A list from the future can revoke, but
        not clear.
        """
        name = quoted(issuer.subject.rfc4514_string())
        named = self._by_issuer.get(issuer.subject.key, ())
        if not named:
            return Reason.CRL_MISSING, f"there is no CRL of {name}"
        fitting = [one for one in named if one.speaks_for(certificate)]
        if not fitting:
            return Reason.CRL_MISSING, f"no CRL of {name} covers a certificate like this"
        signed = [one for one in fitting if self._fault(one, issuer) is None]
        if not signed:
            newest = max(fitting, key=_NEWEST)
            return Reason.CRL_INVALID, f"{newest} {self._fault(newest, issuer)}"
        truth = max((one for one in signed if one.this_update <= now), key=_NEWEST, default=None)
        for one in signed:
            entry = one.revoked.find(certificate.serial_number)
            if entry is not None and (truth is None or one.age >= truth.age):
                when = "" if entry.date is None else f" at {entry.date.isoformat()}"
                return Reason.REVOKED, f"revoked by {name}{when}, reason {entry.reason}"
        if truth is None:
            return Reason.CRL_INVALID, f"{max(signed, key=_NEWEST)} is not yet valid"
        if now > truth.next_update:
            return Reason.CRL_EXPIRED, f"{truth} expired at {truth.next_update.isoformat()}"
        return None

    def problems(self, authorities: Iterable[Certificate], now: datetime) -> Iterator[str]:
        """
        Also checks the signatures, so that no handshake has to wait for it.

        :param authorities: the rule's CAs.
        :param now: the time to judge by, aware.
        :returns: what admits nobody or has no effect, a line each.  A list of
            none of these CAs may be an intermediate's.
        """
        now = now.replace(microsecond=0)
        namesakes: dict[Hashable, list[Certificate]] = {}
        for authority in authorities:
            subject = authority.subject.key
            namesakes.setdefault(subject, []).append(authority)
            if all(self._fault(one, authority) for one in self._by_issuer.get(subject, ())):
                name = quoted(authority.subject.rfc4514_string())
                yield f"the CA {name} has no CRL that it signed: what it issued is rejected"
        for one in self.lists:
            faults = [
                self._fault(one, authority) for authority in namesakes.get(one.issuer.key, ())
            ]
            if faults and None not in faults:
                yield f"{one} {faults[0]}"
            elif now > one.next_update and not self.is_superseded(one, now):
                yield f"{one} expired at {one.next_update.isoformat()}"
            elif now < one.this_update and faults:
                yield f"{one} is not yet valid"

    def is_superseded(self, older: RevocationList, now: datetime) -> bool:
        """:returns: whether a newer list of the same kind is in force."""

        return any(
            older.age < one.age and one.this_update <= now and one.kind == older.kind
            for one in self._by_issuer[older.issuer.key]
        )


def _by_issuer(lists: Iterable[RevocationList]) -> dict[Hashable, list[RevocationList]]:
    found: dict[Hashable, list[RevocationList]] = {}
    for one in lists:
        found.setdefault(one.issuer.key, []).append(one)
    return found
