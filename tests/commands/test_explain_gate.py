"""``mtlsgate explain`` and the gate come to the same verdict: every client of a
table is both explained and let shake hands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from mtlsgate.admission import Admitted, Rule
from mtlsgate.certificates.certificate import views
from mtlsgate.certificates.development_ca import Authority, Credential, key_usage, self_signed
from mtlsgate.observe.explanation import explain
from mtlsgate.reasons import Reason
from mtlsgate.testing import Version
from tests.kits.forgery import sha1_signed, without
from tests.kits.gate import Log, MemoryGate, Verdict, past, rule

ROOT, OTHER = Authority.create("root"), Authority.create("other")
MIDDLE = ROOT.intermediate("middle")
#: The middle's name and key, vouched for by another root.
CROSS = OTHER.intermediate("middle", key=MIDDLE.private_key)
LEAF, PINNED = MIDDLE.issue("leaf"), self_signed("pinned")
NETSCAPE = ObjectIdentifier("2.16.840.1.113730.1.1")


def judged(door: MemoryGate, chain: Sequence[x509.Certificate]) -> Verdict:
    """:returns: what explain says."""
    verdict = explain(door.server, views(chain), datetime.now(UTC)).verdict
    if isinstance(verdict, Admitted):
        return Verdict(verdict.rule.name)
    return Verdict(None, verdict.reason, verdict.depth)


def issue(**options: Any) -> Callable[[], Credential]:
    return lambda: MIDDLE.issue("client", **options)


def under(**options: Any) -> Callable[[], Credential]:
    """:returns: a leaf of an intermediate that is odd."""
    return lambda: ROOT.intermediate("odd", **options).issue("client")


def eku(*usages: x509.ObjectIdentifier) -> dict[str, Any]:
    return {"extra_extensions": [(x509.ExtendedKeyUsage(usages), False)]}


def usage(*usages: str) -> dict[str, Any]:
    return {"extra_extensions": [(key_usage(*usages), True)]}


def netscape(octets: str) -> dict[str, Any]:
    extension = x509.UnrecognizedExtension(NETSCAPE, bytes.fromhex(octets))
    return {"extra_extensions": [(extension, False)]}


@cache
def rsa_key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


CLIENT_AUTH, SERVER_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
CONSTRAINED = x509.NameConstraints([x509.DNSName("in.example")], None)

CLIENTS: dict[str, Callable[[], Credential]] = {
    "ordinary": issue(),
    "without extended key usage": issue(usages=()),
    "for servers": issue(usages=["server_auth"]),
    "for anything": issue(usages=["any_extended_key_usage"]),
    "for anything and clients": issue(usages=["any_extended_key_usage", "client_auth"]),
    "expired": issue(not_after=past()),
    "not yet valid": issue(not_before=datetime.now(UTC) + timedelta(days=1)),
    "for key encipherment": issue(**usage("key_encipherment")),
    "for key agreement": issue(**usage("key_agreement")),
    "without key usage": lambda: without(x509.KeyUsage, MIDDLE, MIDDLE.issue("client")),
    "Netscape's server": issue(**netscape("03020640")),
    "Netscape's client": issue(**netscape("03020780")),
    "a CA": issue(is_ca=True),
    "nameless": lambda: MIDDLE.issue(None, uris=["spiffe://td/x"]),
    "RSA": issue(key=rsa_key(2048)),
    "Ed25519": issue(key=ed25519.Ed25519PrivateKey.generate()),
    "P-521": issue(key=ec.generate_private_key(ec.SECP521R1())),
    "a short RSA key": issue(key=rsa_key(1024)),
    "name constraints in a leaf": issue(extra_extensions=[(CONSTRAINED, True)]),
    "names constrained away": under(name_constraints=CONSTRAINED),
    "an intermediate for servers": under(**eku(SERVER_AUTH)),
    "an intermediate for anything": under(**eku(ANY)),
    "an intermediate for clients": under(**eku(CLIENT_AUTH, SERVER_AUTH)),
    "an expired intermediate": under(not_after=past()),
    "an intermediate that may not sign": under(**usage("crl_sign")),
    "a short intermediate": under(key=rsa_key(1024)),
    "too deep": lambda: MIDDLE.intermediate().intermediate().issue("client"),
    "a stranger": lambda: Authority.create("stranger").issue("client"),
    "a namesake's": lambda: Authority.create("root").intermediate("middle").issue("client"),
    "signed by itself": lambda: self_signed("client"),
    "without its chain": lambda: Credential(LEAF.certificate, LEAF.private_key),
    "with a cross-signed chain": lambda: Credential(
        LEAF.certificate, LEAF.private_key, (CROSS.certificate,)
    ),
    "with both chains": lambda: Credential(
        LEAF.certificate, LEAF.private_key, (CROSS.certificate, MIDDLE.certificate)
    ),
    "with rubbish": lambda: Credential(
        LEAF.certificate, LEAF.private_key, (PINNED.certificate, MIDDLE.certificate)
    ),
    "pinned": lambda: PINNED,
    "its twin": lambda: self_signed("pinned"),
    "pinned, with rubbish": lambda: Credential(
        PINNED.certificate, PINNED.private_key, (ROOT.certificate,)
    ),
}

RULES_OF: dict[str, Callable[[], list[Rule]]] = {
    "root": lambda: [rule("root", ROOT)],
    "middle": lambda: [rule("middle", MIDDLE)],
    "other": lambda: [rule("other", OTHER)],
    "cross": lambda: [rule("cross", [CROSS, ROOT])],
    "pins": lambda: [rule("pin", ROOT, LEAF), rule("lone", pins=PINNED)],
    "shallow": lambda: [Rule("shallow", (ROOT.certificate,), max_depth=1)],
}


@cache
def client(name: str) -> Credential:
    return CLIENTS[name]()


@pytest.mark.parametrize("strict", [True, False], ids=["strict", "compatible"])
@pytest.mark.parametrize("rules", RULES_OF)
@pytest.mark.parametrize("name", CLIENTS)
def test_same_verdict(log: Log, rules: str, name: str, strict: bool) -> None:
    """The same rule, or the same reason at the same depth."""
    gate, presented = MemoryGate(RULES_OF[rules](), log, strict=strict), client(name)
    explained = judged(gate, presented.chain)
    for version in ("1.2", "1.3"):
        assert gate.try_in(presented, version) == explained


@pytest.mark.parametrize("curve", [ec.SECP192R1, ec.SECP224R1, ec.SECP256K1])
def test_curves_that_tls_does_not_use(
    log: Log, version: Version, curve: type[ec.EllipticCurve]
) -> None:
    """A client cannot so much as offer them on TLS 1.3."""
    presented = ROOT.issue("client", key=ec.generate_private_key(curve()))
    gate = MemoryGate([rule(ca=ROOT)], log)
    assert judged(gate, presented.chain).reason in (Reason.WEAK_KEY, Reason.PROTOCOL_ERROR)
    assert gate.try_in(presented, version).rule is None


@pytest.mark.parametrize(
    "key", [dsa.generate_private_key(2048), x25519.X25519PrivateKey.generate()]
)
def test_keys_that_tls_does_not_use(log: Log, key: Any) -> None:
    """They sign nothing that a handshake needs, so nobody can try."""
    template = ROOT.issue("client").certificate
    builder = x509.CertificateBuilder(
        template.issuer,
        template.subject,
        key.public_key(),
        template.serial_number,
        template.not_valid_before_utc,
        template.not_valid_after_utc,
    )
    for extension in template.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    leaf = builder.sign(ROOT.private_key, SHA256())
    for one in (rule(ca=ROOT), Rule("pin", pins=(leaf,))):
        found = judged(MemoryGate([one], log), [leaf])
        assert (found.rule, found.reason) == (None, Reason.MALFORMED_CERTIFICATE)


def test_an_ed448_leaf_gets_the_same_verdict(log: Log, version: Version) -> None:
    key: Any = ed448.Ed448PrivateKey.generate()
    presented = ROOT.issue("client", key=key)
    gate = MemoryGate([rule(ca=ROOT)], log)
    assert gate.try_in(presented, version) == judged(gate, presented.chain) == Verdict("rule")


@pytest.mark.parametrize("at", ["leaf", "intermediate", "anchor"])
def test_weak_digests(log: Log, at: str, version: Version) -> None:
    """SHA-1 counts against all but the anchor, whose signature nobody looks at."""
    root = Authority.create("rsa root", key=rsa_key(2048))
    middle = root.intermediate("rsa middle", key=rsa_key(3072))
    leaf = middle.issue("client")
    chain = {
        "leaf": leaf.certificate,
        "intermediate": middle.certificate,
        "anchor": root.certificate,
    }
    chain[at] = sha1(chain[at], root if at != "leaf" else middle)
    gate = MemoryGate([Rule("rule", (chain["anchor"],))], log)
    presented = Credential(chain["leaf"], leaf.private_key, (chain["intermediate"],))
    explained = judged(gate, presented.chain)
    assert explained.reason is (None if at == "anchor" else Reason.WEAK_KEY)
    assert gate.try_in(presented, version) == explained


def sha1(certificate: x509.Certificate, issuer: Authority) -> x509.Certificate:
    """:returns: the certificate, signed anew and weakly."""
    return sha1_signed(issuer, Credential(certificate, issuer.private_key)).certificate


def test_what_is_always_asked_twice(log: Log) -> None:
    """A second validator's no is one here, too."""
    leaf = ROOT.intermediate("narrow", name_constraints=CONSTRAINED).issue(
        "client", dns_names=["a.in.example"]
    )
    gate = MemoryGate([rule(ca=ROOT)], log)
    assert judged(gate, leaf.chain) == gate.try_in(leaf, "1.3") == Verdict("rule")


