"""What a second validator says of paths, without a handshake."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA3_256, SHA224, SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from mtlsgate.admission import Path
from mtlsgate.admission.second_opinion import (
    MAX_CHECKS,
    disagreement,
    needs_second_opinion,
)
from mtlsgate.certificates.certificate import views
from mtlsgate.certificates.development_ca import PrivateKey
from mtlsgate.testing import Authority, Credential, self_signed

NOW = datetime.now(UTC)


def only(*names: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints(names, None)


def but(*names: x509.GeneralName) -> x509.NameConstraints:
    return x509.NameConstraints(None, names)


def dns(name: str) -> x509.DNSName:
    return x509.DNSName(name)


def uri(name: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(name)


def directory(common_name: str) -> x509.DirectoryName:
    return x509.DirectoryName(named(common_name))


def named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def raw(oid: x509.ObjectIdentifier, content: str) -> tuple[x509.ExtensionType, bool]:
    return x509.UnrecognizedExtension(oid, bytes.fromhex(content)), True


def path_of(leaf: Credential, authority: Authority) -> Path:
    """:returns: leaf first, up to the root."""
    found = [leaf.certificate]
    above: Authority | None = authority
    while above is not None:
        found.append(above.certificate)
        above = above.parent
    return views(found)


def san_path(constraints: x509.NameConstraints, *names: str, key: PrivateKey | None = None) -> Path:
    authority = Authority.create(name_constraints=constraints, key=key)
    return path_of(authority.issue("leaf", dns_names=names), authority)


@pytest.mark.parametrize(
    ("constraints", "names", "agrees"),
    [
        (only(dns("x.org")), ["a.x.org"], True),
        (only(dns("x.org")), ["x.org"], True),
        (only(dns("x.org")), [], True),
        (only(dns("x.org")), ["*.x.org"], True),
        (only(dns("x.org")), ["y.org"], False),
        (only(dns("x.org")), ["a.x.org", "y.org"], False),
        (only(dns("x.org")), ["*.org"], False),
        (but(dns("x.org")), ["y.org"], True),
        (but(dns("x.org")), ["a.x.org"], False),
        # OpenSSL lets the next ones pass.
        (but(dns("a.x.org")), ["*.x.org"], False),
        (only(dns("x.org")), ["a b.x.org"], False),
        # Of these it is said in the documentation that they are refused.
        (only(dns("x.org")), ["a_b.x.org"], False),
        (only(dns("x.org")), ["a.x.org."], False),
        (only(dns(".x.org")), ["a.x.org"], False),
    ],
)
@pytest.mark.parametrize("key", [None, ed25519.Ed25519PrivateKey.generate()], ids=["", "copied"])
def test_dns_constraints(
    constraints: x509.NameConstraints, names: Sequence[str], agrees: bool, key: PrivateKey | None
) -> None:
    """DNS names are held to constraints, whatever key the CA has."""
    found = disagreement(san_path(constraints, *names, key=key), NOW)
    assert (found is None) == agrees
    assert found is None or (found.isprintable() and "validation failed" not in found)


@pytest.mark.parametrize("agrees", [True, False])
def test_other_constraints(agrees: bool) -> None:
    """So are addresses of both kinds."""
    network = x509.IPAddress(ip_network("10.0.0.0/8" if agrees else "11.0.0.0/8"))
    authority = Authority.create(name_constraints=only(network))
    leaf = authority.issue("leaf", ip_addresses=["10.1.2.3"])
    assert (disagreement(path_of(leaf, authority), NOW) is None) == agrees

    domain = x509.RFC822Name("x.org" if agrees else "y.org")
    authority = Authority.create(name_constraints=only(domain))
    leaf = authority.issue("leaf", email_addresses=["a@x.org"])
    assert (disagreement(path_of(leaf, authority), NOW) is None) == agrees


@pytest.mark.parametrize(
    "foreign", [uri(".x.org"), directory("leaf"), x509.RegisteredID(NameOID.COMMON_NAME)]
)
def test_foreign_constraints(foreign: x509.GeneralName) -> None:
    """What it cannot judge is OpenSSL's to judge; the rest it judges still."""
    for names, agrees in (["a.x.org"], True), (["y.org"], False):
        authority = Authority.create(name_constraints=only(foreign, dns("x.org")))
        leaf = authority.issue("leaf", dns_names=names, uris=["spiffe://a.x.org/b"])
        assert (disagreement(path_of(leaf, authority), NOW) is None) == agrees
    authority = Authority.create(name_constraints=only(foreign))
    leaf = authority.issue("leaf", uris=["spiffe://a.x.org/b"])
    assert disagreement(path_of(leaf, authority), NOW) is None


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.BrainpoolP256R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=lambda key: getattr(getattr(key, "curve", None), "name", type(key).__name__),
)
def test_every_kind_of_key_is_agreed_on(key: PrivateKey) -> None:
    """No kind of key makes a legal client disagree, of the CA, an intermediate or the leaf."""
    for by in range(3):
        keys = [key if each == by else None for each in range(3)]
        root = Authority.create(key=keys[0])
        issuing = root.intermediate(key=keys[1])
        assert disagreement(path_of(issuing.issue("leaf", key=keys[2]), issuing), NOW) is None


