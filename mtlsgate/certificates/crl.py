"""
Reads certificate revocation lists (RFC 5280, 5).  `mtlsgate.certificates.revoked`
reads their entries.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, NamedTuple

from attrs import field, frozen

from mtlsgate.certificates import der, pem
from mtlsgate.certificates.alternative_names import DIRECTORY
from mtlsgate.certificates.certificate import (
    AUTHORITY_KEY_IDENTIFIER,
    CRL_DISTRIBUTION_POINTS,
    CRL_SIGN,
    UNPARSABLE,
    Certificate,
    extensions_in,
    key_identifier,
)
from mtlsgate.certificates.der import Element, MalformedDer
from mtlsgate.certificates.names import Name
from mtlsgate.certificates.revoked import RevokedCertificates
from mtlsgate.certificates.signatures import digest_of, is_known, is_signed_by
from mtlsgate.errors import CredentialError
from mtlsgate.text import first_line, quoted

_NUMBER, _DELTA, _SCOPE = b"\x55\x1d\x14", b"\x55\x1d\x1b", b"\x55\x1d\x1c"

#: A general name in comparable form: its kind and its content, or the key of a
#: directory name.
_GeneralName = tuple[int, object]


@frozen(eq=False)
class RevocationList:
    """
    A CRL whose signature has not been checked yet (RFC 5280, 5.1).  It covers the
    certificates that were signed with the same key as the list.

    :ivar issuer: the issuer's name.
    :ivar authority_key_identifier: the identifier of the key that signed it, if
        given.
    :ivar this_update: when it was issued, aware.
    :ivar next_update: the last second in which it is valid, aware.
    :ivar number: its CRL number, if it has one.
    :ivar is_delta: whether it only has the changes since another list.
    :ivar covers: whether it lists leaves (onlyContainsUserCerts), CAs
        (onlyContainsCACerts), or both.
    :ivar distribution_points: the names of its distribution point; None if it
        covers all certificates of its issuer.
    :ivar revoked: its entries.
    """

    issuer: Name
    authority_key_identifier: bytes | None
    this_update: datetime
    next_update: datetime
    number: int | None
    is_delta: bool
    covers: Literal["all", "leaves", "authorities"]
    distribution_points: frozenset[_GeneralName] | None
    revoked: RevokedCertificates = field(repr=False)
    _content: Element = field(repr=False)
    _algorithm: Element = field(repr=False)
    _signature: bytes = field(repr=False)

    def __str__(self) -> str:
        kind = "delta CRL" if self.is_delta else "CRL"
        name = quoted(self.issuer.rfc4514_string())
        return f"the {kind} of {name} of {self.this_update.isoformat()}"

    @property
    def age(self) -> tuple[datetime, int]:
        """Grows with each list of an issuer (RFC 5280, 5.1.2.4 and 5.2.3)."""
        return self.this_update, -1 if self.number is None else self.number

    @property
    def kind(self) -> tuple[object, ...]:
        """Of one CA's lists of the same kind, a newer one replaces the older ones."""
        return (
            self.issuer.key,
            self.authority_key_identifier,
            self.covers,
            self.distribution_points,
        )

    def speaks_for(self, certificate: Certificate) -> bool:
        """
        :returns: whether the list covers this certificate of its issuer, so that a
            missing entry means "not revoked" (RFC 5280, 6.3.3 (b) (2)).
        """
        if self.covers != "all" and certificate.is_ca != (self.covers == "authorities"):
            return False
        return self.distribution_points is None or not self.distribution_points.isdisjoint(
            _distribution_points(certificate)
        )

    def fault(self, issuer: Certificate) -> str | None:
        """
        :param issuer: a CA with the name of the list's issuer.
        :returns: why this CA did not sign the list or may not sign lists (RFC 5280,
            4.2.1.3 and 6.3.3 (f) and (g)), or None.
        """
        key = issuer.subject_key_identifier
        if key is not None and self.authority_key_identifier not in (None, key):
            return "is by another CA of that name, or by another key of this one"
        if not self._is_signed_by(issuer):
            return "is not signed by that CA: it was changed, or is by another CA of that name"
        if issuer.key_usage is not None and not issuer.key_usage & CRL_SIGN:
            return "does not count: the CA's key usage does not include cRLSign"
        return None

    def _is_signed_by(self, issuer: Certificate) -> bool:
        try:
            key = issuer.public_key()
        except UNPARSABLE:
            return False
        return is_signed_by(key, self._algorithm, self._signature, self._content.encoded)