CURVES: dict[str, tuple[type[ec.EllipticCurve], tuple[str, ...]]] = {
    "P-256": (ec.SECP256R1, ("1.2", "1.3")),
    "P-521": (ec.SECP521R1, ("1.2", "1.3")),
    "Brainpool": (ec.BrainpoolP256R1, ("1.3",)),
    "secp256k1": (ec.SECP256K1, ()),
    "P-224": (ec.SECP224R1, ()),
}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("least", ["1.2", "1.3"])
def test_versions_of_tls(log: Log, version: Version, curve: str, least: Any) -> None:
    """Explain says with which versions of TLS a client comes in, and so it is."""
    kind, versions = CURVES[curve]
    leaf = ROOT.issue("leaf", key=ec.generate_private_key(kind()))
    gate = MemoryGate([rule(ca=ROOT)], log, min_version=least)
    told = explain(gate.server, views([leaf.certificate]), datetime.now(UTC))
    assert told.tls_versions == tuple(one for one in versions if one >= least)
    assert told.to_dict()["tls_versions"] == list(told.tls_versions)
    only = "    only with TLS 1.3: TLS 1.2 cannot use its key"
    assert (only in told.lines()) == (curve == "Brainpool" and least == "1.2")
    if version >= least:
        verdict = gate.try_in(leaf, version)
        assert (verdict.rule is not None) == (version in told.tls_versions)
        assert told.admitted == bool(told.tls_versions)
