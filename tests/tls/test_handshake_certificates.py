"""
What holds for every certificate, pinned or not, in handshakes on TLS 1.2 and 1.3.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from attrs import evolve
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from mtlsgate.certificates.development_ca import PrivateKey, key_usage
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version, self_signed
from tests.kits.forgery import edited, present, sha1_signed, without
from tests.kits.gate import (
    Log,
    MemoryGate,
    Verdict,
    admitted,
    condition,
    openssl_x509,
    past,
    rejected,
    rule,
)

ROOT = Authority.create("Root")
OTHER = Authority.create("Other")


def future() -> datetime:
    return datetime.now(UTC) + timedelta(days=1)


@pytest.mark.parametrize(
    ("shape", "own"), [("ca", False), ("pin", False), ("both", False), ("pin", True)]
)
@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("expired", Reason.EXPIRED),
        ("future", Reason.NOT_YET_VALID),
        ("server", Reason.WRONG_PURPOSE),
        ("no signing", Reason.WRONG_PURPOSE),
    ],
)
def test_an_unfit_leaf_is_rejected_though_pinned(
    log: Log, version: Version, shape: str, kind: str, reason: Reason, own: bool
) -> None:
    """Validity, extended key usage and key usage hold for pins as for everyone, be
    they of a CA or self-signed."""
    issue = self_signed if own else ROOT.issue
    leaf = {
        "expired": lambda: issue("leaf", not_after=past()),
        "future": lambda: issue("leaf", not_before=future()),
        "server": lambda: issue("leaf", usages=["server_auth"]),
        "no signing": lambda: issue(
            "leaf", extra_extensions=[(key_usage("key_encipherment"), True)]
        ),
    }[kind]()
    rules = {"ca": rule(ca=ROOT), "pin": rule(pins=leaf), "both": rule(ca=ROOT, pins=leaf)}
    assert MemoryGate([rules[shape]], log).try_in(leaf, version) == rejected(reason)


def test_the_gate_has_a_clock_of_its_own(log: Log, version: Version) -> None:
    """The gate judges the leaf by the injected time as well as OpenSSL by the system's."""
    leaf = ROOT.issue("leaf")
    early = leaf.certificate.not_valid_before_utc - timedelta(seconds=1)
    gate = MemoryGate([rule(ca=ROOT)], log, now=lambda: early)
    assert gate.try_in(leaf, version) == rejected(Reason.NOT_YET_VALID)
    late = leaf.certificate.not_valid_after_utc
    gate = MemoryGate([rule(ca=ROOT)], log, now=lambda: late)
    assert gate.try_in(leaf, version) == admitted()
    gate = MemoryGate([rule(ca=ROOT)], log, now=lambda: late + timedelta(seconds=1))
    assert gate.try_in(leaf, version) == rejected(Reason.EXPIRED)


@pytest.mark.parametrize(
    ("begins", "ends", "reason"), [(-9, -1, "expired"), (1, 9, "not_yet_valid")]
)
def test_validity_of_cas(log: Log, version: Version, begins: int, ends: int, reason: str) -> None:
    """A CA outside its validity admits nobody, be it the rule's or one between."""
    now = datetime.now(UTC)
    window = {
        "not_before": now + timedelta(days=begins),
        "not_after": now + timedelta(days=ends),
    }
    root = Authority.create("Off", **window)  # type: ignore[arg-type]
    between = ROOT.intermediate("Off", **window)  # type: ignore[arg-type]
    assert MemoryGate([rule(ca=root)], log).try_in(root.issue("a"), version) == rejected(
        Reason(reason), 1
    )
    for one in (rule(ca=ROOT), rule(ca=between)):
        assert MemoryGate([one], log).try_in(between.issue("a"), version) == rejected(
            Reason(reason), 1
        )


@cache
def weak_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 1024)


@cache
def rsa_root() -> Authority:
    return Authority.create("RSA", key=rsa.generate_private_key(65537, 2048))


def test_weak_keys(log: Log, version: Version) -> None:
    """RSA with 1024 bits is refused, pinned or not, and in a CA."""
    weak = ROOT.issue("weak", key=weak_key())
    own = self_signed("weak", key=weak_key())
    for one in (rule(ca=ROOT), rule(pins=weak), rule(ca=ROOT, pins=weak)):
        assert MemoryGate([one], log).try_in(weak, version) == rejected(Reason.WEAK_KEY)
    assert MemoryGate([rule(pins=own)], log).try_in(own, version) == rejected(Reason.WEAK_KEY)
    ca = Authority.create("Weak", key=weak_key())
    assert MemoryGate([rule(ca=ca)], log).try_in(ca.issue("a"), version) == rejected(
        Reason.WEAK_KEY, 1
    )


