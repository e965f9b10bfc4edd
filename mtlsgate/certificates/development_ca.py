"""
Issues certificates for ``mtlsgate init``, for servers without a configured
certificate, and for tests.

An :class:`Authority` signs; a :class:`Credential` is what it issues to a holder.
Everything is made in memory and passes OpenSSL's ``X509_STRICT`` checks.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TypedDict, Unpack

from attrs import field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = [
    "Authority",
    "AuthorityOptions",
    "CommonOptions",
    "Credential",
    "CredentialOptions",
    "self_signed",
]

#: The kinds of keys that certificates can have and be signed with.
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_Extensions = Sequence[tuple[x509.ExtensionType, bool]]


class CommonOptions(TypedDict, total=False):
    """
    Options for every certificate.

    :ivar now: the time now, aware; by default the clock's.
    :ivar days: the validity from ``now`` on, if ``not_after`` is not given.
    :ivar not_before: the start; by default an hour before ``now``, for slow clocks.
    :ivar not_after: the end.  If it is in the past, ``not_before`` is moved
        before it.
    :ivar key: the holder's key, to reuse one; by default a new one on P-256.
    :ivar serial: the serial number; by default random.
    :ivar organization: the subject's O.
    :ivar organizational_unit: the subject's OU.
    :ivar subject: the whole subject, instead of O, OU and CN.
    :ivar hash_algorithm: by default SHA-256.
    :ivar extra_extensions: pairs of ``(extension, critical)``.  They replace
        extensions of the same type.
    """

    now: datetime
    days: int
    not_before: datetime | None
    not_after: datetime | None
    key: PrivateKey | None
    serial: int | None
    organization: str | None
    organizational_unit: str | None
    subject: x509.Name | None
    hash_algorithm: HashAlgorithm
    extra_extensions: _Extensions


class AuthorityOptions(CommonOptions, total=False):
    """
    Options for a CA certificate, besides :class:`CommonOptions`.

    :ivar path_length: how many intermediates may follow it.
    :ivar name_constraints: a critical extension (RFC 5280 section 4.2.1.10).
    """

    path_length: int | None
    name_constraints: x509.NameConstraints | None


class CredentialOptions(CommonOptions, total=False):
    """
    Options for a leaf, besides :class:`CommonOptions`.

    :ivar dns_names: subject alternative names, A-labels.
    :ivar ip_addresses: subject alternative names, IPv4 or IPv6.
    :ivar uris: subject alternative names, such as ``spiffe://td/x``.
    :ivar email_addresses: subject alternative names.
    :ivar usages: the extended key usages, named as in
        :class:`~cryptography.x509.oid.ExtendedKeyUsageOID` but in lower case;
        by default only ``client_auth``.  If empty, the extension is left out.
    :ivar is_ca: whether to set CA:TRUE.
    """

    dns_names: Sequence[str]
    ip_addresses: Sequence[str]
    uris: Sequence[str]
    email_addresses: Sequence[str]
    usages: Sequence[str]
    is_ca: bool


@frozen
class Credential:
    """
    A leaf, its private key, and its intermediates.

    :ivar certificate: the leaf.
    :ivar private_key: the leaf's key.
    :ivar intermediates: the certificates to send after the leaf, its issuer first.
    """

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False, eq=False)
    intermediates: tuple[x509.Certificate, ...] = ()

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """The leaf and the intermediates."""
        return (self.certificate, *self.intermediates)

    @property
    def pem(self) -> bytes:
        """The chain, leaf first."""
        return b"".join(each.public_bytes(Encoding.PEM) for each in self.chain)

    @property
    def key_pem(self) -> bytes:
        """The private key, as PKCS#8 and not encrypted."""
        return _key_pem(self.private_key)

    @property
    def der(self) -> bytes:
        """The leaf."""
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def sha256(self) -> str:
        """The leaf's fingerprint: 64 lowercase hexadecimal digits."""
        return self.certificate.fingerprint(SHA256()).hex()


@frozen
class Authority:
    """
    A CA.  ``Authority.create()`` makes a root.  Calling the class makes an issuer
    from any certificate and key, suitable or not.

    :ivar certificate: the CA's own certificate.
    :ivar private_key: the key that it signs with.
    :ivar parent: the CA that issued it; ``None`` for a root.
    """

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False, eq=False)
    parent: Authority | None = None

    @classmethod
    def create(cls, name: str = "Test CA", **options: Unpack[AuthorityOptions]) -> Authority:
        """
        :param name: its common name.
        :param options: see :class:`AuthorityOptions`; valid for ten years by default.
        :returns: a new root.
        """
        return cls(*_authority(name, None, options))

    def intermediate(
        self, name: str = "Test Intermediate CA", **options: Unpack[AuthorityOptions]
    ) -> Authority:
        """
        :param name: its common name.
        :param options: see :class:`AuthorityOptions`; valid for ten years by default.
            With another CA's ``key`` and name, this is a cross-signature.
        :returns: a CA below this one.
        """
        return Authority(*_authority(name, self, options), parent=self)

    def issue(self, common_name: str | None, **options: Unpack[CredentialOptions]) -> Credential:
        """
        :param common_name: the subject's CN, or ``None`` for a subject
            without one.
        :param options: see :class:`CredentialOptions`; valid for a year by default.
        :returns: a leaf of this CA, for a client unless ``usages`` says otherwise.
            It comes with the intermediates, but without the root.
        """
        is_ca = options.get("is_ca", False)
        usages = ("digital_signature", "key_cert_sign") if is_ca else ("digital_signature",)
        extensions = [(key_usage(*usages), True), *_leaf_extensions(options)]
        certificate, key = _certificate(common_name, self, extensions, options, days=365)
        return Credential(certificate, key, self.intermediates)

    @property
    def intermediates(self) -> tuple[x509.Certificate, ...]:
        """This CA's certificate and those above it, without the root."""
        if self.parent is None:
            return ()
        return (self.certificate, *self.parent.intermediates)

    @property
    def pem(self) -> bytes:
        """The CA's certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        """The CA's private key, as PKCS#8 and not encrypted."""
        return _key_pem(self.private_key)


