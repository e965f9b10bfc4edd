"""
A second validator checks paths that OpenSSL has verified.

OpenSSL's name constraint checks have gaps that no flag closes: some wildcards
and malformed names pass.  cryptography's ``ClientVerifier`` has no such gaps.  It
checks each path below a CA with name constraints; with ``verification =
"double"`` it checks every path.  Both validators must agree, so this module can
only reject.

The ``ClientVerifier`` does not support everything that OpenSSL does: certificates
that cryptography cannot read, signatures and CA keys other than common RSA and
ECDSA, critical policies, constraints on names other than DNS names, email
addresses and IP addresses, and self-issued CAs, which do not count for a path
length.  Fleets with Ed25519 keys need these.  If a path has any of them, the
validator checks a model of the path: a copy with the same constraints, path
lengths, purposes and names, signed with fresh keys.  For everything that the model
leaves out, OpenSSL's verdict stands.
"""

from __future__ import annotations

import ipaddress
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import (
    ExtendedKeyUsageOID,
    ObjectIdentifier,
    SignatureAlgorithmOID,
)
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    Policy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from mtlsgate.admission.verdicts import Path
from mtlsgate.certificates import der
from mtlsgate.certificates.alternative_names import DNS, EMAIL, IP
from mtlsgate.certificates.certificate import (
    AUTHORITY_KEY_IDENTIFIER,
    BASIC_CONSTRAINTS,
    CRL_SIGN,
    DIGITAL_SIGNATURE,
    EXTENDED_KEY_USAGE,
    KEY_CERT_SIGN,
    KEY_USAGE,
    NAME_CONSTRAINTS,
    SUBJECT_ALTERNATIVE_NAME,
    SUBJECT_KEY_IDENTIFIER,
    UNPARSABLE,
    Certificate,
    view,
)
from mtlsgate.certificates.der import MalformedDer
from mtlsgate.text import first_line

#: The limit on names times constraints for one client, about 30 ms of work.
#: OpenSSL's own limit is 16 times as high.
MAX_CHECKS = 2**16

_Chain = tuple[x509.Certificate, ...]

# What the ClientVerifier supports.
_KINDS = frozenset((DNS, EMAIL, IP))
_KNOWN = frozenset(
    (
        AUTHORITY_KEY_IDENTIFIER,
        BASIC_CONSTRAINTS,
        EXTENDED_KEY_USAGE,
        KEY_USAGE,
        NAME_CONSTRAINTS,
        SUBJECT_ALTERNATIVE_NAME,
        SUBJECT_KEY_IDENTIFIER,
    )
)
_NAMES = (x509.DNSName, x509.RFC822Name, x509.IPAddress)
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SIGNATURES = (
    SignatureAlgorithmOID.RSA_WITH_SHA256,
    SignatureAlgorithmOID.RSA_WITH_SHA384,
    SignatureAlgorithmOID.RSA_WITH_SHA512,
    SignatureAlgorithmOID.ECDSA_WITH_SHA256,
    SignatureAlgorithmOID.ECDSA_WITH_SHA384,
    SignatureAlgorithmOID.ECDSA_WITH_SHA512,
)

#: Extensions that OpenSSL accepts as critical, and the ClientVerifier does not.
_FOREIGN = frozenset(
    map(
        ObjectIdentifier,
        (
            "2.5.29.31",  # cRLDistributionPoints
            "2.5.29.32",  # certificatePolicies
            "2.5.29.33",  # policyMappings
            "2.5.29.36",  # policyConstraints
            "2.5.29.54",  # inhibitAnyPolicy
            "1.3.6.1.5.5.7.1.7",  # ipAddrBlocks (RFC 3779)
            "1.3.6.1.5.5.7.1.8",  # autonomousSysIds (RFC 3779)
            "1.3.6.1.5.5.7.48.1.5",  # ocsp-nocheck
            "2.16.840.1.113730.1.1",  # netscape-cert-type
        ),
    )
)
_FOREIGN_KINDS = frozenset(der.oid(one.dotted_string) for one in _FOREIGN)


def needs_second_opinion(path: Path) -> bool:
    """
    :param path: leaf first, its anchor last.
    :returns: whether a CA in the path carries name constraints.
    """
    return any(one.extension(NAME_CONSTRAINTS) is not None for one in path[1:])