@pytest.mark.parametrize("digest", [SHA224(), SHA3_256()], ids=lambda digest: digest.name)
def test_every_digest_that_openssl_takes_is_agreed_on(digest: SHA224 | SHA3_256) -> None:
    """Nor does any digest that OpenSSL takes."""
    authority = Authority.create()
    leaf = authority.issue("leaf", hash_algorithm=digest)
    assert disagreement(path_of(leaf, authority), NOW) is None


@pytest.mark.parametrize(
    "policies",
    [
        (x509.CertificatePolicies([x509.PolicyInformation(NameOID.COMMON_NAME, None)]), True),
        (x509.PolicyConstraints(3, None), True),
        (x509.InhibitAnyPolicy(3), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), True),
        (
            x509.CRLDistributionPoints([x509.DistributionPoint([uri("http://x")], *[None] * 3)]),
            True,
        ),
    ],
    ids=lambda extension: type(extension[0]).__name__,
)
def test_critical_extensions(policies: tuple[x509.ExtensionType, bool]) -> None:
    """Critical extensions that OpenSSL knows are none of its business."""
    root = Authority.create()
    issuing = root.intermediate(extra_extensions=[policies])
    assert disagreement(path_of(issuing.issue("leaf"), issuing), NOW) is None


def test_unknown_critical_extension() -> None:
    """One that nobody knows is refused here, too."""
    authority = Authority.create()
    leaf = authority.issue("leaf", extra_extensions=[raw(x509.ObjectIdentifier("1.2.3.4"), "0500")])
    assert disagreement(path_of(leaf, authority), NOW) is not None


def test_lone_pin() -> None:
    """Of a pin that is its own anchor there is nothing to ask."""
    pin = self_signed("pin", extra_extensions=[(only(dns("x.org")), True)])
    assert not needs_second_opinion(views([pin.certificate]))
    assert disagreement(views([pin.certificate]), NOW) is None


def test_pinned_ca() -> None:
    """A pin that says CA:TRUE is admitted below its CA; that is not asked again."""
    authority = Authority.create(name_constraints=only(dns("x.org")))
    for name, agrees in ("a.x.org", True), ("y.org", False):
        leaf = authority.issue("leaf", is_ca=True, dns_names=[name])
        assert (disagreement(path_of(leaf, authority), NOW) is None) == agrees


def test_profile_is_not_asked() -> None:
    """CAs as old tools make them: no key usage, basic constraints not critical,
    no key identifiers."""
    key = ec.generate_private_key(ec.SECP256R1())

    def make(subject: str, is_ca: bool) -> x509.Certificate:
        return (
            x509.CertificateBuilder(named("CA"), named(subject), key.public_key(), 7)
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
            .add_extension(x509.BasicConstraints(is_ca, None), critical=False)
            .sign(key, SHA256())
        )

    assert disagreement(views((make("leaf", False), make("CA", True))), NOW) is None


