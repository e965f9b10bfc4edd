"""Paths to CAs above the one at which OpenSSL stops."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL.crypto import X509StoreFlags

from mtlsgate.admission import Path
from mtlsgate.paths import MAX_PATHS, LongerPaths
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version
from tests.forgery import edited, key_usage
from tests.gatekit import Door, Log, admitted, past, rejected, rule
from tests.test_authority import sha1_signed

STRICT = X509StoreFlags.PARTIAL_CHAIN | X509StoreFlags.X509_STRICT


def longer(
    authorities: Sequence[Authority], path: Path, pins: Sequence[Credential] = ()
) -> list[Path]:
    paths = LongerPaths(
        [one.certificate for one in authorities], [one.certificate for one in pins], STRICT
    )
    return list(paths.of(path))


def path(credential: Credential, *above: Authority) -> Path:
    return (credential.certificate, *(one.certificate for one in above))


ROOT = Authority.create("Root")
UPPER = ROOT.intermediate("Upper")
LOWER = UPPER.intermediate("Lower")
LEAF = LOWER.issue("leaf")


def test_each_ca_above() -> None:
    """The nearest first, each with all between."""
    assert longer([ROOT, LOWER, UPPER], path(LEAF, LOWER)) == [
        path(LEAF, LOWER, UPPER),
        path(LEAF, LOWER, UPPER, ROOT),
    ]


def test_nothing_above() -> None:
    """A CA that no configured one issued, or that is alone, leads nowhere."""
    assert longer([ROOT], path(ROOT.issue("a"), ROOT)) == []
    assert longer([LOWER], path(LEAF, LOWER)) == []
    assert longer([LOWER, Authority.create("Upper")], path(LEAF, LOWER)) == []
    assert longer([], path(LEAF, LOWER)) == []


def test_a_leaf_that_is_an_anchor() -> None:
    """A CA that is both a rule's and a client has a path above itself, too."""
    me = Credential(LOWER.certificate, LOWER.private_key)
    assert longer([LOWER, UPPER], path(me)) == [path(me, UPPER)]


def test_above_a_pin() -> None:
    """A pin that is an anchor and a CA is passed; one that is none cannot have issued."""
    pin = Credential(LOWER.certificate, LOWER.private_key)
    assert longer([UPPER], path(LEAF, LOWER), [pin]) == [path(LEAF, LOWER, UPPER)]
    assert longer([LOWER], path(LEAF), [LEAF]) == []


def test_circles_end() -> None:
    """CAs that issued each other are each passed once."""
    one = Authority.create("One")
    two = Authority.create("Two")
    two_by_one = one.intermediate("Two", key=two.private_key)
    one_by_two = two.intermediate("One", key=one.private_key)
    found = longer([one, two, two_by_one, one_by_two], path(two.issue("a"), two_by_one))
    assert found
    assert all(len(set(each)) == len(each) for each in found)


def test_bounded() -> None:
    """However many CAs of one name and key there are, no more are tried for one client."""
    renewed = [Authority.create("Root", key=ROOT.private_key) for _ in range(3 * MAX_PATHS)]
    lower = renewed[0].intermediate("Lower")
    found = longer([lower, *renewed], path(lower.issue("a"), lower))
    assert len(found) == MAX_PATHS


#: A day's validity, in the past and to come.
GONE: dict[str, Any] = {"not_before": past(2), "not_after": past()}
TO_COME: dict[str, Any] = {"not_before": datetime.now(UTC) + timedelta(days=1)}
NARROW = x509.NameConstraints([x509.DNSName("in.example")], None)
SERVERS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])

UNFIT: dict[str, dict[str, Any]] = {
    "expired": GONE,
    "not yet valid": TO_COME,
    "path length": {"path_length": 0},
    "name constraints": {"name_constraints": NARROW},
    "extended key usage": {"extra_extensions": [(SERVERS, False)]},
    "key usage": {"extra_extensions": [(key_usage("crl_sign"), True)]},
    "critical extension": {"extra_extensions": [(x509.SubjectKeyIdentifier(bytes(20)), True)]},
    "weak key": {"key": rsa.generate_private_key(65537, 1024)},
}


