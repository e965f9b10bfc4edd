"""
Who has been taken out: pure judgements of certificate paths by CRLs.

Revocation is judged here and nowhere else; OpenSSL never sees a CRL.  This
module opens no file and fetches nothing: `parse_crls` makes values of bytes,
and refuses at load whatever it could not apply in full; `Revocation.judge`
applies them.

A list speaks for the certificates that were signed with the key that signed
the list.  A CA that changed its key keeps a list for each of them, as long as
certificates of the old one live.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Literal, TypeVar

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import HashAlgorithm

from mtlsgate.admission.verdicts import Path, Rejection
from mtlsgate.certificates.parsing import _PEM_BEGIN, UNPARSABLE, _from_base64, _pem_blocks, is_ca
from mtlsgate.errors import CredentialError
from mtlsgate.reasons import Reason
from mtlsgate.text import quoted

#: Pairs of list and issuer whose signature check is remembered.  Clients bring
#: intermediates along, so there must be a bound.
MAX_REMEMBERED = 1024

#: By which `max` finds the newest; of two that are equally new, the one that lives longer.
_NEWEST = attrgetter("age", "next_update")

_Extension = TypeVar("_Extension", bound=x509.ExtensionType)


@frozen(eq=False)
class RevocationList:
    """
    A complete CRL, whose signature is yet to be checked (RFC 5280, 5.1).

    :ivar issuer: the DER of the issuer's name.
    :ivar issuer_name: the same, to read (RFC 4514).
    :ivar authority_key_identifier: of the key that signed it, where stated.
    :ivar this_update: when it was issued, aware.
    :ivar next_update: the last second in which it counts, aware.
    :ivar number: its CRL number, where it has one.
    :ivar covers: whether it lists leaves (onlyContainsUserCerts), CAs
        (onlyContainsCACerts), or both.
    :ivar distribution_points: the names of the distribution point that it is
        for; None where it is for all certificates of its issuer.
    :ivar revoked: for each serial number the instant, aware, and the reason as
        RFC 5280 spells it.
    :ivar _content: what the signature covers.  `cryptography`'s own
        ``is_signature_valid`` encodes all entries anew for each key tried.
    """

    issuer: bytes
    issuer_name: str
    authority_key_identifier: bytes | None
    this_update: datetime
    next_update: datetime
    number: int | None
    covers: Literal["all", "leaves", "authorities"]
    distribution_points: frozenset[x509.GeneralName] | None
    revoked: Mapping[int, tuple[datetime, str]] = field(repr=False)
    _content: bytes = field(repr=False)
    _signature: bytes = field(repr=False)
    _digest: HashAlgorithm | None = field(repr=False)
    _parameters: padding.PSS | padding.PKCS1v15 | ec.ECDSA | None = field(repr=False)

    def __str__(self) -> str:
        return f"the CRL of {quoted(self.issuer_name)} of {self.this_update.isoformat()}"

    @property
    def age(self) -> tuple[datetime, int]:
        """Grows with each list of an issuer (RFC 5280, 5.1.2.4 and 5.2.3)."""
        return self.this_update, -1 if self.number is None else self.number

    def speaks_for(self, certificate: x509.Certificate) -> bool:
        """
        :returns: whether the list's silence says that this certificate of its
            issuer is good (RFC 5280, 6.3.3 (b) (2)).
        """
        if self.covers != "all" and is_ca(certificate) != (self.covers == "authorities"):
            return False
        return self.distribution_points is None or not self.distribution_points.isdisjoint(
            _distribution_points(certificate)
        )

    def fault(self, issuer: x509.Certificate) -> str | None:
        """
        :param issuer: a CA of the list's name.
        :returns: why the list is not one that this CA signed and may sign
            (RFC 5280, 4.2.1.3 and 6.3.3 (f) and (g)), or None.
        """
        key = _find(issuer.extensions, x509.SubjectKeyIdentifier)
        if key is not None and self.authority_key_identifier not in (None, key.digest):
            return "is by another CA of that name, or by another key of this one"
        if not self._signed_by(issuer.public_key()):
            return "is not signed by that CA: it was changed, or is by another CA of that name"
        usage = _find(issuer.extensions, x509.KeyUsage)
        if usage is not None and not usage.crl_sign:
            return "does not count: the CA's key usage does not include cRLSign"
        return None

    def _signed_by(self, key: object) -> bool:
        try:
            match key, self._parameters, self._digest:
                case (
                    rsa.RSAPublicKey() as by_rsa,
                    (padding.PKCS1v15() | padding.PSS()) as scheme,
                    HashAlgorithm() as digest,
                ):
                    by_rsa.verify(self._signature, self._content, scheme, digest)
                case ec.EllipticCurvePublicKey() as by_ec, ec.ECDSA() as scheme, _:
                    by_ec.verify(self._signature, self._content, scheme)
                case (ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey()) as by_ed, None, None:
                    by_ed.verify(self._signature, self._content)
                case _:
                    return False
        except (InvalidSignature, *UNPARSABLE):
            return False
        return True


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
    _by_issuer: dict[bytes, list[RevocationList]] = field(init=False, repr=False, eq=False)
    _fault: Callable[[RevocationList, x509.Certificate], str | None] = field(
        init=False, repr=False, eq=False
    )

    def __attrs_post_init__(self) -> None:
        by_issuer: dict[bytes, list[RevocationList]] = {}
        for one in self.lists:
            by_issuer.setdefault(one.issuer, []).append(one)
        object.__setattr__(self, "_by_issuer", by_issuer)
        object.__setattr__(self, "_fault", lru_cache(MAX_REMEMBERED)(RevocationList.fault))

    def judge(self, path: Path, now: datetime) -> Rejection | None:
        """
        Each certificate is judged by the lists of the one above it; the anchor
        is not judged.  A leaf that is its own anchor has nobody to vouch for
        it, and is rejected.

        :param path: as verified, leaf first.
        :param now: the time to judge by, aware.
        :returns: None where every certificate is known not to be revoked;
            otherwise the lowest one that is revoked, or else the lowest one
            whose status cannot be told.
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
                found = Reason.MALFORMED_CERTIFICATE, _first_line(error)
            if found is not None:
                rejections.append(Rejection(*found, depth))
        return min(rejections, key=lambda one: one.reason is not Reason.REVOKED, default=None)

    def _finding(
        self, certificate: x509.Certificate, issuer: x509.Certificate, now: datetime
    ) -> tuple[Reason, str] | None:
        """
        The newest list in force is the truth.  What an older one lists may
        have been on hold and released since (RFC 5280, 5.3.1), and what it
        omits may have been revoked since, so it does not count even where the
        newest has expired.  Equally new lists add up.  A list from the future
        can revoke, but not clear.
        """
        name = quoted(issuer.subject.rfc4514_string())
        named = self._by_issuer.get(issuer.subject.public_bytes(), ())
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
            entry = one.revoked.get(certificate.serial_number)
            if entry is not None and (truth is None or one.age >= truth.age):
                date, cause = entry
                return Reason.REVOKED, f"revoked by {name} at {date.isoformat()}, reason {cause}"
        if truth is None:
            return Reason.CRL_INVALID, f"{max(signed, key=_NEWEST)} is not yet valid"
        if now > truth.next_update:
            return Reason.CRL_EXPIRED, f"{truth} expired at {truth.next_update.isoformat()}"
        return None

    def problems(self, authorities: Iterable[x509.Certificate], now: datetime) -> Iterator[str]:
        """
        Also checks the signatures, so that no handshake has to wait for it.

        :param authorities: the rule's CAs.
        :param now: the time to judge by, aware.
        :returns: what admits nobody or has no effect, a line each.  A list of
            none of these CAs may be an intermediate's.
        """
        now = now.replace(microsecond=0)
        namesakes: dict[bytes, list[x509.Certificate]] = {}
        for authority in authorities:
            subject = authority.subject.public_bytes()
            namesakes.setdefault(subject, []).append(authority)
            if all(self._fault(one, authority) for one in self._by_issuer.get(subject, ())):
                name = quoted(authority.subject.rfc4514_string())
                yield f"the CA {name} has no CRL that it signed: what it issued is rejected"
        for one in self.lists:
            faults = [self._fault(one, authority) for authority in namesakes.get(one.issuer, ())]
            if faults and None not in faults:
                yield f"{one} {faults[0]}"
            elif now > one.next_update and not self.is_superseded(one, now):
                yield f"{one} expired at {one.next_update.isoformat()}"
            elif now < one.this_update and faults:
                yield f"{one} is not yet valid"

    def is_superseded(self, older: RevocationList, now: datetime) -> bool:
        """:returns: whether a newer list of the same kind is in force."""

        def kind(one: RevocationList) -> tuple[object, ...]:
            return one.authority_key_identifier, one.covers, one.distribution_points

        return any(
            older.age < one.age and one.this_update <= now and kind(one) == kind(older)
            for one in self._by_issuer[older.issuer]
        )


