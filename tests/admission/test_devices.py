"""By what a registry finds a client, whichever ``key`` it has."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from mtlsgate.admission.devices import LONGEST_KEY, KeyKind, keys_of
from mtlsgate.certificates.certificate import view
from mtlsgate.registry.fields import key_problem, read_key
from mtlsgate.testing import Authority
from tests.kits.forgery import resigned

CA = Authority.create("ca")
ID, SECOND_ID = "spiffe://plants.example/Pump/7", "spiffe://plants.example/pump/8"
NAMES = ["Pump-7.Example", "b.example.", "*.c.example", "b.example"]
ONE = CA.issue("Pump 7", dns_names=NAMES, uris=[ID])
CERTIFICATE = ONE.certificate
SPKI = CERTIFICATE.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


KEYS = {
    KeyKind.IDENTITY: [sha256(CERTIFICATE.tbs_certificate_bytes)],
    KeyKind.SHA256: [sha256(ONE.der)],
    KeyKind.SPKI_SHA256: [sha256(SPKI)],
    KeyKind.SPIFFE_ID: [ID],
    KeyKind.COMMON_NAME: ["Pump 7"],
    KeyKind.DNS_NAME: ["pump-7.example", "b.example", "*.c.example"],
}


@pytest.mark.parametrize("kind", KeyKind, ids=str)
def test_a_client_is_found_by_what_its_certificate_says(kind: KeyKind) -> None:
    """Digests in lower case; DNS names in lower case and without a dot at the end (RFC 4343;
    RFC 1034, 3.1); other names as they are written.  All of them are keys that can be stored."""
    assert list(keys_of(view(CERTIFICATE), kind)) == KEYS[kind]
    assert not any(key_problem(kind, one) for one in KEYS[kind])


def test_a_denial_knows_a_client_by_more() -> None:
    """By what its holder can make of the certificate, and what may mean it: the other
    spelling of its signature, each of several URIs, and DNS names as they are written."""
    twin = resigned(ONE)
    for one in (ONE, twin):
        found = keys_of(view(one.certificate), KeyKind.SHA256, wide=True)
        assert {sha256(ONE.der), sha256(twin.der)} <= set(found)
    two = view(CA.issue("two", uris=[ID, SECOND_ID]).certificate)
    assert keys_of(two, KeyKind.SPIFFE_ID) == ()
    assert keys_of(two, KeyKind.SPIFFE_ID, wide=True) == (ID, SECOND_ID)
    assert {"Pump-7.Example", "pump-7.example"} <= set(
        keys_of(view(CERTIFICATE), KeyKind.DNS_NAME, wide=True)
    )


def test_the_holder_of_a_certificate_cannot_change_its_identity() -> None:
    """Nor can it be found by another one's key."""
    assert view(resigned(ONE).certificate).identity == view(CERTIFICATE).identity
    other = CA.issue("Pump 7", dns_names=NAMES, uris=[ID])
    assert view(other.certificate).identity != view(CERTIFICATE).identity


@pytest.mark.parametrize("name", ["", "a" * (LONGEST_KEY + 1), "a\nb", "a\x1b[31m", "\u202e"])
def test_a_name_that_can_be_no_key_finds_nothing(name: str) -> None:
    """Whatever a certificate says: nothing that cannot be printed is asked for."""
    if 0 < len(name) <= 64:
        leaf = view(CA.issue(name).certificate)
        assert keys_of(leaf, KeyKind.COMMON_NAME, wide=True) == ()
    assert key_problem(KeyKind.COMMON_NAME, name)


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        (KeyKind.IDENTITY, "AB" * 32),
        (KeyKind.SHA256, ":".join(["ab"] * 32)),
        (KeyKind.SPKI_SHA256, "A" * 43 + "="),
        (KeyKind.DNS_NAME, "Pump-7.example"),
        (KeyKind.DNS_NAME, "pump-7.example."),
    ],
)
def test_a_key_that_is_stored_in_another_form_finds_nobody(kind: KeyKind, key: str) -> None:
    """A person may write it so, and it is stored as the gate looks for it."""
    assert key_problem(kind, key) == f"key: write it as {read_key(kind, key)}"
    assert key_problem(kind, read_key(kind, key)) == ""