def self_signed(common_name: str | None, **options: Unpack[CredentialOptions]) -> Credential:
    """
    Make a self-signed certificate, such as a pin without a CA.

    :param common_name: the subject's CN, or ``None`` for a subject without one.
    :param options: see :class:`CredentialOptions`; valid for a year by default.
        With ``is_ca`` it has the same extensions as from ``openssl req -x509``:
        CA:TRUE, no key usage, and no extended key usage unless given.
    :returns: a certificate signed with its own key.
    """
    extensions: _Extensions
    if options.get("is_ca", False):
        options.setdefault("usages", ())
        extensions = _leaf_extensions(options)
    else:
        extensions = [(key_usage("digital_signature"), True), *_leaf_extensions(options)]
    return Credential(*_certificate(common_name, None, extensions, options, days=365))


def _authority(
    name: str, issuer: Authority | None, options: AuthorityOptions
) -> tuple[x509.Certificate, PrivateKey]:
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=True, path_length=options.get("path_length")), True),
        (key_usage("key_cert_sign", "crl_sign"), True),
    ]
    constraints = options.get("name_constraints")
    if constraints is not None:
        extensions.append((constraints, True))
    return _certificate(name, issuer, extensions, options, days=3650)


def _leaf_extensions(options: CredentialOptions) -> list[tuple[x509.ExtensionType, bool]]:
    is_ca = options.get("is_ca", False)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=is_ca, path_length=None), True)
    ]
    usages = options.get("usages", ("client_auth",))
    if usages:
        oids = [getattr(ExtendedKeyUsageOID, usage.upper()) for usage in usages]
        extensions.append((x509.ExtendedKeyUsage(oids), False))
    names = [
        *map(x509.DNSName, options.get("dns_names", ())),
        *(x509.IPAddress(ip_address(each)) for each in options.get("ip_addresses", ())),
        *map(x509.UniformResourceIdentifier, options.get("uris", ())),
        *map(x509.RFC822Name, options.get("email_addresses", ())),
    ]
    if names:
        extensions.append((x509.SubjectAlternativeName(names), False))
    return extensions


def _certificate(
    common_name: str | None,
    issuer: Authority | None,
    extensions: _Extensions,
    options: CommonOptions,
    days: int,
) -> tuple[x509.Certificate, PrivateKey]:
    key = options.get("key") or ec.generate_private_key(ec.SECP256R1())
    signing_key = key if issuer is None else issuer.private_key
    subject = _subject(common_name, options)
    not_before, not_after = _validity(options, days)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(options.get("serial") or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    identifiers: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    ]
    if issuer is not None:
        identifiers.append((_authority_key_identifier(issuer.certificate), False))
    every = (*extensions, *identifiers, *options.get("extra_extensions", ()))
    for extension, critical in {each.oid: (each, critical) for each, critical in every}.values():
        # RFC 5280 section 4.1.2.6: without a subject the SAN must be critical.
        nameless = isinstance(extension, x509.SubjectAlternativeName) and not list(subject)
        builder = builder.add_extension(extension, critical or nameless)
    edwards = isinstance(signing_key, ed25519.Ed25519PrivateKey)
    digest = None if edwards else options.get("hash_algorithm", SHA256())
    return builder.sign(signing_key, digest), key  # type: ignore[arg-type]


def _subject(common_name: str | None, options: CommonOptions) -> x509.Name:
    subject = options.get("subject")
    if subject is not None:
        return subject
    parts = (
        (NameOID.ORGANIZATION_NAME, options.get("organization")),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, options.get("organizational_unit")),
        (NameOID.COMMON_NAME, common_name),
    )
    return x509.Name([x509.NameAttribute(oid, text) for oid, text in parts if text is not None])


def _validity(options: CommonOptions, days: int) -> tuple[datetime, datetime]:
    now = options.get("now") or datetime.now(UTC)
    end = options.get("not_after")
    start = options.get("not_before") or min(now, end or now) - timedelta(hours=1)
    return start, end or max(now, start) + timedelta(days=options.get("days", days))


def _authority_key_identifier(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        known = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known)


def key_usage(*usages: str) -> x509.KeyUsage:
    """:returns: the extension with these usages and no others."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{each: each in usages for each in every})


def _key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