def test_weak_signatures(log: Log, version: Version) -> None:
    """SHA-1 is refused in a leaf and in an intermediate."""
    weak = sha1_signed(rsa_root(), rsa_root().issue("weak"))
    for strict in (True, False):
        gate = MemoryGate([rule(ca=rsa_root())], log, strict=strict)
        assert gate.try_in(weak, version) == rejected(Reason.WEAK_KEY)
    middle = rsa_root().intermediate("Middle")
    old = sha1_signed(rsa_root(), Credential(middle.certificate, middle.private_key))
    leaf = middle.issue("leaf")
    gate = MemoryGate([rule(ca=rsa_root())], log)
    assert gate.try_in(leaf, version, chain=[old.certificate]) == rejected(Reason.WEAK_KEY, 1)


@pytest.mark.parametrize("kind", ["rsa", "p384", "ed25519"])
def test_other_keys(log: Log, version: Version, kind: str) -> None:
    """RSA, other curves and Ed25519 do, for clients and CAs."""
    makers: dict[str, Callable[[], PrivateKey]] = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
    }
    key = makers[kind]()
    leaf = ROOT.issue("leaf", key=key)
    assert MemoryGate([rule(ca=ROOT)], log).try_in(leaf, version) == admitted()
    ca = Authority.create("CA", key=key)
    assert MemoryGate([rule(ca=ca)], log).try_in(ca.issue("a"), version) == admitted()


def test_bad_signature(log: Log, version: Version) -> None:
    """A leaf that was changed after it was signed."""
    leaf = ROOT.issue("leafleaf")
    changed = Credential(
        x509.load_der_x509_certificate(leaf.der.replace(b"leafleaf", b"leafLEAF")),
        leaf.private_key,
    )
    for one in (rule(ca=ROOT), rule(ca=ROOT, pins=leaf), rule(ca=ROOT, pins=changed)):
        assert MemoryGate([one], log).try_in(changed, version) == rejected(Reason.BAD_SIGNATURE)
    assert MemoryGate([rule(pins=leaf)], log).try_in(changed, version).reason is not None


def test_path_length(log: Log, version: Version) -> None:
    """As many intermediates as a CA says, and no more."""
    root = Authority.create("Root", path_length=1)
    one = root.intermediate("1")
    two = one.intermediate("2")
    gate = MemoryGate([rule(ca=root)], log)
    assert gate.try_in(one.issue("a"), version) == admitted()
    assert gate.try_in(two.issue("a"), version) == rejected(Reason.PATH_TOO_LONG, 3)


def test_endless_path(log: Log, version: Version) -> None:
    """OpenSSL follows a hundred intermediates, and a client may send more."""
    authority = ROOT
    for number in range(103):
        authority = authority.intermediate(str(number))
    verdict = MemoryGate([rule(ca=ROOT)], log).try_in(authority.issue("a"), version)
    assert verdict.reason is Reason.PATH_TOO_LONG


def permits(name: str) -> x509.NameConstraints:
    return x509.NameConstraints(permitted_subtrees=[x509.DNSName(name)], excluded_subtrees=None)


def test_name_constraints(log: Log, version: Version) -> None:
    """A CA's name constraints hold, above and below an intermediate."""
    narrow = Authority.create("Narrow", name_constraints=permits("in.example"))
    excludes = Authority.create(
        "Excludes",
        name_constraints=x509.NameConstraints(None, [x509.DNSName("out.example")]),
    )
    for ca in (narrow, excludes):
        for issuer in (ca, ca.intermediate()):
            gate = MemoryGate([rule(ca=ca)], log)
            inside = issuer.issue("a", dns_names=["x.in.example"])
            outside = issuer.issue("a", dns_names=["x.out.example"])
            assert gate.try_in(inside, version) == admitted()
            assert gate.try_in(outside, version) == rejected(Reason.NAME_CONSTRAINT)