def disagreement(judged: Path, now: datetime) -> str | None:
    """
    :param judged: as OpenSSL verified it, leaf first, its anchor last.
    :param now: the time to judge by, aware.
    :returns: why the second validator rejects the path, in one line; None if it
        agrees.  A path of one certificate (a pin that is its own anchor) is not
        checked.
    """
    if len(judged) == 1:
        return None
    try:
        if _checks(judged) > MAX_CHECKS:
            return "there are too many names to hold against so many name constraints"
        path = _readable(judged)
        if path is not None and _is_known(path) and _verified(path, now) == path:
            return None
        # The path has something unsupported, or the validator found another path
        # to the anchor.  The model has only one path.
        model = _model(judged)
        if _verified(model, now) != model:
            return "it finds another path"
    except VerificationError as error:
        return _told(error)
    except UNPARSABLE as error:
        return first_line(error)
    return None


def _checks(path: Path) -> int:
    names = sum(len(one.names.names) for one in path)
    return names * sum(len(_constraints(one)) for one in path)


def _readable(path: Path) -> _Chain | None:
    """:returns: the path as cryptography's objects; None if cryptography cannot read it."""
    try:
        chain = tuple(one.x509 for one in path)
        for one in chain:
            _ = one.extensions, one.subject, one.issuer, one.public_key()
    except UNPARSABLE:
        return None
    return chain


def _verified(path: _Chain, now: datetime) -> _Chain:
    verifier = (
        PolicyBuilder()
        .store(Store([path[-1]]))
        .time(now)
        .max_chain_depth(len(path))
        .extension_policies(ca_policy=_CA, ee_policy=_PINNED_CA if view(path[0]).is_ca else _LEAF)
        .build_client_verifier()
    )
    return tuple(verifier.verify(path[0], list(path[1:-1])).chain)


def _told(error: VerificationError) -> str:
    said = str(error).partition(" (encountered processing")[0].partition("\n")[0]
    return said.removeprefix("validation failed: ").removeprefix("candidates exhausted: ")


# The model.


def _is_known(path: _Chain) -> bool:
    """:returns: whether the ClientVerifier supports all that matters in the path."""
    return (
        all(one.signature_algorithm_oid in _SIGNATURES for one in path[:-1])
        and all(map(_has_known_key, path[1:]))
        and all(_is_known_extension(each) for one in path for each in one.extensions)
        and not any(map(_is_self_issued, path[1:-1]))
    )


def _has_known_key(authority: x509.Certificate) -> bool:
    key = authority.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, _CURVES)
    return isinstance(key, rsa.RSAPublicKey)


def _is_known_extension(extension: x509.Extension[x509.ExtensionType]) -> bool:
    value = extension.value
    if isinstance(value, x509.NameConstraints):
        subtrees = (*(value.permitted_subtrees or ()), *(value.excluded_subtrees or ()))
        return all(isinstance(name, _NAMES) for name in subtrees)
    return not (extension.critical and extension.oid in _FOREIGN)


def _is_self_issued(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _model(path: Path) -> _Chain:
    """:returns: a copy of the path with new keys and names, and with everything that
    the validator supports."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in path]
    constrained = frozenset(tag for one in path for tag, _, _ in _constraints(one))
    return tuple(
        _modelled(one, depth, len(path), constrained, key, signer)
        # A path length does not count self-issued CAs (RFC 5280, 6.1.4).
        .add_extension(_basic(one, sum(map(_issues_itself, path[1:depth]))), critical=True)
        .sign(signer, SHA256())
        for depth, (one, (key, signer)) in enumerate(
            zip(path, pairwise([*keys, keys[-1]]), strict=True)
        )
    )


def _issues_itself(certificate: Certificate) -> bool:
    return certificate.subject.key == certificate.issuer.key


def _basic(certificate: Certificate, uncounted: int) -> x509.BasicConstraints:
    length = certificate.path_length if certificate.is_ca else None
    return x509.BasicConstraints(certificate.is_ca, None if length is None else length + uncounted)


def _modelled(
    certificate: Certificate,
    depth: int,
    length: int,
    constrained: frozenset[int],
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.CertificateBuilder:
    """:param constrained: the kinds of name that some CA in the path constrains."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(depth))
        .issuer_name(_name(min(depth + 1, length - 1)))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(certificate.not_before)
        .not_valid_after(certificate.not_after)
    )
    for extension in certificate.extensions:
        if extension.critical and extension.kind not in _KNOWN | _FOREIGN_KINDS:
            raise ValueError("it has a critical extension that is not known")
    names = [
        _general_name(one.tag, one.value)
        for one in certificate.names.names
        if one.tag in constrained & _KINDS
        # Constraints do not bind a self-issued CA (RFC 5280, 6.1.3).
        and (depth == 0 or not _issues_itself(certificate))
    ]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if certificate.key_usage is not None:
        builder = builder.add_extension(_key_usage(certificate.key_usage), critical=True)
    if certificate.purposes is not None:
        purposes = [ObjectIdentifier(der.dotted(one)) for one in sorted(certificate.purposes)]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    found = _constraints(certificate)
    permitted, excluded = (
        [
            _general_name(tag, value, is_constraint=True)
            for tag, value, is_permitted in found
            if tag in _KINDS and is_permitted == wanted
        ]
        or None
        for wanted in (True, False)
    )
    if permitted or excluded:
        builder = builder.add_extension(x509.NameConstraints(permitted, excluded), critical=True)
    return builder