def test_path_is_asked() -> None:
    """What else a path can be wrong in is seen, although OpenSSL saw it before."""
    root = Authority.create(path_length=0)
    issuing = root.intermediate()
    leaf = issuing.issue("leaf")
    assert disagreement(path_of(leaf, issuing), NOW) is not None
    root = Authority.create()
    for path in (
        path_of(root.issue("leaf", usages=["server_auth"]), root),
        path_of(root.issue("leaf", not_after=NOW - timedelta(hours=1)), root),
        views((root.issue("leaf").certificate, Authority.create().certificate)),
        path_of(root.issue("leaf"), root)[:1] * 2,
        views((leaf.certificate, self_signed("Test Intermediate CA").certificate)),
    ):
        assert disagreement(path, NOW) is not None
    assert disagreement(path_of(root.issue("leaf"), root), NOW - timedelta(days=1)) is not None


def test_the_length_of_a_path_is_no_reason_to_disagree() -> None:
    """The length of a path is no reason."""
    authority = Authority.create()
    for number in range(20):
        authority = authority.intermediate(f"CA {number}")
    assert disagreement(path_of(authority.issue("leaf"), authority), NOW) is None


def test_self_issued() -> None:
    """A CA that certifies its own next key does not count (RFC 5280, 6.1.4)."""
    root = Authority.create("CA", path_length=0)
    renewed = root.intermediate("CA")
    assert disagreement(path_of(renewed.issue("leaf"), renewed), NOW) is None
    below = renewed.intermediate("other")
    assert disagreement(path_of(below.issue("leaf"), below), NOW) is not None


def test_another_path() -> None:
    """The path itself is judged, even if a way around its constraints exists."""
    root = Authority.create("CA")
    again = root.intermediate("CA", key=root.private_key, name_constraints=only(dns("x.org")))
    for name, agrees in ("a.x.org", True), ("y.org", False):
        path = path_of(again.issue("leaf", dns_names=[name]), again)
        assert (disagreement(path, NOW) is None) == agrees
        assert disagreement((path[0], path[2]), NOW) is None


@pytest.mark.parametrize("content", ["3000", "0500", "", "3004a0003000", "ff"])
def test_malformed_constraints(content: str) -> None:
    """Constraints that do not parse are constraints, and no client fits them."""
    root = Authority.create()
    clean = root.intermediate()
    odd = root.intermediate(
        key=clean.private_key, extra_extensions=[raw(ExtensionOID.NAME_CONSTRAINTS, content)]
    )
    path = views((clean.issue("leaf").certificate, odd.certificate, root.certificate))
    assert needs_second_opinion(path)
    assert disagreement(path, NOW)


def test_it_is_asked_where_a_ca_constrains_names() -> None:
    """It is asked where a CA carries constraints, the anchor or below."""
    plain = Authority.create()
    constrained = Authority.create(name_constraints=only(dns("x.org")))
    below = plain.intermediate(name_constraints=but(dns("x.org")))
    odd = plain.issue("leaf", extra_extensions=[(only(dns("x.org")), True)])
    for leaf, authority, needed in (
        (plain.issue("leaf"), plain, False),
        (odd, plain, False),
        (constrained.issue("leaf"), constrained, True),
        (below.issue("leaf"), below, True),
        (constrained.intermediate().issue("leaf"), constrained.intermediate(), True),
    ):
        assert needs_second_opinion(path_of(leaf, authority)) is needed


def test_too_many_names() -> None:
    """What a client can make the gate do is bounded, and the bound is generous."""
    constraints = but(*(dns(f"x{number}.org") for number in range(100)))
    fits = [f"{number}.y.org" for number in range(MAX_CHECKS // 100)]
    assert disagreement(san_path(constraints, *fits), NOW) is None
    assert disagreement(san_path(constraints, *fits, "a.y.org"), NOW) is not None