def test_not_a_ca(log: Log, version: Version) -> None:
    """A leaf, or a CA that may not sign, is no issuer."""
    leaf = ROOT.issue("leaf")
    child = Authority(leaf.certificate, leaf.private_key).issue("child")
    verdict = MemoryGate([rule(ca=ROOT)], log).try_in(child, version, chain=[leaf.certificate])
    assert verdict == rejected(Reason.INVALID_CA, 1)
    mute = ROOT.intermediate("Mute", extra_extensions=[(key_usage("crl_sign"), True)])
    assert MemoryGate([rule(ca=ROOT)], log).try_in(mute.issue("a"), version).reason in (
        Reason.INVALID_CA,
        Reason.UNKNOWN_CA,
    )


def strictly_wrong() -> dict[str, tuple[Authority, Credential]]:
    """What RFC 5280 forbids and OpenSSL minds only when strict."""
    no_usage = without_in_ca(x509.KeyUsage)
    no_identifier = without_in_ca(x509.SubjectKeyIdentifier)
    nameless = Authority.create("x", subject=x509.Name([]))
    return {
        "a CA without key usage": (no_usage, no_usage.issue("a")),
        "a CA without subject key identifier": (no_identifier, no_identifier.issue("a")),
        "a CA without a name": (nameless, nameless.issue("a")),
        "a leaf without authority key identifier": (
            ROOT,
            without(x509.AuthorityKeyIdentifier, ROOT, ROOT.issue("a")),
        ),
        "a leaf that may sign certificates": (
            ROOT,
            ROOT.issue(
                "a",
                extra_extensions=[(key_usage("digital_signature", "key_cert_sign"), True)],
            ),
        ),
    }


def without_in_ca(kind: type[x509.ExtensionType]) -> Authority:
    made = Authority.create("CA")
    bare = without(kind, made, Credential(made.certificate, made.private_key))
    return Authority(bare.certificate, made.private_key)


STRICTLY_WRONG = strictly_wrong()


@pytest.mark.parametrize("name", STRICTLY_WRONG)
def test_strict_and_compatible(log: Log, version: Version, name: str) -> None:
    """Strict verification refuses what RFC 5280 forbids; compatible admits it."""
    ca, leaf = STRICTLY_WRONG[name]
    strict = MemoryGate([rule(ca=ca)], log).try_in(leaf, version)
    assert strict.reason is Reason.PROFILE_VIOLATION
    assert MemoryGate([rule(ca=ca)], log, strict=False).try_in(leaf, version) == admitted()
    pinned = MemoryGate([rule(ca=ca, pins=leaf)], log, strict=False)
    assert pinned.try_in(leaf, version) == admitted()


def test_openssl_req_x509(log: Log, version: Version) -> None:
    """What everybody's first client certificate looks like is a pin like any other."""
    device = openssl_x509()
    for strict in (True, False):
        gate = MemoryGate([rule(pins=device)], log, strict=strict)
        assert gate.try_in(device, version) == admitted()
        assert gate.try_in(openssl_x509(), version).reason is Reason.UNKNOWN_CA


#: Names that are not what they should be, and the attribute that they are of.
ODD_NAMES: dict[str, tuple[str, bytes, bytes]] = {
    "text": ("common_names", b"\x0c\x08leafleaf", b"\x16\x08leaf\xff\xffaf"),
    "no text": ("common_names", b"\x0c\x08leafleaf", b"\x03\x08\x00eafleaf"),
    "not printable": ("common_names", b"\x0c\x08leafleaf", b"\x13\x08leaf\xff\xffaf"),
    "SAN": ("dns_names", b"\x82\x0ba.b.example", b"\x82\x0b\xff.b.example"),
    "email": ("email_addresses", b"\x82\x0ba.b.example", b"\x81\x0b\xff.b.example"),
    "IP address": ("ip_addresses", b"\x82\x0ba.b.example", b"\x87\x0ba.b.example"),
    "URI": ("uris", b"\x82\x0ba.b.example", b"\x86\x0b\xff.b.example"),
}
VALUES = {"ip_addresses": "192.0.2.1", "uris": "https://x.example/a", "dns_names": "x.example"}