def _name(depth: int) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, str(depth))])


def _key_usage(octet: int) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=bool(octet & DIGITAL_SIGNATURE),
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=bool(octet & KEY_CERT_SIGN),
        crl_sign=bool(octet & CRL_SIGN),
        encipher_only=False,
        decipher_only=False,
    )


def _constraints(certificate: Certificate) -> list[tuple[int, bytes, bool]]:
    """:returns: for each subtree the kind of name, the base, and whether it is a
    permitted one (RFC 5280, 4.2.1.10)."""
    extension = certificate.extension(NAME_CONSTRAINTS)
    if extension is None:
        return []
    what = "the name constraints"
    found = []
    for part in der.only(extension.value, der.SEQUENCE, what).children():
        if part.tag not in (0xA0, 0xA1):
            raise MalformedDer(f"{what} are of another form")
        for subtree in part.children():
            base = next(subtree.expect(der.SEQUENCE, what).children(), None)
            if base is None:
                raise MalformedDer(f"{what} have a subtree without a base")
            found.append((base.tag, base.value, part.tag == 0xA0))
    if not found:
        raise MalformedDer(f"{what} are empty")
    return found


def _general_name(tag: int, value: bytes, is_constraint: bool = False) -> x509.GeneralName:
    """:raises ValueError: if the value is not a name of this kind."""
    if tag == IP:
        if not is_constraint:
            return x509.IPAddress(ipaddress.ip_address(value))
        half = len(value) // 2
        mask = ipaddress.ip_address(value[half:])
        return x509.IPAddress(ipaddress.ip_network(f"{ipaddress.ip_address(value[:half])}/{mask}"))
    text = value.decode("ascii")
    return x509.DNSName(text) if tag == DNS else x509.RFC822Name(text)


# The checks of extensions.  The library's default policies enforce the CA/B Forum
# profile and require a SAN; permit_all() would drop checks that are needed.


def _is_authority(
    policy: Policy, certificate: x509.Certificate, extension: x509.BasicConstraints
) -> None:
    if not extension.ca:
        raise ValueError("an issuer is not a CA")


def _may_sign(
    policy: Policy, certificate: x509.Certificate, extension: x509.KeyUsage | None
) -> None:
    if extension is not None and not extension.key_cert_sign:
        raise ValueError("a CA's key usage does not allow signing certificates")


def _may_not_sign(
    policy: Policy, certificate: x509.Certificate, extension: x509.KeyUsage | None
) -> None:
    if extension is not None and extension.key_cert_sign:
        raise ValueError("the leaf's key usage allows signing certificates")


def _for_clients(
    policy: Policy, certificate: x509.Certificate, extension: x509.ExtendedKeyUsage | None
) -> None:
    if extension is not None and not (
        policy.extended_key_usage in extension
        or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in extension
    ):
        raise ValueError("an extended key usage does not include clientAuth")


def _loosened(policy: ExtensionPolicy) -> ExtensionPolicy:
    either = Criticality.AGNOSTIC
    return (
        policy.may_be_present(x509.SubjectAlternativeName, either, None)
        .may_be_present(x509.AuthorityKeyIdentifier, either, None)
        .may_be_present(x509.SubjectKeyIdentifier, either, None)
        .may_be_present(x509.ExtendedKeyUsage, either, _for_clients)
    )


_CA = (
    _loosened(ExtensionPolicy.webpki_defaults_ca())
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, _is_authority)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, _may_sign)
)
_LEAF = _loosened(ExtensionPolicy.webpki_defaults_ee()).may_be_present(
    x509.KeyUsage, Criticality.AGNOSTIC, _may_not_sign
)
#: A CA gets this far as a leaf only if it is pinned.
_PINNED_CA = (
    _loosened(ExtensionPolicy.webpki_defaults_ee())
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, None)
    .may_be_present(x509.NameConstraints, Criticality.AGNOSTIC, None)
)