def parse_crls(data: bytes, *, strict: bool = True) -> tuple[RevocationList, ...]:
    """
    :param data: PEM (one CRL or many), DER, or base64 of DER.
    :param strict: whether to require a CRL number that is not critical (RFC 5280,
        5.2.3); some tools omit it.
    :returns: at least one list, in the order given.
    :raises CredentialError: if a list does not parse or cannot be fully applied;
        it says which.
    """
    found = pem.ders(data, ("X509 CRL",), "an X509 CRL")
    return tuple(_parsed(each, number, count, strict) for number, count, each in found)


def without_deltas(
    lists: Iterable[RevocationList],
) -> tuple[tuple[RevocationList, ...], tuple[RevocationList, ...]]:
    """
    :returns: the complete lists to use, and the delta CRLs to ignore.
    :raises CredentialError: if ignoring one could admit a client that it revokes.
    """
    given = tuple(lists)
    complete = tuple(one for one in given if not one.is_delta)
    deltas = tuple(one for one in given if one.is_delta)
    for delta in deltas:
        newest = max(
            (one for one in complete if one.kind == delta.kind),
            key=lambda one: one.age,
            default=None,
        )
        if newest is None:
            raise CredentialError(f"has {delta}: a complete one is needed")
        if newest.age >= delta.age:
            continue
        if any(not one.is_removal and one.serial not in newest.revoked for one in delta.revoked):
            raise CredentialError(
                f"has {delta}, which revokes certificates that no complete one revokes: "
                "a newer complete one is needed"
            )
    return complete, deltas


def _parsed(encoded: bytes, number: int, count: int, strict: bool) -> RevocationList:
    which = f"CRL {number} of {count}" if count > 1 else "the CRL"
    try:
        return _list(encoded, strict)
    except CredentialError as error:
        raise CredentialError(f"{which} {error}") from None
    except (*UNPARSABLE, IndexError) as error:
        what = first_line(error)
        raise CredentialError(f"{which} does not parse: {what}") from None


class _Scope(NamedTuple):
    """The supported part of an issuing distribution point (RFC 5280, 5.2.5)."""

    names: frozenset[_GeneralName] | None = None
    leaves: bool = False
    authorities: bool = False


def _list(encoded: bytes, strict: bool) -> RevocationList:
    outer = tuple(der.only(encoded, der.SEQUENCE, "the CRL").children())
    if len(outer) != 3:
        raise MalformedDer("it has not the three parts of a CRL")
    content, algorithm, signature = outer
    parts = list(content.expect(der.SEQUENCE, "its content").children())
    if parts and parts[0].tag == der.INTEGER:
        parts.pop(0)
    if len(parts) < 3:
        raise MalformedDer("it lacks fields that every CRL has")
    inner, issuer, this_update, *rest = parts
    if inner.encoded != algorithm.encoded:
        raise MalformedDer("its two signature algorithm fields differ")
    if not is_known(algorithm):
        raise MalformedDer("its signature algorithm is not known")
    digest = digest_of(algorithm)
    if digest is not None and digest.digest_size < 28:
        raise CredentialError(f"is signed with {digest.name}: OpenSSL refuses digests so weak")
    if not rest or rest[0].tag not in (der.UTC_TIME, der.GENERALIZED_TIME):
        raise CredentialError("has no nextUpdate: it would never expire")
    next_update = rest.pop(0)
    entries = rest.pop(0) if rest and rest[0].tag == der.SEQUENCE else None
    extensions = _extensions(rest, strict)
    number = extensions.get(_NUMBER)
    scope = _scope(extensions[_SCOPE]) if _SCOPE in extensions else _Scope()
    key = extensions.get(AUTHORITY_KEY_IDENTIFIER)
    name = Name(issuer.encoded)
    _ = name.key
    return RevocationList(
        issuer=name,
        authority_key_identifier=None if key is None else key_identifier(key),
        this_update=der.time(this_update, "thisUpdate"),
        next_update=der.time(next_update, "nextUpdate"),
        number=None if number is None else _integer(number),
        is_delta=_DELTA in extensions,
        covers="leaves" if scope.leaves else "authorities" if scope.authorities else "all",
        distribution_points=scope.names,
        revoked=RevokedCertificates(entries, is_delta=_DELTA in extensions),
        content=content,
        algorithm=algorithm,
        signature=der.bits(signature, "its signature"),
    )