@pytest.mark.parametrize("trusted", [True, False], ids=["client", "stranger"])
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", ODD_NAMES)
def test_a_name_that_cannot_be_read(
    log: Log, version: Version, kind: str, strict: bool, trusted: bool
) -> None:
    """It harms nobody of whom no rule asks it; an allow never matches it, and a deny
    always does."""
    attribute, old, new = ODD_NAMES[kind]
    leaf = ROOT.issue("leafleaf", dns_names=["a.b.example"])
    asked = condition(**{attribute: [VALUES.get(attribute, "x")]})
    everyone = rule(ca=ROOT if trusted else OTHER)
    for one, expected in (
        (everyone, admitted()),
        (evolve(everyone, allow=(asked,)), rejected(Reason.NOT_ALLOWED)),
        (evolve(everyone, deny=(asked,)), rejected(Reason.DENIED)),
    ):
        gate = MemoryGate([one], log, strict=strict)
        client = gate.connect(leaf, version)
        present(client.connection, edited(ROOT, leaf, old, new))
        assert gate.judge(client) == (expected if trusted else rejected(Reason.UNKNOWN_CA))


@pytest.mark.parametrize("trusted", [True, False], ids=["client", "stranger"])
@pytest.mark.parametrize("strict", [True, False])
def test_a_malformed_certificate_is_rejected(
    log: Log, version: Version, strict: bool, trusted: bool
) -> None:
    """A version that does not exist is rejected in good order, whoever signed it."""
    leaf = ROOT.issue("leafleaf")
    gate = MemoryGate([rule(ca=ROOT if trusted else OTHER)], log, strict=strict)
    client = gate.connect(leaf, version)
    changed = edited(ROOT, leaf, bytes.fromhex("a003020102"), bytes.fromhex("a003020104"))
    present(client.connection, changed)
    verdict = gate.judge(client)
    assert verdict == rejected(Reason.MALFORMED_CERTIFICATE if trusted else Reason.UNKNOWN_CA)


def test_duplicate_extension(log: Log, version: Version) -> None:
    """RFC 5280, 4.2: not more than one of a kind."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    other = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.5"), b"\x05\x00")
    leaf = ROOT.issue("leaf", extra_extensions=[(unknown, False), (other, False)])
    for strict in (True, False):
        gate = MemoryGate([rule(ca=ROOT)], log, strict=strict)
        client = gate.connect(leaf, version)
        present(client.connection, edited(ROOT, leaf, b"\x2a\x03\x05", b"\x2a\x03\x04"))
        assert gate.judge(client).reason is Reason.MALFORMED_CERTIFICATE


def test_unknown_critical_extension(log: Log, version: Version) -> None:
    """RFC 5280, 4.2: what is critical and not understood is refused."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    leaf = ROOT.issue("leaf", extra_extensions=[(unknown, True)])
    for one in (rule(ca=ROOT), rule(pins=leaf)):
        verdict = MemoryGate([one], log).try_in(leaf, version)
        assert verdict == rejected(Reason.MALFORMED_CERTIFICATE)


def test_odd_but_legal(log: Log, version: Version) -> None:
    """No subject, one with a NUL, no extended key usage, any extended key usage."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a\0b")])
    verdicts: list[Verdict] = [
        MemoryGate([rule(ca=ROOT)], log).try_in(leaf, version)
        for leaf in (
            ROOT.issue(None, dns_names=["a.example"]),
            ROOT.issue(None, subject=subject),
            ROOT.issue("a", usages=()),
            ROOT.issue("a", usages=["any_extended_key_usage", "client_auth"]),
        )
    ]
    assert verdicts == [admitted()] * 4


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("usages", "fits"),
    [
        (("digital_signature",), True),
        (("digital_signature", "key_agreement"), True),
        (("key_agreement",), False),
        (("key_agreement", "key_encipherment"), False),
        (("content_commitment",), False),
    ],
)
def test_key_usage(
    log: Log, version: Version, usages: tuple[str, ...], fits: bool, strict: bool
) -> None:
    """Where present, it includes digitalSignature (RFC 8446, 4.4.2.2; RFC 5246, 7.4.6), for
    pins too: by that the client proves that it has the key."""
    leaf = ROOT.issue("leaf", extra_extensions=[(key_usage(*usages), True)])
    for one in (rule(ca=ROOT), rule(ca=ROOT, pins=leaf), rule(pins=leaf)):
        verdict = MemoryGate([one], log, strict=strict).try_in(leaf, version)
        assert verdict == (admitted() if fits else rejected(Reason.WRONG_PURPOSE))
