"""
Revocation: checks certificate paths against CRLs.

Only this module checks revocation; OpenSSL never sees a CRL.
`mtlsgate.certificates.crl` reads the lists.

A list covers only certificates signed with the same key as the list.  A CA that
changed its key must therefore publish one list per key while certificates
signed with the old key are valid.
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

#: How many signature checks (a list and an issuer) are remembered.  Clients send
#: their own intermediates, so the number needs a limit.
MAX_REMEMBERED = 1024

#: The sort key for the newest list; of two equally new ones, the one that expires later.
_NEWEST = attrgetter("age", "next_update")


@frozen
class Revocation:
    """
    The CRLs of one rule.

    :ivar lists: the CRLs, in any order; a CA may have several.
    :ivar scope: ``path`` checks each certificate below the anchor, ``leaf``
        only the leaf.
    :ivar fetched: which of the lists came from a URL, by the URL; none if nothing came
        yet.
    """

    lists: tuple[RevocationList, ...]
    scope: Literal["path", "leaf"] = "path"
    fetched: Mapping[str, tuple[RevocationList, ...]] = field(
        factory=dict, eq=False, repr=False, kw_only=True
    )
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

    @property
    def is_waiting(self) -> bool:
        """Whether nothing has come yet from one of the URLs."""
        return not all(self.fetched.values())

    def refreshed(self, url: str, lists: tuple[RevocationList, ...]) -> Revocation:
        """:returns: the same, with these lists in place of those from the URL."""
        before = self.fetched[url]
        return Revocation(
            tuple(one for one in self.lists if one not in before) + lists,
            self.scope,
            fetched={**self.fetched, url: lists},
        )

    def judge(self, path: Path, now: datetime) -> Rejection | None:
        """
        Check each certificate against its issuer's lists.

        The anchor is not checked.  A leaf that is its own anchor is rejected,
        because no list covers it.

        :param path: as verified, leaf first.
        :param now: the time to judge by, aware.
        :returns: None if no certificate is revoked and each status is known.
            Otherwise the rejection of the lowest revoked certificate; if none
            is revoked, of the lowest one with an unknown status.
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
        The newest list in force decides, even if it has expired.  Older lists
        are ignored: an entry may have been on hold and released since (RFC
        5280, 5.3.1), and a certificate may have been revoked since.  Equally
        new lists are combined.  A list that is not yet valid can revoke a
        certificate, but cannot clear one.
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
        Find lists that are unusable.  This also checks the signatures in
        advance, so that no handshake has to wait for it.

        :param authorities: the rule's CAs.
        :param now: the time to judge by, aware.
        :returns: one line for each problem that rejects clients or makes a list
            useless.  A list by another issuer is not a problem: it may belong
            to an intermediate.
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
