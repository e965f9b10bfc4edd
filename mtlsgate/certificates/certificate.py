"""
A certificate as DER, which is parsed only as far as needed.

OpenSSL accepts certificates that `cryptography` cannot read.  So each field is
parsed when somebody asks for it, and a field that cannot be read raises `MalformedDer`
only then.
"""

from __future__ import annotations

import hashlib
import warnings
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from typing import NamedTuple

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from mtlsgate.certificates import der
from mtlsgate.certificates.alternative_names import AlternativeNames, general_names
from mtlsgate.certificates.der import Element, MalformedDer
from mtlsgate.certificates.names import Name

#: The exceptions that reading a certificate may raise: `MalformedDer` from this module,
#: the others from `cryptography`.
UNPARSABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)

# Extensions and purposes, as the content of their object identifiers.
SUBJECT_KEY_IDENTIFIER, KEY_USAGE = b"\x55\x1d\x0e", b"\x55\x1d\x0f"
SUBJECT_ALTERNATIVE_NAME, BASIC_CONSTRAINTS = b"\x55\x1d\x11", b"\x55\x1d\x13"
NAME_CONSTRAINTS, CRL_DISTRIBUTION_POINTS = b"\x55\x1d\x1e", b"\x55\x1d\x1f"
AUTHORITY_KEY_IDENTIFIER, POLICY_CONSTRAINTS = b"\x55\x1d\x23", b"\x55\x1d\x24"
EXTENDED_KEY_USAGE = b"\x55\x1d\x25"
NETSCAPE_CERT_TYPE = der.oid("2.16.840.1.113730.1.1")
CLIENT_AUTH, ANY_PURPOSE = der.oid("1.3.6.1.5.5.7.3.2"), der.oid("2.5.29.37.0")

#: Bits of the key usage, in its first octet (RFC 5280, 4.2.1.3).
DIGITAL_SIGNATURE, KEY_AGREEMENT, KEY_CERT_SIGN, CRL_SIGN = 0x80, 0x08, 0x04, 0x02

#: How many certificates are cached together with the fields read so far.  A handshake
#: needs the same ones several times, and clients come back.
MAX_REMEMBERED = 4096
#: Only certificates up to this size are cached: clients may send anything.
_MAX_REMEMBERED_BYTES = 4096


class Extension(NamedTuple):
    """
    One extension.

    :ivar kind: the content of its object identifier.
    :ivar critical: whether software that does not know it must reject the
        certificate.
    :ivar value: the content of its OCTET STRING.
    """

    kind: bytes
    critical: bool
    value: bytes


class _Fields(NamedTuple):
    """The parts of a certificate (RFC 5280, 4.1), as encoded."""

    tbs: Element
    version: int
    serial: Element
    issuer: Element
    validity: Element
    subject: Element
    spki: Element
    extensions: Element | None
    algorithm: Element
    signature: Element


