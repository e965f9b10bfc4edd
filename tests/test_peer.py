"""Who was let in, as a value."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import attrs
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from zope.interface.verify import verifyObject

from mtlsgate.interfaces import IVerifiedPeer
from mtlsgate.peer import VerifiedPeer, address_text
from mtlsgate.testing import Authority, Credential

ROOT = Authority.create("Root", organization="Example")
LOWER = ROOT.intermediate("Lower")
BEGIN, END = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime(2036, 1, 2, 3, 4, 5, tzinfo=UTC)
ALICE = LOWER.issue(
    "alice",
    organization="Example",
    organizational_unit="Things",
    serial=0xABC123,
    not_before=BEGIN,
    not_after=END,
    dns_names=["a.example", "*.b.example"],
    ip_addresses=["192.0.2.1", "2001:db8::1"],
    uris=["spiffe://td/alice"],
    email_addresses=["alice@example.com"],
)
BARE = ROOT.issue(None)
ADDRESS = IPv4Address("TCP", "192.0.2.7", 4711)


def peer(credential: Credential = ALICE, address: IAddress = ADDRESS) -> VerifiedPeer:
    return VerifiedPeer(
        path=(*credential.chain, ROOT.certificate),
        rule="IOT",
        address=address,
        server_name="door.example",
        tls_version="TLSv1.3",
        cipher="TLS_AES_256_GCM_SHA384",
        group="X25519MLKEM768",
        alpn="h2",
    )


def test_it_provides_all_that_is_promised() -> None:
    """It provides all that is promised to applications."""
    verifyObject(IVerifiedPeer, peer())


def test_every_field_of_a_full_certificate() -> None:
    """Every field, of a certificate that has everything."""
    alice = peer()
    assert alice.leaf == ALICE.certificate
    assert alice.path == (ALICE.certificate, LOWER.certificate, ROOT.certificate)
    assert alice.sha256 == ALICE.sha256
    assert alice.subject == "CN=alice,OU=Things,O=Example"
    assert alice.issuer == "CN=Lower"
    assert alice.common_name == "alice"
    assert alice.dns_names == ("a.example", "*.b.example")
    assert alice.uris == ("spiffe://td/alice",)
    assert alice.email_addresses == ("alice@example.com",)
    assert alice.ip_addresses == ("192.0.2.1", "2001:db8::1")
    assert alice.spiffe_id == "spiffe://td/alice"
    assert alice.serial == 0xABC123
    assert (alice.not_before, alice.not_after) == (BEGIN, END)
    assert alice.rule == "IOT"
    assert alice.address == ADDRESS


def test_every_field_of_a_bare_certificate() -> None:
    """Every field, of a certificate that has nothing."""
    bare = peer(BARE)
    assert bare.subject == ""
    assert bare.common_name is None
    assert bare.dns_names == bare.uris == bare.email_addresses == bare.ip_addresses == ()
    assert bare.spiffe_id is None


def test_to_dict() -> None:
    """All of it, as JSON holds it, in Couper's names where Couper has them."""
    assert json.loads(json.dumps(peer().to_dict())) == {
        "subject": "CN=alice,OU=Things,O=Example",
        "issuer": "CN=Lower",
        "common_name": "alice",
        "dns_names": ["a.example", "*.b.example"],
        "uris": ["spiffe://td/alice"],
        "email_addresses": ["alice@example.com"],
        "ip_addresses": ["192.0.2.1", "2001:db8::1"],
        "spiffe_id": "spiffe://td/alice",
        "serial_number": "abc123",
        "fingerprint_sha256": ALICE.sha256,
        "not_before": "2026-01-02T03:04:05+00:00",
        "not_after": "2036-01-02T03:04:05+00:00",
        "rule": "IOT",
        "server_name": "door.example",
        "tls_version": "TLSv1.3",
        "cipher": "TLS_AES_256_GCM_SHA384",
        "group": "X25519MLKEM768",
        "alpn": "h2",
        "resumed": False,
        "attributes": {},
        "address": "192.0.2.7:4711",
    }


def test_to_dict_of_little() -> None:
    bare = attrs.evolve(peer(BARE), server_name=None, group=None, alpn=None)
    known = json.loads(json.dumps(bare.to_dict()))
    assert {name for name, value in known.items() if value is None} == {
        "common_name",
        "spiffe_id",
        "server_name",
        "group",
        "alpn",
    }


def test_nobody_can_change_who_it_is() -> None:
    """Nobody can change who it is, neither what is stored nor what is derived."""
    alice = peer()
    for name in ("path", "rule", "leaf", "sha256", "common_name", "subject", "anything"):
        with pytest.raises(AttributeError):
            setattr(alice, name, "mallory")
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        alice.rule = "other"  # type: ignore[misc]
    assert alice == peer()
    assert hash(alice) == hash(peer())


def test_derived_once() -> None:
    """What takes work is worked out on first use, and kept."""
    alice = peer()
    assert alice.sha256 is alice.sha256
    assert alice.subject is alice.subject
    assert alice.issuer is alice.issuer


def test_last_common_name() -> None:
    """The last, most specific one, as it was written."""
    names = [x509.NameAttribute(NameOID.COMMON_NAME, text) for text in ("first", "l\nast")]
    assert peer(ROOT.issue(None, subject=x509.Name(names))).common_name == "l\nast"


@pytest.mark.parametrize(
    ("uris", "expected"),
    [
        (["spiffe://td/a"], "spiffe://td/a"),
        (["spiffe://td:8443/x"], "spiffe://td:8443/x"),
        (["urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"], None),
        (["https://spiffe://td/a"], None),
        # SPIFFE X509-SVID, 2: exactly one URI.
        (["spiffe://td/a", "spiffe://td/b"], None),
        (["spiffe://td/a", "urn:x"], None),
        (["urn:x", "spiffe://td/a"], None),
        ([], None),
    ],
)
def test_spiffe_id(uris: list[str], expected: str | None) -> None:
    one = peer(ROOT.issue("x", uris=uris))
    assert one.spiffe_id == expected
    assert one.uris == tuple(uris)


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (ADDRESS, "192.0.2.7:4711"),
        (IPv6Address("TCP", "2001:db8::1", 1), "[2001:db8::1]:1"),
        (UNIXAddress(b"/run/x.sock"), "unix:/run/x.sock"),
        (UNIXAddress(None), "unix:"),
        (UNIXAddress(b"\xff"), "unix:\ufffd"),
        (IPv4Address("TCP", "192.0.2.7", 0), "192.0.2.7:0"),
    ],
)
def test_the_address_is_told_as_text(address: IAddress, text: str) -> None:
    assert address_text(address) == text
    assert peer(address=address).to_dict()["address"] == text