def parse_crls(data: bytes, *, strict: bool = True) -> tuple[RevocationList, ...]:
    """
    :param data: PEM (one CRL or many), DER, or base64 of DER.
    :param strict: demand a CRL number that is not critical (RFC 5280, 5.2.3),
        which some tools leave out.
    :returns: at least one list, in the order given.
    :raises CredentialError: if any of them does not parse or could not be
        applied in full; it says which.
    """
    if not data.strip():
        raise CredentialError("is empty")
    if _PEM_BEGIN.search(data):
        blocks = _pem_blocks(data)
        for number, (kind, _) in enumerate(blocks, 1):
            if kind != "X509 CRL":
                raise CredentialError(
                    f"PEM block {number} of {len(blocks)} is a {kind}, not an X509 CRL"
                )
        found = [body for _, body in blocks]
    else:
        found = [data if data[:1] == b"\x30" else _from_base64(data)]
    return tuple(_parsed(der, number, len(found), strict) for number, der in enumerate(found, 1))


def _parsed(der: bytes, number: int, count: int, strict: bool) -> RevocationList:
    which = f"CRL {number} of {count}" if count > 1 else "the CRL"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd serial numbers
            crl = x509.load_der_x509_crl(der)
            for refusal in _refusals(crl, strict):
                raise CredentialError(refusal)
            return _list(crl)
    except CredentialError as error:
        raise CredentialError(f"{which} {error}") from None
    except UNPARSABLE as error:
        raise CredentialError(f"{which} does not parse: {_first_line(error)}") from None