@frozen(slots=False, repr=False)
class Certificate:
    """
    A certificate.  Two certificates are equal if their bytes are equal.

    :ivar der: its DER.
    """

    der: bytes

    def __repr__(self) -> str:
        return f"<Certificate {self.sha256.hex()}>"

    # Digests.

    @cached_property
    def sha256(self) -> bytes:
        """The SHA-256 digest of the whole certificate, 32 bytes.  Its holder can
        change it (see `mtlsgate.certificates.signatures`), but not `identity`."""
        return hashlib.sha256(self.der).digest()

    @cached_property
    def identity(self) -> bytes:
        """The SHA-256 digest of what its issuer signed, 32 bytes."""
        return hashlib.sha256(self.tbs).digest()

    @property
    def pem(self) -> bytes:
        """The certificate as PEM."""
        body = b64encode(self.der)
        lines = b"\n".join(body[at : at + 64] for at in range(0, len(body), 64))
        return b"-----BEGIN CERTIFICATE-----\n" + lines + b"\n-----END CERTIFICATE-----\n"

    # Its fields.

    @cached_property
    def _fields(self) -> _Fields:
        return _fields(self.der)

    @cached_property
    def tbs(self) -> bytes:
        """What its issuer signed (tbsCertificate)."""
        return self._fields.tbs.encoded

    @property
    def version(self) -> int:
        """The version; 1, 2 or 3 in a correct certificate."""
        return self._fields.version

    @property
    def has_known_version(self) -> bool:
        """Whether its version exists; False if it is not a certificate at all."""
        try:
            return 1 <= self.version <= 3
        except MalformedDer:
            return False

    @cached_property
    def serial_number(self) -> int:
        """The serial number; it may be negative."""
        return der.integer(self._fields.serial, "the serial number")

    @cached_property
    def issuer(self) -> Name:
        """The issuer's name."""
        return Name(self._fields.issuer.encoded)

    @cached_property
    def subject(self) -> Name:
        """The holder's name."""
        return Name(self._fields.subject.encoded)

    @cached_property
    def _validity(self) -> tuple[datetime, datetime]:
        times = tuple(self._fields.validity.children())
        if len(times) != 2:
            raise MalformedDer("the validity is no pair of times")
        return der.time(times[0], "notBefore"), der.time(times[1], "notAfter")

    @property
    def not_before(self) -> datetime:
        """The first second of its validity, aware."""
        return self._validity[0]

    @property
    def not_after(self) -> datetime:
        """The last second of its validity, aware."""
        return self._validity[1]

    @cached_property
    def spki(self) -> bytes:
        """Its public key as SubjectPublicKeyInfo, exactly as encoded."""
        return self._fields.spki.encoded

    @property
    def signature_algorithm(self) -> Element:
        """The AlgorithmIdentifier of the signature."""
        return self._fields.algorithm

    @cached_property
    def signature(self) -> bytes:
        """The issuer's signature."""
        return der.bits(self._fields.signature, "the signature")

    # Its extensions.

    @cached_property
    def extensions(self) -> tuple[Extension, ...]:
        """All extensions, in order; their values are not read."""
        found = self._fields.extensions
        if found is None:
            return ()
        return tuple(one for listed in found.children() for one in extensions_in(listed))

    @cached_property
    def _by_kind(self) -> Mapping[bytes, Extension]:
        by_kind = dict[bytes, Extension]()
        for one in self.extensions:
            if one.kind in by_kind:
                # Programs may differ in which of the two they use (RFC 5280, 4.2).
                raise MalformedDer(f"it has the extension {der.dotted(one.kind)} twice")
            by_kind[one.kind] = one
        return by_kind

    def extension(self, kind: bytes) -> Extension | None:
        """
        :param kind: the content of its object identifier.
        :raises Malformed: if there are two extensions of one kind.
        """
        return self._by_kind.get(kind)

    @cached_property
    def _basic_constraints(self) -> tuple[bool, int | None]:
        found = self.extension(BASIC_CONSTRAINTS)
        if found is None:
            return False, None
        what = "the basic constraints"
        parts = list(der.only(found.value, der.SEQUENCE, what).children())
        is_ca = bool(parts) and parts[0].tag == der.BOOLEAN and der.boolean(parts.pop(0), what)
        length = der.integer(parts.pop(0), what) if parts else None
        if parts:
            raise MalformedDer(f"{what} are of another form")
        return is_ca, length

    @property
    def is_ca(self) -> bool:
        """Whether its basic constraints say CA:TRUE (RFC 5280, 4.2.1.9)."""
        return self._basic_constraints[0]

    @property
    def path_length(self) -> int | None:
        """How many intermediates its basic constraints allow below it."""
        return self._basic_constraints[1]

    @cached_property
    def key_usage(self) -> int | None:
        """The first octet of the key usage, or None (RFC 5280, 4.2.1.3)."""
        found = self.extension(KEY_USAGE)
        if found is None:
            return None
        what = "the key usage"
        octets = der.bits(der.only(found.value, der.BIT_STRING, what), what)
        return octets[0] if octets else 0

    @cached_property
    def purposes(self) -> frozenset[bytes] | None:
        """The extended key usage, as contents of object identifiers, or None."""
        found = self.extension(EXTENDED_KEY_USAGE)
        if found is None:
            return None
        what = "the extended key usage"
        return frozenset(
            one.expect(der.OBJECT_IDENTIFIER, what).value
            for one in der.only(found.value, der.SEQUENCE, what).children()
        )

    @cached_property
    def subject_key_identifier(self) -> bytes | None:
        """The identifier of its own key, or None."""
        found = self.extension(SUBJECT_KEY_IDENTIFIER)
        if found is None:
            return None
        return der.only(found.value, der.OCTET_STRING, "the subject key identifier").value

    @cached_property
    def authority_key_identifier(self) -> bytes | None:
        """The identifier of its issuer's key, or None."""
        found = self.extension(AUTHORITY_KEY_IDENTIFIER)
        return None if found is None else key_identifier(found.value)

    @cached_property
    def names(self) -> AlternativeNames:
        """
        Its subject alternative names.

        :raises Malformed: if the extension as a whole cannot be read.
        """
        found = self.extension(SUBJECT_ALTERNATIVE_NAME)
        if found is None:
            return _NO_NAMES
        return AlternativeNames(general_names(found.value, "the subject alternative name"))

    @property
    def readable_names(self) -> AlternativeNames:
        """Its subject alternative names, for people: none if they cannot be read."""
        try:
            return self.names
        except MalformedDer:
            return _NO_NAMES

    # As read by cryptography.

    def public_key(self) -> PublicKeyTypes:
        """
        :returns: its public key.
        :raises: one of `UNPARSABLE`, if `cryptography` cannot read it.
        """
        return load_der_public_key(self.spki)

    @cached_property
    def x509(self) -> x509.Certificate:
        """
        The certificate as an object of `cryptography`.

        :raises: one of `UNPARSABLE`, if it cannot read the certificate.
        """
        with warnings.catch_warnings():
            # It warns about serial numbers that RFC 5280 forbids; they do no harm here.
            warnings.simplefilter("ignore")
            return x509.load_der_x509_certificate(self.der)


