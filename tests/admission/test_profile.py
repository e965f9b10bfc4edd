"""The rules of the certificate profile that OpenSSL leaves out."""

from __future__ import annotations

import pytest
from cryptography import x509

from mtlsgate.admission import Rejection
from mtlsgate.admission.profile import profile_violation
from mtlsgate.certificates.certificate import Certificate, views
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, self_signed
from tests.kits.forgery import edited, tlv

CONSTRAINTS = x509.NameConstraints([x509.DNSName("x.org")], None)


def violation(*path: Credential | Authority | x509.Certificate) -> tuple[Reason, int | None] | None:
    found = profile_violation(
        views(one if isinstance(one, x509.Certificate) else one.certificate for one in path)
    )
    assert found is None or isinstance(found, Rejection)
    return None if found is None else (found.reason, found.depth)


def with_serial(credential: Credential, serial: bytes) -> x509.Certificate:
    """:returns: its certificate with another number, and a signature that is wrong."""
    content = credential.certificate.tbs_certificate_bytes
    body = content[2 + (content[1] & 0x7F) :]
    number = credential.certificate.serial_number
    old = tlv(2, number.to_bytes(number.bit_length() // 8 + 1, "big"))
    assert body.count(old) == 1
    signature = credential.der[credential.der.index(content) + len(content) :]
    return x509.load_der_x509_certificate(
        tlv(0x30, tlv(0x30, body.replace(old, tlv(2, serial))) + signature)
    )


def test_ordinary_certificates_fit_the_profile() -> None:
    """Ordinary certificates violate nothing."""
    root = Authority.create()
    issuing = root.intermediate(name_constraints=CONSTRAINTS)
    for leaf in (
        root.issue("leaf"),
        root.issue("leaf", dns_names=["a.x.org"], serial=1),
        root.issue(None, uris=["spiffe://x/y"]),
        root.issue(None),
        root.issue("leaf", serial=2**159 - 1),
    ):
        assert violation(leaf, root) is None
        assert violation(leaf, issuing, root) is None


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@pytest.mark.parametrize(
    ("serial", "violates"),
    [
        ("00", True),
        ("ff", True),
        ("80" + "00" * 19, True),
        ("01" + "00" * 20, True),
        ("7f" + "00" * 21, True),
        ("00ff" + "00" * 19, False),
        ("7f" + "00" * 19, False),
        ("01", False),
    ],
)
def test_serial_numbers_are_positive_and_short(serial: str, violates: bool) -> None:
    """Serial numbers are positive and of 20 octets (RFC 5280, 4.1.2.2); a 21st
    that holds the sign is let pass."""
    root = Authority.create()
    odd = with_serial(root.issue("leaf"), bytes.fromhex(serial))
    assert violation(odd, root) == ((Reason.PROFILE_VIOLATION, 0) if violates else None)
    assert violation(root.issue("leaf"), odd, root) == (
        (Reason.PROFILE_VIOLATION, 1) if violates else None
    )
    assert violation(root.issue("leaf"), odd) is None
    assert violation(odd) is None


@pytest.mark.parametrize("critical", [True, False])
def test_constraints_in_leaf(critical: bool) -> None:
    """Name constraints are for CAs (RFC 5280, 4.2.1.10)."""
    root = Authority.create()
    leaf = root.issue("leaf", extra_extensions=[(CONSTRAINTS, critical)])
    assert violation(leaf, root) == (Reason.PROFILE_VIOLATION, 0)
    pin = self_signed("pin", extra_extensions=[(CONSTRAINTS, critical)])
    assert violation(pin) is None


def test_without_a_subject_the_san_is_critical() -> None:
    """Without a subject the SAN is critical (RFC 5280, 4.1.2.6); the shipped
    authority makes it so, hence the detour."""
    root = Authority.create()
    names = x509.SubjectAlternativeName([x509.DNSName("a.x.org")])
    honest = root.issue(None, dns_names=["a.x.org"])
    assert violation(honest, root) is None
    odd = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(root.certificate.subject)
        .public_key(honest.certificate.public_key())
        .serial_number(1)
        .not_valid_before(honest.certificate.not_valid_before_utc)
        .not_valid_after(honest.certificate.not_valid_after_utc)
        .add_extension(names, critical=False)
        .sign(root.private_key, root.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
    )
    assert violation(odd, root) == (Reason.PROFILE_VIOLATION, 0)


@pytest.mark.parametrize("critical", [True, False])
def test_policy_constraints(critical: bool) -> None:
    """Policy constraints are critical (RFC 5280, 4.2.1.11), below the anchor."""
    root = Authority.create()
    odd = root.intermediate(extra_extensions=[(x509.PolicyConstraints(1, None), critical)])
    expected = None if critical else (Reason.PROFILE_VIOLATION, 1)
    assert violation(odd.issue("leaf"), odd, root) == expected
    assert violation(odd.issue("leaf"), odd) is None


def test_a_field_that_does_not_parse_is_a_rejection() -> None:
    """What does not parse is a rejection, not an exception, if it is asked for."""
    root = Authority.create()
    twice = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\xff")
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\xff")
    leaf = root.issue("leaf", extra_extensions=[(twice, False), (other, False)])
    assert violation(leaf, root) is None
    broken = Certificate(edited(root, leaf, b"\x2a\x03\x05", b"\x2a\x03\x04"))
    found = profile_violation((broken, *views([root.certificate])))
    assert found is not None
    assert (found.reason, found.depth) == (Reason.MALFORMED_CERTIFICATE, 0)