def _refusals(crl: x509.CertificateRevocationList, strict: bool) -> Iterator[str]:
    """:returns: why the list cannot be applied in full, and so not at all."""
    digest = crl.signature_hash_algorithm
    if digest is not None and digest.digest_size < 28:
        yield f"is signed with {digest.name}: OpenSSL refuses digests so weak"
    if crl.next_update_utc is None:
        yield "has no nextUpdate: it would never expire"
    scope = _find(crl.extensions, x509.IssuingDistributionPoint)
    if _find(crl.extensions, x509.DeltaCRLIndicator) is not None:
        yield "is a delta CRL: a complete one is needed"
    if scope is not None and scope.indirect_crl:
        yield "is an indirect CRL: one by the CA itself is needed"
    if scope is not None and scope.only_some_reasons is not None:
        yield "is for some reasons only: one for all reasons is needed"
    if scope is not None and scope.only_contains_attribute_certs:
        yield "is for attribute certificates"
    if scope is not None and scope.relative_name is not None:
        yield "names its distribution point relative to its issuer, which is not supported"
    number = _find(crl.extensions, x509.CRLNumber)
    if strict and number is None:
        yield 'has no CRL number, as verification = "strict" demands (RFC 5280, 5.2.3)'
    for each in crl.extensions:
        if isinstance(each.value, x509.CRLNumber):
            if strict and each.critical:
                yield 'has a critical CRL number, which verification = "strict" forbids'
        # RFC 5280, 5.2: what cannot be processed forbids using the list.
        elif each.critical and not isinstance(
            each.value, x509.AuthorityKeyIdentifier | x509.IssuingDistributionPoint
        ):
            yield f"has the critical extension {each.oid.dotted_string}, which is not supported"


def _list(crl: x509.CertificateRevocationList) -> RevocationList:
    key = _find(crl.extensions, x509.AuthorityKeyIdentifier)
    number = _find(crl.extensions, x509.CRLNumber)
    scope = _find(crl.extensions, x509.IssuingDistributionPoint)
    covers: Literal["all", "leaves", "authorities"] = "all"
    if scope is not None and scope.only_contains_user_certs:
        covers = "leaves"
    elif scope is not None and scope.only_contains_ca_certs:
        covers = "authorities"
    assert crl.next_update_utc is not None  # see _refusals
    return RevocationList(
        issuer=crl.issuer.public_bytes(),
        issuer_name=crl.issuer.rfc4514_string(),
        authority_key_identifier=None if key is None else key.key_identifier,
        this_update=crl.last_update_utc,
        next_update=crl.next_update_utc,
        number=None if number is None else number.crl_number,
        covers=covers,
        distribution_points=frozenset(scope.full_name) if scope and scope.full_name else None,
        revoked=_revoked(crl),
        content=crl.tbs_certlist_bytes,
        signature=crl.signature,
        digest=crl.signature_hash_algorithm,
        parameters=crl.signature_algorithm_parameters,
    )


def _revoked(crl: x509.CertificateRevocationList) -> dict[int, tuple[datetime, str]]:
    # cryptography's own look-up reads the list from its beginning each time.
    found = {}
    for entry in crl:
        reason = x509.ReasonFlags.unspecified
        for each in entry.extensions:
            if isinstance(each.value, x509.CRLReason):
                reason = each.value.reason
            elif isinstance(each.value, x509.CertificateIssuer):
                raise CredentialError("is an indirect CRL: one by the CA itself is needed")
            elif each.critical and not isinstance(each.value, x509.InvalidityDate):
                oid = each.oid.dotted_string
                raise CredentialError(
                    f"has an entry with the critical extension {oid}, which is not supported"
                )
        if reason is x509.ReasonFlags.remove_from_crl:
            raise CredentialError("has an entry removeFromCRL, as only a delta CRL may")
        found[entry.serial_number] = (entry.revocation_date_utc, reason.value)
    return found


def _distribution_points(certificate: x509.Certificate) -> frozenset[x509.GeneralName]:
    """
    :returns: the names that complete lists by the certificate's issuer go by
        (RFC 5280, 4.2.1.13 and the end of 6.3.3): what the certificate states,
        and the issuer's own.
    """
    stated = _find(certificate.extensions, x509.CRLDistributionPoints) or ()
    names = [
        name
        for point in stated
        if point.crl_issuer is None and point.reasons is None
        for name in point.full_name or ()
    ]
    return frozenset([*names, x509.DirectoryName(certificate.issuer)])


def _find(extensions: x509.Extensions, kind: type[_Extension]) -> _Extension | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