_NO_NAMES = AlternativeNames()


def view(certificate: Certificate | x509.Certificate) -> Certificate:
    """:returns: the certificate as a `Certificate`."""
    if isinstance(certificate, Certificate):
        return certificate
    return known(certificate.public_bytes(Encoding.DER))


def views(certificates: Iterable[Certificate | x509.Certificate]) -> tuple[Certificate, ...]:
    """:returns: the certificates as `Certificate` values."""
    return tuple(map(view, certificates))


def known(encoded: bytes) -> Certificate:
    """
    :param encoded: the DER of a certificate.
    :returns: the cached object for these bytes, with the fields read before.
    """
    return _known(encoded) if len(encoded) <= _MAX_REMEMBERED_BYTES else Certificate(encoded)


_known = lru_cache(MAX_REMEMBERED)(Certificate)


def key_identifier(value: bytes) -> bytes | None:
    """
    :param value: the value of an authority key identifier extension.
    :returns: the key's identifier; None if the extension names the key otherwise.
    """
    what = "the authority key identifier"
    for part in der.only(value, der.SEQUENCE, what).children():
        if part.tag == 0x80:
            return part.value
    return None


def _fields(encoded: bytes) -> _Fields:
    outer = tuple(der.only(encoded, der.SEQUENCE, "the certificate").children())
    if len(outer) != 3:
        raise MalformedDer("it has not the three parts of a certificate")
    tbs, algorithm, signature = outer
    parts = list(tbs.expect(der.SEQUENCE, "its content").children())
    version = 1
    if parts and parts[0].tag == 0xA0:
        number = tuple(parts.pop(0).children())
        if len(number) != 1:
            raise MalformedDer("its version is no number")
        version = der.integer(number[0], "its version") + 1
    if len(parts) < 6:
        raise MalformedDer("it lacks fields that every certificate has")
    serial, inner, issuer, validity, subject, spki, *rest = parts
    for field in (inner, issuer, validity, subject, spki, algorithm):
        field.expect(der.SEQUENCE, "one of its fields")
    extensions = next((one for one in rest if one.tag == 0xA3), None)
    return _Fields(
        tbs, version, serial, issuer, validity, subject, spki, extensions, algorithm, signature
    )


def extensions_in(listed: Element) -> Iterator[Extension]:
    """
    :param listed: an Extensions value (RFC 5280, 4.1).
    :returns: the extensions, in order.
    """
    what = "one of its extensions"
    for one in listed.expect(der.SEQUENCE, "the list of extensions").children():
        kind, *rest = one.expect(der.SEQUENCE, what).children()
        critical = False
        if len(rest) == 2:
            critical = der.boolean(rest.pop(0), what)
        if len(rest) != 1:
            raise MalformedDer(f"{what} is of another form")
        value = rest[0].expect(der.OCTET_STRING, what).value
        yield Extension(kind.expect(der.OBJECT_IDENTIFIER, what).value, critical, value)
