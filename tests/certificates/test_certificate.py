"""The view of a certificate over its DER: lenient, lazy, and never surprised."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from mtlsgate.certificates import der
from mtlsgate.certificates.certificate import UNPARSABLE, Certificate, view
from mtlsgate.certificates.der import MalformedDer, tlv
from mtlsgate.certificates.names import Name
from mtlsgate.certificates.signatures import fingerprints, is_surely_not_by, issued
from mtlsgate.testing import Authority

ROOT = Authority.create("Root", path_length=1)
LOWER = ROOT.intermediate("Lower")
LEAF = LOWER.issue(
    "leaf",
    organization="Acme, Inc.",
    dns_names=["a.example", "*.b.example"],
    uris=["spiffe://td/x"],
    email_addresses=["a@example.org"],
    ip_addresses=["192.0.2.1", "2001:db8::1"],
)
EVERY = [ROOT.certificate, LOWER.certificate, LEAF.certificate]

READ: dict[str, Callable[[Certificate], Any]] = {
    "version": lambda one: one.version,
    "serial_number": lambda one: one.serial_number,
    "subject": lambda one: (one.subject.rfc4514_string(), one.subject.key),
    "issuer": lambda one: (one.issuer.rfc4514_string(), one.issuer.key),
    "validity": lambda one: (one.not_before, one.not_after),
    "extensions": lambda one: one.extensions,
    "is_ca": lambda one: (one.is_ca, one.path_length),
    "key_usage": lambda one: one.key_usage,
    "purposes": lambda one: one.purposes,
    "identifiers": lambda one: (one.subject_key_identifier, one.authority_key_identifier),
    "names": lambda one: (one.names.dns, one.names.uris, one.names.emails, one.names.ips),
    "readable_names": lambda one: one.readable_names.spiffe_id,
    "key": lambda one: (one.spki, one.public_key()),
    "identity": lambda one: (one.identity, one.sha256),
    "fingerprints": fingerprints,
    "issued": lambda one: (issued(view(LOWER.certificate), one), is_surely_not_by(one, one)),
}


@pytest.mark.parametrize("one", EVERY, ids=["root", "lower", "leaf"])
def test_it_reads_what_cryptography_reads(one: x509.Certificate) -> None:
    """... of an ordinary certificate."""
    mine = view(one)
    assert mine.version == one.version.value + 1
    assert mine.serial_number == one.serial_number
    assert mine.subject.rfc4514_string() == one.subject.rfc4514_string()
    assert mine.issuer.rfc4514_string() == one.issuer.rfc4514_string()
    assert (mine.not_before, mine.not_after) == (
        one.not_valid_before_utc,
        one.not_valid_after_utc,
    )
    assert mine.tbs == one.tbs_certificate_bytes
    assert mine.signature == one.signature
    assert mine.sha256 == one.fingerprint(hashes.SHA256())
    assert mine.pem == one.public_bytes(Encoding.PEM)
    assert mine.spki == one.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert [(der.dotted(each.kind), each.critical) for each in mine.extensions] == [
        (each.oid.dotted_string, each.critical) for each in one.extensions
    ]
    assert mine.x509 == one


def test_names_and_purposes() -> None:
    mine, ca = view(LEAF.certificate), view(ROOT.certificate)
    assert mine.names.dns == ("a.example", "*.b.example")
    assert mine.names.uris == ("spiffe://td/x",)
    assert mine.names.spiffe_id == "spiffe://td/x"
    assert mine.names.emails == ("a@example.org",)
    assert list(map(str, mine.names.ips)) == ["192.0.2.1", "2001:db8::1"]
    assert (mine.is_ca, ca.is_ca, ca.path_length) == (False, True, 1)
    assert mine.authority_key_identifier == view(LOWER.certificate).subject_key_identifier


@given(data=st.data())
@settings(max_examples=400)
def test_whatever_the_bytes_a_field_is_read_or_unreadable(data: st.DataObject) -> None:
    """Whatever the bytes: each field is read, or says that it cannot be."""
    whole = bytearray(view(data.draw(st.sampled_from(EVERY))).der)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(whole) - 1))
        kind = data.draw(st.sampled_from(["change", "cut", "insert"]))
        if kind == "change":
            whole[place] = data.draw(st.integers(0, 255))
        elif kind == "cut":
            del whole[place : place + data.draw(st.integers(1, 4))]
        else:
            whole[place:place] = data.draw(st.binary(max_size=4))
    one = Certificate(bytes(whole))
    for read in READ.values():
        with suppress(*UNPARSABLE):
            read(one)


@given(st.binary(max_size=80))
def test_any_bytes(data: bytes) -> None:
    one = Certificate(data)
    for read in READ.values():
        with suppress(*UNPARSABLE):
            read(one)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30",
        b"\x30\x05\0",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x30\x91" + b"\1" * 20,
        b"\x30\x80" * 40,
        b"\x04\x80\0\0",
        b"\xbf\xff\xff\xff\xff\xff\xff\1\0",
    ],
)
def test_no_der(data: bytes) -> None:
    with pytest.raises(MalformedDer):
        list(der.only(data, der.SEQUENCE, "it").children())


@pytest.mark.parametrize("octets", [b"\x30\x80\x02\x01\x07\0\0", b"\x30\x84\0\0\0\3\x02\x01\x07"])
def test_lengths_as_openssl_takes_them(octets: bytes) -> None:
    [number] = der.only(octets, der.SEQUENCE, "it").children()
    assert der.integer(number, "it") == 7


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\xff", True), (b"\1", True), (b"\0", False), (b"\x80", True)],
)
def test_booleans_as_openssl_takes_them(content: bytes, expected: bool) -> None:
    element = der.only(tlv(der.BOOLEAN, content), der.BOOLEAN, "it")
    assert der.boolean(element, "it") is expected


@pytest.mark.parametrize(
    ("tag", "text", "expected"),
    [
        (der.UTC_TIME, b"490101000000Z", datetime(2049, 1, 1, tzinfo=UTC)),
        (der.UTC_TIME, b"500101000000Z", datetime(1950, 1, 1, tzinfo=UTC)),
        (der.GENERALIZED_TIME, b"20250101000000Z", datetime(2025, 1, 1, tzinfo=UTC)),
        (der.UTC_TIME, b"4901010000Z", None),
        (der.UTC_TIME, b"490101000000+0000", None),
        (der.GENERALIZED_TIME, b"20250101000000.5Z", None),
        (der.GENERALIZED_TIME, b"20250230000000Z", None),
        (der.UTC_TIME, b"-90101000000Z", None),
        (der.INTEGER, b"490101000000Z", None),
    ],
)
def test_times_are_read_as_rfc_5280_writes_them(
    tag: int, text: bytes, expected: datetime | None
) -> None:
    element = der.read(tlv(tag, text), 0, 100)
    if expected is not None:
        assert der.time(element, "it") == expected
        return
    with pytest.raises(MalformedDer):
        der.time(element, "it")


@given(st.lists(st.integers(0, 2**40), max_size=6), st.integers(0, 2), st.integers(0, 39))
def test_object_identifiers(rest: list[int], first: int, second: int) -> None:
    text = ".".join(map(str, (first, second, *rest)))
    assert der.dotted(der.oid(text)) == text


def name(*values: tuple[int, bytes], oid: str = "2.5.4.3") -> Name:
    kind = tlv(der.OBJECT_IDENTIFIER, der.oid(oid))
    parts = (tlv(der.SET, tlv(der.SEQUENCE, kind + tlv(tag, value))) for tag, value in values)
    return Name(tlv(der.SEQUENCE, b"".join(parts)))


UTF8, PRINTABLE, T61, BMP, BITS = 0x0C, 0x13, 0x14, 0x1E, 0x03


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (name((UTF8, b"Root CA")), name((PRINTABLE, b"Root CA")), True),
        (name((UTF8, b"Root CA")), name((BMP, "root  ca".encode("utf-16-be"))), True),
        (name((UTF8, b" Root CA ")), name((UTF8, b"ROOT CA")), True),
        (name((UTF8, "MÜLLER".encode())), name((T61, b"m\xfcller")), True),
        (name((UTF8, "u\u0308".encode())), name((UTF8, "\u00fc".encode())), True),
        (name((UTF8, "Stra\u00dfe".encode())), name((UTF8, b"STRASSE")), True),
        (name((UTF8, "a\u00adb".encode())), name((UTF8, b"ab")), True),
        (name((UTF8, b"RootCA")), name((UTF8, b"Root CA")), False),
        (name((UTF8, b"a")), name((UTF8, b"a"), oid="2.5.4.10"), False),
        (name((UTF8, b"a"), (UTF8, b"b")), name((UTF8, b"b"), (UTF8, b"a")), False),
        (name((UTF8, b"a"), (UTF8, b"b")), name((UTF8, b"a")), False),
        (name((BITS, b"\0a")), name((BITS, b"\0a")), True),
        (name((BITS, b"\0a")), name((BITS, b"\0A")), False),
        (name((PRINTABLE, b"\xff")), name((T61, b"\xff")), False),
    ],
)
def test_names_are_compared(one: Name, other: Name, same: bool) -> None:
    """By RFC 5280, 7.1: case, spaces and the type of a string make no difference; what
    is no text must be equal in every bit."""
    assert (one.key == other.key) is same
    assert (hash(one.key) == hash(other.key)) or not same


@pytest.mark.parametrize("text", ["e" + "\u0301" * 20_000, "x" * 60_000, "\u00e9" * 20_000])
def test_long_names_take_linear_time(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long text is not normalized, which takes more."""
    import unicodedata

    asked = list[int]()
    whole = unicodedata.normalize

    def normalize(form: Any, value: str) -> str:
        asked.append(len(value))
        return whole(form, value)

    monkeypatch.setattr(unicodedata, "normalize", normalize)
    assert name((UTF8, text.encode())).key == name((UTF8, text.encode())).key
    assert all(size <= 512 for size in asked)
