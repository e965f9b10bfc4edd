"""
What a second validator says of a path that was found good already.

OpenSSL holds names to name constraints with gaps that none of its flags
closes: wildcards and malformed names slip through.  cryptography's
``ClientVerifier`` has other strengths, so a path below constrained CAs is put
to it too, and both must agree.  It can only reject further.  Of the certificate
profile, which OpenSSL and `mtlsgate.admission.profile` see to, no more is asked than the
``ClientVerifier`` insists on: version 3, the size of the serial number, and
how dates are written.

There are things that it refuses because it does not know them, and not because
they were wrong: signatures and CA keys other than the usual RSA and ECDSA,
critical policies, and constraints on names other than DNS names, email
addresses and IP addresses; nor does it know that a path length does not count
self-issued CAs.  Where a path has any of these, it is asked about a copy of
the path that is without them.  They are then OpenSSL's alone to judge.
"""

from __future__ import annotations

from collections.abc import Iterable
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
from mtlsgate.certificates.certificate import NAME_CONSTRAINTS, UNPARSABLE, view
from mtlsgate.text import first_line

#: Names times constraints that are looked at for one client, which bounds what
#: it can make the gate do: some 30 ms.  OpenSSL draws the line at 16 times that.
MAX_CHECKS = 2**16

_Chain = tuple[x509.Certificate, ...]

# What the ClientVerifier knows.
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

#: Extensions that OpenSSL heeds where they are critical, and it does not.
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
    :returns: why the second validator rejects it, in one line, or None if it
        agrees.  Of a path that is one certificate, a pin that is its own
        anchor, there is nothing to ask.
    """
    if len(judged) == 1:
        return None
    try:
        path = tuple(one.x509 for one in judged)
        if _checks(path) > MAX_CHECKS:
            return "there are too many names to hold against so many name constraints"
        if _is_known(path) and _verified(path, now) == path:
            return None
        # Or it found another path to the anchor: the copy has no other.
        copy = _copy(path)
        if _verified(copy, now) != copy:
            return "it finds another path"
    except VerificationError as error:
        return _told(error)
    except UNPARSABLE as error:
        return first_line(error)
    return None


def _checks(path: _Chain) -> int:
    names = constraints = 0
    for certificate in path:
        for extension in certificate.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                names += len(extension.value)
            elif isinstance(extension.value, x509.NameConstraints):
                constraints += len(_subtrees(extension.value))
    return names * constraints


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


# The copy.


def _is_known(path: _Chain) -> bool:
    """:returns: whether the ClientVerifier knows all that matters in the path."""
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
        return all(isinstance(name, _NAMES) for name in _subtrees(value))
    return not (extension.critical and extension.oid in _FOREIGN)


def _subtrees(constraints: x509.NameConstraints) -> list[x509.GeneralName]:
    return [*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ())]


def _is_self_issued(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _copy(path: _Chain) -> _Chain:
    """:returns: the path with new keys, no two the same, and what is known of it."""
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in path]
    return tuple(
        _copied(one, key, signer, sum(map(_is_self_issued, path[1:depth])))
        for depth, (one, (key, signer)) in enumerate(
            zip(path, pairwise([*keys, keys[-1]]), strict=True)
        )
    )


def _copied(
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    uncounted: int,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(certificate.subject)
        .issuer_name(certificate.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(certificate.not_valid_before_utc)
        .not_valid_after(certificate.not_valid_after_utc)
    )
    for extension in certificate.extensions:
        value = _known_part(extension.value, uncounted)
        if value is not None:
            critical = extension.critical and extension.oid not in _FOREIGN
            builder = builder.add_extension(value, critical)
    return builder.sign(signer, SHA256())


def _known_part(value: x509.ExtensionType, uncounted: int) -> x509.ExtensionType | None:
    match value:
        case x509.BasicConstraints(ca=True, path_length=int(length)):
            return x509.BasicConstraints(ca=True, path_length=length + uncounted)
        case x509.SubjectAlternativeName():
            return x509.SubjectAlternativeName(_known_names(value) or ())
        case x509.NameConstraints():
            permitted = _known_names(value.permitted_subtrees or ())
            excluded = _known_names(value.excluded_subtrees or ())
            return x509.NameConstraints(permitted, excluded) if permitted or excluded else None
        case _:
            return value


def _known_names(names: Iterable[x509.GeneralName]) -> list[x509.GeneralName] | None:
    return [name for name in names if isinstance(name, _NAMES)] or None


# What is asked of the extensions.  The library's own policies hold them to the
# CA/B Forum's profile and demand a SAN; permit_all() would drop what matters.


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
#: A leaf that is a CA and admitted nevertheless is one that is pinned.
_PINNED_CA = (
    _loosened(ExtensionPolicy.webpki_defaults_ee())
    .may_be_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .may_be_present(x509.KeyUsage, Criticality.AGNOSTIC, None)
    .may_be_present(x509.NameConstraints, Criticality.AGNOSTIC, None)
)
