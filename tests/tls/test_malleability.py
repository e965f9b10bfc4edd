"""
What the holder of a certificate can change without its issuer, and that it helps
nobody: a denied client stays denied, and one client counts as one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from attrs import evolve
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from mtlsgate.admission import Rule
from mtlsgate.certificates.certificate import Certificate, view
from mtlsgate.certificates.der import tlv
from mtlsgate.certificates.development_ca import PrivateKey
from mtlsgate.certificates.signatures import fingerprints
from mtlsgate.reasons import Reason
from mtlsgate.testing import Authority, Credential, Version
from tests.kits.forgery import present
from tests.kits.gate import Log, MemoryGate, Verdict, admitted, condition, rejected, rule

KEYS: dict[str, Callable[[], PrivateKey]] = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "P-521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "brainpool": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
ECDSA = ("P-256", "P-384", "P-521", "secp256k1", "brainpool")


@cache
def issued(kind: str) -> tuple[Authority, Credential]:
    authority = Authority.create(kind, key=KEYS[kind]())
    return authority, authority.issue("leaf")


def twin(authority: Authority, leaf: Certificate) -> Certificate:
    """:returns: the leaf with the other ECDSA signature."""
    key = authority.private_key
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    r, s = decode_dss_signature(leaf.signature)
    return encoded(leaf, b"\0" + encode_dss_signature(r, key.curve.group_order - s))


def encoded(
    leaf: Certificate,
    signature: bytes,
    algorithm: bytes | None = None,
    wrap: Callable[[bytes], bytes] = lambda content: tlv(0x30, content),
) -> Certificate:
    """:param signature: the content of the BIT STRING."""
    inner = algorithm or leaf.signature_algorithm.encoded
    return Certificate(wrap(leaf.tbs + inner + tlv(0x03, signature)))


def judged(
    gate: MemoryGate, credential: Credential, shown: Certificate, version: Version
) -> Verdict:
    client = gate.connect(credential, version)
    present(client.connection, shown.der)
    return gate.judge(client)


@pytest.mark.parametrize("kind", ECDSA)
def test_the_other_signature(log: Log, version: Version, kind: str) -> None:
    """OpenSSL takes it, and so does a rule on the CA; but a deny of either fingerprint
    denies both, an allow and a pin only the very one."""
    authority, credential = issued(kind)
    leaf = view(credential.certificate)
    other = twin(authority, leaf)
    assert leaf.sha256 != other.sha256
    assert leaf.identity == other.identity
    everyone = rule(ca=authority)
    named = {one: condition(sha256=[one.sha256.hex()]) for one in (leaf, other)}
    for shown, unshown in ((leaf, other), (other, leaf)):
        assert judged(MemoryGate([everyone], log), credential, shown, version) == admitted()
        for one in (leaf, other):
            for gate in (
                MemoryGate([evolve(everyone, deny=(named[one],))], log),
                MemoryGate([everyone], log, deny=[named[one]]),
                MemoryGate(
                    [Rule("rule", (authority.certificate,), (shown,))], log, deny=[named[one]]
                ),
            ):
                assert judged(gate, credential, shown, version) == rejected(Reason.DENIED)
        gate = MemoryGate([evolve(everyone, allow=(named[shown],))], log)
        assert judged(gate, credential, shown, version) == admitted()
        assert judged(gate, credential, unshown, version) == rejected(Reason.NOT_ALLOWED)
        gate = MemoryGate([Rule("rule", (authority.certificate,), (shown,))], log)
        assert judged(gate, credential, shown, version) == admitted()
        assert judged(gate, credential, unshown, version) == rejected(Reason.LEAF_MISMATCH)


@pytest.mark.parametrize("kind", KEYS)
def test_an_ecdsa_certificate_has_the_fingerprints_of_both_signatures(kind: str) -> None:
    """Those of another signature of the same certificate, and none where there is none."""
    authority, credential = issued(kind)
    leaf = view(credential.certificate)
    found = fingerprints(leaf)
    assert found[0] == leaf.sha256
    if kind in ECDSA:
        assert twin(authority, leaf).sha256 in found
        assert leaf.sha256 in fingerprints(twin(authority, leaf))
    else:
        assert found == (leaf.sha256,)


def re_encoded() -> dict[str, tuple[str, Callable[[Certificate], Certificate]]]:
    """What else a holder might change outside of what the issuer signed."""

    def number(value: int) -> bytes:
        return tlv(0x02, b"\0" + value.to_bytes((value.bit_length() + 8) // 8, "big"))

    def padded(leaf: Certificate) -> Certificate:
        r, s = decode_dss_signature(leaf.signature)
        return encoded(leaf, b"\0" + tlv(0x30, number(r) + number(s)))

    def larger(leaf: Certificate) -> Certificate:
        order = ec.SECP256R1().group_order
        r, s = decode_dss_signature(leaf.signature)
        return encoded(leaf, b"\0" + encode_dss_signature(r, s + order))

    def shifted(order: int, size: int) -> Callable[[Certificate], Certificate]:
        def shift(leaf: Certificate) -> Certificate:
            half = len(leaf.signature) // 2
            s = int.from_bytes(leaf.signature[half:], "little") + order
            return encoded(leaf, b"\0" + leaf.signature[:half] + s.to_bytes(size, "little"))

        return shift

    def long_length(content: bytes) -> bytes:
        return b"\x30\x84" + len(content).to_bytes(4, "big") + content

    def indefinite(content: bytes) -> bytes:
        return b"\x30\x80" + content + b"\0\0"

    with_null = tlv(0x30, bytes.fromhex("06082a8648ce3d040302") + b"\x05\0")
    without_null = tlv(0x30, bytes.fromhex("06092a864886f70d01010b"))
    return {
        "unused bits": ("P-256", lambda leaf: encoded(leaf, b"\1" + leaf.signature)),
        "trailing octets": ("P-256", lambda leaf: encoded(leaf, b"\0" + leaf.signature + b"\0")),
        "padded numbers": ("P-256", padded),
        "number above the order": ("P-256", larger),
        "algorithm with NULL": (
            "P-256",
            lambda leaf: encoded(leaf, b"\0" + leaf.signature, with_null),
        ),
        "algorithm without NULL": (
            "RSA",
            lambda leaf: encoded(leaf, b"\0" + leaf.signature, without_null),
        ),
        "leading zero": ("RSA", lambda leaf: encoded(leaf, b"\0\0" + leaf.signature)),
        "long length": (
            "P-256",
            lambda leaf: encoded(leaf, b"\0" + leaf.signature, wrap=long_length),
        ),
        "indefinite length": (
            "P-256",
            lambda leaf: encoded(leaf, b"\0" + leaf.signature, wrap=indefinite),
        ),
        "Ed25519 above the order": (
            "Ed25519",
            shifted(2**252 + 27742317777372353535851937790883648493, 32),
        ),
    }


RE_ENCODED = re_encoded()


@pytest.mark.parametrize("change", RE_ENCODED)
def test_no_other_change(log: Log, version: Version, change: str) -> None:
    """OpenSSL takes none of these, or puts it right before anybody sees it."""
    kind, make = RE_ENCODED[change]
    authority, credential = issued(kind)
    leaf = view(credential.certificate)
    changed = make(leaf)
    assert changed.der != leaf.der
    denied = condition(sha256=[leaf.sha256.hex()])
    gate = MemoryGate([rule(ca=authority)], log, deny=[denied])
    try:
        verdict = judged(gate, credential, changed, version)
    except AssertionError as error:
        assert "OpenSSL does not parse it either" in str(error)  # noqa: PT017
    else:
        assert verdict.reason in (Reason.DENIED, Reason.BAD_SIGNATURE)