def _integer(value: bytes) -> int:
    return der.integer(der.only(value, der.INTEGER, "its number"), "its number")


def _extensions(rest: list[Element], strict: bool) -> dict[bytes, bytes]:
    """:raises CredentialError: if an extension means that the list cannot be fully
    applied."""
    found: dict[bytes, bytes] = {}
    wrapped = next((one for one in rest if one.tag == 0xA0), None)
    for one in () if wrapped is None else extensions_in(next(wrapped.children())):
        if one.kind in found:
            raise MalformedDer(f"it has the extension {der.dotted(one.kind)} twice")
        found[one.kind] = one.value
        if one.kind == _NUMBER:
            if strict and one.critical:
                raise CredentialError(
                    'has a critical CRL number, which verification = "strict" forbids'
                )
        # RFC 5280, 5.2: a list with an unknown critical extension must not be used.
        elif one.critical and one.kind not in (AUTHORITY_KEY_IDENTIFIER, _SCOPE, _DELTA):
            raise CredentialError(
                f"has the critical extension {der.dotted(one.kind)}, which is not supported"
            )
    if strict and _NUMBER not in found:
        raise CredentialError(
            'has no CRL number, as verification = "strict" demands (RFC 5280, 5.2.3)'
        )
    return found


def _scope(value: bytes) -> _Scope:
    """:raises CredentialError: if the scope is not supported."""
    names, flags = None, dict[int, bool]()
    for part in der.only(value, der.SEQUENCE, "its issuing distribution point").children():
        if part.tag == 0xA0:
            names = _point_names(part)
            if names is None:
                raise CredentialError(
                    "names its distribution point relative to its issuer, which is not supported"
                )
        elif part.tag == 0x83:
            raise CredentialError("is for some reasons only: one for all reasons is needed")
        else:
            flags[part.tag] = bool(any(part.value))
    if flags.get(0x84):
        raise CredentialError("is an indirect CRL: one by the CA itself is needed")
    if flags.get(0x85):
        raise CredentialError("is for attribute certificates")
    return _Scope(names or None, flags.get(0x81, False), flags.get(0x82, False))


def _point_names(point: Element) -> frozenset[_GeneralName] | None:
    """:returns: the full name of a DistributionPointName; None if it is relative."""
    inner = next(point.children(), None)
    if inner is None or inner.tag != 0xA0:
        return None
    return frozenset(map(_comparable, inner.children()))


def _comparable(name: Element) -> _GeneralName:
    if name.tag == DIRECTORY:
        return DIRECTORY, Name(name.value).key
    return name.tag, name.value


def _distribution_points(certificate: Certificate) -> frozenset[_GeneralName]:
    """
    :returns: the distribution point names of lists that cover the certificate
        (RFC 5280, 4.2.1.13 and the end of 6.3.3): those in the certificate, and
        the issuer's own name.
    """
    names: set[_GeneralName] = {(DIRECTORY, certificate.issuer.key)}
    stated = certificate.extension(CRL_DISTRIBUTION_POINTS)
    if stated is not None:
        for point in _points(stated.value):
            parts = {part.tag: part for part in point.children()}
            # Skip points for some reasons only, and points of another issuer.
            if 0xA0 in parts and not parts.keys() & {0x81, 0xA2}:
                names.update(_point_names(parts[0xA0]) or ())
    return frozenset(names)


def _points(value: bytes) -> tuple[Element, ...]:
    """:returns: the points in a cRLDistributionPoints extension."""
    return tuple(der.only(value, der.SEQUENCE, "the CRL distribution points").children())