@pytest.mark.parametrize("options", UNFIT.values(), ids=UNFIT)
def test_the_upper_ca_must_be_fit(log: Log, version: Version, options: dict[str, Any]) -> None:
    """What holds for a rule's CA holds as well where another rule's CA stands below it:
    who is rejected with one rule is rejected with both."""
    upper = Authority.create("Upper", **options)
    lower = upper.intermediate("Lower", path_length=0)
    leaf = lower.issue("leaf", dns_names=["x.out.example"])
    other = lower.issue("other")
    alone = Door([rule("upper", upper)], log).try_in(leaf, version)
    assert alone.reason is not None
    assert longer([upper, lower], path(leaf, lower)) == []
    both = Door([rule("lower", lower, other), rule("upper", upper)], log)
    assert both.try_in(leaf, version) == rejected(Reason.LEAF_MISMATCH)
    # What the lower rule says holds by itself.
    assert both.try_in(other, version) == admitted("lower")


def test_the_signature_of_the_upper_ca_must_be_strong(log: Log, version: Version) -> None:
    """SHA-1 counts where the weakly signed certificate is no longer the anchor."""
    upper = Authority.create("Upper", key=rsa.generate_private_key(65537, 2048))
    made = upper.intermediate("Lower")
    weak = sha1_signed(upper, Credential(made.certificate, made.private_key))
    lower = Authority(weak.certificate, made.private_key, parent=upper)
    leaf, other = lower.issue("leaf"), lower.issue("other")
    assert Door([rule("upper", upper)], log).try_in(leaf, version) == rejected(Reason.WEAK_KEY, 1)
    both = Door([rule("lower", lower, other), rule("upper", upper)], log)
    assert both.try_in(leaf, version) == rejected(Reason.LEAF_MISMATCH)


def test_a_malformed_intermediate(log: Log, version: Version) -> None:
    """One that cryptography does not parse leads no higher, and raises nothing."""
    marker = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
    made = LOWER.intermediate("Between", extra_extensions=[(marker, False)])
    der = edited(
        LOWER,
        Credential(made.certificate, made.private_key),
        bytes.fromhex("0603551d25040c300a"),
        bytes.fromhex("0603551d25040c310a"),
    )
    between = x509.load_der_x509_certificate(der)
    leaf = made.issue("leaf")
    found = longer([LOWER, UPPER], (leaf.certificate, between, LOWER.certificate))
    assert found == []
    door = Door([rule("lower", LOWER, LEAF), rule("upper", UPPER)], log, strict=False)
    assert door.try_in(leaf, version, chain=[between]).reason is not None


@pytest.mark.parametrize("swapped", [False, True])
def test_a_pin_that_is_an_intermediate(log: Log, version: Version, swapped: bool) -> None:
    """A CA:TRUE pin keeps nobody out whom another rule's CA lets in."""
    rules = [rule("pin", pins=Credential(UPPER.certificate, UPPER.private_key)), rule("root", ROOT)]
    door = Door(rules[::-1] if swapped else rules, log)
    assert door.try_in(LEAF, version) == admitted("root")
    assert Door(rules[:1], log).try_in(LEAF, version).reason is Reason.UNKNOWN_CA


@pytest.mark.xfail(
    strict=True,
    reason="the verify callback does not see what the client sent beside OpenSSL's path",
)
def test_through_a_ca_that_is_not_configured(log: Log) -> None:
    """Between the two rules' CAs stands one that only the client has sent."""
    door = Door([rule("lower", LOWER, LOWER.issue("x")), rule("root", ROOT)], log)
    assert door.try_in(LEAF) == admitted("root")


def test_fails_closed_through_a_ca_that_is_not_configured(log: Log, version: Version) -> None:
    """Until then such a client is rejected, and naming the CA between them helps."""
    lower = rule("lower", LOWER, LOWER.issue("x"))
    door = Door([lower, rule("root", ROOT)], log)
    assert door.try_in(LEAF, version) == rejected(Reason.LEAF_MISMATCH)
    door = Door([lower, rule("root", [ROOT, UPPER])], log)
    assert door.try_in(LEAF, version) == admitted("root")
